//! Groups: who is there, and which share of the work is whose.
//!
//! A member is a key attached to its session, so the end of the session takes it out of the group. Keys, after the
//! name:
//!
//! | key | value | |
//! |---|---|---|
//! | `m` id | the [`Member`] | |
//! | `v` | the [`View`](Seen) | only while somebody is there: how many, and the revision at which that last changed |
//!
//! The revision of the view changes when somebody comes, goes, or comes back in another session, and not when a member
//! says something new. It is never used twice, so it tells one division of the work from another: what was done for
//! an older view was done by somebody who may not have known better. See [`shares`].

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_store::command::Attach;
use coracle_store::limits::{KEY_OVERHEAD, META_BYTES, NAME_BYTES};
use coracle_store::{
    Cause, ContentType, Event, Family, Key, Principal, Record, Refusal as StoreRefusal, Revision, Selection,
    SessionId, Timestamp, Txn, Value, View,
};
use minicbor::{Decode, Encode};

use crate::{Described, bounded, names};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Join(#[n(0)] Join),
    /// Idempotent: who is not there has left.
    #[n(1)]
    Leave(#[n(0)] Leave),
}

/// Come, or say something new. A member that comes again in another session has moved there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Join {
    /// 1..=512 bytes of UTF-8.
    #[n(0)]
    pub group: Box<str>,
    /// 1..=512 bytes, one a member.
    #[n(1)]
    pub id: Box<str>,
    /// `Session` or `Private`; `Keep` for a member that is there.
    #[n(2)]
    pub attach: Attach,
    /// At most 4 KiB.
    #[n(3)]
    pub payload: Value,
    #[n(4)]
    pub content_type: ContentType,
    /// 0..=100.
    #[n(5)]
    pub progress: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Leave {
    #[n(0)]
    pub group: Box<str>,
    #[n(1)]
    pub id: Box<str>,
    /// If given, only if the member belongs to that session.
    #[n(2)]
    pub session: Option<SessionId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The group as it is now, the session of the member, and whether it was not there before.
    #[n(0)]
    Joined(#[n(0)] Seen, #[n(1)] SessionId, #[n(2)] bool),
    /// The group as it is now, and whether the member was there.
    #[n(1)]
    Left(#[n(0)] Seen, #[n(1)] bool),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// Something new was said without a session by one who is not there, or the session to leave is another one.
    #[n(0)]
    NotMember,
    /// As many as may be are there.
    #[n(1)]
    Full(#[n(0)] u64),
}

/// What can be said of a group without looking at its members. One where nobody is has nothing but zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Seen {
    #[n(0)]
    pub size: u64,
    /// When somebody last came or went.
    #[n(1)]
    pub view: Revision,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    #[n(0)]
    pub payload: Value,
    #[n(1)]
    pub content_type: ContentType,
    #[n(2)]
    pub progress: Option<u8>,
    /// Log time at which it came, in the session it is in.
    #[n(3)]
    pub since: Timestamp,
}

/// As in the URL.
pub const NAME: &str = "groups";
/// First byte of every key of a group.
pub const FAMILY: Family = Family(b'g');
/// Members of one group.
pub const MEMBERS: u64 = 10_000;
/// Shares that one group's work can be cut into.
pub const SLOTS: u64 = 4_096;

const MEMBER: u8 = b'm';
const VIEW: u8 = b'v';

/// How many are there, as of when.
#[must_use]
pub fn seen(view: View<'_>, group: &str) -> Seen {
    view.get(&view_key(group)).map(|record| decoded(record)).unwrap_or_default()
}

/// The members in the order of their ids, with their sessions.
pub fn members<'a>(
    view: View<'a>,
    group: &str,
) -> impl Iterator<Item = (String, SessionId, Member)> + use<'a> {
    let prefix = [&names::closed(group)[..], &[MEMBER]].concat();
    let skip = prefix.len();
    view.scan(FAMILY, &prefix).filter_map(move |(key, record)| {
        let id = String::from_utf8_lossy(&key.name()[skip..]).into_owned();
        Some((id, record.session?, decoded(record)))
    })
}

/// One member.
#[must_use]
pub fn member(view: View<'_>, group: &str, id: &str) -> Option<(SessionId, Member)> {
    let record = view.get(&member_key(group, id))?;
    Some((record.session?, decoded(record)))
}

/// Names of groups that start with `prefix`, after `after`, at most `limit`, in order of their bytes.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    names::list(view, FAMILY, prefix, after, limit)
}

/// What changes when somebody comes or goes, and not when one says something new.
#[must_use]
pub fn turning_points(group: &str) -> Selection {
    Selection::Key(view_key(group))
}

/// What to watch for one member.
#[must_use]
pub fn selection_of(group: &str, id: &str) -> Selection {
    Selection::Key(member_key(group, id))
}

/// The member as an event leaves it; `None` if it left, or the event is not of a member.
#[must_use]
pub fn said(event: &Event) -> Option<Member> {
    member_of(&event.key)?;
    event.record.as_deref().map(decoded)
}

