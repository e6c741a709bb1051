//! Frames: length (u32, of what follows), kind (u8), request id (u64), body. Integers are little-endian.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf, WriteHalf};

use super::counters::{Counted, Counters};
use super::stream::Stream;

/// Largest kind, id and body together. Above the largest batch of log entries and the largest forwarded command.
pub const FRAME_MAX: usize = 64 << 20;

/// As much as a peer may send before it has introduced itself.
pub const GREETING_MAX: usize = 1 << 10;

/// Kind and id.
const OVERHEAD: usize = 9;
const PREFIX: usize = 4;
const READ_BUFFER: usize = 64 << 10;

/// What a body is. Codes are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Hello,
    Reject,
    /// Say hello again: the last one may be out of date.
    Again,
    Ping,
    Pong,
    Append,
    /// An append without entries that wants no answer: what is committed.
    Commit,
    Vote,
    PreVote,
    Transfer,
    Forward,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    /// The answer to the request of the same id.
    Reply,
    /// Text: why there is no answer.
    Failed,
}

const KINDS: [(u8, Kind); 16] = [
    (1, Kind::Hello),
    (2, Kind::Reject),
    (3, Kind::Again),
    (4, Kind::Ping),
    (5, Kind::Pong),
    (16, Kind::Append),
    (24, Kind::Commit),
    (17, Kind::Vote),
    (18, Kind::PreVote),
    (19, Kind::Transfer),
    (20, Kind::Forward),
    (21, Kind::SnapshotBegin),
    (22, Kind::SnapshotChunk),
    (23, Kind::SnapshotEnd),
    (32, Kind::Reply),
    (33, Kind::Failed),
];

impl Kind {
    const fn code(self) -> u8 {
        KINDS[self as usize].0
    }

    fn from_code(code: u8) -> Option<Self> {
        KINDS.iter().find(|(c, _)| *c == code).map(|(_, kind)| *kind)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub id: u64,
    pub body: Bytes,
}

/// A body above [`FRAME_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// Append a frame whose body `encode` appends. On error nothing is appended.
pub fn put_frame(
    out: &mut Vec<u8>,
    kind: Kind,
    id: u64,
    encode: impl FnOnce(&mut Vec<u8>),
) -> Result<(), TooLarge> {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind.code());
    out.put_u64_le(id);
    encode(out);
    let length = out.len() - start - PREFIX;
    if length > FRAME_MAX {
        out.truncate(start);
        return Err(TooLarge);
    }
    let length = u32::try_from(length).expect("below the cap");
    out[start..start + PREFIX].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Keep only the frames that `keep` says, by id. For what was queued and will not be sent.
pub fn retain_frames(out: &mut Vec<u8>, mut keep: impl FnMut(u64) -> bool) {
    let (mut read, mut written) = (0, 0);
    while read < out.len() {
        let prefix: [u8; PREFIX] = out[read..read + PREFIX].try_into().expect("own frames are whole");
        let id: [u8; 8] = out[read + PREFIX + 1..][..8].try_into().expect("own frames are whole");
        let end = read + PREFIX + u32::from_le_bytes(prefix) as usize;
        if keep(u64::from_le_bytes(id)) {
            out.copy_within(read..end, written);
            written += end - read;
        }
        read = end;
    }
    out.truncate(written);
}

/// The two halves of a connection that has been greeted on.
pub type Reader = FrameReader<Counted<ReadHalf<Stream>>>;
pub type Writer = Counted<WriteHalf<Stream>>;

impl FrameReader<Stream> {
    /// Read and write at the same time.
    pub fn split(self, counters: &Arc<Counters>) -> (Reader, Writer) {
        let Self { inner, buffer, partial, max } = self;
        let (inner, writer) = tokio::io::split(inner);
        let inner = Counted::new(inner, counters.clone());
        (FrameReader { inner, buffer, partial, max }, Counted::new(writer, counters.clone()))
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Reads frames. Each body is an allocation of its own, of exactly its size: what keeps a slice of it keeps nothing else.
pub struct FrameReader<R> {
    inner: R,
    buffer: BytesMut,
    /// The body of a frame larger than the buffer, and its full size.
    partial: Option<(BytesMut, usize)>,
    max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Accepts only small frames until [`trust`](Self::trust).
    pub fn new(inner: R) -> Self {
        Self { inner, buffer: BytesMut::new(), partial: None, max: GREETING_MAX }
    }

    /// The peer has introduced itself.
    pub fn trust(&mut self) {
        self.max = FRAME_MAX;
    }

    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The next frame; `None` if the peer closed between frames. Cancel-safe.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some((partial, size)) = &mut self.partial {
                while partial.len() < *size {
                    let missing = *size - partial.len();
                    let read = self.inner.read_buf(&mut (&mut *partial).limit(missing)).await?;
                    if read == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                let (partial, _) = self.partial.take().expect("checked");
                return frame(partial.freeze()).map(Some);
            }
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            if self.partial.is_some() {
                continue;
            }
            self.buffer.reserve(READ_BUFFER);
            let read = self.inner.read_buf(&mut self.buffer).await?;
            if read == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// A frame that is wholly in the buffer. Moves the beginning of a large one to `partial`.
    fn buffered(&mut self) -> io::Result<Option<Frame>> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let size = u32::from_le_bytes(*prefix) as usize;
        if size > self.max {
            return Err(invalid(oversize(*prefix, size)));
        }
        if size < OVERHEAD {
            return Err(invalid("frame shorter than its header"));
        }
        let present = self.buffer.len() - PREFIX;
        if present >= size {
            let body = Bytes::copy_from_slice(&self.buffer[PREFIX..PREFIX + size]);
            self.buffer.advance(PREFIX + size);
            return frame(body).map(Some);
        }
        if size > READ_BUFFER {
            let mut partial = BytesMut::with_capacity(size);
            partial.extend_from_slice(&self.buffer[PREFIX..]);
            self.buffer.clear();
            self.partial = Some((partial, size));
        }
        Ok(None)
    }
}

/// Words for the log of who runs into it.
fn oversize(prefix: [u8; PREFIX], size: usize) -> String {
    if prefix[..2] == [0x16, 0x03] {
        "the other side speaks TLS and this one does not".into()
    } else {
        format!("frame too large bytes={size}")
    }
}

fn frame(mut bytes: Bytes) -> io::Result<Frame> {
    let code = bytes.get_u8();
    let kind = Kind::from_code(code).ok_or_else(|| invalid(format!("unknown frame kind={code}")))?;
    let id = bytes.get_u64_le();
    Ok(Frame { kind, id, body: bytes })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8], trusted: bool) -> (Vec<Frame>, io::Result<()>) {
        let mut reader = FrameReader::new(bytes);
        if trusted {
            reader.trust();
        }
        let mut frames = Vec::new();
        let all = async {
            while let Some(frame) = reader.next().await? {
                frames.push(frame);
            }
            Ok(())
        };
        let end = all.now_or_never().expect("a slice is always ready");
        (frames, end)
    }

