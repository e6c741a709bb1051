//! The state on disk: round trips, crashes between any two steps, damage of any byte.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use coracle_raft::checkpoint::{Checkpoint, Checkpointer, Error, FORMAT, Options, Position};
use coracle_raft::snapshot::{Spool, stage};
use coracle_raft::types::{CommittedLeaderId, LogId, Member, Membership, StoredMembership};
use coracle_store::checkpoint::{Row, Table};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::faulty::{Disk, Faulty};

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

/// Each crash point of a replacement, made by hand from the files of its steps.
#[test]
fn a_replacement_is_all_or_nothing_at_every_step() {
    let old_dir = TempDir::new().unwrap();
    let source_dir = TempDir::new().unwrap();
    let spool_dir = TempDir::new().unwrap();
    let (source, _) = open(source_dir.path()).unwrap();
    source.write(&sample(300), &at(50)).unwrap();
    let snapshot = Spool::open(spool_dir.path()).unwrap().build(&source, None).unwrap();
    let (old, _) = open(old_dir.path()).unwrap();
    old.write(&sample(10), &at(20)).unwrap();

    let before = copy(old_dir.path());
    let staged = stage(&old, &snapshot, |_, _, _| Ok::<_, Infallible>(())).unwrap();
    let built = copy(old_dir.path());
    assert_eq!(names(built.path()), ["CURRENT", "state-1.redb", "state-2.redb.new"]);
    assert_eq!(load(&old).unwrap(), rows_of(&sample(10)), "a staged replacement is not live");
    assert_eq!(staged.commit().unwrap(), at(50));
    assert_eq!(load(&old).unwrap(), rows_of(&sample(300)));
    assert_eq!(old.position(), at(50));
    let after = copy(old_dir.path());
    assert_eq!(names(after.path()), ["CURRENT", "state-2.redb"]);
    let current_new = fs::read(after.path().join("CURRENT")).unwrap();

    let (old_rows, new_rows) = ((rows_of(&sample(10)), at(20)), (rows_of(&sample(300)), at(50)));
    let check = |dir: &Path, step: &str, expected: &(Rows, Position)| {
        let (checkpoint, position) = open(dir).unwrap_or_else(|e| panic!("{step}: {e}"));
        assert_eq!(position, expected.1, "{step}");
        assert_eq!(load(&checkpoint).unwrap(), expected.0, "{step}");
        assert_eq!(names(dir).len(), 2, "{step}: leftovers {:?}", names(dir));
    };
    check(before.path(), "before", &old_rows);

    let torn = copy(built.path());
    fs::write(torn.path().join("state-2.redb.new"), b"half a fi").unwrap();
    check(torn.path(), "building", &old_rows);

    let pointer = copy(built.path());
    fs::write(pointer.path().join("CURRENT.new"), &current_new[..9]).unwrap();
    check(pointer.path(), "writing the new pointer", &old_rows);

    let renamed = copy(built.path());
    fs::write(renamed.path().join("CURRENT.new"), &current_new).unwrap();
    fs::rename(renamed.path().join("state-2.redb.new"), renamed.path().join("state-2.redb")).unwrap();
    check(renamed.path(), "database renamed, pointer not", &old_rows);

    let swapped = copy(built.path());
    fs::write(swapped.path().join("CURRENT"), &current_new).unwrap();
    fs::rename(swapped.path().join("state-2.redb.new"), swapped.path().join("state-2.redb")).unwrap();
    check(swapped.path(), "pointer swapped, old file there", &new_rows);

    check(built.path(), "built", &old_rows);
    check(after.path(), "after", &new_rows);
}

#[test]
fn the_first_database_is_created_all_or_nothing() {
    let complete = TempDir::new().unwrap();
    drop(open(complete.path()).unwrap());

    let building = TempDir::new().unwrap();
    fs::write(building.path().join("state-1.redb.new"), b"torn").unwrap();
    assert_eq!(open(building.path()).unwrap().1, Position::default());

    let renaming = copy(complete.path());
    fs::rename(renaming.path().join("CURRENT"), renaming.path().join("CURRENT.new")).unwrap();
    assert_eq!(open(renaming.path()).unwrap().1, Position::default());
    assert_eq!(names(renaming.path()), ["CURRENT", "state-1.redb"]);
}

