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
    let (content_type, other) = match &record.content_type {
        ContentType::Text => (0, ""),
        ContentType::Binary => (1, ""),
        ContentType::Json => (2, ""),
        ContentType::Other(name) => (3, &***name),
    };
    // Numbers first, and all at once: what follows them is of the lengths that they say.
    let numbers = [
        record.create_revision.0,
        record.mod_revision.0,
        record.version,
        record.session.map_or(0, |session| session.0),
        content_type,
        key.as_bytes().len() as u64,
        other.len() as u64,
        record.value.len() as u64,
    ];
    scratch.clear();
    scratch.extend_from_slice(numbers.map(u64::to_le_bytes).as_flattened());
    scratch.extend_from_slice(key.as_bytes());
    scratch.extend_from_slice(other.as_bytes());
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
