//! What can happen to an instance: registered, renewed, drained, reported, lost, removed.

use coracle_store::command::Attach;
use coracle_store::limits::{META_BYTES, NAME_BYTES};
use coracle_store::{Cause, Millis, Refusal as StoreRefusal, Timestamp, Txn};

use crate::bounded;

use super::rows::{self, Due, Rows, Strikes};
use super::{
    Description, INSTANCES, Instance, Liveness, Named, News, Outcome, Refusal, Register, SCALE, SPAN_MS,
    Settings, Status,
};

/// Bytes of an address.
const ADDRESS_BYTES: usize = 255;

pub fn register(txn: &mut Txn<'_>, register: Register) -> Result<Outcome, StoreRefusal> {
    let Register { named, mut description, status, attach } = register;
    check(&named)?;
    check_description(&mut description)?;
    let rows = Rows::new(&named.service);
    let was = match named.generation {
        Some(_) => Some(find(txn, &rows, &named)?),
        None => rows.instance(txn.view(), &named.id),
    };
    if let Some(was) = &was {
        once(txn, &rows, &named, was)?;
    }
    let instances = rows.census(txn.view()).instances;
    if was.is_none() && instances >= INSTANCES {
        return Err(Refusal::TooManyInstances(INSTANCES).into());
    }
    let liveness = match (&attach, &was) {
        (Attach::None, _) | (Attach::Keep, None) => Liveness::Permanent,
        (Attach::Keep, Some(was)) => match (was.lost, was.session()) {
            (Some(_), Some(session)) => return Err(Refusal::Lost(session).into()),
            _ => was.liveness,
        },
        (Attach::Session(id), _) => Liveness::Session(*id),
        (Attach::Private(open), _) => Liveness::Ttl(open.id, open.ttl),
    };
    if !matches!(attach, Attach::Keep) {
        let current = was.as_ref().filter(|was| was.lost.is_none()).and_then(Instance::session);
        txn.attach(&attach, current)?;
    }
    let now = txn.now();
    let mut instance = Instance {
        generation: txn.revision(),
        description,
        told: status,
        load: None,
        liveness,
        registered: was.as_ref().map_or(now, |was| was.registered),
        up_since: was.as_ref().and_then(|was| was.up_since),
        drain: None,
        lost: None,
        ejected: None,
        leaves: None,
    };
    settle(&mut instance, now);
    if was.is_none() {
        txn.make_room(rows.overhead(&named.id) + crate::encoded(&instance).len())?;
    } else {
        txn.make_room(crate::encoded(&instance.description).len())?;
    }
    rows.set_strikes(txn, &named.id, None);
    rows.write(txn, &named.id, was.as_ref(), Some(&instance), Cause::Command);
    rows.set_liveness(txn, &named.id, instance.session());
    Ok(Outcome::Registered(instance.into(), was.is_none()))
}

pub fn renew(txn: &mut Txn<'_>, named: &Named, news: &News) -> Result<Outcome, StoreRefusal> {
    check(named)?;
    bounded("weight", news.weight.unwrap_or(0).into(), 0, SCALE.into())?;
    bounded("load", news.load.unwrap_or(0).into(), 0, SCALE.into())?;
    let rows = Rows::new(&named.service);
    let was = find(txn, &rows, named)?;
    if let (Some(_), Some(session)) = (was.lost, was.session()) {
        return Err(Refusal::Lost(session).into());
    }
    let mut instance = was.clone();
    instance.told = news.status.unwrap_or(was.told);
    instance.description.weight = news.weight.unwrap_or(was.description.weight);
    instance.load = news.load.or(was.load);
    settle(&mut instance, txn.now());
    rows.write(txn, &named.id, Some(&was), Some(&instance), Cause::Command);
    Ok(Outcome::Changed(instance.into()))
}

pub fn deregister(txn: &mut Txn<'_>, named: &Named) -> Result<Outcome, StoreRefusal> {
    check(named)?;
    let rows = Rows::new(&named.service);
    let was = find(txn, &rows, named)?;
    remove(txn, &rows, named, was)
}