/// Whose each slot in `0..slots` is, as positions in `ids`; empty if nobody is there.
///
/// Rendezvous: each member draws a number for each slot, from its id and the number of the slot alone, and the highest
/// has it. So every node, and every version, divides the work alike; and whoever comes takes only what is to be its
/// own, and whoever goes leaves only that.
#[must_use]
pub fn shares<S: AsRef<str>>(ids: &[S], slots: u64) -> Vec<usize> {
    let seeds: Vec<u64> = ids.iter().map(|id| mixed(fnv(id.as_ref().as_bytes()))).collect();
    let owner = |slot: u64| {
        let salt = mixed(slot.wrapping_add(1));
        // Of equal numbers the later in the order of the ids wins; any rule would do, if it is one.
        (0..seeds.len()).max_by_key(|at| (mixed(seeds[*at] ^ salt), *at))
    };
    (0..slots).filter_map(owner).collect()
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Join(join) => enter(txn, join),
        Operation::Leave(leave) => depart(txn, &leave),
    }
}

/// Sessions ended and their members are gone: count them out, once a group.
pub(crate) fn released(txn: &mut Txn<'_>, gone: &[&(Key, Arc<Record>)], _: Cause) {
    let mut groups: BTreeMap<String, u64> = BTreeMap::new();
    for (group, _) in gone.iter().filter_map(|(key, _)| member_of(key)) {
        *groups.entry(group).or_default() += 1;
    }
    for (group, left) in groups {
        let size = seen(txn.view(), &group).size;
        count(txn, &group, size.saturating_sub(left));
    }
}

/// No group waits for time.
pub(crate) fn due(_: &mut Txn<'_>, _: &[u8]) {}

pub(crate) fn drains(operation: &Operation) -> bool {
    matches!(operation, Operation::Leave(_))
}

/// `joined`, `updated`, `left`, `expired`.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (name, id) = member_of(&event.key)?;
    let session = event.record.as_ref().or(event.previous.as_ref())?.session;
    let op = match (&event.record, &event.previous) {
        (Some(record), Some(previous)) if record.session == previous.session => "updated",
        (Some(_), _) => "joined",
        (None, _) if event.cause == Cause::SessionExpired => "expired",
        (None, _) => "left",
    };
    Some(Described { family: NAME, op, name, item: Some(id), session, token: None })
}

pub(crate) fn selection(group: &str) -> Selection {
    Selection::Prefix([&[FAMILY.0][..], &names::closed(group)].concat())
}

fn enter(txn: &mut Txn<'_>, join: Join) -> Result<Outcome, StoreRefusal> {
    let Join { group, id, attach, payload, content_type, progress } = join;
    bounded("group", group.len(), 1, NAME_BYTES)?;
    bounded("id", id.len(), 1, NAME_BYTES)?;
    bounded("payload", payload.len(), 0, META_BYTES)?;
    bounded("progress", progress.unwrap_or_default().into(), 0, 100)?;
    let before = member(txn.view(), &group, &id);
    let now = seen(txn.view(), &group);
    let current = before.as_ref().map(|(session, _)| *session);
    if before.is_none() && now.size >= MEMBERS {
        return Err(Refusal::Full(MEMBERS).into());
    }
    let session = txn.attach(&attach, current)?.ok_or(Refusal::NotMember)?;
    let grown = payload.len().saturating_sub(before.as_ref().map_or(0, |(_, member)| member.payload.len()));
    let keys = usize::from(before.is_none()) + usize::from(now.size == 0);
    txn.make_room(grown + keys * (KEY_OVERHEAD + group.len() + id.len() + 48))?;
    let moved = current != Some(session);
    let since = before.as_ref().filter(|_| !moved).map_or(txn.now(), |(_, member)| member.since);
    let member = crate::row(&Member { payload, content_type, progress, since });
    txn.put(member_key(&group, &id), member, ContentType::Binary, Some(session));
    let seen = if moved { count(txn, &group, now.size + u64::from(before.is_none())) } else { now };
    Ok(Outcome::Joined(seen, session, before.is_none()))
}

fn depart(txn: &mut Txn<'_>, leave: &Leave) -> Result<Outcome, StoreRefusal> {
    let Leave { group, id, session } = leave;
    let now = seen(txn.view(), group);
    let Some((holder, _)) = member(txn.view(), group, id) else { return Ok(Outcome::Left(now, false)) };
    if session.is_some_and(|session| session != holder) {
        return Err(Refusal::NotMember.into());
    }
    txn.delete(&member_key(group, id), Cause::Command);
    Ok(Outcome::Left(count(txn, group, now.size.saturating_sub(1)), true))
}

/// Write how many are there now; nobody leaves no key.
fn count(txn: &mut Txn<'_>, group: &str, size: u64) -> Seen {
    let seen = Seen { size, view: txn.revision() };
    if size == 0 {
        txn.delete(&view_key(group), Cause::Command);
    } else {
        txn.put(view_key(group), crate::row(&seen), ContentType::Binary, None);
    }
    seen
}

fn view_key(group: &str) -> Key {
    Key::new(FAMILY, &[&names::closed(group)[..], &[VIEW]].concat())
}

fn member_key(group: &str, id: &str) -> Key {
    Key::new(FAMILY, &[&names::closed(group)[..], &[MEMBER], id.as_bytes()].concat())
}

/// Group and id of a member's key.
fn member_of(key: &Key) -> Option<(String, String)> {
    let (group, rest) = names::split(key.name())?;
    let id = rest.strip_prefix(&[MEMBER])?;
    Some((group, String::from_utf8_lossy(id).into_owned()))
}

fn decoded<'b, T: Decode<'b, ()>>(record: &'b Record) -> T {
    minicbor::decode(&record.value).expect("only a group writes its keys")
}

/// FNV-1a, 64 bit.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// The last step of `SplitMix64`: every bit of the number moves every bit of the answer.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
