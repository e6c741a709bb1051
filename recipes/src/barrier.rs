//! Barriers: gates that are open or closed, and meetings that begin once all have come.
//!
//! - A *gate* lets everybody pass while it is open.
//! - A *cyclic* barrier lets its parties pass together, each time as many as it says have come, and breaks for those who
//!   wait if one of them is lost, gives up, or the others do not come in time.
//! - A *double* barrier lets its parties begin together and end together: who has entered leaves, and has left when all
//!   have. If more come than it says they wait for the next time (`exact`), or join those who are inside.
//!
//! Each time has a *generation*: they count up from the revision at which the barrier was made, so no number is ever
//! used twice, and a generation is a fencing token. Keys, after the name:
//!
//! | key | value | |
//! |---|---|---|
//! | `c` | the [`Config`] | stays until the barrier is deleted |
//! | `s` | the generation and the numbers of those below | |
//! | `m` id | how one stands that came: waiting or inside | attached to its session, if it has one |
//! | `o` id | one that left, while others are inside | likewise |
//! | `w` revision of arrival, number within it | id | the line of those who wait |
//! | `d` id | nothing | who shall come, if declared ([`crate::declared`]) |
//!
//! Everything that moves is in [`room`].

mod room;
mod said;

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_store::command::Attach;
use coracle_store::limits::NAME_BYTES;
use coracle_store::{
    Cause, Event, Family, Key, Principal, Record, Refusal as StoreRefusal, Revision, Selection, SessionId,
    Timestamp, Txn, View,
};

use crate::{Described, bounded, declared, names};
use room::{Room, Stage};
pub use said::{Claim, Config, Create, Enter, Kind, Operation, Outcome, Passed, Place, Refusal, Why};

/// A barrier as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    pub config: Config,
    /// The one that fills, or that is inside.
    pub generation: u64,
    /// Of a gate.
    pub open: bool,
    pub waiting: u64,
    pub inside: u64,
    /// Out, while others are inside.
    pub leaving: u64,
    /// When it breaks for those who wait.
    pub due: Option<Timestamp>,
}

/// One at a barrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    pub id: String,
    pub session: Option<SessionId>,
    pub since: Timestamp,
    /// Inside as the how-manieth that came; `None`: it waits.
    pub inside: Option<u64>,
}

/// How one that came stands: see [`poll`].
pub type Turn = crate::Turn<Result<Passed, (u64, Why)>, Place>;

/// As in the URL.
pub const NAME: &str = "barriers";
/// First byte of every key of a barrier.
pub const FAMILY: Family = Family(b'b');
/// Parties of one barrier.
pub const PARTIES: u64 = 10_000;
/// Those who wait for a later time at one barrier.
pub const WAITERS: u64 = 10_000;

/// The longest timeout, in milliseconds.
pub const TIMEOUT_MS: u64 = 86_400_000;

/// A barrier.
#[must_use]
pub fn read(view: View<'_>, name: &str) -> Option<Barrier> {
    let room = Room::new(name);
    let (config, state) = (room.config(view)?, room.state(view));
    let room::State { generation, open, waiting, inside, leaving, due, .. } = state;
    Some(Barrier { config, generation, open, waiting, inside, leaving, due })
}

/// Those at a barrier, the first `limit`: who is inside by id, then who waits in the order they came.
#[must_use]
pub fn parties(view: View<'_>, name: &str, limit: usize) -> Vec<Party> {
    let room = Room::new(name);
    let inside = room.members(view).filter(|party| party.inside.is_some());
    inside.chain(room.line(view)).take(limit).collect()
}

/// Declared members that are not at the barrier, the first `limit` in order; none if none are declared.
#[must_use]
pub fn missing(view: View<'_>, name: &str, limit: usize) -> Vec<String> {
    let room = Room::new(name);
    let here = |id: &String| room.find(view, id).is_some();
    declared::list(view, FAMILY, &names::closed(name)).filter(|id| !here(id)).take(limit).collect()
}

