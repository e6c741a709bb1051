//! Crashes and power loss between any two steps: one commit or the other, never a mixture.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coracle_raft::checkpoint::{Checkpoint, Error, Options, Position};
use coracle_raft::snapshot::{Spool, stage};
use coracle_store::checkpoint::Table;
use tempfile::TempDir;

use super::*;
use crate::faulty::{Disk, Faulty};

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
