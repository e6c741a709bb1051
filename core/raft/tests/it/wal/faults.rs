//! Errors of the disk while the log runs: a failed write or sync stops it, a full disk does not.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use coracle_raft::files::sim::{Loss, Operation, SimDisk};
use coracle_raft::wal::Options;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use super::fixture::{append, entries, entry, id, open, open_with, options, queue, run, view, vote};

fn eager() -> Options {
    Options { tick: Duration::from_millis(2), ..options() }
}

/// The only syncs are those of batches.
fn unmarked() -> Options {
    Options { high_water_interval: Duration::from_hours(1), ..options() }
}

/// Await a condition that another thread brings about.
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_failed_sync_stops_the_log_for_good() {
    for operation in [Operation::Sync, Operation::Write] {
        let disk = SimDisk::new(1);
        let (wal, _) = open_with(&disk, unmarked()).expect("opens");
        run(async {
            append(&wal, entries(1, 0..3, 10)).await.expect("durable");
            disk.fail(operation, 0, ErrorKind::Other);
            assert!(append(&wal, entries(1, 3..4, 10)).await.is_err(), "{operation:?}");
            assert!(append(&wal, entries(1, 4..5, 10)).await.is_err(), "nothing is accepted after a failure");
            assert!(wal.clone().save_vote(&vote(2)).await.is_err());
            assert!(wal.clone().purge(id(1, 0)).await.is_err());
            assert!(wal.clone().truncate_after(Some(id(1, 0))).await.is_err());
            let reason = wal.failed().await;
            assert_eq!(wal.failure(), Some(reason.clone()));
            assert!(reason.starts_with("cannot"), "{reason}");
        });
    }
}

#[test]
fn pages_that_a_failed_sync_left_behind_are_written_again() {
    let disk = SimDisk::new(1);
    let (wal, _) = open_with(&disk, unmarked()).expect("opens");
    run(async {
        append(&wal, entries(1, 0..3, 10)).await.expect("durable");
        disk.fail(Operation::Sync, 0, ErrorKind::Other);
        assert!(append(&wal, entries(1, 3..4, 10)).await.is_err());
    });
    drop(wal);
    // The process starts again and finds the entry in the page cache, where it looks clean but is not on the disk.
    disk.restart(Loss::Nothing);
    let (wal, recovered) = open(&disk).expect("opens");
    assert_eq!(recovered.stamp.last, Some(id(1, 3)));
    drop(wal);
    disk.restart(Loss::All);
    let (_, recovered) = open(&disk).expect("opens");
    assert_eq!(recovered.stamp.last, Some(id(1, 3)), "what recovery reported was not durable");
}

#[test]
fn a_full_disk_is_announced_a_segment_ahead_and_passes() {
    let disk = SimDisk::new(1);
    let (wal, _) = open_with(&disk, eager()).expect("opens");
    run(async {
        until("a spare is made", || disk.used() >= 2 * (16 << 10));
        disk.set_capacity(Some(disk.used()));
        assert!(!wal.is_full());
        let mut index = 0;
        while !wal.is_full() {
            append(&wal, vec![entry(1, index, 1000)]).await.expect("durable");
            index += 1;
            assert!(index < 20, "the first segment is full and no other can be made");
        }
        // The spare is in use now: there is room for what must go on.
        for _ in 0..5 {
            append(&wal, vec![entry(1, index, 1000)]).await.expect("durable although the disk is full");
            index += 1;
        }
        wal.clone().save_vote(&vote(3)).await.expect("durable although the disk is full");
        disk.set_capacity(None);
        until("room is noticed", || !wal.is_full());
        append(&wal, entries(1, index..index + 20, 1000)).await.expect("durable");
        assert_eq!(view(&wal).await.entries.len() as u64, index + 20);
    });
}

#[test]
fn a_purge_makes_room() {
    let disk = SimDisk::new(1);
    let (wal, _) = open_with(&disk, eager()).expect("opens");
    run(async {
        until("a spare is made", || disk.used() >= 2 * (16 << 10));
        disk.set_capacity(Some(disk.used()));
        let mut index = 0;
        while !wal.is_full() {
            append(&wal, vec![entry(1, index, 1000)]).await.expect("durable");
            index += 1;
        }
        for round in 0..8 {
            wal.clone().purge(id(1, index - 1)).await.expect("queued");
            until("the purged segment is a spare", || !wal.is_full());
            // Less than a segment, so that one spare is enough.
            for _ in 0..10 {
                append(&wal, vec![entry(1, index, 1000)]).await.expect("durable");
                index += 1;
            }
            assert!(wal.segments() <= 2, "round={round} segments={}", wal.segments());
        }
    });
    assert!(wal.stats().recycled_segments() > 4);
}

