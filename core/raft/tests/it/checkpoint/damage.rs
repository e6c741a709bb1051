//! Damage of any byte, lost files, other formats: refused as such, never served.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use coracle_raft::checkpoint::{Error, FORMAT};
use coracle_raft::snapshot::Spool;
use coracle_store::checkpoint::Table;
use tempfile::TempDir;

use super::*;

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
