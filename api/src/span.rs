//! Spans of time as people write them: `500ms`, `30s`, `1h30m`, a bare number of seconds, `0`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of time in whole milliseconds, 0 up to [`Span::MAX`].
///
/// Read from text (`500ms`, `8.4s`, `1h30m`, `2d`, `30` = 30 s, `0`) and from a JSON integer (seconds).
/// Written canonically: `0s`, below one second in `ms`, else hours, minutes, then seconds with a fraction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    ms: u64,
}

/// Why a text or number is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpan {
    #[error("not a duration such as 500ms, 30s or 1h30m: text={0:?}")]
    Malformed(String),
    #[error("units must go from large to small, each once: text={0:?}")]
    Order(String),
    #[error("finer than one millisecond: text={0:?}")]
    TooFine(String),
    #[error("longer than 100 years: text={0:?}")]
    TooLong(String),
}

/// Units from large to small, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Span {
    pub const ZERO: Span = Span { ms: 0 };
    /// 100 years of 365 days.
    pub const MAX: Span = Span { ms: 100 * 365 * 86_400_000 };

    /// `None` beyond [`Span::MAX`].
    #[must_use]
    pub const fn from_millis(ms: u64) -> Option<Self> {
        if ms > Self::MAX.ms { None } else { Some(Self { ms }) }
    }

    /// The span of `ms` milliseconds, cut to [`Span::MAX`].
    #[must_use]
    pub const fn from_millis_saturating(ms: u64) -> Self {
        if ms > Self::MAX.ms { Self::MAX } else { Self { ms } }
    }

    /// `None` beyond [`Span::MAX`].
    #[must_use]
    pub const fn from_secs(secs: u64) -> Option<Self> {
        match secs.checked_mul(1000) {
            Some(ms) => Self::from_millis(ms),
            None => None,
        }
    }

    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.ms
    }

    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.ms)
    }

    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.ms == 0
    }
}

impl From<Duration> for Span {
    /// Cuts off fractions of a millisecond and everything beyond [`Span::MAX`].
    fn from(duration: Duration) -> Self {
        Self::from_millis_saturating(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.as_duration()
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let too_long = || InvalidSpan::TooLong(text.to_owned());
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().and_then(Self::from_secs).ok_or_else(too_long);
        }
        let mut rest = text;
        let mut ms = 0u64;
        let mut next_unit = 0;
        while !rest.is_empty() || next_unit == 0 {
            let part;
            let unit;
            (part, rest) = split_where(rest, |b| !b.is_ascii_digit() && b != b'.');
            (unit, rest) = split_where(rest, |b| !b.is_ascii_lowercase());
            let index = UNITS
                .iter()
                .position(|(name, _)| *name == unit)
                .ok_or_else(|| InvalidSpan::Malformed(text.to_owned()))?;
            if index < next_unit {
                return Err(InvalidSpan::Order(text.to_owned()));
            }
            next_unit = index + 1;
            ms = ms.checked_add(amount(part, UNITS[index].1, text)?).ok_or_else(too_long)?;
        }
        Self::from_millis(ms).ok_or_else(too_long)
    }
}

/// `part` (digits, perhaps with a fraction) times `unit_ms`, in milliseconds; `text` is quoted in errors.
fn amount(part: &str, unit_ms: u64, text: &str) -> Result<u64, InvalidSpan> {
    let malformed = || InvalidSpan::Malformed(text.to_owned());
    let too_long = || InvalidSpan::TooLong(text.to_owned());
    let (whole, fraction) = part.split_once('.').unwrap_or((part, ""));
    let bare_point = part.contains('.') && fraction.is_empty();
    if whole.is_empty() || bare_point || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let whole: u64 = whole.parse().map_err(|_| too_long())?;
    let mut ms = whole.checked_mul(unit_ms).ok_or_else(too_long)?;
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        // At most nine digits keep the product below in a u64; more could not be whole milliseconds anyway.
        if fraction.len() > 9 {
            return Err(InvalidSpan::TooFine(text.to_owned()));
        }
        let scale = 10u64.pow(u32::try_from(fraction.len()).unwrap_or(9));
        let scaled = fraction.parse::<u64>().map_err(|_| malformed())? * unit_ms;
        if !scaled.is_multiple_of(scale) {
            return Err(InvalidSpan::TooFine(text.to_owned()));
        }
        ms = ms.checked_add(scaled / scale).ok_or_else(too_long)?;
    }
    Ok(ms)
}