/// Names of barriers that start with `prefix`, after `after`, at most `limit`, in order of their bytes.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    names::list(view, FAMILY, prefix, after, limit)
}

/// How one stands that waits by what it was told last, and of a double barrier by what is written.
#[must_use]
pub fn poll(view: View<'_>, name: &str, id: &str, told: &Place) -> Turn {
    let room = Room::new(name);
    let Some(config) = room.config(view) else {
        return Turn::Granted(Err((told.generation.unwrap_or_default(), Why::Deleted)));
    };
    match (room.find(view, id), told.generation) {
        (Some((_, entrant, session)), _) => room.turn(view, config, id, session, &entrant),
        (None, Some(generation)) if config.kind == Kind::Cyclic => match room.fate(view, generation) {
            None => Turn::Gone,
            Some(Ok(())) => Turn::Granted(Ok(Passed {
                id: id.into(),
                session: told.session,
                generation,
                index: Some(told.position - 1),
            })),
            Some(Err(why)) => Turn::Granted(Err((generation, why))),
        },
        (None, _) => Turn::Gone,
    }
}

/// What the keys of all that came begin with, family byte first.
#[must_use]
pub fn prefix_of_members(name: &str) -> Vec<u8> {
    Room::new(name).prefix_of(room::MEMBER)
}

/// What the key of one that came begins with.
#[must_use]
pub fn prefix_of(name: &str, id: &str) -> Vec<u8> {
    Room::new(name).member(id).as_bytes().to_vec()
}

/// What changes when all are out, or the one that left is lost.
#[must_use]
pub fn way_out(name: &str, id: &str) -> Key {
    Room::new(name).out(id)
}

/// The key that a gate opens and closes by; see [`opened`].
#[must_use]
pub fn gate(name: &str) -> Key {
    Room::new(name).state_key()
}

/// Whether an event of [`gate`] leaves it open.
#[must_use]
pub fn opened(event: &Event) -> bool {
    event.record.as_deref().is_some_and(|record| room::decoded::<room::State>(record).open)
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Create(create) => make(txn, &create),
        Operation::Enter(enter) => come(txn, enter),
        Operation::Leave(claim) => leave(txn, &claim),
        Operation::Withdraw(claim) => {
            let room = Room::new(&claim.barrier);
            if let (Some(config), Some((stage, entrant, session))) =
                (room.config(txn.view()), room.find(txn.view(), &claim.id))
                && stage == Stage::Waiting
                && (claim.session.is_none() || claim.session == session)
            {
                room.step_out(txn, config, &claim.id, &entrant);
            }
            Ok(Outcome::Withdrawn)
        }
        Operation::Turn(name, open) => turn(txn, &name, open),
        Operation::Delete(name) => {
            let room = Room::new(&name);
            room.config(txn.view()).ok_or(Refusal::NotFound)?;
            room.clear(txn);
            Ok(Outcome::Deleted)
        }
    }
}

/// Sessions ended and those of them that were at barriers are gone.
pub(crate) fn released(txn: &mut Txn<'_>, gone: &[&(Key, Arc<Record>)], _: Cause) {
    let mut rooms: BTreeMap<String, Vec<&(Key, Arc<Record>)>> = BTreeMap::new();
    for it in gone {
        if let Some((name, _)) = names::split(it.0.name()) {
            rooms.entry(name).or_default().push(it);
        }
    }
    for (name, gone) in rooms {
        Room::new(&name).lost(txn, &gone);
    }
}

/// Those who wait at a cyclic barrier have waited long enough.
pub(crate) fn due(txn: &mut Txn<'_>, what: &[u8]) {
    let Some((name, generation)) = names::split(what) else { return };
    let Ok(generation) = generation.try_into().map(u64::from_be_bytes) else { return };
    Room::new(&name).time_is_up(txn, generation);
}

pub(crate) fn drains(operation: &Operation) -> bool {
    match operation {
        Operation::Create(_) | Operation::Enter(_) | Operation::Turn(..) => false,
        Operation::Leave(_) | Operation::Withdraw(_) | Operation::Delete(_) => true,
    }
}

