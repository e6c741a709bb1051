//! Loads against the fake server.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::fake::{Shared, serve};
use crate::coracle::Coracle;
use crate::gateway::Gateway;
use crate::load::{Plan, Tally, offer, prepare};
use crate::service::Service;
use crate::workload::{Shape, Workload};

const SHAPE: Shape = Shape { clients: 4, keys: 50, value_bytes: 64, sessions: 30 };

fn on_one_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// A short load of the workload, and the server's state after it.
fn load(workload: Workload, state: &Shared, rate: Option<f64>) -> Tally {
    load_on(workload, state, rate, |nodes| Coracle::new(nodes, SHAPE))
}

fn load_on<S: Service>(
    workload: Workload,
    state: &Shared,
    rate: Option<f64>,
    service: impl FnOnce(&[String]) -> S,
) -> Tally {
    let state = state.clone();
    on_one_thread(async move {
        let nodes = [serve(state.clone()).await, serve(state).await];
        let service = service(&nodes);
        if let Some(found) = workload.finds() {
            prepare(&service, found, SHAPE).await.unwrap();
        }
        let times = [Duration::from_millis(20), Duration::from_millis(300)];
        let plan = Plan { workload, shape: SHAPE, warmup: times[0], window: times[1], rate };
        offer(&service, plan, || {}).await.unwrap()
    })
}

fn clean(workload: Workload) -> (Tally, Shared) {
    let state = Shared::default();
    let tally = load(workload, &state, None);
    assert_eq!(tally.errors, [].into());
    assert!(tally.latencies.len() > 10, "{} operations", tally.latencies.len());
    (tally, state)
}

#[test]
fn puts_write_whole_values_to_the_keys() {
    let (tally, state) = clean(Workload::Put);
    let state = state.borrow();
    assert!(state.revision >= tally.latencies.len());
    assert!(state.keys.len() <= 50);
    for (key, (_, value)) in &state.keys {
        assert_eq!(value.len(), 64);
        assert!(value.starts_with(format!("{key}:").as_bytes()));
    }
}

#[test]
fn reads_find_every_key() {
    let (_, state) = clean(Workload::Get);
    assert_eq!((state.borrow().keys.len(), state.borrow().stale_reads), (50, 0));
    let (tally, state) = clean(Workload::StaleGet);
    assert!(state.borrow().stale_reads >= tally.latencies.len());
}

#[test]
fn a_wrong_value_is_an_error_and_no_operation() {
    let state = Shared::default();
    state.borrow_mut().corrupt = "!";
    let tally = load(Workload::Get, &state, None);
    assert_eq!(tally.latencies.len(), 0);
    assert_eq!(tally.errors.keys().collect::<Vec<_>>(), ["GET answered another value"]);
}

#[test]
fn a_missing_key_is_told_by_its_code() {
    let state = Shared::default();
    let tally = on_one_thread(async {
        let service = Coracle::new(&[serve(state).await], SHAPE);
        let window = Duration::from_millis(50);
        let plan = Plan { workload: Workload::Get, shape: SHAPE, warmup: window, window, rate: None };
        offer(&service, plan, || {}).await.unwrap()
    });
    assert_eq!(tally.latencies.len(), 0);
    assert_eq!(tally.errors.keys().collect::<Vec<_>>(), ["GET /v1/kv/bench: 404 key_not_found"]);
}

#[test]
fn compare_and_set_follows_its_own_revisions() {
    let (tally, state) = clean(Workload::Cas);
    assert_eq!(state.borrow().keys.len(), 4);
    assert!(state.borrow().revision >= tally.latencies.len());
}

#[test]
fn locks_are_taken_and_given_back_and_sessions_closed() {
    for workload in [Workload::Lock, Workload::LockContended] {
        let (tally, state) = clean(workload);
        let state = state.borrow();
        assert!(state.grants >= tally.latencies.len());
        assert_eq!((state.held.len(), state.sessions), (0, 0));
    }
}

#[test]
fn renewals_are_counted_one_by_one() {
    let (tally, state) = clean(Workload::Renew);
    assert!(state.borrow().renewals >= tally.latencies.len());
}

#[test]
fn a_message_is_sent_received_and_acknowledged() {
    let (tally, state) = clean(Workload::Queue);
    let [ready, received, acknowledged] = state.borrow().queue;
    assert!(acknowledged >= tally.latencies.len());
    assert_eq!((ready, received), (0, acknowledged));
}

#[test]
fn a_long_queue_stays_long() {
    let (_, state) = clean(Workload::QueueDeep);
    let [ready, received, acknowledged] = state.borrow().queue;
    assert_eq!((ready, received), (50, acknowledged));
}

#[test]
fn a_batch_is_whole_however_little_is_received_at_once() {
    let (tally, state) = clean(Workload::QueueBatch);
    let [ready, received, acknowledged] = state.borrow().queue;
    assert!(acknowledged >= 100 * tally.latencies.len());
    assert_eq!((ready, received), (0, acknowledged));
    assert_eq!(Workload::QueueBatch.operations(), 100);
}

#[test]
fn half_send_and_half_take_and_neither_runs_away() {
    let state = Shared::default();
    state.borrow_mut().queue = [7, 0, 0];
    let tally = load(Workload::QueuePairs, &state, None);
    assert_eq!(tally.errors, [].into());
    let state = state.borrow();
    let [ready, received, acknowledged] = state.queue;
    // The last of each worker is acknowledged when it leaves; what was there before has been thrown away.
    assert_eq!(received, acknowledged);
    assert!(acknowledged >= tally.latencies.len() && tally.latencies.len() > 10, "{acknowledged}");
    let backlog = Workload::QueuePairs.backlog().unwrap() as u64;
    assert!(ready <= backlog && state.longest <= backlog, "{ready} left, {} at most", state.longest);
    assert_eq!((state.senders, state.receivers), (2, 2));
}

