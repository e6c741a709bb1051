//! Problems: what every failed request is answered with (`application/problem+json`, RFC 9457).

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{Code, Effect, Retry};

/// Media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A failed request: what went wrong, whether it had an effect, what to do about it.
///
/// Reading is tolerant: anything missing or of the wrong shape falls back to what the code (or the HTTP
/// status, see [`Problem::parse`]) implies.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub code: Code,
    /// HTTP status, 400..=599.
    pub status: u16,
    pub title: String,
    pub retry: Retry,
    pub effect: Effect,
    /// One sentence with the variables last as `key=value`.
    pub detail: String,
    /// `/requests/{id}`: where to look in the logs.
    pub instance: Option<String>,
    /// Store revision that the refusal was decided at.
    pub revision: Option<u64>,
    /// Every value named in `detail`, as a member of its own, such as `limit`, `blockers`, `current_revision`.
    pub extra: Map<String, Value>,
}

/// One invalid argument: an item of the member `errors` of `invalid_argument`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InvalidField {
    /// `query`, `header`, `path` or `body`.
    #[serde(rename = "in")]
    pub place: String,
    pub name: String,
    pub detail: String,
}

impl Problem {
    /// A problem with everything that the code implies.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            title: code.title().to_owned(),
            retry: code.retry(),
            effect: code.effect(),
            detail: detail.into(),
            instance: None,
            revision: None,
            extra: Map::new(),
        }
    }

    /// `invalid_argument` naming one argument.
    #[must_use]
    pub fn invalid(place: &str, name: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let field = InvalidField { place: place.to_owned(), name: name.to_owned(), detail: detail.clone() };
        Self::new(Code::InvalidArgument, format!("{detail} in={place} name={name}"))
            .with("errors", vec![field])
    }

    /// Add the member `name`. A value that cannot be JSON becomes `null`; names of the standard members are
    /// ignored, they have their own fields.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        if !STANDARD.contains(&name) {
            self.extra.insert(name.to_owned(), serde_json::to_value(value).unwrap_or(Value::Null));
        }
        self
    }

    #[must_use]
    pub fn at_revision(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    #[must_use]
    pub fn effect_unknown(mut self) -> Self {
        self.effect = Effect::Unknown;
        self
    }

    /// `/problems/lock_held`
    #[must_use]
    pub fn type_uri(&self) -> String {
        format!("/problems/{}", self.code)
    }

    /// The problem in an error answer of any server: a body that is no problem (a proxy's page, an empty
    /// body) becomes [`Code::Unrecognised`] with the first 200 characters of the body as detail.
    #[must_use]
    pub fn parse(status: u16, body: &[u8]) -> Self {
        if let Ok(members) = serde_json::from_slice::<Map<String, Value>>(body)
            && members.contains_key("code")
        {
            return Self::from_members(status, members);
        }
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        let mut problem = Self::new(Code::Unrecognised, format!("status={status} body={text:?}"));
        problem.status = status;
        (problem.retry, problem.effect) = implied_by_status(status);
        problem
    }

    fn from_members(status: u16, mut members: Map<String, Value>) -> Self {
        let named = members.get("code").and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = named.parse().unwrap_or(Code::Unrecognised);
        let mut problem = Self::new(code, "");
        problem.status =
            members.get("status").and_then(Value::as_u64).and_then(|s| s.try_into().ok()).unwrap_or(status);
        if code == Code::Unrecognised {
            (problem.retry, problem.effect) = implied_by_status(problem.status);
        }
        let mut text = |name: &str| match members.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        problem.title = text("title").unwrap_or(problem.title);
        problem.detail = text("detail").unwrap_or_default();
        problem.instance = text("instance");
        problem.revision = members.get("revision").and_then(Value::as_u64);
        problem.retry =
            members.remove("retry").and_then(|v| serde_json::from_value(v).ok()).unwrap_or(problem.retry);
        problem.effect =
            members.remove("effect").and_then(|v| serde_json::from_value(v).ok()).unwrap_or(problem.effect);
        // An unknown code stays readable: it is kept where the extra members are.
        members.retain(|name, _| {
            !STANDARD.contains(&name.as_str()) || (name == "code" && code == Code::Unrecognised)
        });
        problem.extra = members;
        problem
    }
}

