//! Keys and values on the command line: any bytes.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

pub fn bytes(argument: &OsStr) -> &[u8] {
    argument.as_bytes()
}

pub fn into_bytes(argument: OsString) -> Vec<u8> {
    argument.into_vec()
}

/// Bytes for people: text as it is, control characters and bytes that are no text escaped, so that
/// nobody's key can drive somebody's terminal.
pub fn readable(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || is_bidi(character) {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Characters that turn the direction of what follows.
fn is_bidi(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_unescaped() {
        assert_eq!(readable(b"app/color"), "app/color");
        assert_eq!(readable("f\u{e4}hre".as_bytes()), "f\u{e4}hre");
        assert_eq!(readable(b"a\x1b[31m\n\xff"), "a\\u{1b}[31m\\n\\xff");
        assert_eq!(readable("\u{202e}x".as_bytes()), "\\u{202e}x");
    }
}