/// `created`, `configured`, `deleted`; of one that came `waiting`, `entered`, `left` (passed, if the same change has
/// `tripped`), `broken`, `expired`; of a generation, which is the token, `tripped`, `broken`, `finished`; of a gate
/// `opened`, `closed`.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (name, rest) = names::split(event.key.name())?;
    let told = |op, item, session, token| Described { family: NAME, op, name, item, session, token };
    let (part, rest) = rest.split_first()?;
    let (after, before) = (event.record.as_deref(), event.previous.as_deref());
    match *part {
        room::CONFIG => {
            let op = match (after, before) {
                (None, _) => "deleted",
                (Some(_), None) => "created",
                (Some(_), Some(_)) => "configured",
            };
            Some(told(op, None, None, None))
        }
        room::MEMBER => {
            let op = match (after.map(room::decoded::<room::Entrant>), event.cause) {
                (Some(entrant), _) if entrant.inside.is_some() => "entered",
                (Some(_), _) => "waiting",
                (None, Cause::Broken) => "broken",
                (None, Cause::SessionExpired) => "expired",
                (None, _) => "left",
            };
            let (id, _) = names::split(rest)?;
            Some(told(op, Some(id), after.or(before)?.session, None))
        }
        room::STATE => {
            let after: room::State = room::decoded(after?);
            let before = before.map_or_else(|| room::State { open: false, ..after.clone() }, room::decoded);
            let op = match after.broken.last() {
                _ if after.open != before.open => {
                    if after.open {
                        "opened"
                    } else {
                        "closed"
                    }
                }
                _ if after.generation == before.generation => return None,
                Some(broken) if broken.generation == before.generation => "broken",
                _ if before.inside + before.leaving > 0 => "finished",
                _ => "tripped",
            };
            Some(told(op, None, None, Some(Revision(before.generation))))
        }
        _ => None,
    }
}

pub(crate) fn selection(name: &str) -> Selection {
    Selection::Prefix(Room::new(name).prefix().to_vec())
}

fn make(txn: &mut Txn<'_>, create: &Create) -> Result<Outcome, StoreRefusal> {
    let Create { barrier: name, config, members } = create;
    bounded("barrier", name.len(), 1, NAME_BYTES)?;
    let least = u64::from(config.kind != Kind::Gate);
    let most = if config.kind == Kind::Gate { 0 } else { PARTIES };
    if !(least..=most).contains(&config.parties) {
        return Err(StoreRefusal::OutOfBounds("parties".into(), most, config.parties));
    }
    let timeout_fits = config.timeout.is_none_or(|timeout| (1..=TIMEOUT_MS).contains(&timeout.0));
    if !timeout_fits || (config.timeout.is_some() && config.kind != Kind::Cyclic) {
        return Err(StoreRefusal::OutOfBounds(
            "timeout".into(),
            TIMEOUT_MS,
            config.timeout.map_or(0, |it| it.0),
        ));
    }
    if config.exact && config.kind != Kind::Double {
        return Err(StoreRefusal::Malformed);
    }
    if !members.is_empty() && members.len() as u64 != config.parties {
        return Err(StoreRefusal::OutOfBounds("members".into(), config.parties, members.len() as u64));
    }
    let room = Room::new(name);
    if let Some(current) = room.config(txn.view()) {
        let declared = declared::list(txn.view(), FAMILY, &names::closed(name));
        if current == *config && declared.eq(members.iter().map(|member| String::from(&**member))) {
            return Ok(Outcome::Barrier(false));
        }
        let state = room.state(txn.view());
        if state.waiting + state.inside + state.leaving > 0 || state.open {
            return Err(Refusal::InUse(current).into());
        }
    }
    room.configure(txn, *config, members)?;
    Ok(Outcome::Barrier(true))
}

