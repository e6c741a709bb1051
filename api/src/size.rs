//! Amounts of bytes as people write them: `64MiB`, `2GiB`, `1000`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An amount of bytes. Read with the units B, KiB, MiB, GiB, TiB, KB, MB, GB, TB or as a bare number of
/// bytes; written in the largest binary unit that divides it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// The text is not an amount of bytes, or is beyond 2^64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an amount of bytes such as 64MiB: text={0:?}")]
pub struct InvalidByteSize(pub String);

const BINARY: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const DECIMAL: [(&str, u64); 4] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1000)];

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, InvalidByteSize> {
        let digits = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim_start_matches(' ') {
            "" => Some(1),
            name => {
                BINARY.iter().chain(&DECIMAL).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, f)| *f)
            }
        };
        factor
            .and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| InvalidByteSize(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = BINARY
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        f.pad(&format!("{}{unit}", self.0 / factor))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of bytes such as \"64MiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            // TOML has only signed integers.
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                let unexpected = de::Unexpected::Signed(bytes);
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::invalid_value(unexpected, &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_both_ways() {
        for (text, bytes, canonical) in [
            ("0", 0, "0B"),
            ("1000", 1000, "1000B"),
            ("64MiB", 64 << 20, "64MiB"),
            ("2gib", 2 << 30, "2GiB"),
            ("2048 MiB", 2 << 30, "2GiB"),
            ("5KB", 5000, "5000B"),
            ("1536KiB", 1536 << 10, "1536KiB"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size, ByteSize(bytes), "{text}");
            assert_eq!(size.to_string(), canonical, "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5GiB", "1XB", "99999999999TiB", "1 M iB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn json_takes_text_and_numbers() {
        assert_eq!(serde_json::from_str::<ByteSize>("1024").unwrap(), ByteSize(1024));
        assert_eq!(serde_json::to_string(&ByteSize(1024)).unwrap(), "\"1KiB\"");
        assert!(serde_json::from_str::<ByteSize>("-1").is_err());
    }
}
