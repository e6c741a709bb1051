//! Instants as RFC 3339 text in UTC.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment of wall-clock time, in whole milliseconds since the Unix epoch. Written as
/// `2026-11-22T05:40:11Z`, with a fraction only where there is one; read with any offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(jiff::Timestamp);

/// The text is not an instant such as `2026-11-22T05:40:11Z`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an instant such as 2026-11-22T05:40:11Z: text={0:?}")]
pub struct InvalidInstant(pub String);

impl Instant {
    /// The instant `ms` after the Unix epoch, cut to the last instant of the year 9999.
    #[must_use]
    pub fn from_unix_ms(ms: u64) -> Self {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        Self(jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX))
    }

    /// Milliseconds since the Unix epoch; zero for instants before it.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        u64::try_from(self.0.as_millisecond()).unwrap_or(0)
    }
}

impl FromStr for Instant {
    type Err = InvalidInstant;

    fn from_str(text: &str) -> Result<Self, InvalidInstant> {
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| InvalidInstant(text.to_owned()))?;
        jiff::Timestamp::from_millisecond(timestamp.as_millisecond())
            .map(Self)
            .map_err(|_| InvalidInstant(text.to_owned()))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_rfc_3339_in_utc() {
        assert_eq!(Instant::from_unix_ms(1_795_326_011_000).to_string(), "2026-11-22T05:40:11Z");
        assert_eq!(Instant::from_unix_ms(1_795_326_011_250).to_string(), "2026-11-22T05:40:11.25Z");
        assert_eq!(Instant::from_unix_ms(0).to_string(), "1970-01-01T00:00:00Z");
        assert!(Instant::from_unix_ms(u64::MAX).to_string().starts_with("9999-12-"));
    }

    #[test]
    fn read_with_any_offset_and_no_finer_than_milliseconds() {
        let instant: Instant = "2026-11-22T06:40:11.2509+01:00".parse().unwrap();
        assert_eq!(instant.unix_ms(), 1_795_326_011_250);
        assert_eq!(serde_json::to_string(&instant).unwrap(), "\"2026-11-22T05:40:11.25Z\"");
        for bad in ["", "now", "2026-11-22", "2026-13-22T05:40:11Z", "2026-11-22T05:40:11"] {
            assert!(bad.parse::<Instant>().is_err(), "{bad}");
        }
    }
}