fn remove(txn: &mut Txn<'_>, rows: &Rows, named: &Named, was: Instance) -> Result<Outcome, StoreRefusal> {
    once(txn, rows, named, &was)?;
    rows.write(txn, &named.id, Some(&was), None, Cause::Command);
    Ok(Outcome::Deregistered(was.into()))
}

/// A second drain can only bring the end nearer.
pub fn drain(txn: &mut Txn<'_>, named: &Named, deadline: Millis) -> Result<Outcome, StoreRefusal> {
    check(named)?;
    span("deadline", deadline)?;
    let rows = Rows::new(&named.service);
    let was = find(txn, &rows, named)?;
    let now = txn.now();
    if deadline.0 == 0 {
        return remove(txn, &rows, named, was);
    }
    let mut instance = was.clone();
    instance.drain = was.drain.or(Some(now));
    let end = now.after(deadline);
    instance.leaves = Some(was.leaves.map_or(end, |leaves| leaves.min(end)));
    settle(&mut instance, now);
    rows.write(txn, &named.id, Some(&was), Some(&instance), Cause::Command);
    Ok(Outcome::Changed(instance.into()))
}

/// An error is forgotten after a good word, or when it is as old as an ejection is long. At most half of those that are up
/// are ejected at a time: false witness cannot take a service down.
pub fn report(txn: &mut Txn<'_>, named: &Named, well: bool) -> Result<Outcome, StoreRefusal> {
    check(named)?;
    let rows = Rows::new(&named.service);
    let was = find(txn, &rows, named)?;
    let settings = rows.settings(txn.view()).unwrap_or_default();
    if well || settings.eject_errors == 0 {
        rows.set_strikes(txn, &named.id, None);
        return Ok(Outcome::Changed(was.into()));
    }
    let now = txn.now();
    let recent = |strikes: &Strikes| now.since(strikes.last) <= settings.eject_for;
    let before = rows.strikes(txn.view(), &named.id).filter(recent).map_or(0, |strikes| strikes.count);
    let count = before.saturating_add(1);
    let census = rows.census(txn.view());
    let may_go = was.is_healthy() && (census.ejected + 1) * 2 <= census.up;
    if count < settings.eject_errors || !may_go {
        if before == 0 {
            txn.make_room(coracle_store::limits::KEY_OVERHEAD + named.service.len() + named.id.len())?;
        }
        // One that may not go now goes with the next error, once it may.
        let strikes = Strikes { count: count.min(settings.eject_errors), last: now };
        rows.set_strikes(txn, &named.id, Some(strikes));
        return Ok(Outcome::Changed(was.into()));
    }
    let mut instance = was.clone();
    instance.ejected = Some(now.after(settings.eject_for));
    rows.set_strikes(txn, &named.id, None);
    rows.write(txn, &named.id, Some(&was), Some(&instance), Cause::Command);
    Ok(Outcome::Changed(instance.into()))
}

pub fn configure(txn: &mut Txn<'_>, service: &str, settings: &Settings) -> Result<Outcome, StoreRefusal> {
    bounded("service", service.len(), 1, NAME_BYTES)?;
    bounded("protect", settings.protect.into(), 0, SCALE.into())?;
    bounded("eject_errors", settings.eject_errors.into(), 0, SCALE.into())?;
    for (what, length) in [
        ("deregister_after", settings.deregister_after),
        ("slow_start", settings.slow_start),
        ("eject_for", settings.eject_for),
    ] {
        span(what, length)?;
    }
    let rows = Rows::new(service);
    let created = rows.settings(txn.view()).is_none();
    if created {
        txn.make_room(coracle_store::limits::KEY_OVERHEAD + service.len() + 32)?;
    }
    rows.set_settings(txn, Some(settings));
    Ok(Outcome::Configured(created))
}

pub fn reset(txn: &mut Txn<'_>, service: &str) -> Result<Outcome, StoreRefusal> {
    let rows = Rows::new(service);
    if rows.settings(txn.view()).is_none() {
        return Err(Refusal::NoSettings.into());
    }
    rows.set_settings(txn, None);
    Ok(Outcome::Configured(false))
}

