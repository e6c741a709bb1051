//! Reading messages: what is ahead of a place, where places are, what was lost before them.

use std::sync::Arc;

use coracle_store::{ContentType, Key, Record, Revision, Selection, Timestamp, View};

use super::log::{self, Log, MESSAGE, Place, Topic, Turn, decoded};
use super::{FAMILY, Message, Retention, subject, subscription};
use crate::names;

/// A message where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub topic: Arc<str>,
    pub place: Place,
    pub content_type: ContentType,
    pub message: Message,
}

/// How much to look for.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    pub messages: usize,
    /// Of bodies; the first message is always taken.
    pub bytes: usize,
    /// Messages and publishes looked at, taken or not.
    pub looks: usize,
    /// Do not stop within a revision, whatever the other bounds say.
    pub whole: bool,
}

/// What is ahead of a place.
#[derive(Debug)]
pub struct Ahead {
    pub found: Vec<Found>,
    /// All up to here was looked at.
    pub upto: Place,
    /// Messages and publishes looked at.
    pub looked: usize,
    /// Nothing more is there now.
    pub end: bool,
}

/// What a topic looks like from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `None` for a pattern, and for a name that has only subscriptions.
    pub log: Option<Log>,
    pub retention: Option<Retention>,
    /// The oldest message kept: seq and time.
    pub first: Option<(u64, Timestamp)>,
    pub subscriptions: usize,
}

/// Messages that a subject covers, behind a place, in order: in one topic by seq, over several by the one order of
/// all topics. Messages whose ttl is over are not there.
#[must_use]
pub fn ahead(view: View<'_>, subject: &str, after: Place, reach: Reach) -> Ahead {
    matching(view, subject, after, reach, |_| true)
}

/// The same, of messages that `wanted` takes.
pub(super) fn matching(
    view: View<'_>,
    subject: &str,
    after: Place,
    reach: Reach,
    wanted: impl Fn(&Message) -> bool,
) -> Ahead {
    let now = view.now();
    let wanted = |message: &Message| message.expires.is_none_or(|at| at > now) && wanted(message);
    let mut looking =
        Looking { reach, ahead: Ahead { found: Vec::new(), upto: after, looked: 0, end: false }, bytes: 0 };
    if !subject::is_pattern(subject) {
        let name: Arc<str> = subject.into();
        for (seq, record) in Topic::new(subject).from(view, after.seq.saturating_add(1)) {
            if !looking.look(&name, seq, record, &wanted) {
                return looking.ahead;
            }
        }
        looking.ahead.end = true;
        return looking.ahead;
    }
    for (turn, publication) in log::publications(view, after.turn()) {
        let last = publication.first + publication.count - 1;
        let end = Place { revision: turn.revision, number: turn.number, seq: last };
        if end <= looking.ahead.upto {
            continue;
        }
        if !subject::covers(subject, &publication.topic) {
            if !looking.pass(end) {
                return looking.ahead;
            }
            continue;
        }
        let first = if turn == after.turn() { after.seq + 1 } else { publication.first };
        let name: Arc<str> = publication.topic.as_ref().into();
        for (seq, record) in Topic::new(&name).from(view, first).take_while(|(seq, _)| *seq <= last) {
            if !looking.look(&name, seq, record, &wanted) {
                return looking.ahead;
            }
        }
    }
    looking.ahead.end = true;
    looking.ahead
}

struct Looking {
    reach: Reach,
    ahead: Ahead,
    bytes: usize,
}

impl Looking {
    /// Whether there is reach for what lies at a place.
    fn goes_on(&self, next: Revision) -> bool {
        if self.reach.whole && next == self.ahead.upto.revision {
            return true;
        }
        self.ahead.looked < self.reach.looks
            && self.ahead.found.len() < self.reach.messages
            && self.bytes < self.reach.bytes
    }

    /// Look at a message; false if it is out of reach.
    fn look(
        &mut self,
        topic: &Arc<str>,
        seq: u64,
        record: &Record,
        wanted: &impl Fn(&Message) -> bool,
    ) -> bool {
        if !self.goes_on(record.mod_revision) {
            return false;
        }
        let message: Message = decoded(&record.value);
        self.ahead.looked += 1;
        let place = Place { revision: record.mod_revision, number: message.number, seq };
        self.ahead.upto = place;
        if wanted(&message) {
            self.bytes += message.body.len();
            let content_type = record.content_type.clone();
            self.ahead.found.push(Found { topic: topic.clone(), place, content_type, message });
        }
        true
    }

    fn pass(&mut self, end: Place) -> bool {
        if !self.goes_on(end.revision) {
            return false;
        }
        self.ahead.looked += 1;
        self.ahead.upto = end;
        true
    }
}

/// One message of a topic, and how it lies.
#[must_use]
pub fn message(view: View<'_>, topic: &str, seq: u64) -> Option<Found> {
    let record = Topic::new(topic).message(view, seq)?;
    let message: Message = decoded(&record.value);
    let place = Place { revision: record.mod_revision, number: message.number, seq };
    Some(Found { topic: topic.into(), place, content_type: record.content_type.clone(), message })
}

