//! Latches: a count that goes down to zero once, and then everybody may pass for good.
//!
//! Whoever counts down gives an id, and counts once however often it says so. Keys, after the name:
//!
//! | key | value | |
//! |---|---|---|
//! | `l` | count, and how much of it is left | the latch; stays until it is deleted |
//! | `o` | nothing | while it is closed: what waits for the opening watches this key, not each count |
//! | `i` id | nothing | who counted down |
//! | `d` id | nothing | who shall, if declared ([`crate::declared`]) |

use std::sync::Arc;

use coracle_store::limits::{KEY_OVERHEAD, NAME_BYTES};
use coracle_store::{
    Cause, ContentType, Event, Family, Key, Principal, Record, Refusal as StoreRefusal, Revision, Selection,
    Txn, Value, View,
};
use minicbor::{Decode, Encode};

use crate::{Described, bounded, declared, names};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Create(#[n(0)] Create),
    #[n(1)]
    CountDown(#[n(0)] CountDown),
    /// Forget the latch and who counted. Those who wait are told that it is gone.
    #[n(2)]
    Delete(#[n(0)] Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Create {
    /// 1..=512 bytes of UTF-8.
    #[n(0)]
    pub latch: Box<str>,
    /// 1..=[`COUNT_MAX`]; the number of members, if there are any.
    #[n(1)]
    pub count: u64,
    /// Only these count down; at most 1 000, in order and without repetition.
    #[n(2)]
    pub members: Vec<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CountDown {
    #[n(0)]
    pub latch: Box<str>,
    /// Who counts; the second time of the same is the first. 1..=512 bytes.
    #[n(1)]
    pub id: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The latch; true if it was made now.
    #[n(0)]
    Latch(#[n(0)] Latch, #[n(1)] bool),
    /// The latch; true if this counted, false if the id had counted before or the latch was open.
    #[n(1)]
    Counted(#[n(0)] Latch, #[n(1)] bool),
    /// What was forgotten.
    #[n(2)]
    Deleted(#[n(0)] Latch),
}

/// A latch as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Latch {
    #[n(0)]
    pub count: u64,
    /// How many are still to count down. 0: it is open.
    #[n(1)]
    pub left: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    #[n(0)]
    NotFound,
    /// It exists with another count or other members: the latch as it is.
    #[n(1)]
    Exists(#[n(0)] Latch),
    /// Members are declared, and this is none of them.
    #[n(2)]
    NotMember(#[n(0)] Box<str>),
}

/// As in the URL.
pub const NAME: &str = "latches";
/// First byte of every key of a latch.
pub const FAMILY: Family = Family(b'a');
/// The greatest count.
pub const COUNT_MAX: u64 = 10_000;

const LATCH: u8 = b'l';
const CLOSED: u8 = b'o';
const COUNTED: u8 = b'i';

/// A latch, and the revision of its last change.
#[must_use]
pub fn read(view: View<'_>, name: &str) -> Option<(Latch, Revision)> {
    let record = view.get(&key(name, LATCH))?;
    Some((decoded(record), record.mod_revision))
}

/// Members that have not counted down yet, the first `limit` in order; none if none are declared.
#[must_use]
pub fn missing(view: View<'_>, name: &str, limit: usize) -> Vec<String> {
    let counted = |id: &String| view.get(&key_of(name, id)).is_some();
    declared::list(view, FAMILY, &names::closed(name)).filter(|id| !counted(id)).take(limit).collect()
}

/// Names of latches that start with `prefix`, after `after`, at most `limit`, in order of their bytes.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    names::list(view, FAMILY, prefix, after, limit)
}

/// What changes when the latch is made, opens or goes, and at no count in between.
#[must_use]
pub fn turning_points(name: &str) -> Selection {
    Selection::Key(key(name, CLOSED))
}

/// The key whose history tells what became of a latch that is gone.
#[must_use]
pub fn whole(name: &str) -> Key {
    key(name, LATCH)
}

/// The latch that an event of [`whole`] leaves, or else the one it ended.
#[must_use]
pub fn told(event: &Event) -> Option<Latch> {
    event.record.as_ref().or(event.previous.as_ref()).map(|record| decoded(record))
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Create(create) => make(txn, create),
        Operation::CountDown(down) => count_down(txn, &down),
        Operation::Delete(name) => delete(txn, &name),
    }
}

/// No latch belongs to a session.
pub(crate) fn released(_: &mut Txn<'_>, _: &[&(Key, Arc<Record>)], _: Cause) {}

/// No latch waits for time.
pub(crate) fn due(_: &mut Txn<'_>, _: &[u8]) {}

pub(crate) fn drains(operation: &Operation) -> bool {
    matches!(operation, Operation::Delete(_))
}

/// `created`, `opened`, `deleted` of the latch; `counted_down` of an id.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (name, rest) = names::split(event.key.name())?;
    let (op, item) = match (rest.split_first()?, &event.record) {
        ((&LATCH, _), None) => ("deleted", None),
        ((&LATCH, _), Some(_)) if event.previous.is_none() => ("created", None),
        ((&LATCH, _), Some(record)) if decoded::<Latch>(record).left == 0 => ("opened", None),
        ((&COUNTED, id), Some(_)) => ("counted_down", Some(String::from_utf8_lossy(id).into_owned())),
        _ => return None,
    };
    Some(Described { family: NAME, op, name, item, session: None, token: None })
}

pub(crate) fn selection(name: &str) -> Selection {
    Selection::Prefix([&[FAMILY.0][..], &names::closed(name)].concat())
}

fn make(txn: &mut Txn<'_>, create: Create) -> Result<Outcome, StoreRefusal> {
    let Create { latch: name, count, members } = create;
    bounded("latch", name.len(), 1, NAME_BYTES)?;
    let count = if members.is_empty() { count } else { members.len() as u64 };
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(StoreRefusal::OutOfBounds("count".into(), COUNT_MAX, count));
    }
    let object = names::closed(&name);
    if let Some((latch, _)) = read(txn.view(), &name) {
        let declared = declared::list(txn.view(), FAMILY, &object);
        let same = latch.count == count && declared.eq(members.iter().map(|member| String::from(&**member)));
        return if same { Ok(Outcome::Latch(latch, false)) } else { Err(Refusal::Exists(latch).into()) };
    }
    txn.make_room(2 * (KEY_OVERHEAD + name.len()) + 16)?;
    declared::set(txn, FAMILY, &object, &members)?;
    let latch = Latch { count, left: count };
    write(txn, &name, latch);
    txn.put(key(&name, CLOSED), Value::from(&[][..]), ContentType::Binary, None);
    Ok(Outcome::Latch(latch, true))
}

fn count_down(txn: &mut Txn<'_>, down: &CountDown) -> Result<Outcome, StoreRefusal> {
    let CountDown { latch: name, id } = down;
    bounded("id", id.len(), 1, NAME_BYTES)?;
    let (mut latch, _) = read(txn.view(), name).ok_or(Refusal::NotFound)?;
    if !declared::admits(txn.view(), FAMILY, &names::closed(name), id) {
        return Err(Refusal::NotMember(id.clone()).into());
    }
    let counted = key_of(name, id);
    if latch.left == 0 || txn.get(&counted).is_some() {
        return Ok(Outcome::Counted(latch, false));
    }
    txn.make_room(KEY_OVERHEAD + name.len() + id.len())?;
    txn.put(counted, Value::from(&[][..]), ContentType::Binary, None);
    latch.left -= 1;
    write(txn, name, latch);
    if latch.left == 0 {
        txn.delete(&key(name, CLOSED), Cause::Command);
    }
    Ok(Outcome::Counted(latch, true))
}

fn delete(txn: &mut Txn<'_>, name: &str) -> Result<Outcome, StoreRefusal> {
    let (latch, _) = read(txn.view(), name).ok_or(Refusal::NotFound)?;
    let keys: Vec<Key> = txn.view().scan(FAMILY, &names::closed(name)).map(|(key, _)| key.clone()).collect();
    for key in keys {
        txn.delete(&key, Cause::Command);
    }
    Ok(Outcome::Deleted(latch))
}

fn key(name: &str, part: u8) -> Key {
    Key::new(FAMILY, &[&names::closed(name)[..], &[part]].concat())
}

fn key_of(name: &str, id: &str) -> Key {
    Key::new(FAMILY, &[&names::closed(name)[..], &[COUNTED], id.as_bytes()].concat())
}

fn write(txn: &mut Txn<'_>, name: &str, latch: Latch) {
    txn.put(key(name, LATCH), crate::row(&latch), ContentType::Binary, None);
}

fn decoded<'b, T: Decode<'b, ()>>(record: &'b Record) -> T {
    minicbor::decode(&record.value).expect("only a latch writes its keys")
}