#[test]
fn every_stream_tells_every_write_from_the_moment_it_was_due() {
    let state = Shared::default();
    let tally = load(Workload::WatchRate, &state, Some(200.0));
    assert_eq!(tally.errors, [].into());
    // Four streams; what was told before and after the window is not counted.
    let told = state.borrow().told.len() as u64 * 4;
    assert!(!tally.latencies.is_empty() && tally.latencies.len() <= told, "{told} told");

    // A server that is slow to answer tells late, and that counts.
    let state = Shared::default();
    state.borrow_mut().delay = Duration::from_millis(30);
    let tally = load(Workload::WatchRate, &state, Some(200.0));
    assert_eq!(tally.errors, [].into());
    assert!(tally.latencies.min() >= 29_000, "min {} µs", tally.latencies.min());
}

#[test]
fn a_stream_that_leaves_out_a_write_or_tells_it_twice_is_told_of() {
    for skip in [0, 2] {
        let state = Shared::default();
        state.borrow_mut().copies = Some((40, skip));
        let tally = load(Workload::WatchRate, &state, Some(400.0));
        let errors: Vec<_> = tally.errors.keys().collect();
        assert_eq!(errors, ["a write was told twice or not at all"], "{skip} times");
    }
}

#[test]
fn each_of_many_sessions_is_renewed_in_its_turn() {
    let state = Shared::default();
    let tally = load(Workload::RenewMany, &state, Some(1000.0));
    assert_eq!(tally.errors, [].into());
    let state = state.borrow();
    assert_eq!((state.opened, state.sessions), (30, 0));
    let mut all = BTreeSet::new();
    for turns in state.turns.values() {
        // Each client has seven or eight of them.
        let own: BTreeSet<&String> = turns.iter().collect();
        assert!(own.len() == 7 || own.len() == 8, "{turns:?}");
        assert!(turns.iter().zip(&turns[own.len()..]).all(|(turn, next)| turn == next), "{turns:?}");
        all.extend(own);
    }
    assert_eq!((state.turns.len(), all.len()), (4, 30));
    assert_eq!(Workload::RenewMany.own_rate(SHAPE), Some(6.0));
}

#[test]
fn a_tenth_of_the_mixed_load_writes() {
    let (tally, state) = clean(Workload::Mixed);
    let writes = state.borrow().revision - 50;
    assert!(writes > 0 && writes < tally.latencies.len() / 4, "{writes} of {}", tally.latencies.len());
}

#[test]
fn a_write_is_done_when_the_own_stream_tells_it() {
    let (tally, state) = clean(Workload::Watch);
    assert!(state.borrow().told.len() as u64 >= tally.latencies.len());
}

#[test]
fn sessions_are_opened_and_closed() {
    let (_, state) = clean(Workload::Session);
    assert_eq!(state.borrow().sessions, 0);
}

#[test]
fn instances_are_picked_and_messages_published() {
    assert_eq!(clean(Workload::Pick).1.borrow().instances, 50);
    let (tally, state) = clean(Workload::Publish);
    assert!(state.borrow().published >= tally.latencies.len());
}

#[test]
fn the_gateway_is_asked_for_the_same() {
    for workload in [Workload::Put, Workload::Get, Workload::StaleGet, Workload::Mixed, Workload::Cas] {
        assert!(Gateway::does(workload));
        let state = Shared::default();
        let tally = load_on(workload, &state, None, |nodes| Gateway::new(nodes, SHAPE));
        assert_eq!(tally.errors, [].into(), "{workload:?}");
        assert!(tally.latencies.len() > 10, "{workload:?}: {} operations", tally.latencies.len());
        assert_eq!(state.borrow().stale_reads > 0, workload == Workload::StaleGet);
    }
}

#[test]
fn the_open_loop_asks_at_its_rate() {
    let state = Shared::default();
    let tally = load(Workload::Put, &state, Some(400.0));
    let expected = 400.0 * tally.window.as_secs_f64();
    let got = u32::try_from(tally.latencies.len()).unwrap();
    assert!((f64::from(got) - expected).abs() < expected * 0.25, "{got} operations, {expected} expected");
}

#[test]
fn the_open_loop_counts_the_wait_of_operations_that_were_due() {
    let state = Shared::default();
    state.borrow_mut().delay = Duration::from_millis(20);
    // 4 clients answered in 20 ms do 200 a second: at 800 each next operation begins later after it was due.
    let tally = load(Workload::Put, &state, Some(800.0));
    assert!(tally.latencies.max() > 100_000, "max {} µs", tally.latencies.max());
    let closed = load(Workload::Put, &state, None);
    assert!(closed.latencies.min() >= 20_000 - 20, "min {} µs", closed.latencies.min());
}

#[test]
fn both_edges_of_the_window_are_seen() {
    let edges = Rc::new(std::cell::Cell::new(0));
    on_one_thread(async {
        let service = Coracle::new(&[serve(Shared::default()).await], SHAPE);
        let window = Duration::from_millis(30);
        let plan = Plan { workload: Workload::Put, shape: SHAPE, warmup: window, window, rate: None };
        offer(&service, plan, || edges.set(edges.get() + 1)).await.unwrap();
    });
    assert_eq!(edges.get(), 2);
}
