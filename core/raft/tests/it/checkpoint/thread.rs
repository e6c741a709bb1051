//! The thread that writes: its order, its end, and a full disk.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use coracle_raft::checkpoint::{Checkpoint, Checkpointer, Error, Options, Position};
use coracle_raft::snapshot::{Spool, stage};
use coracle_store::checkpoint::Table;
use tempfile::TempDir;

use super::*;
use crate::faulty::{Disk, Faulty};

fn wait<T>(receiver: &mpsc::Receiver<T>) -> T {
    receiver.recv_timeout(Duration::from_secs(10)).unwrap()
}

#[test]
fn the_thread_writes_in_order_and_says_what_is_durable() {
    let dir = TempDir::new().unwrap();
    let (checkpoint, _) = open(dir.path()).unwrap();
    let checkpoint = Arc::new(checkpoint);
    let checkpointer = Checkpointer::start(checkpoint.clone()).unwrap();
    let (done, reports) = mpsc::channel();
    let submit = |value: &'static [u8], position: Position| {
        let (done, durable) = (done.clone(), checkpoint.clone());
        checkpointer.submit(vec![put(Table::Head, "", value)], position, move |result| {
            done.send((result, durable.position().applied)).unwrap();
        });
    };
    for index in 1..=20 {
        submit(b"in order", at(index));
    }
    for index in 1..=20 {
        let (result, durable) = wait(&reports);
        assert_eq!(result.unwrap(), at(index).applied);
        assert!(durable >= at(index).applied, "reported before it was durable");
    }
    // Outdated by a snapshot: not a failure.
    submit(b"outdated", at(5));
    submit(b"goes on", at(21));
    assert!(matches!(wait(&reports).0, Err(Error::Backwards { .. })));
    assert_eq!(wait(&reports).0.unwrap(), at(21).applied);
    // Any other failure: nothing later may be written on top of the gap.
    submit(b"fails", Position { cluster: 1, ..at(22) });
    submit(b"must not be written", at(23));
    assert!(matches!(wait(&reports).0, Err(Error::Foreign { .. })));
    assert!(matches!(wait(&reports).0, Err(Error::Stopped)));
    assert_eq!(checkpointer.pending(), 0);
    checkpointer.stop();
    assert_eq!(checkpoint.position(), at(21));
    assert_eq!(load(&checkpoint).unwrap(), rows_of(&[put(Table::Head, "", b"goes on")]));
}

#[test]
fn stopping_writes_what_was_submitted() {
    let dir = TempDir::new().unwrap();
    let (checkpoint, _) = open(dir.path()).unwrap();
    let checkpointer = Checkpointer::start(Arc::new(checkpoint)).unwrap();
    for index in 1..=5 {
        checkpointer.submit(sample(10), at(index), |_| ());
    }
    checkpointer.stop();
    assert_eq!(open(dir.path()).unwrap().1, at(5));
}

#[test]
fn a_full_disk_is_waited_out() {
    let dir = TempDir::new().unwrap();
    let disk = Faulty::new();
    let (checkpoint, _) =
        Checkpoint::open_on(Arc::new(Disk(disk.clone())), dir.path(), Options::default()).unwrap();
    checkpoint.write(&sample(10), &at(1)).unwrap();
    disk.room.store(20_000, Ordering::Relaxed);
    let error = error(checkpoint.write(&sample(500), &at(2)));
    assert!(matches!(error, Error::Full { .. }), "{error}");
    disk.room.store(10_000_000, Ordering::Relaxed);
    assert_eq!(load(&checkpoint).unwrap(), rows_of(&sample(10)), "nothing has changed");
    assert_eq!(checkpoint.position(), at(1));

    disk.room.store(20_000, Ordering::Relaxed);
    let checkpoint = Arc::new(checkpoint);
    let checkpointer = Checkpointer::start(checkpoint.clone()).unwrap();
    let (done, reports) = mpsc::channel();
    checkpointer.submit(sample(500), at(2), move |result| done.send(result).unwrap());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !checkpointer.disk_full() {
        assert!(Instant::now() < deadline, "the full disk is not noticed");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(reports.try_recv().is_err());
    disk.room.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(wait(&reports).unwrap(), at(2).applied);
    assert!(!checkpointer.disk_full());
    checkpointer.stop();
    assert_eq!(load(&checkpoint).unwrap(), rows_of(&sample(500)));
}

#[test]
fn an_installation_on_a_full_disk_leaves_the_old_state() {
    let (dir, source_dir, spool_dir) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (source, _) = open(source_dir.path()).unwrap();
    source.write(&sample(2000), &at(50)).unwrap();
    let snapshot = Spool::open(spool_dir.path()).unwrap().build(&source, None).unwrap();
    let disk = Faulty::new();
    let (checkpoint, _) =
        Checkpoint::open_on(Arc::new(Disk(disk.clone())), dir.path(), Options::default()).unwrap();
    checkpoint.write(&sample(10), &at(1)).unwrap();
    disk.room.store(500_000, Ordering::Relaxed);
    let failed = stage(&checkpoint, &snapshot, |_, _, _| Ok::<_, Infallible>(())).map(|_| ());
    assert!(matches!(failed, Err(Error::Full { .. })), "{failed:?}");
    assert_eq!(names(dir.path()), ["CURRENT", "state-1.redb"]);
    disk.room.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(load(&checkpoint).unwrap(), rows_of(&sample(10)));
    stage(&checkpoint, &snapshot, |_, _, _| Ok::<_, Infallible>(())).unwrap().commit().unwrap();
    assert_eq!(load(&checkpoint).unwrap(), rows_of(&sample(2000)));
}
