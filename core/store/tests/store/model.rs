//! The store as it could be written in an afternoon: a whole copy of all keys for each revision, no index, no roll-back.

use std::collections::BTreeMap;

use coracle_store::command::{Comparison, DeleteRange, OnExpire, OpenSession, Precondition, Put};
use coracle_store::limits::{IDEMPOTENCY_MS, KEY_OVERHEAD};
use coracle_store::reply::{DeleteOutcome, PutOutcome, TransactionOutcome};
use coracle_store::session;
use coracle_store::{
    Action, Attach, Command, Condition, ContentType, Family, Key, Operation, Outcome, Principal, Record,
    Refusal, Reply, Revision, Session, SessionId, Settings, Timestamp,
};

use crate::words::kv;

pub type Keys = BTreeMap<Key, Record>;

pub struct Model {
    pub now: Timestamp,
    pub compacted: u64,
    pub settings: Settings,
    /// All keys at each revision.
    pub at: Vec<Keys>,
    pub times: Vec<Timestamp>,
    replies: BTreeMap<(Principal, Box<str>), (Timestamp, u64, Reply)>,
}

impl Model {
    pub fn new() -> Self {
        Self {
            now: Timestamp(0),
            compacted: 0,
            settings: Settings::default(),
            at: vec![Keys::new()],
            times: vec![Timestamp(0)],
            replies: BTreeMap::new(),
        }
    }

    pub fn revision(&self) -> Revision {
        Revision(self.at.len() as u64 - 1)
    }

    pub fn keys(&self) -> &Keys {
        self.at.last().expect("revision 0 at least")
    }

    /// When the next session stalls.
    pub fn due(&self) -> Option<Timestamp> {
        let ours = self.keys().iter().filter(|(key, _)| key.family() == Family::SESSION);
        ours.filter_map(|(_, record)| stalls_at(&Session::decode(&record.value).expect("a session"))).min()
    }

    pub fn apply(&mut self, time: Timestamp, command: &Command) -> Reply {
        self.now = self.now.max(time);
        self.replies.retain(|_, (time, ..)| self.now.0 < time.0 + IDEMPOTENCY_MS);
        let asked = command.idempotency.as_ref();
        let name = asked.map(|asked| (command.principal.clone(), asked.key.clone()));
        if let (Some(asked), Some(name)) = (asked, &name)
            && let Some((_, fingerprint, reply)) = self.replies.get(name)
        {
            if *fingerprint == asked.fingerprint {
                return Reply { replayed: true, ..reply.clone() };
            }
            let result = Err(Refusal::IdempotencyKeyReused);
            return Reply { revision: self.revision(), replayed: false, result };
        }
        let result = self.run(command);
        let reply = Reply { revision: self.revision(), replayed: false, result };
        let kept = matches!(
            reply.result,
            Ok(_) | Err(Refusal::SessionExpired(_) | Refusal::SessionExists(_) | Refusal::DuplicateKey(_))
        );
        if let (Some(asked), Some(name), true) = (asked, name, kept) {
            self.replies.insert(name, (self.now, asked.fingerprint, reply.clone()));
        }
        reply
    }