#[test]
fn a_lost_pointer_or_file_is_never_taken_for_an_empty_node() {
    let dir = TempDir::new().unwrap();
    let (checkpoint, _) = open(dir.path()).unwrap();
    checkpoint.write(&sample(3), &at(3)).unwrap();
    drop(checkpoint);

    let pointer = copy(dir.path());
    fs::remove_file(pointer.path().join("CURRENT")).unwrap();
    let message = error(open(pointer.path())).to_string();
    assert!(
        message.contains("checkpoint damaged; stop this node") && message.contains("CURRENT"),
        "{message}"
    );
    assert_eq!(names(pointer.path()), ["state-1.redb"], "nothing is deleted");

    let file = copy(dir.path());
    fs::remove_file(file.path().join("state-1.redb")).unwrap();
    assert!(matches!(open(file.path()), Err(Error::Damaged { .. })));

    for offset in 0..fs::read(dir.path().join("CURRENT")).unwrap().len() {
        let flipped = copy(dir.path());
        flip(&flipped.path().join("CURRENT"), offset);
        assert!(
            matches!(
                open(flipped.path()),
                Err(Error::Damaged { .. } | Error::Newer { .. } | Error::Older { .. })
            ),
            "CURRENT with a flipped bit at {offset}"
        );
        assert!(flipped.path().join("state-1.redb").exists());
    }
}

/// Change one row behind our back, through redb, so that its page checksums hold.
fn tamper(dir: &Path, table: &'static str, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
    let redb = redb::Database::open(dir.join("state-1.redb")).unwrap();
    let txn = redb.begin_write().unwrap();
    {
        let mut table = txn.open_table(redb::TableDefinition::<&[u8], &[u8]>::new(table)).unwrap();
        let mut value = redb::ReadableTable::get(&table, key).unwrap().unwrap().value().to_vec();
        change(&mut value);
        table.insert(key, &*value).unwrap();
    }
    txn.commit().unwrap();
}

#[test]
fn a_row_that_is_not_what_was_written_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let (checkpoint, _) = open(dir.path()).unwrap();
    checkpoint.write(&sample(30), &at(3)).unwrap();
    drop(checkpoint);
    tamper(dir.path(), "keys", b"key/000009", |value| value[3] ^= 1);
    let (checkpoint, _) = open(dir.path()).unwrap();
    let message = error(load(&checkpoint)).to_string();
    assert!(message.contains("state-1.redb") && message.contains("place=keys"), "{message}");
    let spool = TempDir::new().unwrap();
    let built = Spool::open(spool.path()).unwrap().build(&checkpoint, None);
    assert!(matches!(built, Err(Error::Damaged { .. })), "damage does not spread by snapshot");
    assert_eq!(names(spool.path()), [""; 0]);
}

#[test]
fn another_format_is_refused_as_such() {
    for found in [FORMAT + 1, FORMAT - 1] {
        refused_as(found);
    }
}

fn refused_as(found: u32) {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()).unwrap());
    let inside = copy(dir.path());
    tamper(inside.path(), "about", b"format", |value| {
        value[..4].copy_from_slice(&found.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&[0xff, 6, 0, 0, 0]), b"format");
        let crc = crc32c::crc32c_append(crc, &value[..4]);
        value[4..].copy_from_slice(&crc.to_le_bytes());
    });
    let pointer = copy(dir.path());
    fs::write(pointer.path().join("CURRENT"), format!("coracle checkpoint format={found} something=new\n"))
        .unwrap();
    for dir in [inside, pointer] {
        let error = error(open(dir.path()));
        let newer = matches!(error, Error::Newer { known: FORMAT, .. });
        let older = matches!(error, Error::Older { known: FORMAT, .. });
        assert_eq!((newer, older), (found > FORMAT, found < FORMAT), "{error}");
        assert!(error.to_string().contains(&format!("format={found} ")), "{error}");
        let age = if newer { "newer version" } else { "earlier version" };
        assert!(error.to_string().contains(age), "{error}");
    }
}

/// Flip one bit at many places of the database: what loads is what was written, or it does not load.
#[test]
fn a_damaged_database_is_never_served() {
    let dir = TempDir::new().unwrap();
    let (checkpoint, _) = open(dir.path()).unwrap();
    let mut expected = rows_of(&sample(300));
    checkpoint.write(&sample(300), &at(3)).unwrap();
    let change = [put(Table::Keys, "key/000003", b"changed")];
    apply(&mut expected, &change);
    checkpoint.write(&change, &at(4)).unwrap();
    let crashed = copy(dir.path());
    drop(checkpoint);

    let (mut refused, mut unharmed) = (0, 0);
    for (dir, name) in [(dir.path(), "closed"), (crashed.path(), "crashed")] {
        let file = dir.join("state-1.redb");
        let good = fs::read(&file).unwrap();
        let used = good.len() - good.iter().rev().take_while(|byte| **byte == 0).count();
        // Densely over the header, then with a prime stride over all pages.
        for offset in (0..320).step_by(11).chain((320..used).step_by(used / 60)) {
            let mut bytes = good.clone();
            bytes[offset] ^= 1 << (offset % 8);
            fs::write(&file, bytes).unwrap();
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let (checkpoint, position) = open(dir)?;
                Ok::<_, Error>((position, load(&checkpoint)?))
            }));
            match outcome {
                Ok(Ok((position, rows))) => {
                    assert_eq!(position, at(4), "{name}: flip at {offset}");
                    assert!(rows == expected, "{name}: flip at {offset} was served");
                    unharmed += 1;
                }
                Ok(Err(e)) => {
                    assert!(
                        matches!(e, Error::Damaged { .. } | Error::Newer { .. } | Error::Older { .. }),
                        "{name}: flip at {offset}: {e}"
                    );
                    refused += 1;
                }
                Err(panic) => panic!("{name}: flip at {offset} panicked: {panic:?}"),
            }
        }
    }
    assert!(refused > 10, "refused={refused} unharmed={unharmed}");
}

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

