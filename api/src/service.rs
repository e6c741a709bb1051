//! Services: instances, their settings, and who is picked.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Instant, SessionId, Span};

/// A part of the whole, 0 to 1 with three decimals: a load, a threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u16);

/// The text or number is no part of a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a number from 0 to 1 with at most three decimals")]
pub struct InvalidRatio;

impl Ratio {
    /// In thousandths; `None` above 1000.
    #[must_use]
    pub const fn from_thousandths(thousandths: u16) -> Option<Self> {
        if thousandths <= 1000 { Some(Self(thousandths)) } else { None }
    }

    /// The nearest; `None` below 0, above 1 and for what is no number.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000 after the check")]
    pub fn from_f64(number: f64) -> Option<Self> {
        (0.0..=1.0).contains(&number).then(|| Self((number * 1000.0).round() as u16))
    }

    #[must_use]
    pub const fn thousandths(self) -> u16 {
        self.0
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (f64::from(self.0) / 1000.0).fmt(f)
    }
}

impl std::str::FromStr for Ratio {
    type Err = InvalidRatio;

    /// Digits with at most one point: `0`, `1`, `0.75`, `.5`.
    fn from_str(text: &str) -> Result<Self, InvalidRatio> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let empty = whole.is_empty() && decimals.is_empty();
        if empty || whole.len() > 1 || decimals.len() > 3 || !digits(whole) || !digits(decimals) {
            return Err(InvalidRatio);
        }
        let number = format!("{whole:0>1}{decimals:0<3}").parse().map_err(|_| InvalidRatio)?;
        Self::from_thousandths(number).ok_or(InvalidRatio)
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0 => serializer.serialize_u8(0),
            1000 => serializer.serialize_u8(1),
            part => serializer.serialize_f64(f64::from(part) / 1000.0),
        }
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_f64(f64::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom(InvalidRatio))
    }
}

/// How an instance does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not ready yet.
    Starting,
    #[default]
    Passing,
    /// Works, but wants to be looked at.
    Warning,
    Critical,
    /// On its way out.
    Draining,
    /// Taken out by its operator.
    Maintenance,
}

impl Status {
    /// All of them, with their words.
    pub const WORDS: [(&str, Self); 6] = [
        ("starting", Self::Starting),
        ("passing", Self::Passing),
        ("warning", Self::Warning),
        ("critical", Self::Critical),
        ("draining", Self::Draining),
        ("maintenance", Self::Maintenance),
    ];

    /// `passing`
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, status)| *status == self).map_or("", |(word, _)| word)
    }
}

/// What keeps an instance alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// It stays until it is deregistered.
    #[default]
    Permanent,
    /// A session of its owner.
    Session,
    /// Its own time to live, renewed by itself.
    Ttl,
}

/// Body of `PUT /v1/services/{service}/instances/{id}`: what an instance says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Registration {
    /// Host name or IP address.
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Further ports by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Share of the traffic, 0 to 1000; 100 if absent, 0 gets none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// `passing` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Instance {
    pub id: String,
    /// Revision of its registration: rises when it registers again.
    pub generation: u64,
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    pub weight: u16,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Everything considered: `critical` if its liveness ended, whatever it said of itself.
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Ratio>,
    pub liveness: Liveness,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// Time left, where it was asked for; count it from when the request was *sent*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
    pub registered: Instant,
    /// Since when it could be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_since: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_until: Option<Instant>,
    /// When its liveness ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Instant>,
    /// When it will be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Instant>,
}

impl Instance {
    /// `10.0.0.7:8080`, `[::1]:8080`, or the bare address if it has no port.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.address, self.port)
    }

    /// Whether it should be called: passing or warning, and not ejected.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        matches!(self.status, Status::Passing | Status::Warning) && self.ejected_until.is_none()
    }
}

/// An address with its port, as it stands in a URL.
#[must_use]
pub fn authority(address: &str, port: Option<u16>) -> String {
    match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    }
}

/// Body of `PUT /v1/services/{service}`: how a service is run. What is absent is as always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ServiceConfig {
    /// If a smaller part of the instances is healthy, all are returned; 0 if absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protect: Option<Ratio>,
    /// How long an instance that lost its liveness is shown as critical before it goes; 60 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deregister_after: Option<Span>,
    /// A new instance gets its full share after this long; 0 if absent: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Span>,
    /// So many reported errors in a row eject an instance; 2 if absent, 0 is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eject_errors: Option<u16>,
    /// For how long; 30 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eject_for: Option<Span>,
}

/// A service in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Service {
    pub name: String,
    pub instances: u64,
    /// Passing or warning, and not ejected.
    pub healthy: u64,
    pub ejected: u64,
    /// Its settings, if they were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ServiceConfig>,
}

/// `GET /v1/services/{service}`: the instances, all that the filters admit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceInstances {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ServiceConfig>,
    /// Healthy ones among those that the other filters admit.
    pub healthy: u64,
    /// So few are healthy (`protect`) that all are returned, also where only healthy ones were asked for.
    pub degraded: bool,
    pub items: Vec<Instance>,
    pub revision: u64,
}

/// `GET /v1/services/{service}/pick`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Picked {
    /// At least one.
    pub items: Vec<Instance>,
    /// Nobody was healthy, or too few were: these are the best there are.
    pub degraded: bool,
    pub revision: u64,
}

/// Answer of a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InstanceRenewed {
    /// Time left; count it from when the request was *sent*. Absent if the instance is permanent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
    pub generation: u64,
    /// As the cluster sees it: `draining` says that somebody wants it to go.
    pub status: Status,
    /// When it will be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Instant>,
}

/// One element of Prometheus' HTTP service discovery (`format=prometheus`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PrometheusGroup {
    pub targets: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_have_three_decimals() {
        for (text, thousandths) in
            [("0", 0), ("1", 1000), ("0.75", 750), (".5", 500), ("0.001", 1), ("1.", 1000)]
        {
            assert_eq!(text.parse::<Ratio>().unwrap().thousandths(), thousandths, "{text}");
        }
        for text in ["", ".", "1.001", "2", "-0.1", "+1", "0.0001", "1e-1", "0,5", "00.5", "nan"] {
            assert_eq!(text.parse::<Ratio>(), Err(InvalidRatio), "{text}");
        }
        for json in ["1.1", "-0.1", "\"0.5\"", "null"] {
            assert!(serde_json::from_str::<Ratio>(json).is_err(), "{json}");
        }
        for json in ["0", "1", "0.25", "0.001"] {
            let ratio: Ratio = serde_json::from_str(json).unwrap();
            assert_eq!(
                (serde_json::to_string(&ratio).unwrap(), ratio.to_string()),
                (json.into(), json.into())
            );
        }
    }

    #[test]
    fn addresses_stand_in_urls() {
        assert_eq!(authority("10.0.0.7", Some(80)), "10.0.0.7:80");
        assert_eq!(authority("::1", Some(80)), "[::1]:80");
        assert_eq!(authority("web.example", None), "web.example");
    }
}
