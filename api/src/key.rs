//! Keys in JSON: text where they are UTF-8, base64 where they are not.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

/// A key of the key-value family: any bytes. In JSON the member `key`, or `key_base64` if it is not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The key as text, if it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The members `key` and `key_base64`, of which exactly one is set.
    pub(crate) fn to_members(&self) -> (Option<String>, Option<String>) {
        match self.as_str() {
            Some(text) => (Some(text.to_owned()), None),
            None => (None, Some(BASE64.encode(&self.0))),
        }
    }

    /// The key from its two members. Both absent: `None`.
    ///
    /// # Errors
    /// Both present, or no base64.
    pub(crate) fn from_members(text: Option<String>, base64: Option<String>) -> Result<Option<Self>, String> {
        match (text, base64) {
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some(Self(text.into()))),
            (None, Some(encoded)) => match BASE64.decode(&encoded) {
                Ok(bytes) => Ok(Some(Self(bytes.into()))),
                Err(error) => Err(format!("key_base64 is not base64: {error}")),
            },
            (Some(_), Some(_)) => Err("key and key_base64 exclude each other".to_owned()),
        }
    }

    /// # Errors
    /// Neither present, both present, or no base64.
    pub(crate) fn require(text: Option<String>, base64: Option<String>) -> Result<Self, String> {
        Self::from_members(text, base64)?.ok_or_else(|| "key is missing".to_owned())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}
