//! Newtypes for every identity and unit that crosses the store's border.

use std::fmt;
use std::hash::{Hash, Hasher};

use minicbor::{Decode, Encode};

use crate::stored::Stored;

/// The global counter of changes. The empty store is at revision 0, the first change makes revision 1; every
/// mutating entry takes one step and all its changes share it; an entry that changes nothing does not move it.
/// A fencing token is the revision of a grant. (The rules of etcd v3.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Revision(#[n(0)] pub u64);

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since the Unix epoch, as stamped into log entries by leaders. Never read from a clock here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] pub u64);

impl Timestamp {
    /// The instant `span` later; saturates at the end of time.
    #[must_use]
    pub fn after(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// A span of time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Millis(#[n(0)] pub u64);

/// A session: 63 bits chosen at random by the proposer, printed as 16 hex digits. Zero is never a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct SessionId(#[n(0)] pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for SessionId {
    type Err = ();

    /// Exactly 16 hex digits of either case, not zero, top bit clear.
    fn from_str(s: &str) -> Result<Self, ()> {
        if s.len() != 16 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(());
        }
        match u64::from_str_radix(s, 16) {
            Ok(id) if id != 0 && id >> 63 == 0 => Ok(Self(id)),
            _ => Err(()),
        }
    }
}

/// One address space of the store. Every stored key begins with the byte of its family, so that the keys of
/// one family cannot be named from another: a raw key-value write cannot reach the state of a recipe.
///
/// The store owns [`Family::KV`] and [`Family::SESSION`]; a [`crate::Program`] owns the others it declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(pub u8);

impl Family {
    /// Raw keys of users.
    pub const KV: Family = Family(b'k');
    /// Session records, one key per session: its eight bytes, big endian.
    pub const SESSION: Family = Family(b's');
}

/// A key: the family byte, then the name (any bytes, 1..=512 of them in the KV family). Cheap to clone.
///
/// A key is compared many times for each time it is made, mostly in ordered maps of many: a short one is stored in
/// place, so that comparing it touches no other memory, and is compared as a few numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Stored);

impl Key {
    /// The key `name` of `family`.
    #[must_use]
    pub fn new(family: Family, name: &[u8]) -> Self {
        Self(Stored::new(&[family.0]).joined(&[name]))
    }

    /// The key that begins with the bytes of this one and goes on with these: of something that belongs to it.
    #[must_use]
    pub fn within(&self, rest: &[&[u8]]) -> Self {
        Self(self.0.joined(rest))
    }

    /// The family it belongs to.
    #[must_use]
    pub fn family(&self) -> Family {
        Family(self.as_bytes()[0])
    }

    /// The name within the family.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.as_bytes()[1..]
    }

    /// Family byte and name together: the sort order of the store.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The first key after all that start with `prefix` (family byte first); `None` if nothing can follow.
    /// With the prefix of a range as its start, this is the range's end.
    #[must_use]
    pub fn after_prefix(prefix: &[u8]) -> Option<Self> {
        let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
        let mut after = Stored::new(&prefix[..=last]);
        after.make_mut()[last] += 1;
        Some(Self(after))
    }

    /// A key from its stored bytes; `None` if there is no family byte.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self(Stored::new(bytes)))
    }
}

/// As its bytes: it can be looked up by them.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl<C> Encode<C> for Key {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(self.as_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Key {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Key::from_bytes(d.bytes()?).ok_or_else(|| minicbor::decode::Error::message("a key without a family"))
    }
}

/// Bytes of a user: a value, a payload. Immutable, cheap to clone; a short one, such as most rows of recipes, is stored
/// in place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value(Stored);

impl Value {
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::ops::Deref for Value {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self(Stored::new(bytes))
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl<C> Encode<C> for Value {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(self)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Value {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(d.bytes()?.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::stored::IN_PLACE;

    #[test]
    fn keys_are_their_bytes_whether_in_place_or_not() {
        assert_eq!(size_of::<Key>(), 32);
        let names: Vec<Vec<u8>> = (0..IN_PLACE + 3)
            .flat_map(|length| [0, 7, u8::MAX].map(|byte| vec![byte; length]))
            .chain([b"a/".repeat(20), b"a/".repeat(21)])
            .collect();
        let keys: Vec<_> = names.iter().map(|name| Key::new(Family::KV, name)).collect();
        let map: BTreeMap<_, _> = keys.iter().map(|key| (key.clone(), key)).collect();
        for (key, name) in keys.iter().zip(&names) {
            assert_eq!((key.family(), key.name()), (Family::KV, &name[..]));
            assert_eq!(Key::from_bytes(key.as_bytes()).as_ref(), Some(key));
            assert_eq!(map.get(key.as_bytes()), Some(&key), "found by its bytes");
            for other in &keys {
                assert_eq!(key.cmp(other), key.as_bytes().cmp(other.as_bytes()));
                assert_eq!(key == other, key.as_bytes() == other.as_bytes());
            }
        }
        assert_eq!(Key::from_bytes(&[]), None);
    }
}