fn split_where(text: &str, stop: impl Fn(u8) -> bool) -> (&str, &str) {
    // Stops before any byte of a multi-byte character, so the index is always on a border.
    text.split_at(text.bytes().position(stop).unwrap_or(text.len()))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, rest) = (self.ms / 3_600_000, self.ms % 3_600_000);
        let (minutes, ms) = (rest / 60_000, rest % 60_000);
        // Every grant of a lock says how long it is good for: written without formatting within formatting.
        let mut text = String::with_capacity(24);
        if hours > 0 {
            push_number(&mut text, hours);
            text.push('h');
        }
        if minutes > 0 {
            push_number(&mut text, minutes);
            text.push('m');
        }
        if text.is_empty() && ms > 0 && ms < 1000 {
            push_number(&mut text, ms);
            text.push_str("ms");
        } else if ms > 0 || text.is_empty() {
            push_number(&mut text, ms / 1000);
            if !ms.is_multiple_of(1000) {
                // A one before the three digits keeps their zeros; the point takes its place.
                let point = text.len();
                push_number(&mut text, 1000 + ms % 1000);
                text.replace_range(point..=point, ".");
                text.truncate(text.trim_end_matches('0').len());
            }
            text.push('s');
        }
        f.pad(&text)
    }
}

fn push_number(text: &mut String, number: u64) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from_digit(u32::try_from(number % 10).unwrap_or(0), 10).unwrap_or('0'));
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"30s\", or a whole number of seconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, secs: u64) -> Result<Span, E> {
                Span::from_secs(secs).ok_or_else(|| E::custom(InvalidSpan::TooLong(secs.to_string())))
            }

            fn visit_i64<E: de::Error>(self, secs: i64) -> Result<Span, E> {
                Err(E::invalid_value(de::Unexpected::Signed(secs), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_and_their_canonical_form() {
        for (text, ms, canonical) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("30", 30_000, "30s"),
            ("500ms", 500, "500ms"),
            ("30s", 30_000, "30s"),
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("8.4s", 8400, "8.4s"),
            ("1m0.25s", 60_250, "1m0.25s"),
            ("1s500ms", 1500, "1.5s"),
            ("1500ms", 1500, "1.5s"),
            ("0.5h", 1_800_000, "30m"),
            ("2d", 172_800_000, "48h"),
            ("1h1ms", 3_600_001, "1h0.001s"),
            ("3153600000", Span::MAX.as_millis(), "876000h"),
        ] {
            let span: Span = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(span.as_millis(), ms, "{text}");
            assert_eq!(span.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn refused_texts_say_why() {
        for text in [
            "", " ", "s", "-1s", "+1s", "1", "1.5", "1x", "1 s", "1S", ".5s", "1.s", "1..2s", "1s2", "١s",
            "1e3s",
        ] {
            let result = text.parse::<Span>();
            if text == "1" {
                assert_eq!(result, Ok(Span { ms: 1000 }));
            } else {
                assert_eq!(result, Err(InvalidSpan::Malformed(text.into())), "{text}");
            }
        }
        assert_eq!("1s1h".parse::<Span>(), Err(InvalidSpan::Order("1s1h".into())));
        assert_eq!("1s1s".parse::<Span>(), Err(InvalidSpan::Order("1s1s".into())));
        assert_eq!("0.0001s".parse::<Span>(), Err(InvalidSpan::TooFine("0.0001s".into())));
        for text in ["36501d", "99999999999999999999", "18446744073709551615h", "3153600001"] {
            assert_eq!(text.parse::<Span>(), Err(InvalidSpan::TooLong(text.into())), "{text}");
        }
    }

    #[test]
    fn json_takes_text_and_seconds_and_writes_text() {
        assert_eq!(serde_json::from_str::<Span>("\"1m\"").unwrap(), serde_json::from_str("60").unwrap());
        assert_eq!(serde_json::to_string(&Span { ms: 61_000 }).unwrap(), "\"1m1s\"");
        for bad in ["-1", "1.5", "null", "true", "18446744073709551615", "\"1 week\""] {
            assert!(serde_json::from_str::<Span>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_span_survives_its_text(ms in 0..=Span::MAX.as_millis()) {
            let span = Span::from_millis(ms).unwrap();
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Span>();
        }
    }
}
