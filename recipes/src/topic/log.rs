//! The messages of one topic, as keys: how they come and how they go.

use coracle_store::{Cause, ContentType, Key, Record, Revision, Timestamp, Txn, Value, View};
use minicbor::{Decode, Encode};

use super::retention::{self, Alarm};
use super::{Draft, FAMILY, Message, Retention};
use crate::{names, row, timer};

pub(super) const MESSAGE: u8 = b'm';
const BY_KEY: u8 = b'k';
const STATE: u8 = b's';
pub(super) const CONFIG: u8 = b'c';
/// Of the whole family, under the empty name.
const ORDER: u8 = b'r';
const FLOOR: u8 = b'f';
const MARK: u8 = b'h';

/// Bytes accounted for a message beside body, key and headers.
pub const MESSAGE_OVERHEAD: usize = 256;

/// One topic, by what its keys begin with: family byte and name.
pub(super) struct Topic<'n> {
    pub name: &'n str,
    prefix: Vec<u8>,
}

/// What a topic counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Log {
    /// Of the newest message ever published; the next one is one more.
    #[n(0)]
    pub last_seq: u64,
    /// Messages kept.
    #[n(1)]
    pub count: u64,
    /// Their sizes together.
    #[n(2)]
    pub bytes: u64,
    /// Nothing up to this seq is kept: retention took it, or it was of a former life of the topic.
    #[n(3)]
    pub floor: u64,
    /// Revision of the newest message that retention took.
    #[n(4)]
    pub floor_revision: Revision,
    /// When the timer that looks for old messages runs out.
    #[n(5)]
    pub(super) alarm: Option<Timestamp>,
}

/// One publish in the order over all topics: messages `first..first + count` of a topic. It stays as long as one of
/// them does.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Publication {
    #[n(0)]
    pub topic: Box<str>,
    #[n(1)]
    pub first: u64,
    #[n(2)]
    pub count: u64,
    #[n(3)]
    pub time: Timestamp,
}

/// The place of a publish in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub revision: Revision,
    /// Within the revision.
    pub number: u64,
}

/// The place of a message in the one order over all topics. In one topic, `seq` alone tells the order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Place {
    #[n(0)]
    pub revision: Revision,
    /// Of the publish within its revision.
    #[n(1)]
    pub number: u64,
    #[n(2)]
    pub seq: u64,
}

impl Log {
    /// Where the counters of a topic begin that has none.
    pub(super) fn born(view: View<'_>) -> Self {
        let mark = mark(view);
        Self { last_seq: mark.seq, floor: mark.seq, ..Self::default() }
    }
}

impl<'n> Topic<'n> {
    pub fn new(name: &'n str) -> Self {
        Self { name, prefix: [&[FAMILY.0][..], &names::closed(name)].concat() }
    }

    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub fn log(&self, view: View<'_>) -> Option<Log> {
        view.get(&self.key(STATE, &[])).map(|record| decoded(&record.value))
    }

    pub fn retention(&self, view: View<'_>) -> Option<Retention> {
        view.get(&self.key(CONFIG, &[])).map(|record| decoded(&record.value))
    }

    pub fn set_retention(&self, txn: &mut Txn<'_>, retention: Option<&Retention>) {
        let key = self.key(CONFIG, &[]);
        match retention {
            Some(retention) => put(txn, key, retention),
            None => drop(txn.delete(&key, Cause::Command)),
        }
    }

