//! Identities that travel as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A session: 63 bits, never zero, written as 16 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// The text or number is not a session id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a session id of 16 hex digits: text={0:?}")]
pub struct InvalidSessionId(pub String);

impl SessionId {
    /// `None` for zero and when the top bit is set.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        if id == 0 || id >> 63 == 1 { None } else { Some(Self(id)) }
    }

    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, InvalidSessionId> {
        let invalid = || InvalidSessionId(text.to_owned());
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        u64::from_str_radix(text, 16).ok().and_then(Self::new).ok_or_else(invalid)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:016x}", self.0))
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_hex_digits_and_nothing_else() {
        let id = SessionId::new(0x7587_d8aa).unwrap();
        assert_eq!(id.to_string(), "000000007587d8aa");
        assert_eq!("000000007587D8AA".parse(), Ok(id));
        assert_eq!(serde_json::from_str::<SessionId>("\"000000007587d8aa\"").unwrap(), id);
        for bad in
            ["", "7587d8aa", "0000000000000000", "8000000000000000", "+00000007587d8aa", "00000000 587d8aa"]
        {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }
}