/// What was lost behind a place, as first and last position: seqs of a topic, revisions of a pattern. `topics` bounds
/// how many topics of a pattern are looked at; beyond that, any loss of any topic counts.
#[must_use]
pub fn lost(view: View<'_>, subject: &str, after: Place, topics: usize) -> Option<(u64, u64)> {
    if !subject::is_pattern(subject) {
        let topic = Topic::new(subject);
        let floor = topic.log(view).unwrap_or_else(|| Log::born(view)).floor;
        return (after.seq < floor).then_some((after.seq, floor));
    }
    let from = after.revision;
    let floor = log::floor(view);
    if from >= floor {
        return None;
    }
    let mut newest = log::mark(view).revision;
    let mut last: Option<String> = None;
    let mut looked = 0;
    while newest < floor {
        let Some(name) = names(view, subject::stem(subject), last.as_deref(), 1).pop() else { break };
        looked += 1;
        if looked > topics {
            newest = floor;
            break;
        }
        if subject::covers(subject, &name)
            && let Some(log) = Topic::new(&name).log(view)
        {
            newest = newest.max(log.floor_revision);
        }
        last = Some(name);
    }
    (newest > from).then_some((from.0, newest.0))
}

/// Revision of the newest message of any topic that retention took: a reader of a pattern that is there has lost
/// nothing.
#[must_use]
pub fn losses(view: View<'_>) -> Revision {
    log::floor(view)
}

/// Behind all that a subject covers now.
#[must_use]
pub fn newest(view: View<'_>, subject: &str) -> Place {
    if subject::is_pattern(subject) {
        return Place::after(view.revision());
    }
    let topic = Topic::new(subject);
    Place::after_seq(topic.log(view).unwrap_or_else(|| Log::born(view)).last_seq)
}

/// Before all that a subject covers and is kept.
#[must_use]
pub fn oldest(view: View<'_>, subject: &str) -> Place {
    if subject::is_pattern(subject) {
        return Place::after(before_first(view));
    }
    let topic = Topic::new(subject);
    Place::after_seq(topic.log(view).unwrap_or_else(|| Log::born(view)).floor)
}

fn before_first(view: View<'_>) -> Revision {
    let first = log::publications(view, Place::default().turn()).next();
    first.map_or(view.revision(), |(turn, _)| Revision(turn.revision.0.saturating_sub(1)))
}

/// Just before the newest message that a subject covers; behind everything if there is none. Over several topics this
/// costs the publishes behind that message.
#[must_use]
pub fn before_last(view: View<'_>, subject: &str) -> Place {
    if !subject::is_pattern(subject) {
        let newest = Topic::new(subject).newest(view);
        return newest.map_or_else(|| self::newest(view, subject), |(seq, _)| Place::after_seq(seq - 1));
    }
    let last =
        log::publications_back(view).find(|(_, publication)| subject::covers(subject, &publication.topic));
    last.map_or_else(|| newest(view, subject), |(turn, _)| Place::after(Revision(turn.revision.0 - 1)))
}

/// Just before the first message published at a time or later.
#[must_use]
pub fn before_time(view: View<'_>, subject: &str, time: Timestamp) -> Place {
    if subject::is_pattern(subject) {
        let published = |revision: u64| {
            let turn = Turn { revision: Revision(revision), number: 0 };
            log::publications(view, turn).next().map(|(_, publication)| publication.time)
        };
        let first = first_at(before_first(view).0 + 1, view.revision().0 + 1, time, published);
        return Place::after(Revision(first - 1));
    }
    let topic = Topic::new(subject);
    let Some(log) = topic.log(view) else { return newest(view, subject) };
    let published =
        |seq: u64| topic.from(view, seq).next().map(|(_, record)| decoded::<Message>(&record.value).time);
    Place::after_seq(first_at(log.floor + 1, log.last_seq + 1, time, published) - 1)
}

/// The first number in `low..=high` whose time, or that of what follows it, is not before `time`. Times never fall.
fn first_at(mut low: u64, mut high: u64, time: Timestamp, of: impl Fn(u64) -> Option<Timestamp>) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if of(middle).is_none_or(|at| at >= time) { high = middle } else { low = middle + 1 }
    }
    low
}

/// A topic, or a pattern with subscriptions; `None` if it has neither message, nor settings, nor subscription.
#[must_use]
pub fn shown(view: View<'_>, subject: &str) -> Option<Shown> {
    let topic = Topic::new(subject);
    let log = topic.log(view);
    let first = topic.from(view, log.as_ref().map_or(0, |log| log.floor + 1)).next();
    let first = first.map(|(seq, record)| (seq, decoded::<Message>(&record.value).time));
    let subscriptions = subscription::names(view, subject, None, usize::MAX).len();
    (log.is_some() || subscriptions > 0).then(|| Shown {
        log,
        retention: topic.retention(view),
        first,
        subscriptions,
    })
}

/// Topics, and patterns with subscriptions, whose names start with `prefix`, behind `after`, at most `limit`.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let more = usize::from(prefix.is_empty() && after.is_none());
    let mut found = names::list(view, FAMILY, prefix, after, limit.saturating_add(more));
    // What belongs to no topic lies under the empty name.
    found.retain(|name| !name.is_empty());
    found.truncate(limit);
    found
}

/// What to watch to learn of new messages that a subject covers.
#[must_use]
pub fn messages(subject: &str) -> Selection {
    Selection::Prefix(if subject::is_pattern(subject) {
        Key::new(FAMILY, &names::open(subject::stem(subject))).as_bytes().to_vec()
    } else {
        Topic::new(subject).part(MESSAGE)
    })
}