    #[test]
    fn kinds_are_in_the_order_of_their_table() {
        for (code, kind) in KINDS {
            assert_eq!((kind.code(), Kind::from_code(code)), (code, Some(kind)));
        }
    }

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        put_frame(&mut out, Kind::Forward, 0x0102, |out| out.extend_from_slice(b"hi")).unwrap();
        assert_eq!(out, [11, 0, 0, 0, 20, 2, 1, 0, 0, 0, 0, 0, 0, b'h', b'i']);
    }

    #[test]
    fn lengths_are_checked_before_allocating() {
        let (_, end) = read_all(&[0xff; 64], true);
        assert_eq!(end.unwrap_err().to_string(), "frame too large bytes=4294967295");
        let (_, end) = read_all(&[0x16, 0x03, 0x01, 0x02, 0x00], false);
        assert_eq!(end.unwrap_err().to_string(), "the other side speaks TLS and this one does not");
        let (_, end) = read_all(&[8, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], true);
        assert_eq!(end.unwrap_err().to_string(), "frame shorter than its header");
        let mut out = Vec::new();
        put_frame(&mut out, Kind::Hello, 0, |out| out.resize(out.len() + GREETING_MAX, 0)).unwrap();
        let (_, end) = read_all(&out, false);
        assert!(end.unwrap_err().to_string().starts_with("frame too large"));
    }

    #[test]
    fn a_body_above_the_cap_is_not_written() {
        let mut out = vec![7];
        let result = put_frame(&mut out, Kind::Reply, 1, |out| out.resize(FRAME_MAX + 10, 0));
        assert_eq!((result, out), (Err(TooLarge), vec![7]));
    }

    fn bodies() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
        let body = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..200),
            1 => (60_000_usize..150_000, any::<u8>()).prop_map(|(n, b)| vec![b; n]),
        ];
        prop::collection::vec((any::<u64>(), body), 0..6)
    }

    proptest! {
        #[test]
        fn frames_survive(bodies in bodies()) {
            let mut out = Vec::new();
            for (id, body) in &bodies {
                put_frame(&mut out, Kind::Reply, *id, |out| out.extend_from_slice(body)).unwrap();
            }
            let (frames, end) = read_all(&out, true);
            prop_assert!(end.is_ok());
            let found: Vec<_> = frames.into_iter().map(|f| (f.id, f.body.to_vec())).collect();
            prop_assert_eq!(found, bodies);
        }

        #[test]
        fn a_cut_anywhere_is_an_error_or_a_clean_end(bodies in bodies(), cut in any::<prop::sample::Index>()) {
            let mut out = Vec::new();
            let mut ends = vec![0];
            for (id, body) in &bodies {
                put_frame(&mut out, Kind::Reply, *id, |out| out.extend_from_slice(body)).unwrap();
                ends.push(out.len());
            }
            let cut = cut.index(out.len() + 1);
            let (frames, end) = read_all(&out[..cut], true);
            prop_assert_eq!(end.is_ok(), ends.contains(&cut));
            prop_assert_eq!(frames.len(), ends.iter().filter(|end| **end != 0 && **end <= cut).count());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), trusted: bool) {
            let _ = read_all(&bytes, trusted);
        }

        #[test]
        fn retained_frames_stay_whole(bodies in bodies(), odd: bool) {
            let mut out = Vec::new();
            for (n, (_, body)) in bodies.iter().enumerate() {
                put_frame(&mut out, Kind::Reply, n as u64, |out| out.extend_from_slice(body)).unwrap();
            }
            retain_frames(&mut out, |id| (id % 2 == 1) == odd);
            let found: Vec<_> = read_all(&out, true).0.into_iter().map(|f| f.body.to_vec()).collect();
            let expected: Vec<_> = bodies.iter().enumerate().filter(|(n, _)| (n % 2 == 1) == odd).map(|(_, b)| b.1.clone()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