const STANDARD: [&str; 9] =
    ["type", "title", "status", "code", "retry", "effect", "detail", "instance", "revision"];

/// What an answer without a code tells: 502–504 of something in between may hide an effect.
fn implied_by_status(status: u16) -> (Retry, Effect) {
    match status {
        429 => (Retry::SameRequest, Effect::None),
        503 => (Retry::OtherNode, Effect::Unknown),
        502 | 504 => (Retry::SameRequest, Effect::Unknown),
        400..500 => (Retry::Never, Effect::None),
        _ => (Retry::Never, Effect::Unknown),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.extra.get("code").and_then(Value::as_str).unwrap_or(self.code.as_str());
        if self.detail.is_empty() {
            write!(f, "{named}: {}", self.title)
        } else {
            write!(f, "{named}: {}", self.detail)
        }
    }
}

impl std::error::Error for Problem {}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.type_uri())?;
        map.serialize_entry("title", &self.title)?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("code", &self.code)?;
        map.serialize_entry("retry", &self.retry)?;
        map.serialize_entry("effect", &self.effect)?;
        map.serialize_entry("detail", &self.detail)?;
        if let Some(instance) = &self.instance {
            map.serialize_entry("instance", instance)?;
        }
        if let Some(revision) = self.revision {
            map.serialize_entry("revision", &revision)?;
        }
        for (name, value) in self.extra.iter().filter(|(name, _)| !STANDARD.contains(&name.as_str())) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Problem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_members(500, Map::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn written_with_all_members_in_order() {
        let mut problem = Problem::new(Code::LockHeld, "lock=deploy held by ci-7 for 41s, 2 waiting")
            .at_revision(842)
            .with("position", 3)
            .with("status", "a standard member cannot be smuggled in");
        problem.instance = Some("/requests/01J".into());
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"/problems/lock_held","title":"Lock is held","status":409,"code":"lock_held","retry":"after_change","effect":"none","detail":"lock=deploy held by ci-7 for 41s, 2 waiting","instance":"/requests/01J","revision":842,"position":3}"#
        );
        let body = serde_json::to_vec(&problem).unwrap();
        assert_eq!(Problem::parse(409, &body), problem);
        assert_eq!(problem.to_string(), "lock_held: lock=deploy held by ci-7 for 41s, 2 waiting");
    }

    #[test]
    fn an_invalid_argument_names_its_place() {
        let problem = Problem::invalid("query", "wait", "longer than 10m");
        assert_eq!(problem.detail, "longer than 10m in=query name=wait");
        assert_eq!(problem.extra["errors"], json!([{"in":"query","name":"wait","detail":"longer than 10m"}]));
    }

    #[test]
    fn read_tolerantly() {
        let newer = Problem::parse(409, br#"{"code":"of_the_future","detail":"x=1","shade":"blue"}"#);
        assert_eq!((newer.code, newer.status, newer.retry), (Code::Unrecognised, 409, Retry::Never));
        assert_eq!(newer.extra["shade"], json!("blue"));
        assert_eq!(newer.to_string(), "of_the_future: x=1");

        let odd = Problem::parse(409, br#"{"code":"lock_held","retry":7,"title":null,"revision":"x"}"#);
        assert_eq!(
            (odd.code, odd.retry, odd.title.as_str()),
            (Code::LockHeld, Retry::AfterChange, "Lock is held")
        );

        let proxy = Problem::parse(502, b"<html>Bad Gateway</html>");
        assert_eq!(
            (proxy.code, proxy.retry, proxy.effect),
            (Code::Unrecognised, Retry::SameRequest, Effect::Unknown)
        );
        assert_eq!(proxy.detail, r#"status=502 body="<html>Bad Gateway</html>""#);

        let empty = Problem::parse(404, b"");
        assert_eq!((empty.status, empty.retry, empty.effect), (404, Retry::Never, Effect::None));
    }
}