    fn run(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        for (position, guard) in (0..).zip(&command.guards) {
            if !holds(self.keys(), guard) {
                return Err(Refusal::GuardFailed(position));
            }
        }
        let mut work = Work {
            keys: self.keys().clone(),
            revision: self.revision().next(),
            now: self.now,
            quota: self.settings.quota_bytes,
            who: command.principal.clone(),
        };
        let outcome = match &command.action {
            Action::Noop => Outcome::None,
            Action::Advance => {
                let stalled: Vec<Session> =
                    work.sessions().filter(|s| stalls_at(s).is_some_and(|at| at <= work.now)).collect();
                for session in stalled {
                    work.write_session(&Session { stalled: Some(work.now), ..session });
                }
                Outcome::None
            }
            Action::Doubt(missing, renewed) => {
                for doubt in missing {
                    let session = work.session(doubt.session).filter(|s| s.generation == doubt.generation);
                    if let Some(session) = session.filter(|s| !s.private && s.suspect.is_none()) {
                        work.write_session(&Session { suspect: Some(work.now), ..session });
                    }
                }
                for id in renewed {
                    if let Some(session) = work.session(*id).filter(|s| s.suspect.is_some()) {
                        work.write_session(&Session { suspect: None, ..session });
                    }
                }
                Outcome::None
            }
            Action::One(operation) => work.operate(operation)?,
            Action::Transaction(transaction) => {
                written_once(&transaction.then, work.revision)?;
                written_once(&transaction.otherwise, work.revision)?;
                let succeeded = transaction.conditions.iter().all(|condition| holds(self.keys(), condition));
                let results = work.all(if succeeded { &transaction.then } else { &transaction.otherwise })?;
                Outcome::Transaction(TransactionOutcome { succeeded, results })
            }
            Action::Expire(expiries) => {
                let mut dying: Vec<SessionId> = Vec::new();
                for expiry in expiries {
                    let alive = work.session(expiry.session);
                    if alive.is_some_and(|alive| alive.generation == expiry.generation)
                        && !dying.contains(&expiry.session)
                    {
                        dying.push(expiry.session);
                    }
                }
                work.end(&dying);
                Outcome::Expired(dying.len() as u64)
            }
            Action::Compact(target) => {
                self.compacted = self.compacted.max(target.0.min(self.revision().0));
                Outcome::Compacted(Revision(self.compacted))
            }
            Action::Configure(settings) => {
                self.settings = settings.clone();
                Outcome::None
            }
        };
        let idle: Vec<SessionId> =
            work.sessions().filter(|s| s.private && work.attached(s.id).is_empty()).map(|s| s.id).collect();
        for id in idle {
            work.keys.remove(&session::key(id));
        }
        if work.keys != *self.keys() {
            self.at.push(work.keys);
            self.times.push(self.now);
        }
        Ok(outcome)
    }
}

/// When a session has stalled, if it can.
fn stalls_at(session: &Session) -> Option<Timestamp> {
    let (moved, patience) = (session.moved?, session.stall_after?);
    (session.stalled.is_none() && session.progress != Some(100)).then_some(Timestamp(moved.0 + patience.0))
}

pub fn live_bytes(keys: &Keys) -> u64 {
    keys.iter().map(|(key, record)| size(key, record.value.len())).sum()
}

fn size(key: &Key, value: usize) -> u64 {
    (key.as_bytes().len() + value + KEY_OVERHEAD) as u64
}

fn holds(keys: &Keys, condition: &Condition) -> bool {
    let compare = |actual: u64, comparison: &Comparison, than: u64| match comparison {
        Comparison::Equal => actual == than,
        Comparison::NotEqual => actual != than,
        Comparison::Less => actual < than,
        Comparison::Greater => actual > than,
    };
    match condition {
        Condition::Exists(key, exists) => keys.contains_key(key) == *exists,
        Condition::ModRevision(key, sign, than) => {
            compare(keys.get(key).map_or(0, |record| record.mod_revision.0), sign, than.0)
        }
        Condition::CreateRevision(key, sign, than) => {
            compare(keys.get(key).map_or(0, |record| record.create_revision.0), sign, than.0)
        }
        Condition::Version(key, sign, than) => {
            compare(keys.get(key).map_or(0, |record| record.version), sign, *than)
        }
        Condition::Value(key, sign, than) => keys.get(key).is_some_and(|record| match sign {
            Comparison::Equal => record.value == *than,
            Comparison::NotEqual => record.value != *than,
            Comparison::Less => record.value < *than,
            Comparison::Greater => record.value > *than,
        }),
        Condition::Alive(id) => keys.contains_key(&session::key(*id)),
        Condition::Program(_) => false,
    }
}

/// What each operation says it will write, as intervals of keys: no two may meet.
fn written_once(operations: &[Operation], revision: Revision) -> Result<(), Refusal> {
    let mut keys = Vec::new();
    let mut ranges = Vec::new();
    for operation in operations {
        match operation {
            Operation::Put(put) => keys.push(put.key.clone()),
            Operation::Append(append) => keys.push(appended(&append.directory, revision)),
            Operation::Delete(delete) => keys.push(delete.key.clone()),
            Operation::OpenSession(open) => keys.push(session::key(open.id)),
            Operation::UpdateSession(update) => keys.push(session::key(update.id)),
            Operation::CloseSession(id) => keys.push(session::key(*id)),
            Operation::DeleteRange(range) => ranges.push(range),
            Operation::Get(_) | Operation::Program(_) => {}
        }
    }
    keys.sort();
    if let Some(position) = (1..keys.len()).find(|position| keys[*position] == keys[position - 1]) {
        return Err(Refusal::DuplicateKey(keys[position].clone()));
    }
    ranges.sort_by(|a, b| a.start.cmp(&b.start));
    for range in &ranges {
        if let Some(key) = keys.iter().find(|key| inside(range, key)) {
            return Err(Refusal::DuplicateKey(key.clone()));
        }
    }
    for (first, second) in ranges.iter().zip(ranges.iter().skip(1)) {
        if inside(first, &second.start) {
            return Err(Refusal::DuplicateKey(second.start.clone()));
        }
    }
    Ok(())
}

