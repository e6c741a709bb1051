//! Bytes in URLs and headers.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Any bytes as one path segment or one query value. `/` becomes `%2F`.
pub(crate) fn escape(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED).to_string()
}

/// The path of a key, or `None` if a URL cannot carry it as a segment: `.` and `..` are taken for steps
/// within the path, escaped or not, and an empty segment for the list. Those go through `?key=`.
pub(crate) fn key_path(key: &[u8]) -> Option<String> {
    match key {
        b"" | b"." | b".." => None,
        key => Some(format!("/v1/kv/{}", escape(key))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_url_normalisation() {
        for key in [
            &b"app/color"[..],
            b"a/../b",
            b"/",
            b"//x",
            b"%2e%2e",
            b".%2e",
            b"a b?c#d",
            b"\0\xff\n",
            b"..a",
            "\u{e4}\u{202e}".as_bytes(),
        ] {
            let path = key_path(key).unwrap();
            let url = url::Url::parse(&format!("http://h{path}")).unwrap();
            let segment = url.path().strip_prefix("/v1/kv/").unwrap_or_else(|| panic!("{url}"));
            assert!(!segment.contains('/'), "{url}");
            let back: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
            assert_eq!(back, key, "{url}");
        }
        for key in [&b""[..], b".", b".."] {
            assert_eq!(key_path(key), None);
        }
    }
}
