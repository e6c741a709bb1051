//! Services: who can be called, where, and how well it does; and whom to call next.
//!
//! A service is its instances and, if somebody wanted other than the defaults, its settings. Without either it leaves no
//! key behind.
//!
//! | key, after the name | value | |
//! |---|---|---|
//! | `i` id | the [`Instance`] | what is known of it; attached to no session, so that it outlives its own |
//! | `v` id | nothing | its liveness, attached to the session that keeps it alive; none if it is permanent |
//! | `e` id | error reports | only while some are held against it |
//! | `p` | the [`Settings`] | only if they were set |
//! | `c` | the [`Census`] | counts, so that no change has to look at the other instances |
//!
//! The end of a session takes the liveness keys; `released` then turns their instances critical at once and sets the
//! timer that removes them. Instances are told apart in time by their *generation*, the revision of the registration: a
//! late renewal, drain or delete that names an older one is refused.
//!
//! Choosing among the instances ([`Pool`]) is a pure function, too, but no part of the log: every node does it for itself.

mod change;
mod fair;
mod filter;
mod group;
mod instance;
mod pool;
mod ring;
mod rows;

use std::sync::Arc;

use coracle_store::command::Attach;
use coracle_store::{
    Cause, Event, Family, Key, Millis, Principal, Record, Refusal as StoreRefusal, Revision, Selection,
    SessionId, Txn, View,
};
use minicbor::{Decode, Encode};

pub use filter::Filter;
pub use instance::{Description, Instance, Liveness, Status};
pub use pool::{Candidate, Draw, Picked, Pool, Strategy, Wish, protects};
pub use rows::{Census, Row};

