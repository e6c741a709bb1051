//! A service as keys.

use std::sync::Arc;

use coracle_store::{Cause, ContentType, Key, Record, SessionId, Timestamp, Txn, Value, View};
use minicbor::{Decode, Encode};

use super::{FAMILY, Instance, Settings};
use crate::{names, timer};

const INSTANCE: u8 = b'i';
const LIVENESS: u8 = b'v';
const STRIKES: u8 = b'e';
const SETTINGS: u8 = b'p';
const CENSUS: u8 = b'c';
/// Timers of an instance, behind its names.
const LEAVES: u8 = b'l';
const RESTORED: u8 = b'r';

/// How many instances of a service there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Census {
    #[n(0)]
    pub instances: u64,
    /// Could be called.
    #[n(1)]
    pub up: u64,
    /// Could be, but are ejected.
    #[n(2)]
    pub ejected: u64,
}

/// Error reports held against an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Strikes {
    #[n(0)]
    pub count: u16,
    /// Log time of the last one.
    #[n(1)]
    pub last: Timestamp,
}

/// One service, by what its keys begin with: family byte and name.
pub(super) struct Rows {
    prefix: Vec<u8>,
}

/// What a key of a service is.
pub(super) enum Part {
    Instance(String),
    Liveness(String),
    Strikes,
    Settings,
    Census,
}

/// The service that a key belongs to, and what the key is.
pub(super) fn of(key: &Key) -> Option<(String, Part)> {
    let (service, rest) = names::split(key.name())?;
    let (part, rest) = rest.split_first()?;
    let id = || names::split(rest).map(|(id, _)| id);
    let part = match *part {
        INSTANCE => Part::Instance(id()?),
        LIVENESS => Part::Liveness(id()?),
        STRIKES => Part::Strikes,
        SETTINGS => Part::Settings,
        CENSUS => Part::Census,
        _ => return None,
    };
    Some((service, part))
}

/// An instance as it is stored.
pub struct Row {
    key: Key,
    record: Arc<Record>,
}

impl Row {
    #[must_use]
    pub fn id(&self) -> String {
        match of(&self.key) {
            Some((_, Part::Instance(id))) => id,
            _ => String::new(),
        }
    }

    /// Its id and what is known of it.
    #[must_use]
    pub fn read(&self) -> (String, Instance) {
        (self.id(), decoded(&self.record.value))
    }
}

/// What a timer is about.
pub(super) enum Due {
    Leaves,
    Restored,
}

impl Rows {
    pub fn new(service: &str) -> Self {
        Self { prefix: [&[FAMILY.0][..], &names::closed(service)].concat() }
    }

