//! Damaged, foreign, rolled-back and incomplete directories are refused, and told apart from a torn tail.

use std::path::{Path, PathBuf};

use coracle_raft::files::sim::{Loss, SimDisk};
use coracle_raft::wal::{Identity, Options, Recovered, Wal, WalError};
use openraft::storage::RaftLogStorage;

use super::fixture::{IDENTITY, append, dir, entries, entry, id, open, open_with, options, run, view, vote};

const HEADER: usize = 4096;

fn segment(number: u64) -> PathBuf {
    dir().join(format!("{number:016x}.log"))
}

fn mark() -> PathBuf {
    dir().join("high-water")
}

/// A log in one segment: a vote, then six batches of one or two entries. Answers the end of each batch.
fn six_batches(disk: &SimDisk) -> Vec<usize> {
    let (wal, _) = open(disk).expect("a new log opens");
    run(async {
        wal.clone().save_vote(&vote(1)).await.expect("the vote is saved");
        let mut ends = Vec::new();
        for batch in 0..6 {
            append(&wal, entries(1, batch * 2..batch * 2 + 1 + batch % 2, 30)).await.expect("durable");
            if batch % 2 == 0 {
                append(&wal, vec![entry(1, batch * 2 + 1, 50)]).await.expect("durable");
            }
            ends.push(HEADER + usize::try_from(wal.log_bytes()).expect("small"));
        }
        ends
    })
}

/// A healthy disk with the same files.
fn copy(image: &[(PathBuf, Vec<u8>)]) -> SimDisk {
    use coracle_raft::files::Files;
    let disk = SimDisk::new(1);
    disk.create_dir(dir()).expect("healthy");
    for (path, bytes) in image {
        disk.set_contents(path, bytes);
    }
    disk
}

fn with_change(image: &[(PathBuf, Vec<u8>)], path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
    let disk = copy(image);
    let mut bytes = disk.contents(path).expect("the file is in the image");
    change(&mut bytes);
    disk.set_contents(path, &bytes);
    disk
}

