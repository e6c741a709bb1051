//! ⑦ The pools that picks come from: one a service and filter that is asked for, following the history.
//!
//! A pool is built once, then only what has changed is read. Round-robin cursors live here, so they are this node's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use coracle_raft::node::{Node, Watch};
use coracle_recipes::service::{self, Draw, Filter, Picked, Pool, Wish};
use coracle_store::{Millis, Revision, Selection, Store, Timestamp};
use futures::FutureExt;

/// Pools kept; the one that was not asked for longest makes room.
const POOLS: usize = 256;
/// Reading a change costs so much less than reading an instance.
const CHANGES_AN_INSTANCE: u64 = 16;
/// Catching up is always tried over so many changes.
const CHANGES: u64 = 4096;

/// See the module.
#[derive(Default)]
pub struct Pools(Mutex<BTreeMap<(String, Filter), Kept>>);

struct Kept {
    followed: Arc<Mutex<Followed>>,
    used: Instant,
}

/// A pool with the revision it shows.
struct Followed {
    service: String,
    filter: Filter,
    pool: Pool,
    prefix: Vec<u8>,
    watch: Watch,
    revision: Revision,
    cursor: u64,
    clock: Clock,
}

/// Log time between entries, near enough for a slow start.
struct Clock {
    seen: Timestamp,
    at: Instant,
}

impl Clock {
    fn now(&mut self, log: Timestamp) -> Timestamp {
        let passed = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = self.seen.after(Millis(passed));
        if log > now {
            *self = Self { seen: log, at: Instant::now() };
            return log;
        }
        now
    }
}

impl Pools {
    /// Pick from what this node knows; also the revision that shows.
    pub fn pick(&self, node: &Node, service: &str, filter: &Filter, wish: &Wish) -> (Picked, Revision) {
        let known = {
            let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            pools.get_mut(&(service.to_owned(), filter.clone())).map(|kept| {
                kept.used = Instant::now();
                kept.followed.clone()
            })
        };
        let followed = known.unwrap_or_else(|| self.follow(node, service, filter));
        let mut followed = followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.pick(node, wish)
    }

    fn follow(&self, node: &Node, service: &str, filter: &Filter) -> Arc<Mutex<Followed>> {
        let followed = Followed::new(node, service, filter);
        let absent = followed.pool.is_empty();
        let followed = Arc::new(Mutex::new(followed));
        // Names that nobody has registered take no place.
        if !absent {
            let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if pools.len() >= POOLS
                && let Some(oldest) =
                    pools.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone())
            {
                pools.remove(&oldest);
            }
            let kept = Kept { followed: followed.clone(), used: Instant::now() };
            pools.insert((service.to_owned(), filter.clone()), kept);
        }
        followed
    }
}

impl Followed {
    fn new(node: &Node, service: &str, filter: &Filter) -> Self {
        let prefix = service::prefix(service);
        let watch = node.watch(Selection::Prefix(prefix.clone()));
        let Taken { pool, revision, seen } = take(node, service, filter);
        let (service, filter) = (service.to_owned(), filter.clone());
        let clock = Clock { seen, at: Instant::now() };
        // Not all nodes begin with the same instance.
        let cursor = rand::random();
        Self { service, filter, pool, prefix, watch, revision, cursor, clock }
    }

    fn pick(&mut self, node: &Node, wish: &Wish) -> (Picked, Revision) {
        let (revision, log) = node.read(|store| (store.revision(), store.now()));
        // Watchers are told before the revision is announced: after this, silence means that nothing has changed.
        let announced =
            node.wait_revision(revision, Instant::now()).now_or_never().is_some_and(|it| it.is_ok());
        if self.watch.changed().now_or_never().is_some() {
            if !node.read(|store| self.catch_up(store)) {
                let Taken { pool, revision, .. } = take(node, &self.service, &self.filter);
                (self.pool, self.revision) = (pool, revision);
            }
        } else if announced {
            self.revision = self.revision.max(revision);
        }
        let draw = Draw { cursor: self.cursor, random: rand::random(), now: self.clock.now(log) };
        let picked = self.pool.pick(wish, draw);
        self.cursor = picked.cursor;
        (picked, self.revision)
    }

    /// Take in what has changed; false if that is too much, or history is too short for it.
    fn catch_up(&mut self, store: &Store) -> bool {
        let behind = store.revision().0.saturating_sub(self.revision.0);
        let few = CHANGES + CHANGES_AN_INSTANCE * self.pool.len() as u64;
        let Ok(changes) = store.changes_after(self.revision) else { return false };
        if behind > few {
            return false;
        }
        let events = changes.flat_map(|change| change.events.iter());
        for event in events.filter(|event| event.key.as_bytes().starts_with(&self.prefix)) {
            if let Some((id, _, is)) = service::told(event) {
                match is {
                    Some(instance) => self.pool.put(&id, instance),
                    None => self.pool.remove(&id),
                }
            } else if service::configures(event) {
                let settings = service::settings(store.view(), &self.service);
                self.pool.configure(settings.unwrap_or_default());
            }
        }
        self.revision = store.revision();
        true
    }
}

/// A pool as of a revision, and log time then.
struct Taken {
    pool: Pool,
    revision: Revision,
    seen: Timestamp,
}

/// Only taking the instances holds up who applies; building the pool of ten thousand takes twenty milliseconds.
fn take(node: &Node, service: &str, filter: &Filter) -> Taken {
    let (settings, rows, revision, seen) = node.read(|store| {
        let view = store.view();
        let rows: Vec<_> = service::instances(view, service, None).collect();
        (service::settings(view, service), rows, store.revision(), store.now())
    });
    Taken { pool: Pool::new(settings.unwrap_or_default(), rows, filter.clone()), revision, seen }
}
