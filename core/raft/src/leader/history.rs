//! History and settings: the leader proposes what to forget, and the settings it was started with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_store::{Action, Command, Principal, Revision, Settings, Store, Timestamp};

use crate::inner::Inner;

const TICK: Duration = Duration::from_millis(100);
/// Changes forgotten by one entry: everything waits while an entry is applied, and this many take a fraction of a
/// millisecond. Far below the bound of an entry ([`coracle_store::limits::COMPACT_SLICE`]), which is a rule of the store.
const SLICE: usize = 500;
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn run(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if node.shared.stopping() {
            return;
        }
        while node.leads() {
            let Some(action) = ({
                let applied = node.shared.read();
                configure(&applied.store, &node.settings)
                    .or_else(|| compact(&applied.store, node.shared.clock.stamp()))
            }) else {
                break;
            };
            let command = Command {
                principal: Principal("cluster".into()),
                idempotency: None,
                guards: Vec::new(),
                action,
            };
            if node.propose(command.encode().into(), Instant::now() + PATIENCE).await.is_err() {
                break;
            }
        }
    }
}

/// Settings that this node was told and the cluster does not have yet. Defaults are nobody's wish.
fn configure(store: &Store, wanted: &Settings) -> Option<Action> {
    (*wanted != Settings::default() && wanted != store.settings()).then(|| Action::Configure(wanted.clone()))
}

/// The next slice of history that is over its bounds.
fn compact(store: &Store, now: Timestamp) -> Option<Action> {
    let (size, settings) = (store.history(), store.settings());
    let horizon = now.0.saturating_sub(settings.history_age.0);
    let mut over_count = (size.changes as u64).saturating_sub(settings.history_count);
    let mut over_bytes = (size.bytes as u64).saturating_sub(settings.history_bytes);
    let mut upto: Option<Revision> = None;
    for change in store.changes_after(store.compact_revision()).ok()?.take(SLICE) {
        if over_count == 0 && over_bytes == 0 && change.time.0 >= horizon {
            break;
        }
        over_count = over_count.saturating_sub(1);
        over_bytes = over_bytes.saturating_sub(change.bytes() as u64);
        upto = Some(change.revision);
    }
    upto.map(Action::Compact)
}

#[cfg(test)]
mod tests {
    use coracle_store::command::{Attach, Precondition, Put};
    use coracle_store::program::NoProgram;
    use coracle_store::{ContentType, Family, Key, Operation, Value};

    use super::*;

    fn apply(store: &mut Store, action: Action) {
        let principal = Principal("test".into());
        let command = Command { principal, idempotency: None, guards: Vec::new(), action };
        store.apply(Timestamp(1), &command.encode());
    }

    #[test]
    fn a_long_history_is_forgotten_in_small_slices() {
        let mut store = Store::new(Box::new(NoProgram));
        apply(&mut store, Action::Configure(Settings { history_count: 10, ..Settings::default() }));
        for number in 0..3 * SLICE {
            apply(
                &mut store,
                Action::One(Operation::Put(Put {
                    key: Key::new(Family::KV, number.to_string().as_bytes()),
                    value: Value::from(vec![b'x']),
                    content_type: ContentType::Text,
                    attach: Attach::None,
                    precondition: Precondition::None,
                    return_previous: false,
                })),
            );
        }
        let mut entries = 0;
        while let Some(action) = compact(&store, Timestamp(1)) {
            let before = store.history().changes;
            apply(&mut store, action);
            let forgotten = before - store.history().changes;
            assert!((1..=SLICE).contains(&forgotten), "{forgotten} in one entry");
            entries += 1;
        }
        assert_eq!((entries, store.history().changes), (3, 10));
    }
}