    /// What is kept from `seq` on, in order.
    pub fn from<'a>(&self, view: View<'a>, seq: u64) -> impl Iterator<Item = (u64, &'a Record)> + use<'a> {
        let prefix = self.part(MESSAGE);
        view.seek(&self.key(MESSAGE, &seq.to_be_bytes()))
            .take_while(move |(key, _)| key.as_bytes().starts_with(&prefix))
            .map(|(key, record)| (last_number(key), &**record))
    }

    pub fn message<'a>(&self, view: View<'a>, seq: u64) -> Option<&'a Record> {
        view.get(&self.key(MESSAGE, &seq.to_be_bytes())).map(|record| &**record)
    }

    pub fn newest<'a>(&self, view: View<'a>) -> Option<(u64, &'a Record)> {
        let newest = view.scan(FAMILY, &self.part(MESSAGE)[1..]).next_back();
        newest.map(|(key, record)| (last_number(key), &**record))
    }

    /// Messages with this key, the oldest first.
    pub fn with_key<'a>(&self, view: View<'a>, key: &str) -> impl DoubleEndedIterator<Item = u64> + use<'a> {
        let prefix = self.key(BY_KEY, &names::closed(key));
        view.scan(FAMILY, prefix.name()).map(|(key, _)| last_number(key))
    }

    /// The next of the messages with keys, in the order of keys and then of time, behind a place in it: the place,
    /// the key, the seq.
    pub fn keyed_after(&self, view: View<'_>, place: &[u8]) -> Option<(Vec<u8>, String, u64)> {
        let prefix = self.part(BY_KEY);
        let start = [&prefix[..], place, &[0]].concat();
        let (key, _) = view.seek(&Key::from_bytes(&start)?).next()?;
        let place = key.as_bytes().strip_prefix(&prefix[..])?;
        let (name, _) = names::split(place)?;
        Some((place.to_vec(), name, last_number(key)))
    }

    /// Append messages as one publish.
    pub fn append(&self, txn: &mut Txn<'_>, log: &mut Log, drafts: Vec<Draft>) {
        let revision = txn.revision();
        let newest = txn.view().scan(FAMILY, whole(ORDER, &revision.0.to_be_bytes()).name()).next_back();
        let number = newest.map_or(0, |(key, _)| last_number(key) + 1);
        let turn = Turn { revision, number };
        let (topic, first, count) = (self.name.into(), log.last_seq + 1, drafts.len() as u64);
        put(txn, turn.key(), &Publication { topic, first, count, time: txn.now() });
        for draft in drafts {
            log.last_seq += 1;
            let Draft { key, ttl, headers, content_type, body, dead } = draft;
            let expires = ttl.map(|ttl| txn.now().after(ttl));
            let message = Message { time: txn.now(), number, key, expires, headers, body, dead };
            log.count += 1;
            log.bytes += message.size();
            if let Some(at) = expires {
                timer::set(txn, at, FAMILY, &Alarm::Message(self.name.into(), log.last_seq).encode());
            }
            if let Some(key) = &message.key {
                let place = self.by_key(key, log.last_seq);
                txn.put(place, Value::from(&[][..]), ContentType::Binary, None);
            }
            let key = self.key(MESSAGE, &log.last_seq.to_be_bytes());
            txn.put(key, row(&message), content_type, None);
        }
    }

    /// Take a message out; answers the revision that published it, if it is there.
    pub fn remove(&self, txn: &mut Txn<'_>, log: &mut Log, seq: u64) -> Option<Revision> {
        let key = self.key(MESSAGE, &seq.to_be_bytes());
        let record = txn.get(&key)?.clone();
        let message: Message = decoded(&record.value);
        txn.delete(&key, Cause::Command);
        if let Some(key) = &message.key {
            txn.delete(&self.by_key(key, seq), Cause::Command);
        }
        if let Some(at) = message.expires {
            timer::clear(txn, at, FAMILY, &Alarm::Message(self.name.into(), seq).encode());
        }
        log.count -= 1;
        log.bytes -= message.size();
        let turn = Turn { revision: record.mod_revision, number: message.number };
        let publication: Publication = decoded(&txn.get(&turn.key()).expect("a message was published").value);
        let left = self.from(txn.view(), publication.first).next();
        if left.is_none_or(|(seq, _)| seq >= publication.first + publication.count) {
            txn.delete(&turn.key(), Cause::Command);
        }
        Some(record.mod_revision)
    }

    /// Take the oldest message out because it may not be kept any longer.
    pub fn drop_oldest(&self, txn: &mut Txn<'_>, log: &mut Log) -> bool {
        let oldest = self.from(txn.view(), log.floor + 1).next().map(|(seq, _)| seq);
        let Some(seq) = oldest else { return false };
        let Some(revision) = self.remove(txn, log, seq) else { return false };
        log.floor = seq;
        log.floor_revision = revision;
        true
    }

    /// Write the counters; a topic without messages and settings leaves none.
    pub fn settle(&self, txn: &mut Txn<'_>, mut log: Log) {
        let key = self.key(STATE, &[]);
        if log.floor_revision > floor(txn.view()) {
            put_number(txn, whole(FLOOR, &[]), log.floor_revision.0);
        }
        let retention = self.retention(txn.view());
        let bounds = retention.clone().unwrap_or_default();
        retention::rearm(txn, self, &mut log, &bounds);
        if log.count > 0 || retention.is_some() {
            return put(txn, key, &log);
        }
        txn.delete(&key, Cause::Command);
        // The topic is forgotten, but no seq is ever given twice, and no loss goes unsaid.
        let mark = mark(txn.view());
        let raised =
            Mark { seq: mark.seq.max(log.last_seq), revision: mark.revision.max(log.floor_revision) };
        if raised != mark {
            put(txn, whole(MARK, &[]), &raised);
        }
    }

    pub fn key(&self, part: u8, rest: &[u8]) -> Key {
        Key::new(FAMILY, &[&self.prefix[1..], &[part], rest].concat())
    }

    pub fn part(&self, part: u8) -> Vec<u8> {
        [&self.prefix[..], &[part]].concat()
    }

    fn by_key(&self, key: &str, seq: u64) -> Key {
        self.key(BY_KEY, &[&names::closed(key)[..], &seq.to_be_bytes()].concat())
    }
}

