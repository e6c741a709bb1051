//! What topics and subscriptions should do, as one list of messages.

use std::collections::BTreeMap;

use coracle_recipes::topic::{self, Name, Place, Receipt, Retention};
use coracle_store::Revision;

/// Subject, name, exclusive, most deliveries, filter.
pub const SUBSCRIPTIONS: [(&str, &str, bool, u64, Option<&str>); 4] = [
    ("a", "s", false, 2, None),
    ("*", "x", true, 0, None),
    (">", "f", false, 0, Some("k")),
    ("a.>", "y", false, 1, None),
];
/// Of all of them, in seconds.
pub const VISIBILITY: u64 = 3;

/// Key, ttl, body, and the subscription that gave it up.
pub type New = (Option<String>, Option<u64>, String, Option<usize>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub topic: String,
    pub place: Place,
    pub time: u64,
    pub key: Option<String>,
    pub expires: Option<u64>,
    pub body: String,
    pub size: u64,
    /// The subscription that gave it up.
    pub dead: Option<usize>,
}

#[derive(Debug, Clone, Default)]
pub struct Log {
    pub last: u64,
    pub floor: u64,
    pub floor_revision: u64,
}

#[derive(Debug, Clone)]
pub struct Flying {
    pub message: Kept,
    pub deliveries: u64,
    pub delivered: u64,
    pub until: Option<u64>,
    pub session: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub struct Durable {
    pub cursor: Place,
    pub flying: BTreeMap<Place, Flying>,
    pub returned: BTreeMap<Place, (Kept, u64)>,
    pub consumer: Option<u64>,
    pub gaps: u64,
    pub told: u64,
    pub dead: u64,
}

#[derive(Default)]
pub struct Model {
    pub now: u64,
    /// All messages of all topics, in the one order.
    pub all: Vec<Kept>,
    pub logs: BTreeMap<String, Log>,
    pub bounds: BTreeMap<String, Retention>,
    /// Of what was forgotten: last seq and newest loss.
    pub mark: (u64, u64),
    pub subscriptions: BTreeMap<usize, Durable>,
    pub sessions: Vec<u64>,
    pub bodies: u64,
}

impl Model {
    pub fn of(&self, topic: &str) -> impl Iterator<Item = &Kept> {
        self.all.iter().filter(move |kept| kept.topic == topic)
    }

    pub fn bounds(&self, topic: &str) -> Retention {
        self.bounds.get(topic).cloned().unwrap_or_default()
    }

    pub fn log(&mut self, topic: &str) -> &mut Log {
        let mark = self.mark.0;
        self.logs.entry(topic.to_owned()).or_insert(Log { last: mark, floor: mark, floor_revision: 0 })
    }

    pub fn append(&mut self, topic: &str, items: Vec<New>, revision: u64) {
        let of_this = self.all.iter().filter(|kept| kept.place.revision.0 == revision);
        let number = of_this.map(|kept| kept.place.number + 1).max().unwrap_or(0);
        let mut keys = Vec::new();
        for (key, ttl, body, dead) in items {
            let now = self.now;
            let log = self.log(topic);
            log.last += 1;
            let place = Place { revision: Revision(revision), number, seq: log.last };
            let size = size(key.as_ref(), &body);
            keys.extend(key.clone());
            let expires = ttl.map(|ttl| now + ttl);
            self.all.push(Kept { topic: topic.into(), place, time: now, key, expires, body, size, dead });
        }
        if let Some(most) = self.bounds(topic).max_per_key {
            keys.sort();
            for key in &keys {
                self.supersede(topic, key, most);
            }
        }
    }

    pub fn supersede(&mut self, topic: &str, key: &str, most: u64) {
        let seqs: Vec<u64> = self
            .of(topic)
            .filter(|kept| kept.key.as_deref() == Some(key))
            .map(|kept| kept.place.seq)
            .collect();
        let excess = seqs.len().saturating_sub(usize::try_from(most).unwrap());
        let gone = &seqs[..excess];
        self.all.retain(|kept| kept.topic != topic || !gone.contains(&kept.place.seq));
    }

    pub fn exceeded(&self, topic: &str) -> bool {
        let bounds = self.bounds(topic);
        let (count, bytes) =
            self.of(topic).fold((0, 0), |(count, bytes), kept| (count + 1, bytes + kept.size));
        bounds.max_messages.is_some_and(|most| count > most)
            || bounds.max_bytes.is_some_and(|most| bytes > most)
    }

