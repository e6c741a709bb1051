//! Snapshots: round trips, damage of any byte, sharing and cleaning.

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use coracle_raft::checkpoint::{Checkpoint, Error, Position};
use coracle_raft::snapshot::{PIECE_BYTES, SnapshotData, SnapshotFile, Spool, stage};
use coracle_store::checkpoint::{Row, Table};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::checkpoint::{Rows, at, flip, load, log_id, names, open, put, rows_of, sample};

struct Node {
    checkpoint: Checkpoint,
    spool: Spool,
    dir: TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (checkpoint, _) = open(&dir.path().join("state")).unwrap();
        let spool = Spool::open(&dir.path().join("snapshots")).unwrap();
        Self { checkpoint, spool, dir }
    }

    fn with(rows: &[Row], position: &Position) -> Self {
        let node = Self::new();
        node.checkpoint.write(&rows, position).unwrap();
        node
    }

    fn snapshot_files(&self) -> Vec<String> {
        names(&self.dir.path().join("snapshots"))
    }

    fn state_files(&self) -> Vec<String> {
        names(&self.dir.path().join("state"))
    }

    /// Take bytes as they would come over the wire.
    fn receive(&self, bytes: &[u8]) -> Result<SnapshotData, Error> {
        let mut incoming = self.spool.receive(bytes.len() as u64)?;
        for piece in bytes.chunks(100_000) {
            incoming.write(incoming.received(), piece)?;
        }
        incoming.finish()
    }
}

fn bytes_of(snapshot: &SnapshotFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in snapshot.pieces().unwrap() {
        let (offset, piece) = piece.unwrap();
        assert_eq!(offset, bytes.len() as u64);
        assert!(piece.len() <= PIECE_BYTES);
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len() as u64, snapshot.length());
    bytes
}

fn install(node: &Node, snapshot: &SnapshotFile) -> Result<Rows, Error> {
    let mut seen = Rows::new();
    let staged = stage(&node.checkpoint, snapshot, |table, key, value| {
        seen.insert((table, key.to_vec()), value.to_vec());
        Ok::<_, Infallible>(())
    })?;
    assert_eq!(staged.position(), snapshot.position());
    staged.commit()?;
    Ok(seen)
}

#[test]
fn a_snapshot_carries_every_row_and_the_position_to_another_node() {
    let mut rows = sample(9000);
    rows.insert(1, put(Table::Keys, "a long one", &vec![5; 1 << 20]));
    let sender = Node::with(&rows, &at(70));
    let snapshot = sender.spool.build(&sender.checkpoint, None).unwrap();
    assert_eq!(snapshot.position(), &at(70));
    assert_eq!(snapshot.meta().last_log_id, at(70).applied);
    assert_eq!(snapshot.meta().last_membership, at(70).membership);

    let receiver = Node::with(&[put(Table::Keys, "vanishes", b"with the old state")], &at(20));
    let arrived = receiver.receive(&bytes_of(&snapshot)).unwrap();
    assert_eq!(install(&receiver, &arrived).unwrap(), rows_of(&rows));
    assert_eq!(receiver.checkpoint.position(), at(70));
    assert_eq!(load(&receiver.checkpoint).unwrap(), rows_of(&rows));
    assert_eq!(receiver.state_files(), ["CURRENT", "state-2.redb"]);

    // The new state goes on like any other, through a restart too.
    receiver.checkpoint.write(&[put(Table::Keys, "next", b"")], &at(71)).unwrap();
    let Node { checkpoint, dir, .. } = receiver;
    drop(checkpoint);
    let (checkpoint, position) = open(&dir.path().join("state")).unwrap();
    assert_eq!(position, at(71));
    assert_eq!(load(&checkpoint).unwrap().len(), rows.len() + 1);
}

#[test]
fn an_empty_state_makes_a_snapshot() {
    let sender = Node::with(&[], &at(1));
    let snapshot = sender.spool.build(&sender.checkpoint, None).unwrap();
    let receiver = Node::new();
    let arrived = receiver.receive(&bytes_of(&snapshot)).unwrap();
    assert_eq!(install(&receiver, &arrived).unwrap(), Rows::new());
    assert_eq!(receiver.checkpoint.position(), at(1));
}