/// The power goes at every single operation of two commits, and unsynced writes arrive, get lost or tear.
#[test]
fn power_loss_at_any_operation_leaves_one_commit_or_the_other() {
    lose_power_everywhere(Options::default(), 1, 10);
}

/// The same with a cache so small that every write goes in many parts.
#[test]
fn power_loss_between_the_parts_of_a_write_leaves_one_commit_or_the_other() {
    lose_power_everywhere(Options { cache_bytes: 64 * 1024, ..Options::default() }, 3, 20);
}

/// At every `step`th operation, which must be more than `operations_min`.
fn lose_power_everywhere(options: Options, step: u64, operations_min: u64) {
    let first = sample(40);
    let mut second: Vec<_> = (0..25).map(|i| put(Table::Keys, &format!("key/{i:06}"), &[i; 900])).collect();
    second.extend([remove(Table::Keys, "key/000030"), put(Table::Changes, "2", &[3; 5000])]);
    let third = vec![put(Table::Head, "", b"third"), put(Table::Changes, "3", &[9; 9000])];
    let mut states = vec![(Rows::new(), Position::default()), (rows_of(&first), at(1))];
    for (changes, position) in [(&second, at(2)), (&third, at(3))] {
        let mut rows = states.last().unwrap().0.clone();
        apply(&mut rows, changes);
        states.push((rows, position));
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let (mut operations, mut outcomes) = (0, [0; 2]);
    loop {
        let dir = TempDir::new().unwrap();
        let disk = Faulty::new();
        let (checkpoint, _) = Checkpoint::open_on(Arc::new(Disk(disk.clone())), dir.path(), options).unwrap();
        checkpoint.write(&first, &at(1)).unwrap();
        disk.power.store(operations, Ordering::Relaxed);
        let acknowledged = match checkpoint.write(&second, &at(2)) {
            Err(_) => 1,
            Ok(()) => 2 + usize::from(checkpoint.write(&third, &at(3)).is_ok()),
        };
        drop(checkpoint);
        let bytes = disk.image.lock().unwrap().after_power_loss(&mut random);
        fs::write(dir.path().join("state-1.redb"), bytes).unwrap();
        let (checkpoint, position) =
            open(dir.path()).unwrap_or_else(|e| panic!("operation {operations}: {e}"));
        let found = usize::try_from(position.applied.unwrap().index).unwrap();
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "operation {operations}: {found} {acknowledged}"
        );
        assert_eq!((load(&checkpoint).unwrap(), position), states[found], "operation {operations}");
        outcomes[found - acknowledged] += 1;
        if acknowledged == 3 {
            break;
        }
        operations += step;
    }
    assert!(operations > operations_min && outcomes[0] > 0, "{operations} {outcomes:?}");
}

/// redb would make parts durable on its own when it is closed between them; whoever opens that must notice.
#[test]
fn a_part_of_a_write_is_never_taken_for_the_whole() {
    let dir = TempDir::new().unwrap();
    let (checkpoint, _) = open(dir.path()).unwrap();
    checkpoint.write(&sample(10), &at(1)).unwrap();
    drop(checkpoint);
    let redb = redb::Database::open(dir.path().join("state-1.redb")).unwrap();
    let txn = redb.begin_write().unwrap();
    txn.open_table(redb::TableDefinition::<&[u8], &[u8]>::new("about"))
        .unwrap()
        .insert(&b"unfinished"[..], &b""[..])
        .unwrap();
    txn.commit().unwrap();
    drop(redb);
    let error = error(open(dir.path()));
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
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

#[test]
fn a_truncated_database_is_refused() {
    let dir = TempDir::new().unwrap();
    let (checkpoint, _) = open(dir.path()).unwrap();
    checkpoint.write(&sample(100), &at(1)).unwrap();
    drop(checkpoint);
    let file = dir.path().join("state-1.redb");
    let good = fs::read(&file).unwrap();
    for length in [0, 1, 63, 64, 319, 320, 4096, good.len() / 2, good.len() - 4096, good.len() - 1] {
        fs::write(&file, &good[..length]).unwrap();
        match open(dir.path()).and_then(|(checkpoint, position)| Ok((load(&checkpoint)?, position))) {
            Err(e) => assert!(matches!(e, Error::Damaged { .. }), "{length}: {e}"),
            // Cut behind the last page in use.
            Ok(state) => assert_eq!(state, (rows_of(&sample(100)), at(1)), "{length}"),
        }
    }
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
