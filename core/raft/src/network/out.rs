//! The bytes a connection still has to write, shared by everyone who writes to it.

/// Answers one request. May be used on any thread; the frame goes straight into the connection's buffer.
/// Dropped without an answer, it tells the peer so, rather than leave it to its deadline.
pub struct ReplySender {}

impl ReplySender {
    pub fn send(self, body: &[u8]) {
        self.send_with(|out| out.extend_from_slice(body));
    }

    /// As [`send`](Self::send), for a body that is encoded in place. `encode` must only append.
    pub fn send_with(self, encode: impl FnOnce(&mut Vec<u8>)) {
        let _ = encode;
        todo!()
    }
}
