//! Values in JSON: text as a string, JSON as itself byte for byte, anything else as base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::value::RawValue;

/// Content type of text stored without one.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// Content type of bytes stored without one.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// JSON nested deeper than this is not embedded, so that no reader of an envelope meets its own depth limit.
const DEPTH_MAX: usize = 64;

/// Bytes of a user with their content type.
///
/// In JSON the members `value` or `value_base64`, and `content_type`. `value` is a string for text, and for a
/// JSON content type the JSON itself, byte for byte. JSON that has line breaks or space around it (it would
/// break a frame of a stream, or lose bytes), is nested deeper than 64, or is no JSON at all, is base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub bytes: Bytes,
    pub content_type: String,
}

/// Why the members of an envelope make no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    #[error("value and value_base64 exclude each other")]
    Both,
    #[error("one of value and value_base64 is required")]
    Missing,
    #[error("value_base64 is not base64: {0}")]
    Base64(String),
    #[error("value must be a string for this content type: content_type={0:?}")]
    NotText(String),
}

/// Whether a content type says JSON: `application/json` or `anything/anything+json`, with any parameters.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// The members `value`, `value_base64`, `content_type` of an envelope.
pub(crate) type Members = (Option<Box<RawValue>>, Option<String>, Option<String>);

impl Value {
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>, content_type: impl Into<String>) -> Self {
        Self { bytes: bytes.into(), content_type: content_type.into() }
    }

    /// A value given without a content type: text if it is UTF-8.
    #[must_use]
    pub fn untyped(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let content_type = if std::str::from_utf8(&bytes).is_ok() { TEXT } else { OCTET_STREAM };
        Self::new(bytes, content_type)
    }

    /// The value as text, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    pub(crate) fn to_members(&self) -> Members {
        let (value, base64) = if let Some(raw) = self.embedded() {
            (Some(raw), None)
        } else {
            (None, Some(BASE64.encode(&self.bytes)))
        };
        (value, base64, Some(self.content_type.clone()))
    }

    /// What the member `value` holds; `None` if the bytes must be base64.
    fn embedded(&self) -> Option<Box<RawValue>> {
        let text = self.as_str()?;
        if is_json(&self.content_type) {
            let trimmed = text.trim_matches([' ', '\t', '\n', '\r']);
            if trimmed.len() != text.len() || text.contains(['\n', '\r']) || depth(text) > DEPTH_MAX {
                return None;
            }
            return RawValue::from_string(text.to_owned()).ok();
        }
        let essence = self.content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case(OCTET_STREAM) {
            return None;
        }
        serde_json::value::to_raw_value(text).ok()
    }

    /// # Errors
    /// Neither or both of the two members, no base64, or `value` is not a string though the content type
    /// is not JSON.
    pub(crate) fn from_members(members: Members) -> Result<Self, InvalidValue> {
        match members {
            (Some(_), Some(_), _) => Err(InvalidValue::Both),
            (None, None, _) => Err(InvalidValue::Missing),
            (None, Some(encoded), content_type) => {
                let bytes =
                    BASE64.decode(&encoded).map_err(|error| InvalidValue::Base64(error.to_string()))?;
                Ok(match content_type {
                    Some(content_type) => Self::new(bytes, content_type),
                    None => Self::untyped(bytes),
                })
            }
            (Some(raw), None, Some(content_type)) if is_json(&content_type) => {
                Ok(Self::new(String::from(Box::<str>::from(raw)), content_type))
            }
            (Some(raw), None, content_type) => {
                match (serde_json::from_str::<String>(raw.get()), content_type) {
                    (Ok(text), content_type) => {
                        Ok(Self::new(text, content_type.unwrap_or_else(|| TEXT.to_owned())))
                    }
                    (Err(_), None) => Ok(Self::new(String::from(Box::<str>::from(raw)), "application/json")),
                    (Err(_), Some(content_type)) => Err(InvalidValue::NotText(content_type)),
                }
            }
        }
    }

    /// Like [`Value::from_members`], but no member at all is no value.
    pub(crate) fn from_optional_members(members: Members) -> Result<Option<Self>, InvalidValue> {
        match members {
            (None, None, _) => Ok(None),
            members => Self::from_members(members).map(Some),
        }
    }
}

