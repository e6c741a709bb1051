//! ⑦ JSON of hot answers and frames, written straight into a buffer, without trees in between.
//!
//! Tests hold it to the same bytes as the wire types of `coracle-api`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use coracle_api as api;
use coracle_store::{ContentType, Key, Record, SessionId};

/// Append an unsigned number.
pub fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(digits(&mut [0; 20], number));
}

/// The digits of an unsigned number.
pub fn digits(digits: &mut [u8; 20], mut number: u64) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    &digits[at..]
}

/// Append a string with its quotes.
pub fn string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        to_json(out, text);
    }
}

/// Append anything that serialises.
pub fn to_json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Writing to memory cannot fail, and our types have no maps with odd keys.
    if let Err(error) = serde_json::to_writer(&mut *out, value) {
        tracing::error!(%error, "a value could not be written as JSON");
    }
}

/// Append `"key":...` or `"key_base64":...`; `word` is `key` or `prefix`.
pub fn bytes_member(out: &mut Vec<u8>, word: &str, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(word.as_bytes());
    if let Ok(text) = std::str::from_utf8(bytes) {
        out.extend_from_slice(b"\":");
        string(out, text);
    } else {
        out.extend_from_slice(b"_base64\":\"");
        out.extend_from_slice(BASE64.encode(bytes).as_bytes());
        out.push(b'"');
    }
}

/// Append `,"name":`.
pub fn member(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

pub fn number_member(out: &mut Vec<u8>, name: &str, value: u64) {
    member(out, name);
    number(out, value);
}

pub fn session_member(out: &mut Vec<u8>, session: Option<SessionId>) {
    if let Some(session) = session {
        use std::io::Write as _;
        member(out, "session");
        let _ = write!(out, "\"{session}\"");
    }
}

/// The name of a stored content type.
pub fn content_type(content_type: &ContentType) -> &str {
    match content_type {
        ContentType::Text => api::TEXT,
        ContentType::Binary => api::OCTET_STREAM,
        ContentType::Json => "application/json",
        ContentType::Other(name) => name,
    }
}

/// Append `,"value":...` or `,"value_base64":...`, and `,"content_type":...`.
pub fn value_members(out: &mut Vec<u8>, record: &Record) {
    typed_members(out, &record.value, &record.content_type);
}

/// The same of bytes with their type.
pub fn typed_members(out: &mut Vec<u8>, bytes: &[u8], kind: &ContentType) {
    let text = match kind {
        ContentType::Text => std::str::from_utf8(bytes).ok(),
        ContentType::Binary | ContentType::Json | ContentType::Other(_) => None,
    };
    if let Some(text) = text {
        member(out, "value");
        string(out, text);
        member(out, "content_type");
        string(out, api::TEXT);
        return;
    }
    // Whether JSON may be embedded is decided in one place, by the wire type.
    let value = api::Value::new(bytes.to_vec(), content_type(kind));
    let entry = api::Entry {
        key: api::Key::from(""),
        value: Some(value),
        create_revision: 0,
        mod_revision: 0,
        version: 0,
        session: None,
    };
    let mut whole = Vec::with_capacity(bytes.len() + 128);
    to_json(&mut whole, &entry);
    let start = br#"{"key":"""#.len();
    let end = whole.len().saturating_sub(br#","create_revision":0,"mod_revision":0,"version":0}"#.len());
    out.extend_from_slice(whole.get(start..end).unwrap_or_default());
}

/// Append an entry: `{"key":..,"value":..,"content_type":..,"create_revision":..,..}`.
pub fn entry(out: &mut Vec<u8>, key: &Key, record: &Record, with_value: bool) {
    out.push(b'{');
    bytes_member(out, "key", key.name());
    if with_value {
        value_members(out, record);
    }
    number_member(out, "create_revision", record.create_revision.0);
    number_member(out, "mod_revision", record.mod_revision.0);
    number_member(out, "version", record.version);
    session_member(out, record.session);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use coracle_store::{Family, Revision};

    use super::*;

    fn check(name: &[u8], value: &[u8], kind: &ContentType, session: Option<SessionId>) {
        let key = Key::new(Family::KV, name);
        let record = Record {
            value: value.into(),
            content_type: kind.clone(),
            create_revision: Revision(3),
            mod_revision: Revision(18_446_744_073_709_551_615),
            version: 10,
            session,
        };
        for with_value in [true, false] {
            let expect = api::Entry {
                key: name.into(),
                value: with_value.then(|| api::Value::new(value.to_vec(), content_type(kind))),
                create_revision: 3,
                mod_revision: u64::MAX,
                version: 10,
                session: session.map(|s| api::SessionId::new(s.0).unwrap()),
            };
            let mut out = Vec::new();
            entry(&mut out, &key, &record, with_value);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&expect).unwrap());
        }
    }

    #[test]
    fn entries_are_the_bytes_of_the_wire_types() {
        let values: [&[u8]; 9] = [
            b"blue",
            b"",
            b"a\"b\\c\n\x00\x1f\x7f",
            "ü€😀".as_bytes(),
            b"\xff\xfe",
            b"{\"a\": 1}",
            b"{\"a\":1}\n",
            b"[[",
            b"\"x\"",
        ];
        let kinds = [
            ContentType::Text,
            ContentType::Binary,
            ContentType::Json,
            ContentType::Other(Box::new("text/html".into())),
            ContentType::Other(Box::new("application/vnd.x+json".into())),
            ContentType::Other(Box::new("x/\"quoted\"".into())),
        ];
        for value in values {
            for kind in &kinds {
                check(b"app/color", value, kind, None);
                check(b"\xff\x00", value, kind, Some(SessionId(0x7587_d8aa)));
                check("\u{202e}<b>\u{1b}".as_bytes(), value, kind, None);
            }
        }
    }

    #[test]
    fn numbers_of_any_size() {
        for value in [0, 9, 10, 99, 1_234_567, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }
}
