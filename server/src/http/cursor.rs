//! Cursors: where a list goes on, and at which revision; opaque to clients.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use coracle_api::{Code, Problem};
use coracle_store::Revision;

use super::problem::{Answer, Refused, bad_query};

const FORMAT: u8 = 1;
const HEAD: usize = 1 + 8 + 8 + 4;

/// The end of one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Revision of the whole list.
    pub revision: Revision,
    /// Hash of the parameters: a cursor goes on with the list it came from, and no other.
    pub list: u64,
    /// Last name of the page before.
    pub last: Vec<u8>,
}

impl Cursor {
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(HEAD + self.last.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.revision.0.to_be_bytes());
        bytes.extend_from_slice(&self.list.to_be_bytes());
        bytes.extend_from_slice(&self.last);
        bytes.extend_from_slice(&checksum(&bytes));
        BASE64.encode(bytes)
    }

    /// # Errors
    /// Not a cursor, or one of another list.
    pub fn decode(text: &str, list: u64) -> Answer<Self> {
        let forged = || bad_query("cursor", "not a cursor of this server");
        if text.len() > 2048 {
            return Err(forged());
        }
        let bytes = BASE64.decode(text).map_err(|_| forged())?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(forged)?;
        if body.len() < HEAD - 4 || body[0] != FORMAT || checksum(body) != *sum {
            return Err(forged());
        }
        let number =
            |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().expect("the length was checked"));
        let cursor = Self { revision: Revision(number(1)), list: number(9), last: body[17..].to_vec() };
        if cursor.list == list {
            Ok(cursor)
        } else {
            Err(bad_query("cursor", "of a list with other parameters"))
        }
    }
}

/// The revision of the list is no longer kept.
pub fn expired(oldest: Revision) -> Refused {
    Problem::new(
        Code::CursorExpired,
        format!("the list's revision is compacted, begin again compact_revision={oldest}"),
    )
    .with("compact_revision", oldest.0)
    .into()
}

/// Hash of what makes a list the same list.
pub fn list_hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest()
}

/// Against accidents, not against forgers: a cursor grants nothing.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let hash = xxhash_rust::xxh3::xxh3_64(bytes).to_be_bytes();
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_and_nothing_else_is_one() {
        let cursor = Cursor { revision: Revision(41), list: 7, last: b"app/\xff".to_vec() };
        let text = cursor.encode();
        assert_eq!(Cursor::decode(&text, 7).unwrap(), cursor);
        assert!(Cursor::decode(&text, 8).unwrap_err().0.detail.contains("other parameters"));
        let mut changed = text.clone();
        changed.replace_range(3..4, if &text[3..4] == "A" { "B" } else { "A" });
        for forged in ["", "x", "!!!", &text[1..], &changed, &"A".repeat(3000), &BASE64.encode([FORMAT; 20])]
        {
            assert!(Cursor::decode(forged, 7).is_err(), "{forged}");
        }
    }
}