/// The members of an optional value.
pub(crate) fn optional_members(value: Option<&Value>) -> Members {
    value.map_or((None, None, None), Value::to_members)
}

/// How deep brackets nest, brackets in strings included: an upper bound is enough here.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in json.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::new(text.to_owned(), TEXT)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::new(text, TEXT)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::untyped(bytes)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::untyped(bytes.to_vec())
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self::untyped(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: &[u8], content_type: &str) -> String {
        match Value::new(bytes.to_vec(), content_type).to_members() {
            (Some(raw), None, _) => format!("value={}", raw.get()),
            (None, Some(base64), _) => format!("value_base64={base64}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn which_member_holds_what() {
        for (bytes, content_type, expect) in [
            (&b"blue"[..], TEXT, r#"value="blue""#),
            (b"", TEXT, r#"value="""#),
            (b"a\nb\0\"", "application/yaml", r#"value="a\nb\u0000\"""#),
            (b"blue", OCTET_STREAM, "value_base64=Ymx1ZQ=="),
            (b"\xff\xfe", TEXT, "value_base64=//4="),
            (br#"{"b":1.0,  "a":1e400,"b":2}"#, "application/json", r#"value={"b":1.0,  "a":1e400,"b":2}"#),
            (br#""blue""#, "application/vnd.x+json; v=1", r#"value="blue""#),
            (b"{\"a\":1}\n", "application/json", "value_base64=eyJhIjoxfQo="),
            (b"{\"a\":\n1}", "application/json", "value_base64=eyJhIjoKMX0="),
            (b"{", "application/json", "value_base64=ew=="),
            (b"", "application/json", "value_base64="),
        ] {
            assert_eq!(shown(bytes, content_type), expect);
        }
        assert!(shown("[".repeat(65).as_bytes(), "application/json").starts_with("value_base64"));
    }

    #[test]
    fn a_value_given_in_json() {
        let raw = |text: &str| Some(RawValue::from_string(text.to_owned()).unwrap());
        let of = |members| Value::from_members(members);
        assert_eq!(of((raw(r#""blue""#), None, None)), Ok(Value::new("blue", TEXT)));
        assert_eq!(of((raw("[1, 2]"), None, None)), Ok(Value::new("[1, 2]", "application/json")));
        assert_eq!(
            of((raw(r#""x""#), None, Some("application/json".into()))),
            Ok(Value::new(r#""x""#, "application/json"))
        );
        assert_eq!(of((None, Some("//4=".into()), None)), Ok(Value::new(&b"\xff\xfe"[..], OCTET_STREAM)));
        assert_eq!(of((raw("1"), Some(String::new()), None)), Err(InvalidValue::Both));
        assert_eq!(of((None, None, None)), Err(InvalidValue::Missing));
        assert_eq!(of((raw("1"), None, Some(TEXT.into()))), Err(InvalidValue::NotText(TEXT.into())));
        assert!(matches!(of((None, Some("?".into()), None)), Err(InvalidValue::Base64(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_survive_the_envelope(
            bytes in prop_oneof![any::<Vec<u8>>(), "\\PC*".prop_map(String::into_bytes), "[\\[\\]{}\":,0-9 \n]*".prop_map(String::into_bytes)],
            content_type in prop_oneof![Just(TEXT), Just(OCTET_STREAM), Just("application/json"), Just("image/png")],
        ) {
            let value = Value::new(bytes, content_type);
            let back = Value::from_members(value.to_members()).unwrap();
            prop_assert_eq!(back, value);
        }
    }
}
