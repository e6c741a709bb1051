//! The state hash: what every node must agree on at a revision.
//!
//! The hash of a state is built from the wrapping sum of its rows' hashes, so that one changed key costs two row
//! hashes and never a scan. Only what a revision determines goes in: log time, compaction, settings and remembered
//! replies may move without a new revision and stay out.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::ids::{Key, Revision};
use crate::record::{ContentType, Record};

/// Values above this go in as their own digest, so that the row need not be copied.
const INLINE_BYTES: usize = 1024;

/// Hash of one row. `scratch` is only there to be reused.
pub(crate) fn row(key: &Key, record: &Record, scratch: &mut Vec<u8>) -> u128 {
    scratch.clear();
    length(scratch, key.as_bytes());
    scratch.extend_from_slice(key.as_bytes());
    for number in [
        record.create_revision.0,
        record.mod_revision.0,
        record.version,
        record.session.map_or(0, |session| session.0),
    ] {
        scratch.extend_from_slice(&number.to_le_bytes());
    }
    match &record.content_type {
        ContentType::Text => scratch.push(0),
        ContentType::Binary => scratch.push(1),
        ContentType::Json => scratch.push(2),
        ContentType::Other(name) => {
            scratch.push(3);
            length(scratch, name.as_bytes());
            scratch.extend_from_slice(name.as_bytes());
        }
    }
    length(scratch, &record.value);
    if record.value.len() > INLINE_BYTES {
        scratch.extend_from_slice(&xxh3_128(&record.value).to_le_bytes());
    } else {
        scratch.extend_from_slice(&record.value);
    }
    xxh3_128(scratch)
}

/// Hash of a state: the sum of its rows with the counters that a revision determines.
pub(crate) fn state(rows: u128, revision: Revision, epoch: u64) -> u128 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&rows.to_le_bytes());
    bytes[16..24].copy_from_slice(&revision.0.to_le_bytes());
    bytes[24..].copy_from_slice(&epoch.to_le_bytes());
    xxh3_128(&bytes)
}

/// Append a checksum to an encoded row that the state hash does not cover.
pub(crate) fn seal(bytes: &mut Vec<u8>) {
    let sum = xxh3_64(bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
}

/// The bytes before the checksum, if it is right.
pub(crate) fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (bytes, sum) = sealed.split_last_chunk::<8>()?;
    (xxh3_64(bytes) == u64::from_le_bytes(*sum)).then_some(bytes)
}

fn length(scratch: &mut Vec<u8>, bytes: &[u8]) {
    scratch.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
}