#[test]
fn beyond_the_spare_the_log_waits_and_goes_on() {
    let disk = SimDisk::new(1);
    let (wal, _) = open_with(&disk, eager()).expect("opens");
    run(async {
        until("a spare is made", || disk.used() >= 2 * (16 << 10));
        disk.set_capacity(Some(disk.used()));
        // More than fits into segment and spare.
        let stuck = queue(&wal, entries(1, 0..40, 1000)).await.expect("queued");
        until("the log is full", || wal.is_full());
        let mut stuck = Box::pin(stuck);
        let waited = tokio::time::timeout(Duration::from_millis(30), &mut stuck).await;
        assert!(waited.is_err(), "acknowledged without room");
        assert_eq!(wal.clone().try_get_log_entries(0..40).await.expect("readable").len(), 40);
        assert_eq!(wal.failure(), None);
        disk.set_capacity(None);
        stuck.await.expect("durable once there is room");
    });
    drop(wal);
    disk.restart(Loss::All);
    let (_, recovered) = open(&disk).expect("opens");
    assert_eq!(recovered.entries, 40);
}

#[test]
fn refused_appends_leave_no_trace() {
    let disk = SimDisk::new(1);
    let (wal, _) = open(&disk).expect("opens");
    run(async {
        append(&wal, entries(1, 0..3, 10)).await.expect("durable");
        let before = view(&wal).await;
        assert!(append(&wal, vec![entry(1, 3, 10), entry(1, 5, 10)]).await.is_err(), "a gap");
        assert!(append(&wal, vec![entry(1, 2, 10)]).await.is_err(), "an index that is taken");
        assert_eq!(view(&wal).await, before);
        append(&wal, vec![entry(1, 3, 10)]).await.expect("durable");
        assert_eq!(wal.failure(), None);
    });
    drop(wal);
    let (_, recovered) = open(&disk).expect("opens");
    assert_eq!(recovered.entries, 4);
}

#[test]
fn one_sync_serves_many_appends() {
    let disk = SimDisk::new(1);
    disk.set_sync_latency(Duration::from_millis(5));
    let (wal, _) = open_with(&disk, unmarked()).expect("opens");
    run(async {
        let mut durable = Vec::new();
        for index in 0..200 {
            durable.push(queue(&wal, vec![entry(1, index, 10)]).await.expect("queued"));
        }
        for done in durable {
            done.await.expect("durable");
        }
    });
    let stats = wal.stats();
    assert_eq!((stats.entries(), stats.batch_records.sum()), (200, 200));
    assert!(stats.sync_micros.count() < 20, "syncs={}", stats.sync_micros.count());
}

#[test]
fn entries_can_be_read_before_they_are_durable() {
    let disk = SimDisk::new(1);
    disk.set_sync_latency(Duration::from_millis(20));
    let (wal, _) = open_with(&disk, Options { tail_bytes: 0, ..unmarked() }).expect("opens");
    run(async {
        let mut durable = Vec::new();
        for index in 0..20 {
            durable.push(queue(&wal, vec![entry(1, index, 10)]).await.expect("queued"));
            // Batches come and go meanwhile, and with them what memory may forget.
            tokio::time::sleep(Duration::from_millis(3)).await;
            let found = wal.clone().try_get_log_entries(..).await.expect("readable");
            assert_eq!(found, entries(1, 0..index + 1, 10));
        }
        for done in durable {
            done.await.expect("durable");
        }
    });
}

#[test]
fn a_committed_index_is_written_without_a_sync() {
    let disk = SimDisk::new(1);
    let (wal, _) = open_with(&disk, eager()).expect("opens");
    run(async {
        append(&wal, entries(1, 0..3, 10)).await.expect("durable");
        let bytes = wal.stats().bytes();
        let syncs = wal.stats().sync_micros.count();
        wal.clone().save_committed(Some(id(1, 1))).await.expect("queued");
        assert_eq!(wal.clone().read_committed().await.expect("known"), Some(id(1, 1)));
        until("it is written", || wal.stats().bytes() > bytes);
        assert_eq!(wal.stats().sync_micros.count(), syncs);
    });
    drop(wal);
    disk.restart(Loss::Nothing);
    let (_, recovered) = open(&disk).expect("opens");
    assert_eq!(recovered.stamp.committed, Some(id(1, 1)));
}

#[test]
fn what_is_queued_is_written_before_the_log_closes() {
    let disk = SimDisk::new(1);
    let (wal, _) = open(&disk).expect("opens");
    run(async {
        drop(queue(&wal, entries(1, 0..30, 500)).await.expect("queued"));
        wal.clone().save_committed(Some(id(1, 20))).await.expect("queued");
    });
    drop(wal);
    disk.restart(Loss::Nothing);
    let (_, recovered) = open(&disk).expect("opens");
    assert_eq!((recovered.entries, recovered.stamp.committed), (30, Some(id(1, 20))));
}