fn refuse(node: &Node, bytes: &[u8], what: &str) -> Error {
    let error = node.receive(bytes).map(|_| ()).expect_err(what);
    assert_eq!(node.snapshot_files(), [""; 0], "{what}: the file is removed");
    error
}

#[test]
fn a_damaged_snapshot_is_refused_whatever_byte_it_is() {
    let sender = Node::with(&sample(60), &at(70));
    let good = bytes_of(&sender.spool.build(&sender.checkpoint, None).unwrap());
    let node = Node::new();
    drop(node.receive(&good).unwrap());
    for offset in 0..good.len() {
        let mut bytes = good.clone();
        bytes[offset] ^= 1 << (offset % 8);
        let error = refuse(&node, &bytes, &format!("bit flipped at {offset}"));
        assert!(
            matches!(error, Error::Snapshot { .. } | Error::Newer { .. } | Error::Older { .. }),
            "{offset}: {error}"
        );
    }
    for length in 0..good.len() {
        let error = refuse(&node, &good[..length], &format!("cut to {length}"));
        assert!(matches!(error, Error::Snapshot { .. }), "{length}: {error}");
    }
    let error = refuse(&node, &[&good[..], &[0]].concat(), "a byte more");
    assert!(matches!(error, Error::Snapshot { .. }), "{error}");
    let error = refuse(&node, &[&good[..], &good[..]].concat(), "twice");
    assert!(matches!(error, Error::Snapshot { .. }), "{error}");
}

#[test]
fn a_snapshot_of_another_format_is_refused_as_such() {
    let sender = Node::with(&sample(2), &at(70));
    let mut bytes = bytes_of(&sender.spool.build(&sender.checkpoint, None).unwrap());
    bytes[8] = 3;
    let error = refuse(&Node::new(), &bytes, "newer");
    assert!(matches!(error, Error::Newer { found: 3, known: 2, .. }), "{error}");
    bytes[8] = 1;
    let error = refuse(&Node::new(), &bytes, "older");
    assert!(matches!(error, Error::Older { found: 1, known: 2, .. }), "{error}");
}

#[test]
fn pieces_must_come_in_order_and_in_full() {
    let node = Node::new();
    let mut incoming = node.spool.receive(10).unwrap();
    incoming.write(0, b"0123").unwrap();
    assert!(matches!(incoming.write(0, b"0123"), Err(Error::Snapshot { .. })), "repeated");
    assert!(matches!(incoming.write(5, b"5"), Err(Error::Snapshot { .. })), "missing");
    assert!(matches!(incoming.write(4, b"4567890"), Err(Error::Snapshot { .. })), "too long");
    assert_eq!(incoming.received(), 4);
    assert_eq!(node.snapshot_files().len(), 1);
    assert!(matches!(incoming.finish(), Err(Error::Snapshot { .. })), "too short");
    assert_eq!(node.snapshot_files(), [""; 0], "an unfinished file is removed");
}

/// Whatever goes wrong during an installation, the old state is untouched and nothing is left over.
#[test]
fn an_installation_that_fails_changes_nothing() {
    let sender = Node::with(&sample(3000), &at(70));
    let snapshot = sender.spool.build(&sender.checkpoint, None).unwrap();
    let check = |node: &Node, rows: &Rows, position: &Position, what: &str| {
        assert_eq!(&load(&node.checkpoint).unwrap(), rows, "{what}");
        assert_eq!(&node.checkpoint.position(), position, "{what}");
        assert_eq!(node.state_files(), ["CURRENT", "state-1.redb"], "{what}");
    };
    let old = rows_of(&sample(5));

    let node = Node::with(&sample(5), &at(20));
    let arrived = node.receive(&bytes_of(&snapshot)).unwrap();
    let mut count = 0;
    let error = stage(&node.checkpoint, &arrived, |_, _, _| {
        count += 1;
        if count > 2000 { Err("does not decode") } else { Ok(()) }
    });
    assert!(matches!(error.map(|_| ()), Err(Error::Row { .. })));
    check(&node, &old, &at(20), "the loader refuses a row");

    drop(stage(&node.checkpoint, &arrived, |_, _, _| Ok::<_, Infallible>(())).unwrap());
    check(&node, &old, &at(20), "the loader refuses the whole");

    let offset = usize::try_from(arrived.length()).unwrap() - 100;
    flip(arrived.path(), offset);
    assert!(matches!(install(&node, &arrived), Err(Error::Snapshot { .. })));
    check(&node, &old, &at(20), "the file rots after it was verified");
    flip(arrived.path(), offset);

    let staged = stage(&node.checkpoint, &arrived, |_, _, _| Ok::<_, Infallible>(())).unwrap();
    node.checkpoint.write(&[], &at(90)).unwrap();
    assert!(matches!(staged.commit(), Err(Error::Backwards { .. })));
    check(&node, &old, &at(90), "the log overtakes the installation");
    assert!(matches!(install(&node, &arrived), Err(Error::Backwards { .. })));

    let foreign = Node::with(&sample(5), &Position { cluster: 3, ..at(20) });
    assert!(matches!(install(&foreign, &arrived), Err(Error::Foreign { .. })));
    check(&foreign, &old, &Position { cluster: 3, ..at(20) }, "another cluster's");
}