fn come(txn: &mut Txn<'_>, enter: Enter) -> Result<Outcome, StoreRefusal> {
    let Enter { barrier: name, id, attach, wait, generation } = enter;
    bounded("id", id.len(), 1, NAME_BYTES)?;
    let (room, view) = (Room::new(&name), txn.view());
    let config = room.config(view).ok_or(Refusal::NotFound)?;
    if config.kind == Kind::Gate {
        return Err(Refusal::OtherKind(config.kind).into());
    }
    if !declared::admits(view, FAMILY, &names::closed(&name), &id) {
        return Err(Refusal::NotMember(id).into());
    }
    let state = room.state(view);
    if let Some(asked) = generation.filter(|asked| *asked != state.generation) {
        return match room.fate(view, asked) {
            None => Err(Refusal::NoSuchGeneration(state.generation).into()),
            Some(Err(why)) => Err(Refusal::Broken(asked, why).into()),
            Some(Ok(())) => Ok(Outcome::Passed(Passed { id, session: None, generation: asked, index: None })),
        };
    }
    if matches!(attach, Attach::Keep) {
        return Err(StoreRefusal::Malformed);
    }
    let here = room.find(view, &id);
    let in_line = matches!(here, Some((Stage::Waiting, ..)));
    let gets_in = match here {
        Some((Stage::Inside, ..)) => true,
        Some((Stage::Waiting, ..)) => false,
        Some((Stage::Out, ..)) | None => state.lets_in(config),
    };
    if let Attach::Session(session) = attach
        && view.session(session).is_none()
    {
        return Err(StoreRefusal::SessionExpired(session));
    }
    if !wait && !gets_in {
        return Err(Refusal::Waiting(state.waiting, config.parties).into());
    }
    if !gets_in && !in_line && state.waiting >= WAITERS {
        return Err(Refusal::TooManyWaiters(WAITERS).into());
    }
    let current = here.as_ref().and_then(|(.., session)| *session);
    let session = txn.attach(&attach, current)?;
    match here {
        Some((Stage::Waiting | Stage::Inside, entrant, current)) => {
            if session != current {
                room.write(txn, &id, session, &entrant);
            }
            Ok(room.outcome(txn.view(), config, &id, session, &entrant))
        }
        Some((Stage::Out, ..)) | None => {
            room.make_room(txn, &id)?;
            Ok(room.arrive(txn, config, &id, session))
        }
    }
}

fn leave(txn: &mut Txn<'_>, claim: &Claim) -> Result<Outcome, StoreRefusal> {
    let (room, view) = (Room::new(&claim.barrier), txn.view());
    let config = room.config(view).ok_or(Refusal::NotFound)?;
    if config.kind == Kind::Gate {
        return Err(Refusal::OtherKind(config.kind).into());
    }
    let state = room.state(view);
    if let Some(asked) = claim.generation.filter(|asked| *asked != state.generation) {
        return match room.fate(view, asked) {
            None => Err(Refusal::NoSuchGeneration(state.generation).into()),
            Some(_) => Ok(Outcome::Left(asked, 0)),
        };
    }
    let found = room.find(view, &claim.id);
    let found = found.filter(|(.., session)| claim.session.is_none() || claim.session == *session);
    match found.ok_or(Refusal::NotInside)? {
        (Stage::Waiting, entrant, _) => {
            room.step_out(txn, config, &claim.id, &entrant);
            Ok(Outcome::Withdrawn)
        }
        (Stage::Inside, entrant, session) => Ok(room.go_out(txn, config, &claim.id, session, &entrant)),
        (Stage::Out, ..) => Ok(Outcome::Left(state.generation, state.inside)),
    }
}

fn turn(txn: &mut Txn<'_>, name: &str, open: bool) -> Result<Outcome, StoreRefusal> {
    bounded("barrier", name.len(), 1, NAME_BYTES)?;
    let room = Room::new(name);
    match room.config(txn.view()) {
        Some(config) if config.kind != Kind::Gate => return Err(Refusal::OtherKind(config.kind).into()),
        Some(_) => {}
        None => {
            let config = Config { kind: Kind::Gate, parties: 0, exact: false, timeout: None };
            room.configure(txn, config, &[])?;
        }
    }
    Ok(Outcome::Turned(open, room.set_open(txn, open)))
}