    /// Whether a publish alone is within the bounds.
    pub fn fits(&self, topic: &str, items: &[New]) -> bool {
        let bounds = self.bounds(topic);
        let bytes: u64 = items.iter().map(|(key, _, body, _)| size(key.as_ref(), body)).sum();
        bounds.max_messages.is_none_or(|most| items.len() as u64 <= most)
            && bounds.max_bytes.is_none_or(|most| bytes <= most)
    }

    pub fn drop_oldest(&mut self, topic: &str) {
        let Some(oldest) = self.all.iter().position(|kept| kept.topic == topic) else { return };
        let kept = self.all.remove(oldest);
        let log = self.log(topic);
        (log.floor, log.floor_revision) = (kept.place.seq, kept.place.revision.0);
    }

    pub fn trim(&mut self, topic: &str) {
        while self.exceeded(topic) {
            self.drop_oldest(topic);
        }
    }

    /// Topics without messages and settings are forgotten.
    pub fn forget(&mut self) {
        let names: Vec<String> = self.logs.keys().cloned().collect();
        for name in names {
            if self.of(&name).next().is_none() && !self.bounds.contains_key(&name) {
                let log = self.logs.remove(&name).unwrap();
                self.mark = (self.mark.0.max(log.last), self.mark.1.max(log.floor_revision));
            }
        }
    }

    pub fn lost(&self, subject: &str, after: Place) -> Option<(u64, u64)> {
        let (from, to) = if topic::is_pattern(subject) {
            let floors = self.logs.iter().filter(|(name, _)| topic::covers(subject, name));
            (after.revision.0, floors.map(|(_, log)| log.floor_revision).max().unwrap_or(0).max(self.mark.1))
        } else {
            (after.seq, self.logs.get(subject).map_or(self.mark.0, |log| log.floor))
        };
        (from < to).then_some((from, to))
    }

    pub fn come_back(&mut self, of: usize, place: Place, flying: Flying, revision: u64) {
        let most = SUBSCRIPTIONS[of].3;
        if most > 0 && flying.deliveries >= most {
            return self.bury(of, &flying.message, revision);
        }
        let durable = self.subscriptions.get_mut(&of).unwrap();
        durable.returned.insert(place, (flying.message, flying.deliveries));
    }

    pub fn bury(&mut self, of: usize, message: &Kept, revision: u64) {
        self.subscriptions.get_mut(&of).unwrap().dead += 1;
        if !self.all.iter().any(|kept| kept.place == message.place && kept.topic == message.topic) {
            return;
        }
        let topic = topic::dead_letter(&name(of));
        let (key, body) = (message.key.clone(), message.body.clone());
        self.append(&topic, vec![(key, None, body, Some(of))], revision);
        self.trim(&topic);
    }

    pub fn receive(
        &mut self,
        of: usize,
        session: Option<u64>,
        max: u64,
        keep: bool,
        revision: u64,
    ) -> Option<Got> {
        let (subject, _, exclusive, _, filter) = SUBSCRIPTIONS[of];
        let mut durable = self.subscriptions.get(&of)?.clone();
        if session.is_some_and(|session| !self.sessions.contains(&session)) {
            return None;
        }
        if exclusive {
            session?;
            if durable.consumer.is_some_and(|consumer| Some(consumer) != session) {
                return None;
            }
            durable.consumer = session;
        }
        let mut got = Vec::new();
        while (got.len() as u64) < max
            && let Some((_, (message, deliveries))) = durable.returned.pop_first()
        {
            if self.all.contains(&message) {
                got.push((message, deliveries + 1));
            } else {
                durable.gaps += 1;
            }
        }
        let lost = self.lost(subject, durable.cursor).filter(|(_, to)| *to > durable.told);
        let gap = lost.map(|(from, to)| (from.max(durable.told), to));
        if let Some((_, to)) = gap {
            (durable.gaps, durable.told) = (durable.gaps + 1, to);
        }
        for kept in &self.all {
            if got.len() as u64 == max {
                break;
            }
            if !ahead(subject, durable.cursor, kept) {
                continue;
            }
            durable.cursor = kept.place;
            if !topic::covers(subject, &kept.topic) {
                continue;
            }
            let wanted = filter.is_none_or(|filter| kept.key.as_deref() == Some(filter));
            if wanted && kept.dead != Some(of) {
                got.push((kept.clone(), 1));
            }
        }
        if keep {
            let until = session.is_none().then_some(self.now + VISIBILITY);
            for (message, deliveries) in &got {
                let (message, deliveries) = (message.clone(), *deliveries);
                let flying = Flying { message, deliveries, delivered: revision, until, session };
                durable.flying.insert(flying.message.place, flying);
            }
        }
        self.subscriptions.insert(of, durable);
        Some((got.into_iter().map(|(kept, n)| (kept.topic, kept.place, kept.body, n)).collect(), gap))
    }