impl Place {
    /// Behind all that a revision published.
    #[must_use]
    pub fn after(revision: Revision) -> Self {
        Self { revision, number: u64::MAX, seq: u64::MAX }
    }

    /// Behind a message of one topic.
    #[must_use]
    pub fn after_seq(seq: u64) -> Self {
        Self { seq, ..Self::default() }
    }

    pub(super) fn turn(self) -> Turn {
        Turn { revision: self.revision, number: self.number }
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        [self.revision.0, self.number, self.seq].iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    /// The place that a key ends with.
    pub(super) fn of(key: &Key) -> Self {
        let bytes: &[u8; 24] = key.as_bytes().last_chunk().expect("a key that ends with a place");
        let (numbers, _) = bytes.as_chunks::<8>();
        let number = |i: usize| u64::from_be_bytes(numbers[i]);
        Self { revision: Revision(number(0)), number: number(1), seq: number(2) }
    }
}

impl Turn {
    fn key(self) -> Key {
        whole(ORDER, &[self.revision.0.to_be_bytes(), self.number.to_be_bytes()].concat())
    }
}

/// The publishes from a place on, in the one order over all topics.
pub(super) fn publications(view: View<'_>, from: Turn) -> impl Iterator<Item = (Turn, Publication)> {
    let prefix = whole(ORDER, &[]);
    view.seek(&from.key())
        .take_while(move |(key, _)| key.as_bytes().starts_with(prefix.as_bytes()))
        .map(|(key, record)| (turn(key), decoded(&record.value)))
}

/// The same, the newest first.
pub(super) fn publications_back(view: View<'_>) -> impl Iterator<Item = (Turn, Publication)> {
    let all = view.scan(FAMILY, whole(ORDER, &[]).name()).rev();
    all.map(|(key, record)| (turn(key), decoded(&record.value)))
}

/// What is remembered of all the topics that are forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Mark {
    /// The highest of their last seqs: the next life of any topic begins behind it.
    #[n(0)]
    pub seq: u64,
    /// Revision of the newest of their messages that retention took.
    #[n(1)]
    pub revision: Revision,
}

pub(super) fn mark(view: View<'_>) -> Mark {
    view.get(&whole(MARK, &[])).map(|record| decoded(&record.value)).unwrap_or_default()
}

/// Revision of the newest message of any topic that retention took.
pub(super) fn floor(view: View<'_>) -> Revision {
    Revision(number(view, &whole(FLOOR, &[])))
}

fn turn(key: &Key) -> Turn {
    let revision = key.as_bytes()[key.as_bytes().len() - 16..].first_chunk().expect("sixteen bytes");
    Turn { revision: Revision(u64::from_be_bytes(*revision)), number: last_number(key) }
}

/// A key of the whole family: no topic has the empty name.
fn whole(part: u8, rest: &[u8]) -> Key {
    Topic::new("").key(part, rest)
}

fn number(view: View<'_>, key: &Key) -> u64 {
    view.get(key).map_or(0, |record| {
        u64::from_be_bytes(record.value.first_chunk().copied().expect("only topics write their keys"))
    })
}

fn put_number(txn: &mut Txn<'_>, key: Key, number: u64) {
    txn.put(key, Value::from(&number.to_be_bytes()[..]), ContentType::Binary, None);
}

pub(super) fn put(txn: &mut Txn<'_>, key: Key, value: &impl Encode<()>) {
    txn.put(key, row(&value), ContentType::Binary, None);
}

pub(super) fn last_number(key: &Key) -> u64 {
    u64::from_be_bytes(*key.as_bytes().last_chunk().expect("a key that ends with a number"))
}

pub(super) fn decoded<'b, T: Decode<'b, ()>>(value: &'b [u8]) -> T {
    minicbor::decode(value).expect("only topics write their keys")
}