/// The session behind an instance ended. If its owner closed it, that is a farewell; if it ran out, the instance is
/// critical from now on, and goes later.
pub fn lost(txn: &mut Txn<'_>, service: &str, id: &str, cause: Cause) {
    let rows = Rows::new(service);
    let Some(was) = rows.instance(txn.view(), id) else { return };
    let now = txn.now();
    let settings = rows.settings(txn.view()).unwrap_or_default();
    if cause == Cause::SessionClosed || settings.deregister_after.0 == 0 {
        rows.write(txn, id, Some(&was), None, cause);
        return;
    }
    let mut instance = was.clone();
    instance.lost = Some(now);
    let end = now.after(settings.deregister_after);
    instance.leaves = Some(was.leaves.map_or(end, |leaves| leaves.min(end)));
    settle(&mut instance, now);
    rows.write(txn, id, Some(&was), Some(&instance), cause);
}

/// A timer rang; whether it still means anything is in the instance.
pub fn due(txn: &mut Txn<'_>, timer: &[u8]) {
    let Some((service, id, due)) = rows::timed(timer) else { return };
    let rows = Rows::new(&service);
    let Some(was) = rows.instance(txn.view(), &id) else { return };
    let now = txn.now();
    let rings = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    match due {
        Due::Leaves if rings(was.leaves) => {
            let cause = if was.lost.is_some() { Cause::SessionExpired } else { Cause::Command };
            rows.write(txn, &id, Some(&was), None, cause);
        }
        Due::Restored if rings(was.ejected) => {
            let instance = Instance { ejected: None, ..was.clone() };
            rows.write(txn, &id, Some(&was), Some(&instance), Cause::Command);
        }
        Due::Leaves | Due::Restored => {}
    }
}

/// The instance, if it is of the generation that is meant.
fn find(txn: &Txn<'_>, rows: &Rows, named: &Named) -> Result<Instance, StoreRefusal> {
    let instance = rows.instance(txn.view(), &named.id).ok_or(Refusal::NotFound)?;
    match named.generation {
        Some(generation) if generation != instance.generation => {
            Err(Refusal::Replaced(instance.generation).into())
        }
        _ => Ok(instance),
    }
}

/// Two registrations of one entry could not be told apart by their generations.
fn once(txn: &Txn<'_>, rows: &Rows, named: &Named, was: &Instance) -> Result<(), StoreRefusal> {
    if was.generation == txn.revision() {
        return Err(StoreRefusal::DuplicateKey(rows.instance_key(&named.id)));
    }
    Ok(())
}

/// Follow a change of what decides over being up.
fn settle(instance: &mut Instance, now: Timestamp) {
    instance.up_since = if instance.is_up() { instance.up_since.or(Some(now)) } else { None };
}

fn span(what: &str, length: Millis) -> Result<(), StoreRefusal> {
    let (length, most) = (usize::try_from(length.0), usize::try_from(SPAN_MS));
    bounded(what, length.unwrap_or(usize::MAX), 0, most.unwrap_or(usize::MAX))
}

fn check(named: &Named) -> Result<(), StoreRefusal> {
    bounded("service", named.service.len(), 1, NAME_BYTES)?;
    bounded("id", named.id.len(), 1, NAME_BYTES)
}

fn check_description(description: &mut Description) -> Result<(), StoreRefusal> {
    let Description { address, scheme, version, zone, weight, tags, meta, ports, .. } = &mut *description;
    bounded("address", address.len(), 1, ADDRESS_BYTES)?;
    bounded("weight", (*weight).into(), 0, SCALE.into())?;
    for (what, text) in [("scheme", scheme), ("version", version), ("zone", zone)] {
        bounded(what, text.len(), 0, NAME_BYTES)?;
    }
    tags.sort_unstable();
    tags.dedup();
    // One bound for all that is free to grow.
    let size = tags.iter().map(|tag| tag.len() + 1).sum::<usize>()
        + ports.keys().map(|name| name.len() + 3).sum::<usize>()
        + meta.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    bounded("metadata", size, 0, META_BYTES)
}

impl Status {
    /// All of them, with their words.
    pub const WORDS: [(&str, Self); 6] = [
        ("starting", Self::Starting),
        ("passing", Self::Passing),
        ("warning", Self::Warning),
        ("critical", Self::Critical),
        ("draining", Self::Draining),
        ("maintenance", Self::Maintenance),
    ];
}