use crate::{Described, names};
use rows::Rows;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant, reason = "one at a time, decoded and moved once")]
pub enum Operation {
    /// Create or replace an instance; its generation rises.
    #[n(0)]
    Register(#[n(0)] Box<Register>),
    /// What an instance says of itself while it lives. (That it lives is not logged: that is its session's renewal.)
    #[n(1)]
    Renew(#[n(0)] Named, #[n(1)] News),
    #[n(2)]
    Deregister(#[n(0)] Named),
    /// Pick it no more, remove it when the time is over.
    #[n(3)]
    Drain(#[n(0)] Named, #[n(1)] Millis),
    /// A caller's experience with it: true if all was well.
    #[n(4)]
    Report(#[n(0)] Named, #[n(1)] bool),
    #[n(5)]
    Configure(#[n(0)] Box<str>, #[n(1)] Settings),
    /// Back to the default settings.
    #[n(6)]
    Reset(#[n(0)] Box<str>),
}

/// One instance of one service.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Named {
    #[n(0)]
    pub service: Box<str>,
    /// 1..=512 bytes of UTF-8.
    #[n(1)]
    pub id: Box<str>,
    /// If given, the instance must still be of this generation.
    #[n(2)]
    pub generation: Option<Revision>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Register {
    /// With a generation: replace only that one.
    #[n(0)]
    pub named: Named,
    #[n(1)]
    pub description: Description,
    #[n(2)]
    pub status: Status,
    /// `None` makes it permanent, `Keep` leaves its liveness as it is (permanent if it is new).
    #[n(3)]
    pub attach: Attach,
}

/// What a renewal may change; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct News {
    #[n(0)]
    pub status: Option<Status>,
    /// 0..=1000.
    #[n(1)]
    pub weight: Option<u16>,
    /// In thousandths, 0..=1000.
    #[n(2)]
    pub load: Option<u16>,
}

/// How a service is run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    /// In thousandths: if a smaller part of the instances is well, all are returned. 0 is never.
    #[n(0)]
    pub protect: u16,
    /// How long an instance that lost its liveness is shown as critical before it goes.
    #[n(1)]
    pub deregister_after: Millis,
    /// A new instance gets its full share after this long. 0 is at once.
    #[n(2)]
    pub slow_start: Millis,
    /// So many errors in a row eject an instance. 0 is never.
    #[n(3)]
    pub eject_errors: u16,
    /// For how long it is ejected, and for how long an error is remembered.
    #[n(4)]
    pub eject_for: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// As it is now, and whether it is new.
    #[n(0)]
    Registered(#[n(0)] Box<Instance>, #[n(1)] bool),
    /// Renewed, draining or reported: as it is now.
    #[n(1)]
    Changed(#[n(0)] Box<Instance>),
    /// Gone: as it was.
    #[n(2)]
    Deregistered(#[n(0)] Box<Instance>),
    /// Whether there were none before.
    #[n(3)]
    Configured(#[n(0)] bool),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// No such instance.
    #[n(0)]
    NotFound,
    /// Registered anew since: its generation now.
    #[n(1)]
    Replaced(#[n(0)] Revision),
    /// Its session has ended; only a registration with a new liveness brings it back.
    #[n(2)]
    Lost(#[n(0)] SessionId),
    #[n(3)]
    TooManyInstances(#[n(0)] u64),
    /// The service has no settings of its own.
    #[n(4)]
    NoSettings,
}

/// As in the URL.
pub const NAME: &str = "services";
/// First byte of every key of a service.
pub const FAMILY: Family = Family(b'd');
/// Instances of one service.
pub const INSTANCES: u64 = 20_000;
/// Largest weight, and thousandths in one.
pub const SCALE: u16 = 1_000;
/// Longest span of the settings and of a drain, in milliseconds.
pub const SPAN_MS: u64 = 86_400_000;

impl Default for Settings {
    /// No protection; 60 s until a dead instance goes; no slow start; ejected for 30 s after two errors.
    fn default() -> Self {
        Self {
            protect: 0,
            deregister_after: Millis(60_000),
            slow_start: Millis(0),
            eject_errors: 2,
            eject_for: Millis(30_000),
        }
    }
}

/// One instance.
#[must_use]
pub fn instance(view: View<'_>, service: &str, id: &str) -> Option<Instance> {
    Rows::new(service).instance(view, id)
}

/// What all keys of a service begin with, family byte first.
#[must_use]
pub fn prefix(service: &str) -> Vec<u8> {
    Rows::new(service).prefix().to_vec()
}

/// The key of one instance, to watch it alone.
#[must_use]
pub fn key(service: &str, id: &str) -> Key {
    Rows::new(service).instance_key(id)
}

/// Ids of the instances of a service, after `after`, at most `limit`, in order of their bytes.
#[must_use]
pub fn ids(view: View<'_>, service: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    instances(view, service, after).take(limit).map(|row| row.id()).collect()
}

/// Whether error reports are held against an instance.
#[must_use]
pub fn is_reported(view: View<'_>, service: &str, id: &str) -> bool {
    Rows::new(service).strikes(view, id).is_some()
}

/// The instances of a service in the order of their ids, from behind `after` on. They are handed out as they are stored:
/// [`Row::read`] reads one.
pub fn instances<'a>(
    view: View<'a>,
    service: &str,
    after: Option<&str>,
) -> impl Iterator<Item = Row> + use<'a> {
    Rows::new(service).instances(view, after)
}

/// What an event of a service says of one instance: its id, what it was, what it is.
#[must_use]
pub fn told(event: &Event) -> Option<(String, Option<Instance>, Option<Instance>)> {
    let Some((_, rows::Part::Instance(id))) = rows::of(&event.key) else { return None };
    let read = |record: &Arc<Record>| rows::decoded(&record.value);
    Some((id, event.previous.as_ref().map(read), event.record.as_ref().map(read)))
}

/// Whether an event changes the settings of a service.
#[must_use]
pub fn configures(event: &Event) -> bool {
    matches!(rows::of(&event.key), Some((_, rows::Part::Settings)))
}

/// Counts of a service; all zero if it has no instances.
#[must_use]
pub fn census(view: View<'_>, service: &str) -> Census {
    Rows::new(service).census(view)
}

/// The settings that were made for a service, if any were.
#[must_use]
pub fn settings(view: View<'_>, service: &str) -> Option<Settings> {
    Rows::new(service).settings(view)
}

/// Names of services that start with `prefix`, after `after`, at most `limit`, in order of their bytes. Costs one look-up
/// a name, however many instances they have.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    names::list(view, FAMILY, prefix, after, limit)
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Register(register) => change::register(txn, *register),
        Operation::Renew(named, news) => change::renew(txn, &named, &news),
        Operation::Deregister(named) => change::deregister(txn, &named),
        Operation::Drain(named, deadline) => change::drain(txn, &named, deadline),
        Operation::Report(named, well) => change::report(txn, &named, well),
        Operation::Configure(service, settings) => change::configure(txn, &service, &settings),
        Operation::Reset(service) => change::reset(txn, &service),
    }
}

/// Sessions ended, and with them the liveness of their instances.
pub(crate) fn released(txn: &mut Txn<'_>, gone: &[&(Key, Arc<Record>)], cause: Cause) {
    for (key, _) in gone {
        if let Some((service, rows::Part::Liveness(id))) = rows::of(key) {
            change::lost(txn, &service, &id, cause);
        }
    }
}

/// The time of an instance is over: to be removed, or to be no longer ejected.
pub(crate) fn due(txn: &mut Txn<'_>, timer: &[u8]) {
    change::due(txn, timer);
}

/// What an instance says of itself is told at quota, too.
pub(crate) fn drains(operation: &Operation) -> bool {
    match operation {
        Operation::Register(_) | Operation::Report(..) | Operation::Configure(..) => false,
        Operation::Renew(..) | Operation::Deregister(_) | Operation::Drain(..) | Operation::Reset(_) => true,
    }
}

/// `registered`, `updated`, `draining`, `ejected`, `restored`, `lost`, `expired` (removed because it was lost),
/// `deregistered`; of its liveness `attached` and `detached`; of the service `configured` and `reset`.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (name, part) = rows::of(&event.key)?;
    let described = |op, item, session, token| Described { family: NAME, op, name, item, session, token };
    match part {
        rows::Part::Instance(id) => {
            let (_, previous, current) = told(event)?;
            let op = happened(event.cause, previous.as_ref(), current.as_ref());
            let instance = current.or(previous)?;
            Some(described(op, Some(id), instance.session(), Some(instance.generation)))
        }
        rows::Part::Liveness(id) => {
            let op = if event.record.is_some() { "attached" } else { "detached" };
            let session = event.record.as_ref().or(event.previous.as_ref())?.session;
            Some(described(op, Some(id), session, None))
        }
        rows::Part::Settings => {
            let op = if event.record.is_some() { "configured" } else { "reset" };
            Some(described(op, None, None, None))
        }
        rows::Part::Strikes | rows::Part::Census => None,
    }
}

/// One word for what happened to an instance.
fn happened(cause: Cause, previous: Option<&Instance>, current: Option<&Instance>) -> &'static str {
    match (previous, current) {
        (Some(previous), Some(current)) if previous.generation == current.generation => {
            let newly = |of: fn(&Instance) -> bool| of(current) && !of(previous);
            if newly(|instance| instance.lost.is_some()) {
                "lost"
            } else if newly(|instance| instance.drain.is_some()) {
                "draining"
            } else if newly(|instance| instance.ejected.is_some()) {
                "ejected"
            } else if newly(|instance| instance.ejected.is_none()) {
                "restored"
            } else {
                "updated"
            }
        }
        (_, Some(_)) => "registered",
        (_, None) if cause == Cause::SessionExpired => "expired",
        (_, None) => "deregistered",
    }
}

pub(crate) fn selection(name: &str) -> Selection {
    Selection::Prefix(prefix(name))
}