    /// What all its keys begin with, family byte first.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub fn instance(&self, view: View<'_>, id: &str) -> Option<Instance> {
        view.get(&self.instance_key(id)).map(|record| decoded(&record.value))
    }

    pub fn instances<'a>(&self, view: View<'a>, after: Option<&str>) -> impl Iterator<Item = Row> + use<'a> {
        let prefix = self.key(INSTANCE, &[]);
        let start = after.and_then(|id| Key::after_prefix(self.instance_key(id).as_bytes()));
        view.seek(start.as_ref().unwrap_or(&prefix))
            .take_while(move |(key, _)| key.as_bytes().starts_with(prefix.as_bytes()))
            .map(|(key, record)| Row { key: key.clone(), record: record.clone() })
    }

    pub fn census(&self, view: View<'_>) -> Census {
        view.get(&self.key(CENSUS, &[])).map(|record| decoded(&record.value)).unwrap_or_default()
    }

    pub fn settings(&self, view: View<'_>) -> Option<Settings> {
        view.get(&self.key(SETTINGS, &[])).map(|record| decoded(&record.value))
    }

    pub fn strikes(&self, view: View<'_>, id: &str) -> Option<Strikes> {
        view.get(&self.of(STRIKES, id)).map(|record| decoded(&record.value))
    }

    /// Bytes that a new instance takes beside its value.
    pub fn overhead(&self, id: &str) -> usize {
        // Instance, liveness and census; their private session counts for itself.
        3 * (coracle_store::limits::KEY_OVERHEAD + self.prefix.len()) + 2 * id.len()
    }

    /// Write what became of an instance, and everything that follows from it: counts and timers.
    pub fn write(
        &self,
        txn: &mut Txn<'_>,
        id: &str,
        was: Option<&Instance>,
        is: Option<&Instance>,
        cause: Cause,
    ) {
        if was == is {
            return;
        }
        let key = self.instance_key(id);
        if let Some(instance) = is {
            txn.put(key, encoded(instance), ContentType::Binary, None);
        } else {
            txn.delete(&key, cause);
            txn.delete(&self.of(LIVENESS, id), Cause::Command);
            self.set_strikes(txn, id, None);
        }
        let time = |of: fn(&Instance) -> Option<Timestamp>| (was.and_then(of), is.and_then(of));
        self.arm(txn, id, LEAVES, time(|instance| instance.leaves));
        self.arm(txn, id, RESTORED, time(|instance| instance.ejected));
        let before = self.census(txn.view());
        let moved = |count: u64, of: fn(&Instance) -> bool| {
            (count + u64::from(is.is_some_and(of))).saturating_sub(u64::from(was.is_some_and(of)))
        };
        let now = Census {
            instances: moved(before.instances, |_| true),
            up: moved(before.up, Instance::is_up),
            ejected: moved(before.ejected, |instance| instance.is_up() && instance.ejected.is_some()),
        };
        if now != before {
            let key = self.key(CENSUS, &[]);
            if now.instances == 0 {
                txn.delete(&key, Cause::Command);
            } else {
                txn.put(key, encoded(now), ContentType::Binary, None);
            }
        }
    }

    /// Hang the instance's liveness on a session, or on none.
    pub fn set_liveness(&self, txn: &mut Txn<'_>, id: &str, session: Option<SessionId>) {
        let key = self.of(LIVENESS, id);
        match session {
            None => {
                txn.delete(&key, Cause::Command);
            }
            Some(_) if txn.get(&key).is_some_and(|record| record.session == session) => {}
            Some(_) => txn.put(key, Value::from(&[][..]), ContentType::Binary, session),
        }
    }

    pub fn set_strikes(&self, txn: &mut Txn<'_>, id: &str, strikes: Option<Strikes>) {
        let key = self.of(STRIKES, id);
        match strikes {
            Some(strikes) => txn.put(key, encoded(strikes), ContentType::Binary, None),
            None => {
                txn.delete(&key, Cause::Command);
            }
        }
    }

    pub fn set_settings(&self, txn: &mut Txn<'_>, settings: Option<&Settings>) {
        let key = self.key(SETTINGS, &[]);
        match settings {
            Some(settings) => txn.put(key, encoded(settings), ContentType::Binary, None),
            None => {
                txn.delete(&key, Cause::Command);
            }
        }
    }

    fn arm(&self, txn: &mut Txn<'_>, id: &str, kind: u8, (was, is): (Option<Timestamp>, Option<Timestamp>)) {
        if was == is {
            return;
        }
        let what = [&self.prefix[1..], &names::closed(id), &[kind]].concat();
        if let Some(was) = was {
            timer::clear(txn, was, FAMILY, &what);
        }
        if let Some(is) = is {
            timer::set(txn, is, FAMILY, &what);
        }
    }

    pub fn instance_key(&self, id: &str) -> Key {
        self.of(INSTANCE, id)
    }

    fn of(&self, part: u8, id: &str) -> Key {
        self.key(part, &names::closed(id))
    }

    fn key(&self, part: u8, rest: &[u8]) -> Key {
        Key::new(FAMILY, &[&self.prefix[1..], &[part], rest].concat())
    }
}

/// The service, the instance and the matter of a timer.
pub(super) fn timed(what: &[u8]) -> Option<(String, String, Due)> {
    let (service, rest) = names::split(what)?;
    let (id, rest) = names::split(rest)?;
    match *rest {
        [LEAVES] => Some((service, id, Due::Leaves)),
        [RESTORED] => Some((service, id, Due::Restored)),
        _ => None,
    }
}

fn encoded(value: impl Encode<()>) -> Value {
    crate::row(&value)
}

pub(super) fn decoded<'b, T: Decode<'b, ()>>(value: &'b [u8]) -> T {
    minicbor::decode(value).expect("only a service writes its keys")
}
