//! A snapshot on its way to a peer: chunks on a connection of its own.

use std::io;

use bytes::Bytes;

/// A complete snapshot that can be read at any place, by several transfers at once.
pub trait Outgoing: Send + Sync + 'static {
    fn bytes(&self) -> u64;

    /// Read at most `max` bytes at `offset`; fewer only at the end. Called on a thread that may block.
    ///
    /// # Errors
    /// The transfer stops and is retried.
    fn read(&self, offset: u64, max: usize) -> io::Result<Bytes>;
}

/// A snapshot being received. Dropped unfinished, it leaves nothing behind.
pub trait Incoming: Send + 'static {
    type Snapshot: Send + 'static;

    /// Append a chunk. Called on a thread that may block.
    ///
    /// # Errors
    /// The transfer stops and is retried.
    fn write(&mut self, chunk: &[u8]) -> io::Result<()>;

    /// Verify and make durable what was received. Called on a thread that may block.
    ///
    /// # Errors
    /// The transfer stops and is retried.
    fn finish(self) -> io::Result<Self::Snapshot>;
}