fn inside(range: &DeleteRange, key: &Key) -> bool {
    key.family() == Family::KV && *key >= range.start && range.end.as_ref().is_none_or(|end| key < end)
}

fn appended(directory: &Key, revision: Revision) -> Key {
    kv(&format!("{}/{:020}", String::from_utf8_lossy(directory.name()), revision.0))
}

/// A copy of all keys that one entry works on.
struct Work {
    keys: Keys,
    revision: Revision,
    now: Timestamp,
    quota: u64,
    who: Principal,
}

impl Work {
    fn all(&mut self, operations: &[Operation]) -> Result<Vec<Outcome>, Refusal> {
        let mut results: Vec<Outcome> = Vec::new();
        let closing_id = |operation: &Operation| match operation {
            Operation::CloseSession(id) => Some(*id),
            _ => None,
        };
        let closing: Vec<SessionId> = operations.iter().filter_map(closing_id).collect();
        let mut outcomes: Option<BTreeMap<SessionId, Outcome>> = None;
        for operation in operations {
            let Some(id) = closing_id(operation) else {
                results.push(self.operate(operation)?);
                continue;
            };
            if outcomes.is_none() {
                let ended: Result<_, _> = closing.iter().map(|id| Ok((*id, self.closed(*id)?))).collect();
                outcomes = Some(ended?);
                self.end(&closing);
            }
            results.push(outcomes.as_ref().expect("just set")[&id].clone());
        }
        Ok(results)
    }

    fn operate(&mut self, operation: &Operation) -> Result<Outcome, Refusal> {
        match operation {
            Operation::Put(put) => self.put(put),
            Operation::Append(append) => self.put(&Put {
                key: appended(&append.directory, self.revision),
                value: append.value.clone(),
                content_type: append.content_type.clone(),
                attach: append.attach.clone(),
                precondition: Precondition::None,
                return_previous: false,
            }),
            Operation::Delete(delete) => {
                self.precondition(&delete.key, delete.precondition)?;
                let gone = self.keys.remove(&delete.key);
                let deleted = u64::from(gone.is_some());
                let previous = gone.filter(|_| delete.return_previous);
                Ok(Outcome::Deleted(DeleteOutcome { deleted, more: false, previous }))
            }
            Operation::DeleteRange(range) => {
                let before = self.keys.len();
                self.keys.retain(|key, _| !inside(range, key));
                let deleted = (before - self.keys.len()) as u64;
                Ok(Outcome::Deleted(DeleteOutcome { deleted, more: false, previous: None }))
            }
            Operation::Get(key) => Ok(Outcome::Got(key.clone(), self.keys.get(key).cloned())),
            Operation::OpenSession(open) => {
                self.open(open, false)?;
                Ok(Outcome::Session(open.id))
            }
            Operation::UpdateSession(update) => {
                let session = self.session(update.id).ok_or(Refusal::SessionExpired(update.id))?;
                let new_progress = update.progress.is_some() && update.progress != session.progress;
                let new_note = update.note.is_some() && update.note != session.note;
                let moves = new_progress || new_note;
                let session = Session {
                    suspect: None,
                    stalled: session.stalled.filter(|_| !moves),
                    moved: if moves && session.moved.is_some() { Some(self.now) } else { session.moved },
                    generation: session.generation + 1,
                    progress: update.progress.or(session.progress),
                    note: update.note.clone().or(session.note),
                    meta: update.meta.clone().unwrap_or(session.meta),
                    ..session
                };
                self.write_session(&session);
                Ok(Outcome::Session(update.id))
            }
            Operation::CloseSession(id) => {
                let outcome = self.closed(*id)?;
                self.end(&[*id]);
                Ok(outcome)
            }
            Operation::Program(_) => Err(Refusal::Malformed),
        }
    }

