//! Bytes of a key or a value: shared, or in place when they are few.

use std::cmp::Ordering;
use std::sync::Arc;

/// Most bytes that are stored in place: what fits beside their number into four words.
pub(crate) const IN_PLACE: usize = 30;

#[derive(Clone)]
pub(crate) enum Stored {
    /// How many there are, and the bytes, filled up with zeros.
    InPlace(u8, [u8; IN_PLACE]),
    Shared(Arc<[u8]>),
}

impl Stored {
    pub fn new(bytes: &[u8]) -> Self {
        if bytes.len() > IN_PLACE {
            return Self::Shared(bytes.into());
        }
        let mut stored = [0; IN_PLACE];
        stored[..bytes.len()].copy_from_slice(bytes);
        Self::InPlace(bytes.len().to_le_bytes()[0], stored)
    }

    /// These bytes, and then those of `rest`, one behind the other.
    pub fn joined(&self, rest: &[&[u8]]) -> Self {
        let length = rest.iter().fold(self.as_bytes().len(), |length, part| length + part.len());
        match self {
            Self::InPlace(filled, bytes) if length <= IN_PLACE => {
                let (mut bytes, mut filled) = (*bytes, usize::from(*filled));
                for part in rest {
                    bytes[filled..filled + part.len()].copy_from_slice(part);
                    filled += part.len();
                }
                Self::InPlace(length.to_le_bytes()[0], bytes)
            }
            Self::InPlace(..) | Self::Shared(_) => {
                let mut bytes = Vec::with_capacity(length);
                bytes.extend_from_slice(self.as_bytes());
                for part in rest {
                    bytes.extend_from_slice(part);
                }
                Self::Shared(bytes.into())
            }
        }
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(length, bytes) => &bytes[..usize::from(*length)],
            Self::Shared(bytes) => bytes,
        }
    }

    /// The bytes, to change them where they are.
    pub fn make_mut(&mut self) -> &mut [u8] {
        match self {
            Self::InPlace(length, bytes) => &mut bytes[..usize::from(*length)],
            Self::Shared(bytes) => Arc::make_mut(bytes),
        }
    }
}

impl PartialEq for Stored {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::InPlace(length, bytes), Self::InPlace(other_length, other)) => {
                length == other_length && bytes == other
            }
            _ => self.as_bytes() == other.as_bytes(),
        }
    }
}

impl Eq for Stored {}

impl PartialOrd for Stored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stored {
    /// That of the bytes. Where both are in place no call is made to compare memory.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // One that begins with the other differs from it in a byte that is not zero, or in its length alone.
            (Self::InPlace(length, bytes), Self::InPlace(other_length, other)) => {
                for at in [0, 8, 16, IN_PLACE - 8] {
                    let (number, other) = (number(bytes, at), number(other, at));
                    if number != other {
                        return number.cmp(&other);
                    }
                }
                length.cmp(other_length)
            }
            _ => self.as_bytes().cmp(other.as_bytes()),
        }
    }
}

/// Eight bytes as a number of the same order.
#[inline]
fn number(bytes: &[u8; IN_PLACE], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
