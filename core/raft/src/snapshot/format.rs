//! The bytes of a snapshot file.
//!
//! ```text
//! header  magic (8) · format (4) · length of position (4) · position · CRC32C of all of it (4)
//! chunk   kind 1 (4) · raw length (4) · stored length (4) · CRC32C of the three and of what follows (4) · LZ4 block
//! footer  kind 2 (4) · chunks (8) · rows of each table (4 × 8) · XXH3-128 of everything before the footer (16) ·
//!         CRC32C of the footer (4), and then the end of the file
//! row     table (1) · key length (4) · value length (4) · key · value; in a chunk, strictly ascending by table and key
//! ```
//! All integers are little-endian. A row lies in one chunk; a chunk ends with the row that fills it.

pub(super) const MAGIC: [u8; 8] = *b"CORASNAP";
/// Version of this layout, of the position in the header, and of the rows themselves.
pub const FORMAT: u32 = 2;
pub(super) const CHUNK: u32 = 1;
pub(super) const FOOTER: u32 = 2;
/// A chunk is closed when it has grown to this.
pub(super) const CHUNK_BYTES: usize = 1024 * 1024;
/// No chunk is longer, so that no length read from a file can ask for more memory.
pub(super) const CHUNK_BYTES_MAX: usize = 64 * 1024 * 1024;
pub(super) const POSITION_BYTES_MAX: usize = 1024 * 1024;
pub(super) const HEADER: usize = 16;
pub(super) const CHUNK_HEAD: usize = 16;
pub(super) const TABLES: usize = 4;
pub(super) const FOOTER_BYTES: usize = 4 + 8 + TABLES * 8 + 16 + 4;
pub(super) const ROW_HEAD: usize = 9;

/// How many chunks and rows a snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub chunks: u64,
    /// By table number.
    pub rows: [u64; TABLES],
}

pub(super) fn u32_of(length: usize) -> u32 {
    u32::try_from(length).expect("lengths in a chunk are bounded by CHUNK_BYTES_MAX")
}

pub(super) fn chunk_crc(head: &[u8], stored: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), stored)
}