    pub fn settle(&mut self, of: usize, receipt: Receipt, how: u8, revision: u64) -> Option<bool> {
        let most = SUBSCRIPTIONS[of].3;
        let (now, durable) = (self.now, self.subscriptions.get_mut(&of)?);
        if durable.flying.get(&receipt.place).is_none_or(|flying| flying.delivered != receipt.delivered.0) {
            return Some(false);
        }
        let mut flying = durable.flying.remove(&receipt.place).unwrap();
        match how {
            0 => {}
            2 if most == 0 || flying.deliveries < most => {
                (flying.delivered, flying.until, flying.session) = (0, Some(now + 2), None);
                durable.flying.insert(receipt.place, flying);
            }
            1 | 2 => self.come_back(of, receipt.place, flying, revision),
            3 => self.bury(of, &flying.message, revision),
            _ => {
                flying.until = Some(now + 5);
                durable.flying.insert(receipt.place, flying);
            }
        }
        Some(true)
    }

    pub fn tick(&mut self, revision: u64) {
        for topic in self.logs.keys().cloned().collect::<Vec<_>>() {
            let Some(age) = self.bounds(&topic).max_age else { continue };
            while self.of(&topic).next().is_some_and(|kept| kept.time + age.0 / 1_000 <= self.now) {
                self.drop_oldest(&topic);
            }
        }
        let now = self.now;
        self.all.retain(|kept| kept.expires.is_none_or(|at| at > now));
        self.forget();
        let mut due: Vec<(usize, Place)> = Vec::new();
        for (of, durable) in &self.subscriptions {
            let late =
                durable.flying.iter().filter(|(_, flying)| flying.until.is_some_and(|until| until <= now));
            due.extend(late.map(|(place, _)| (*of, *place)));
        }
        // As their timers lie in the store.
        due.sort_by_key(|(of, place)| (SUBSCRIPTIONS[*of].0.len(), SUBSCRIPTIONS[*of].0, *place));
        for (of, place) in due {
            let flying = self.subscriptions.get_mut(&of).unwrap().flying.remove(&place).unwrap();
            self.come_back(of, place, flying, revision);
        }
    }

    pub fn expire(&mut self, sessions: &[u64], revision: u64) {
        self.sessions.retain(|id| !sessions.contains(id));
        for of in self.subscriptions.keys().copied().collect::<Vec<_>>() {
            let durable = self.subscriptions.get_mut(&of).unwrap();
            durable.consumer = durable.consumer.filter(|id| !sessions.contains(id));
            let held = |flying: &Flying| flying.session.is_some_and(|id| sessions.contains(&id));
            let gone: Vec<_> =
                durable.flying.iter().filter(|(_, f)| held(f)).map(|(p, f)| (*p, f.clone())).collect();
            durable.flying.retain(|_, flying| !held(flying));
            for (place, flying) in gone {
                self.come_back(of, place, flying, revision);
            }
        }
    }
}

/// What a receive should answer: topic, place, body and number of the delivery; and the gap.
pub type Got = (Vec<(String, Place, String, u64)>, Option<(u64, u64)>);

/// Whether a receiver at a place has still to look at a message: a pattern looks at all topics.
pub fn ahead(subject: &str, after: Place, kept: &Kept) -> bool {
    if topic::is_pattern(subject) {
        return kept.place > after;
    }
    kept.topic == subject && kept.place.seq > after.seq
}

pub fn size(key: Option<&String>, body: &str) -> u64 {
    (topic::MESSAGE_OVERHEAD + body.len() + key.map_or(0, String::len)) as u64
}

pub fn name(of: usize) -> Name {
    Name { subject: SUBSCRIPTIONS[of].0.into(), name: SUBSCRIPTIONS[of].1.into() }
}
