//! Timers: what a recipe wants to be told when log time has passed a moment.
//!
//! A timer is a key in a family of its own: the moment (8 bytes, big endian), the family byte of its recipe, and bytes
//! of that recipe. So the next one to run out is the first key, and timers are in checkpoints and snapshots like all
//! state. They run out in entries of their own, a slice an entry, in this order on every node. A recipe checks what a
//! timer says against its own state, and clears the timers of what it removes.

use coracle_store::{Cause, ContentType, Family, Key, Timestamp, Txn, Value, View};

/// First byte of every timer's key.
const FAMILY: Family = Family(b't');
/// Timers that run out in one entry.
pub(crate) const SLICE: usize = 256;

/// Have the recipe's `due` called with `what` once log time is `at` or later. The same twice is one timer.
pub(crate) fn set(txn: &mut Txn<'_>, at: Timestamp, recipe: Family, what: &[u8]) {
    txn.put(key(at, recipe, what), Value::from(&[][..]), ContentType::Binary, None);
}

/// Take a timer back; one that has run out or never was is fine.
pub(crate) fn clear(txn: &mut Txn<'_>, at: Timestamp, recipe: Family, what: &[u8]) {
    txn.delete(&key(at, recipe, what), Cause::Command);
}

/// The same for something of an object, which is named by what its keys begin with: what is said is the object's name,
/// `kind`, and `of`.
pub(crate) fn set_of(txn: &mut Txn<'_>, at: Timestamp, object: &Key, kind: u8, of: &[u8]) {
    txn.put(key_of(at, object, kind, of), Value::from(&[][..]), ContentType::Binary, None);
}

/// Take such a timer back; one that has run out or never was is fine.
pub(crate) fn clear_of(txn: &mut Txn<'_>, at: Timestamp, object: &Key, kind: u8, of: &[u8]) {
    txn.delete(&key_of(at, object, kind, of), Cause::Command);
}

/// When the next timer runs out.
pub(crate) fn next(view: View<'_>) -> Option<Timestamp> {
    view.front(Key::new(FAMILY, &[])).next().map(|(key, _)| moment(key))
}

/// Remove the first timer that has run out: whose it is, and what it says.
pub(crate) fn pop(txn: &mut Txn<'_>) -> Option<(Family, Vec<u8>)> {
    let (key, _) = txn.view().front(Key::new(FAMILY, &[])).next()?;
    if moment(key) > txn.now() {
        return None;
    }
    let key = key.clone();
    txn.delete(&key, Cause::Command);
    let (recipe, what) = key.name()[8..].split_first()?;
    Some((Family(*recipe), what.to_vec()))
}

fn moment(key: &Key) -> Timestamp {
    Timestamp(u64::from_be_bytes(*key.name().first_chunk().expect("only this module writes timers")))
}

fn key(at: Timestamp, recipe: Family, what: &[u8]) -> Key {
    Key::new(FAMILY, &[&at.0.to_be_bytes()[..], &[recipe.0], what].concat())
}

/// The first byte of an object's keys is the family of its recipe.
fn key_of(at: Timestamp, object: &Key, kind: u8, of: &[u8]) -> Key {
    Key::new(FAMILY, &at.0.to_be_bytes()).within(&[object.as_bytes(), &[kind], of])
}
