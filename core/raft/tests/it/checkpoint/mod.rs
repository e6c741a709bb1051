//! The state on disk: round trips here, and what others need for theirs; [`crash`], [`damage`], [`thread`].

mod crash;
mod damage;
mod thread;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::Path;

use coracle_raft::checkpoint::{Checkpoint, Error, Options, Position};
use coracle_raft::types::{CommittedLeaderId, LogId, Member, Membership, StoredMembership};
use coracle_store::checkpoint::{Row, Table};
use proptest::prelude::*;
use tempfile::TempDir;

pub(crate) type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;
pub(crate) const CLUSTER: u128 = 0xc0_7ac1e;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

pub(crate) fn at(index: u64) -> Position {
    let nodes: BTreeMap<_, _> = (1..=3)
        .map(|id| (id, Member { name: format!("n{id}"), peer: format!("h{id}:7071"), client: String::new() }))
        .collect();
    let membership = Membership::new(vec![[1, 2].into(), [1, 2, 3].into()], nodes).unwrap();
    let membership = StoredMembership::new(Some(log_id(1, 1)), membership);
    Position { cluster: CLUSTER, applied: Some(log_id(2, index)), membership }
}

pub(crate) fn put(table: Table, key: &str, value: &[u8]) -> Row {
    Row { table, key: key.into(), value: Some(value.to_vec()) }
}

pub(crate) fn remove(table: Table, key: &str) -> Row {
    Row { table, key: key.into(), value: None }
}

pub(crate) fn open(dir: &Path) -> Result<(Checkpoint, Position), Error> {
    Checkpoint::open(dir, Options::default())
}

pub(crate) fn load(checkpoint: &Checkpoint) -> Result<Rows, Error> {
    let mut rows = Rows::new();
    let mut last = None;
    checkpoint.load(|table, key, value| {
        let this = (table, key.to_vec());
        assert!(last.as_ref() < Some(&this), "rows must come in table and key order");
        last = Some(this.clone());
        rows.insert(this, value.to_vec());
        Ok::<_, Infallible>(())
    })?;
    Ok(rows)
}

pub(crate) fn apply(rows: &mut Rows, changes: &[Row]) {
    for row in changes {
        match &row.value {
            Some(value) => rows.insert((row.table, row.key.clone()), value.clone()),
            None => rows.remove(&(row.table, row.key.clone())),
        };
    }
}

/// A head row, `count` keys, and one chunk of changes, a long one if there are many keys.
pub(crate) fn sample(count: usize) -> Vec<Row> {
    let mut rows = vec![put(Table::Head, "", b"head")];
    rows.extend(
        (0..count)
            .map(|i| put(Table::Keys, &format!("key/{i:06}"), format!("value {i}").repeat(9).as_bytes())),
    );
    let chunk = if count < 1000 { 20_000 } else { 256 * 1024 };
    rows.push(put(Table::Changes, "chunk", &vec![7; chunk]));
    rows.push(put(Table::Replies, "reply", b""));
    rows
}

pub(crate) fn rows_of(changes: &[Row]) -> Rows {
    let mut rows = Rows::new();
    apply(&mut rows, changes);
    rows
}

pub(crate) fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1 << (offset % 8);
    fs::write(path, bytes).unwrap();
}

fn error<T>(result: Result<T, Error>) -> Error {
    result.map(|_| ()).unwrap_err()
}

#[test]
fn an_empty_directory_opens_at_the_beginning() {
    let dir = TempDir::new().unwrap();
    for _ in 0..2 {
        let (checkpoint, position) = open(&dir.path().join("a/b")).unwrap();
        assert_eq!(position, Position::default());
        assert_eq!(load(&checkpoint).unwrap(), Rows::new());
    }
    assert_eq!(names(&dir.path().join("a/b")), ["CURRENT", "state-1.redb"]);
}

#[test]
fn rows_and_position_survive_a_clean_end_and_a_crash() {
    let dir = TempDir::new().unwrap();
    let mut expected = rows_of(&sample(500));
    let (checkpoint, _) = open(dir.path()).unwrap();
    checkpoint.write(&sample(500), &at(7)).unwrap();
    let changes = [
        put(Table::Head, "", b"later"),
        remove(Table::Keys, "key/000007"),
        put(Table::Keys, "new", &vec![1; 1 << 20]),
    ];
    apply(&mut expected, &changes);
    checkpoint.write(&changes, &at(9)).unwrap();
    assert_eq!(checkpoint.position(), at(9));

    // The files as a crash would leave them: copied while the database is open.
    let crashed = copy(dir.path());
    drop(checkpoint);
    for dir in [crashed.path(), dir.path()] {
        let (checkpoint, position) = open(dir).unwrap();
        assert_eq!(position, at(9));
        assert_eq!(load(&checkpoint).unwrap(), expected);
    }
}

#[test]
fn the_position_never_goes_back_and_never_changes_cluster() {
    let dir = TempDir::new().unwrap();
    let (checkpoint, _) = open(dir.path()).unwrap();
    checkpoint.write(&sample(1), &at(7)).unwrap();
    checkpoint.write(&[put(Table::Head, "", b"again")], &at(7)).unwrap();
    let before = load(&checkpoint).unwrap();
    let outdated = [put(Table::Head, "", b"outdated")];
    assert!(matches!(checkpoint.write(&outdated, &at(6)), Err(Error::Backwards { .. })));
    assert!(matches!(
        checkpoint.write(&outdated, &Position { cluster: 5, ..at(8) }),
        Err(Error::Foreign { .. })
    ));
    assert_eq!(load(&checkpoint).unwrap(), before);
    assert_eq!(checkpoint.position(), at(7));
}

#[test]
fn only_one_process_opens_it() {
    let dir = TempDir::new().unwrap();
    let _held = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::Locked { .. })));
}

#[test]
fn what_the_reader_of_rows_refuses_is_reported() {
    let dir = TempDir::new().unwrap();
    let (checkpoint, _) = open(dir.path()).unwrap();
    checkpoint.write(&sample(3), &at(1)).unwrap();
    let error =
        checkpoint.load(|table, _, _| if table == Table::Changes { Err("no") } else { Ok(()) }).unwrap_err();
    assert!(matches!(error, Error::Row { table: "changes", .. }), "{error}");
}

fn change() -> impl Strategy<Value = Row> {
    let table = prop::sample::select(Table::ALL.to_vec());
    let key = prop::collection::vec(0_u8..4, 0..4);
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..2000));
    (table, key, value).prop_map(|(table, key, value)| Row { table, key, value })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Any deltas, with and without a restart in between, read back like a map.
    #[test]
    fn deltas_add_up(deltas in prop::collection::vec((prop::collection::vec(change(), 0..40), any::<bool>()), 1..8),
        cache_bytes in prop::sample::select(vec![0, 64 * 1024, 16 * 1024 * 1024])) {
        // From parts of one page each to one part for all.
        let options = Options { cache_bytes, ..Options::default() };
        let dir = TempDir::new().unwrap();
        let mut expected = Rows::new();
        let (mut checkpoint, _) = Checkpoint::open(dir.path(), options).unwrap();
        for (index, (delta, restart)) in (1..).zip(&deltas) {
            checkpoint.write(delta, &at(index)).unwrap();
            apply(&mut expected, delta);
            if *restart {
                drop(checkpoint);
                let position;
                (checkpoint, position) = Checkpoint::open(dir.path(), options).unwrap();
                prop_assert_eq!(position, at(index));
            }
            prop_assert_eq!(&load(&checkpoint).unwrap(), &expected);
        }
    }
}
