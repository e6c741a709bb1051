//! The one field of a certificate that rustls does not hand out: its subject's common name.
//!
//! Reads only certificates that rustls has verified; anything unexpected is `None`.

/// A DER element at the front of `input`: its tag, its content, what follows it.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |n, d| n << 8 | usize::from(*d)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

fn expect(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(input)?;
    (found == tag).then_some((content, rest))
}

/// The last (most specific) common name of the subject.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut fields, _) = expect(SEQUENCE, certificate)?;
    if let Some((_, rest)) = expect(VERSION, fields) {
        fields = rest;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        fields = element(fields)?.2;
    }
    let (mut names, _) = expect(SEQUENCE, fields)?;
    let mut found = None;
    while !names.is_empty() {
        let (mut set, rest) = expect(SET, names)?;
        names = rest;
        while !set.is_empty() {
            let (attribute, rest) = expect(SEQUENCE, set)?;
            set = rest;
            let (oid, value) = expect(OID, attribute)?;
            if oid == COMMON_NAME {
                found = Some(text(value)?);
            }
        }
    }
    found
}

fn text(value: &[u8]) -> Option<String> {
    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;
    const IA5: u8 = 0x16;
    let (tag, content, _) = element(value)?;
    matches!(tag, UTF8 | PRINTABLE | IA5).then(|| String::from_utf8(content.to_vec()).ok())?
}