#[test]
fn a_snapshot_is_shared_until_it_is_too_old_and_goes_with_its_last_user() {
    let node = Node::with(&sample(5), &at(10));
    let first = node.spool.build(&node.checkpoint, None).unwrap();
    let exists = |snapshot: &Path| snapshot.exists();
    let first_path = first.path().to_owned();
    node.checkpoint.write(&[put(Table::Keys, "more", b"")], &at(20)).unwrap();
    let same = node.spool.build(&node.checkpoint, Some(log_id(2, 10))).unwrap();
    assert_eq!(same.path(), first_path, "new enough");
    let second = node.spool.build(&node.checkpoint, Some(log_id(2, 11))).unwrap();
    assert_eq!(second.position(), &at(20), "the newest, not only what was asked for");
    assert_eq!(
        node.spool.build(&node.checkpoint, Some(log_id(2, 99))).unwrap().path(),
        second.path(),
        "no newer"
    );
    assert_eq!(node.spool.current().unwrap().path(), second.path());

    drop(same);
    assert!(exists(&first_path), "a follower still reads it");
    assert_eq!(bytes_of(&first).len() as u64, first.length());
    drop(first);
    assert!(!exists(&first_path), "nobody reads it");
    let second_path = second.path().to_owned();
    drop(second);
    assert!(exists(&second_path), "the current one stays");
}

#[test]
fn files_of_an_earlier_process_are_removed() {
    let node = Node::new();
    let dir = node.dir.path().join("snapshots");
    fs::write(dir.join("17.snapshot"), b"old").unwrap();
    fs::write(dir.join("notes.txt"), b"not ours").unwrap();
    let _spool = Spool::open(&dir).unwrap();
    assert_eq!(names(&dir), ["notes.txt"]);
}

#[test]
fn writes_after_the_snapshot_are_not_in_it() {
    let node = Node::with(&sample(50), &at(10));
    let snapshot = node.spool.build(&node.checkpoint, None).unwrap();
    node.checkpoint.write(&[put(Table::Keys, "later", b"")], &at(11)).unwrap();
    let receiver = Node::new();
    let arrived = receiver.receive(&bytes_of(&snapshot)).unwrap();
    assert_eq!(install(&receiver, &arrived).unwrap(), rows_of(&sample(50)));
    assert_eq!(receiver.checkpoint.position(), at(10));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    /// Any rows, of any sizes around the length of a chunk, arrive as they were.
    #[test]
    fn any_rows_arrive(
        rows in prop::collection::btree_map(
            (prop::sample::select(Table::ALL.to_vec()), prop::collection::vec(any::<u8>(), 0..40)),
            prop_oneof![
                4 => prop::collection::vec(any::<u8>(), 0..300),
                1 => (any::<u8>(), 0..800_000_usize).prop_map(|(byte, length)| vec![byte; length]),
            ],
            0..20,
        )
    ) {
        let written: Vec<_> = rows
            .iter()
            .map(|((table, key), value)| Row { table: *table, key: key.clone(), value: Some(value.clone()) })
            .collect();
        let sender = Node::with(&written, &at(5));
        let snapshot = sender.spool.build(&sender.checkpoint, None).unwrap();
        let receiver = Node::new();
        let arrived = receiver.receive(&bytes_of(&snapshot)).unwrap();
        prop_assert_eq!(&install(&receiver, &arrived).unwrap(), &rows);
        prop_assert_eq!(&load(&receiver.checkpoint).unwrap(), &rows);
    }
}
