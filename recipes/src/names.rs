//! Names of objects inside keys: in name order, and none the beginning of another.
//!
//! A name may be any UTF-8, NUL included. NUL is written as `00 FF` and the name ends with `00 01`: both sort as
//! they should, and what belongs to `a` never begins like what belongs to `ab`. Behind the name, each recipe has
//! its own subspaces.

use coracle_store::{Family, Key, View};

/// The end of a name.
const END: [u8; 2] = [0, 1];

/// Names of a family's objects that start with `prefix`, after `after`, at most `limit`, in order of their bytes.
/// Costs one look-up a name, however many keys belong to it.
pub(crate) fn list(
    view: View<'_>,
    family: Family,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Vec<String> {
    let prefix = Key::new(family, &open(prefix));
    let past = |name: &str| Key::after_prefix(Key::new(family, &closed(name)).as_bytes());
    let mut from = after.and_then(past).map_or(prefix.clone(), |after| after.max(prefix.clone()));
    let mut found = Vec::new();
    while found.len() < limit {
        let Some((key, _)) = view.seek(&from).next() else { break };
        let Some((name, _)) = split(key.name()) else { break };
        let Some(next) = past(&name).filter(|_| key.as_bytes().starts_with(prefix.as_bytes())) else { break };
        from = next;
        found.push(name);
    }
    found
}

/// The name as it begins a key, without its end: the prefix of all names that start with it.
pub(crate) fn open(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 24);
    for byte in name.bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(0xFF);
        }
    }
    bytes
}

/// What all keys of an object begin with.
pub(crate) fn object(family: Family, name: &str) -> Key {
    if name.contains('\0') {
        return Key::new(family, &closed(name));
    }
    Key::new(family, &[]).within(&[name.as_bytes(), &END])
}

/// The whole name: the prefix of all that belongs to it.
pub(crate) fn closed(name: &str) -> Vec<u8> {
    let mut bytes = open(name);
    bytes.extend(END);
    bytes
}

/// The name at the beginning of a key's bytes, and what follows it.
pub(crate) fn split(bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut name = Vec::new();
    let mut rest = bytes;
    loop {
        match rest {
            [0, 0xFF, more @ ..] => {
                name.push(0);
                rest = more;
            }
            [0, 1, more @ ..] => return Some((String::from_utf8(name).ok()?, more)),
            [byte, more @ ..] if *byte != 0 => {
                name.push(*byte);
                rest = more;
            }
            _ => return None,
        }
    }
}
