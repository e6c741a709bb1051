//! Bounds that every node enforces alike. Public at `/v1/limits`.

/// Bytes of a key's name.
pub const KEY_BYTES: usize = 512;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 1024 * 1024;
/// Bytes of a metadata document.
pub const META_BYTES: usize = 4096;
/// Bytes of a name (session, lock, note, idempotency key at 255).
pub const NAME_BYTES: usize = 512;
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
/// Operations in one transaction, both branches counted together, and conditions likewise.
pub const OPERATIONS: usize = 128;
/// Keys deleted by one entry of a range delete.
pub const DELETE_SLICE: usize = 10_000;
/// Changes forgotten by one compaction entry.
pub const COMPACT_SLICE: usize = 10_000;
/// Sessions expired by one entry.
pub const EXPIRE_SLICE: usize = 256;
/// Sessions found stalled by one entry.
pub const STALL_SLICE: usize = 256;
/// Keys and claims removed by one expiry entry; a session is never split, the first is always taken.
pub const EXPIRE_KEYS: usize = 10_000;
/// Shortest and longest time to live of a session, in milliseconds.
pub const TTL_MS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;
/// Longest time a lock stays closed after the session that held it expired, in milliseconds.
pub const LOCK_DELAY_MS: u64 = 60_000;
/// Keys and claims attached to one session.
pub const HOLDS: usize = 1_000;
/// Idempotency records a principal, oldest dropped first.
pub const IDEMPOTENCY_RECORDS: usize = 100_000;
/// How long an idempotency record is kept, in milliseconds.
pub const IDEMPOTENCY_MS: u64 = 3_600_000;
/// Bytes of remembered replies a principal, oldest dropped first.
pub const IDEMPOTENCY_BYTES: usize = 64 * 1024 * 1024;
/// Bytes accounted for a key beside its name and value.
pub const KEY_OVERHEAD: usize = 192;
/// Bytes of a content type's name.
pub const CONTENT_TYPE_BYTES: usize = 255;