fn open_error(disk: &SimDisk) -> WalError {
    match open(disk) {
        Ok((_, recovered)) => panic!("opened a log it should have refused: {recovered:?}"),
        Err(e) => e,
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let disk = SimDisk::new(1);
    let ends = six_batches(&disk);
    let (end, image) = (ends[5], disk.image());
    // The whole header and every byte of every record: the mark knows how far the log once went.
    for at in (0..160).chain((160..HEADER).step_by(61)).chain(HEADER..end) {
        let damaged = with_change(&image, &segment(1), |bytes| bytes[at] ^= 0x20);
        let refused = open_error(&damaged);
        let expected = matches!(
            refused,
            WalError::Corrupt { .. } | WalError::RolledBack { .. } | WalError::NewerFormat { .. }
        );
        assert!(expected, "offset={at}: {refused}");
        assert_eq!(
            damaged.contents(&segment(1)).map(|b| b[at]),
            Some(image_byte(&image, at) ^ 0x20),
            "left as found"
        );
    }
}

fn image_byte(image: &[(PathBuf, Vec<u8>)], at: usize) -> u8 {
    image.iter().find(|(path, _)| *path == segment(1)).expect("the segment is in the image").1[at]
}

#[test]
fn a_broken_record_with_a_later_batch_behind_it_is_corruption() {
    let disk = SimDisk::new(1);
    let ends = six_batches(&disk);
    let image = disk.image();
    // Even if the mark knew nothing.
    for at in HEADER..ends[4] {
        let damaged = with_change(&image, &segment(1), |bytes| bytes[at] ^= 1);
        damaged.set_contents(&mark(), &zero_mark());
        match open_error(&damaged) {
            WalError::Corrupt { path, offset, .. } => {
                assert_eq!(path, segment(1));
                assert!(offset <= at as u64, "offset={offset} damaged={at}");
            }
            other => panic!("offset={at}: {other}"),
        }
    }
}

/// The high-water file of a log that has just been made.
fn zero_mark() -> Vec<u8> {
    let disk = SimDisk::new(9);
    // The first write of the mark is the third operation after creation and allocation, its sync the fourth.
    disk.crash_after(4);
    assert!(open(&disk).is_err());
    disk.restart(Loss::Nothing);
    disk.contents(&mark()).expect("the mark was written")
}

#[test]
fn a_record_in_the_place_of_another_is_noticed() {
    let disk = SimDisk::new(1);
    let (wal, _) = open(&disk).expect("opens");
    run(async {
        for term in 1..4 {
            wal.clone().save_vote(&vote(term)).await.expect("durable");
        }
        append(&wal, vec![entry(3, 0, 10)]).await.expect("durable");
    });
    drop(wal);
    // Three votes of 40 bytes each: the first, valid by itself, now stands where the second was.
    let stale =
        with_change(&disk.image(), &segment(1), |bytes| bytes.copy_within(HEADER..HEADER + 40, HEADER + 40));
    match open_error(&stale) {
        WalError::Corrupt { path, offset, .. } => {
            assert_eq!((path, offset), (segment(1), HEADER as u64 + 40));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_torn_last_batch_is_cut_off() {
    let disk = SimDisk::new(1);
    let ends = six_batches(&disk);
    let image = disk.image();
    let whole = run(view(&open(&copy(&image)).expect("the copy opens").0));
    // The last batch is entries 10 and 11. Nobody was told about them if the mark does not know them.
    for at in ends[4]..ends[5] {
        let damaged = with_change(&image, &segment(1), |bytes| bytes[at] ^= 1);
        damaged.set_contents(&mark(), &zero_mark());
        let (wal, recovered) = open(&damaged).unwrap_or_else(|e| panic!("offset={at}: {e}"));
        let last = recovered.stamp.last.expect("entries").index;
        assert!(last == 9 || last == 10, "offset={at} last={last}");
        run(async {
            let mut expected = whole.clone();
            expected.truncate(recovered.stamp.last);
            assert_eq!(view(&wal).await, expected, "offset={at}");
            append(&wal, vec![entry(2, last + 1, 10)]).await.expect("the log goes on");
        });
        drop(wal);
        let (_, again) = open(&damaged).expect("and opens again");
        assert_eq!(again.stamp.last, Some(id(2, last + 1)));
    }
}

#[test]
fn leftovers_of_a_torn_batch_never_come_back() {
    let disk = SimDisk::new(1);
    let (wal, _) = open(&disk).expect("a new log opens");
    run(append(&wal, vec![entry(1, 0, 2000), entry(1, 1, 10), entry(1, 2, 10)])).expect("durable");
    drop(wal);
    // As if the power had failed before the sync: the second sector of the batch is lost, its end is there.
    let torn = with_change(&disk.image(), &segment(1), |bytes| bytes[HEADER + 512..HEADER + 1024].fill(0));
    torn.set_contents(&mark(), &zero_mark());
    let (wal, recovered) = open(&torn).expect("a torn tail is no damage");
    assert_eq!((recovered.stamp.last, recovered.torn), (None, true));
    // The leader sends the first entry again, byte for byte what was torn.
    run(append(&wal, vec![entry(1, 0, 2000)])).expect("durable");
    drop(wal);
    let (_, recovered) = open(&torn).expect("opens");
    assert_eq!(recovered.stamp.last, Some(id(1, 0)), "entries 1 and 2 were not sent again");
}

/// Four segments and more, with purges, so that files have been used again.
fn several_segments(disk: &SimDisk, purge: bool) -> (Wal, Recovered) {
    let (wal, recovered) = open(disk).expect("a new log opens");
    run(async {
        for index in 0..40 {
            append(&wal, vec![entry(1, index, 1000)]).await.expect("durable");
            if purge && index % 5 == 4 {
                wal.clone().purge(id(1, index - 2)).await.expect("queued");
            }
        }
    });
    (wal, recovered)
}

#[test]
fn damage_in_the_middle_of_the_log_is_refused() {
    let disk = SimDisk::new(1);
    let (wal, _) = several_segments(&disk, false);
    assert!(wal.segments() >= 3);
    drop(wal);
    let image = disk.image();
    let refused = |disk: SimDisk, what: &str| match open_error(&disk) {
        WalError::Corrupt { .. } => {}
        other => panic!("{what}: {other}"),
    };
    match open_error(&with_change(&image, &segment(2), |bytes| bytes[9000..].fill(0))) {
        WalError::Corrupt { path, offset, .. } => assert_eq!((path, offset < 9000), (segment(2), true)),
        other => panic!("the end of a middle segment is lost: {other}"),
    }
    refused(with_change(&image, &segment(2), |bytes| bytes.truncate(9000)), "a middle segment is cut short");
    refused(with_change(&image, &segment(2), Vec::clear), "a middle segment is empty");
    let whole = copy(&image);
    whole.set_contents(&segment(2), &whole.contents(&segment(1)).expect("there"));
    refused(whole, "a segment stands in the place of another");
    for (number, what) in [(1, "the first is missing"), (2, "a middle one is missing")] {
        let incomplete = copy(&image);
        incomplete.forget(&segment(number));
        refused(incomplete, what);
    }
    let unmarked = copy(&image);
    unmarked.forget(&mark());
    refused(unmarked, "the mark is missing");
    refused(with_change(&image, &mark(), |bytes| bytes.fill(7)), "the mark is damaged");
}

#[test]
fn a_log_that_went_backwards_is_refused() {
    let disk = SimDisk::new(1);
    six_batches(&disk);
    let old = disk.contents(&segment(1)).expect("there");
    let (wal, _) = open(&disk).expect("opens");
    run(append(&wal, vec![entry(1, 12, 10)])).expect("durable");
    drop(wal);
    let image = disk.image();

    let restored = copy(&image);
    restored.set_contents(&segment(1), &old);
    assert!(matches!(open_error(&restored), WalError::RolledBack { .. }));
    let wiped = copy(&image);
    wiped.forget(&segment(1));
    assert!(matches!(open_error(&wiped), WalError::RolledBack { .. }));

    // A vote alone counts as well.
    let (wal, _) = open(&disk).expect("opens");
    run(async { wal.clone().save_vote(&vote(2)).await }).expect("durable");
    drop(wal);
    let restored = copy(&disk.image());
    let before = image.iter().find(|(path, _)| *path == segment(1)).expect("there");
    restored.set_contents(&segment(1), &before.1);
    match open_error(&restored) {
        e @ WalError::RolledBack { .. } => assert!(e.to_string().contains("went backwards"), "{e}"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_truncation_is_not_mistaken_for_a_loss() {
    let disk = SimDisk::new(1);
    six_batches(&disk);
    let (wal, _) = open(&disk).expect("opens");
    run(async {
        wal.clone().truncate_after(Some(id(1, 3))).await.expect("queued");
        wal.clone().save_vote(&vote(2)).await.expect("durable");
    });
    drop(wal);
    let (_, recovered) = open(&disk).expect("opens");
    assert_eq!(recovered.stamp.last, Some(id(1, 3)));
    assert_eq!(recovered.entries, 4);
}

#[test]
fn a_foreign_log_is_refused() {
    let disk = SimDisk::new(1);
    six_batches(&disk);
    for identity in [Identity { node: 8, ..IDENTITY }, Identity { cluster: 1, ..IDENTITY }] {
        match open_with(&disk, Options { identity, ..options() }) {
            Err(WalError::Foreign { found, expected, .. }) => {
                assert_eq!((found, expected), (IDENTITY, identity));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_newer_format_is_refused() {
    let disk = SimDisk::new(1);
    six_batches(&disk);
    let newer = with_change(&disk.image(), &segment(1), |bytes| bytes[8] = 2);
    match open_error(&newer) {
        e @ WalError::NewerFormat { found: 2, known: 1, .. } => {
            assert!(e.to_string().contains("upgrade"), "{e}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_second_process_is_refused() {
    let disk = SimDisk::new(1);
    let (wal, _) = open(&disk).expect("opens");
    assert!(matches!(open_error(&disk), WalError::Locked { .. }));
    drop(wal);
    open(&disk).expect("opens once the first is gone");

    let real = tempfile::tempdir().expect("a temporary directory");
    let files = coracle_raft::files::native();
    let (wal, _) = Wal::open(files.clone(), real.path(), options()).expect("opens");
    match Wal::open(files.clone(), real.path(), options()) {
        Err(e @ WalError::Locked { .. }) => {
            assert!(e.to_string().starts_with("data directory locked"), "{e}");
        }
        other => panic!("{other:?}"),
    }
    drop(wal);
    Wal::open(files, real.path(), options()).expect("opens once the first is gone");
}

#[test]
fn stale_records_of_a_recycled_file_are_not_read() {
    let disk = SimDisk::new(1);
    let (wal, _) = several_segments(&disk, true);
    assert!(wal.stats().recycled_segments() > 1, "no file was used again");
    drop(wal);
    // Wherever the log ends, what follows are records of an earlier life of the file.
    for index in 40..60 {
        let (wal, recovered) = open(&disk).unwrap_or_else(|e| panic!("index={index}: {e}"));
        assert_eq!(recovered.stamp.last, Some(id(1, index - 1)));
        assert!(!recovered.torn);
        let found = run(view(&wal));
        assert!(found.entries.values().all(|e| *e == entry(1, e.log_id.index, 1000)));
        run(append(&wal, vec![entry(1, index, 1000)])).expect("durable");
        run(async { wal.clone().purge(id(1, index - 3)).await }).expect("queued");
    }
}