    fn put(&mut self, put: &Put) -> Result<Outcome, Refusal> {
        let previous = self.keys.get(&put.key).cloned();
        self.precondition(&put.key, put.precondition)?;
        let session = match &put.attach {
            Attach::None => None,
            Attach::Keep => previous.as_ref().and_then(|previous| previous.session),
            Attach::Session(id) => Some(self.session(*id).ok_or(Refusal::SessionExpired(*id))?.id),
            Attach::Private(open) => {
                self.open(open, true)?;
                Some(open.id)
            }
        };
        let before = previous.as_ref().map_or(0, |previous| size(&put.key, previous.value.len()));
        self.room(size(&put.key, put.value.len()), before)?;
        let record = Record {
            value: put.value.clone(),
            content_type: put.content_type.clone(),
            create_revision: self.revision,
            mod_revision: self.revision,
            version: 1,
            session,
        };
        let version = self.write(&put.key, record);
        let previous = previous.filter(|_| put.return_previous);
        Ok(Outcome::Put(PutOutcome { key: put.key.clone(), version, session, previous }))
    }

    fn write(&mut self, key: &Key, mut record: Record) -> u64 {
        if let Some(previous) = self.keys.get(key) {
            record.create_revision = previous.create_revision;
            record.version = previous.version + u64::from(previous.mod_revision != self.revision);
        }
        let version = record.version;
        self.keys.insert(key.clone(), record);
        version
    }

    fn room(&self, after: u64, before: u64) -> Result<(), Refusal> {
        let live = live_bytes(&self.keys);
        if after > before && live + (after - before) > self.quota {
            return Err(Refusal::QuotaExceeded(live, self.quota));
        }
        Ok(())
    }

    fn precondition(&self, key: &Key, precondition: Precondition) -> Result<(), Refusal> {
        let actual = self.keys.get(key).map_or(Revision(0), |record| record.mod_revision);
        let holds = match precondition {
            Precondition::None => true,
            Precondition::Matches(expected) => actual == expected && expected != Revision(0),
            Precondition::Absent => actual == Revision(0),
            Precondition::Present => actual != Revision(0),
        };
        if holds { Ok(()) } else { Err(Refusal::RevisionMismatch(key.clone(), actual)) }
    }

    fn open(&mut self, open: &OpenSession, private: bool) -> Result<(), Refusal> {
        if self.session(open.id).is_some() {
            return Err(Refusal::SessionExists(open.id));
        }
        let session = Session {
            id: open.id,
            ttl: open.ttl,
            name: open.name.clone(),
            meta: open.meta.clone(),
            on_expire: open.on_expire,
            owner: self.who.clone(),
            opened: self.now,
            generation: 1,
            progress: None,
            note: None,
            private,
            lock_delay: open.lock_delay,
            stall_after: open.stall_after,
            moved: open.stall_after.map(|_| self.now),
            stalled: None,
            suspect: None,
        };
        self.room(size(&session::key(open.id), encoded(&session).len()), 0)?;
        self.write_session(&session);
        Ok(())
    }

    fn write_session(&mut self, session: &Session) {
        let record = Record {
            value: encoded(session).into(),
            content_type: ContentType::Binary,
            create_revision: self.revision,
            mod_revision: self.revision,
            version: 1,
            session: None,
        };
        self.write(&session::key(session.id), record);
    }

    fn closed(&self, id: SessionId) -> Result<Outcome, Refusal> {
        self.session(id).ok_or(Refusal::SessionExpired(id))?;
        let mut keys = self.attached(id);
        keys.sort_by_key(|key| (self.keys[key].mod_revision, key.clone()));
        Ok(Outcome::Closed(keys))
    }

    fn end(&mut self, dying: &[SessionId]) {
        for id in dying {
            let Some(session) = self.session(*id) else { continue };
            for key in self.attached(*id) {
                let record = self.keys[&key].clone();
                match session.on_expire {
                    OnExpire::Delete => drop(self.keys.remove(&key)),
                    OnExpire::Release => {
                        self.write(&key, Record { session: None, mod_revision: self.revision, ..record });
                    }
                }
            }
        }
        for id in dying {
            self.keys.remove(&session::key(*id));
        }
    }

    fn session(&self, id: SessionId) -> Option<Session> {
        self.keys.get(&session::key(id)).map(|record| Session::decode(&record.value).expect("a session"))
    }

    fn sessions(&self) -> impl Iterator<Item = Session> {
        let ours = self.keys.iter().filter(|(key, _)| key.family() == Family::SESSION);
        ours.map(|(_, record)| Session::decode(&record.value).expect("a session"))
    }

    fn attached(&self, id: SessionId) -> Vec<Key> {
        self.keys
            .iter()
            .filter(|(_, record)| record.session == Some(id))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

fn encoded(session: &Session) -> Vec<u8> {
    minicbor::to_vec(session).expect("memory")
}
