//! Why a hold was broken: told beside its end, so that history knows, and forgotten a moment later.

use coracle_store::{Cause, Change, ContentType, Family, Key, Txn, Value};

use super::{BROKEN, HOLD, Hold, Line, Terms};
use crate::{names, timer};

impl<T: Terms> Line<T> {
    /// Leave word why a hold was broken, for as long as it takes until the next timers run out.
    pub fn note_broken(&self, txn: &mut Txn<'_>, hold: &Hold<T>, reason: &str) {
        if reason.is_empty() {
            return;
        }
        let key = self.key(BROKEN, &hold.numbers());
        timer::set(txn, txn.now(), T::FAMILY, key.name());
        txn.put(key, Value::from(reason.as_bytes()), ContentType::Text, None);
    }
}

/// What a change says of why it broke a hold, by the key the hold had.
#[must_use]
pub fn reason_of_break(change: &Change, hold: &Key) -> Option<String> {
    let (_, rest) = names::split(hold.name())?;
    let (&HOLD, numbers) = rest.split_first()? else { return None };
    let object = &hold.name()[..hold.name().len() - rest.len()];
    let note = Key::new(hold.family(), &[object, &[BROKEN], numbers].concat());
    let event = change.events.iter().find(|event| event.key == note)?;
    String::from_utf8(event.record.as_ref()?.value.to_vec()).ok()
}

/// A timer of a line has run out that says [`BROKEN`]: what it left word of is history by now.
pub(crate) fn forget_reason(txn: &mut Txn<'_>, family: Family, what: &[u8]) {
    txn.delete(&Key::new(family, what), Cause::Command);
}
