//! E1–E3: one leader for each token, tokens rise, a vacancy is told, nobody who is dead leads or stands; who is sure to
//! lead is alone; observers are told all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::log::{Change, Event, Log};

/// A term as the one who had it knows it. Times are of one monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub session: String,
    pub token: u64,
    /// Call and return of the campaign that won it.
    pub call: Duration,
    pub ret: Duration,
    /// It was sure to lead until then: it resigned, or its session might have run out.
    pub sure: Duration,
}

/// Something that was done with a token, and taken: the revision of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoke {
    pub token: u64,
    pub revision: u64,
}

/// News of who leads, as an observer was told: what happened, and the token if somebody does.
pub type News = (u64, String, Option<u64>);

/// All that happened to one election, in no order.
#[derive(Clone, Debug, Default)]
pub struct ElectionHistory {
    pub terms: Vec<Term>,
    pub spoke: Vec<Spoke>,
    /// Refused although the token was surely current.
    pub silenced: Vec<String>,
    /// Refused since the token was not current any more.
    pub late: usize,
    pub observers: Vec<Vec<News>>,
}

/// A term as the log shows it.
#[derive(Debug)]
struct Led {
    session: String,
    until: Option<u64>,
}

#[derive(Default)]
struct Replay {
    terms: BTreeMap<u64, Led>,
    leader: Option<u64>,
    candidates: BTreeSet<String>,
    dead: BTreeSet<String>,
    news: Vec<News>,
    wrong: Vec<String>,
}

impl Replay {
    fn of(log: &Log, election: &str) -> Self {
        let mut replay = Self::default();
        for change in &log.changes {
            replay.change(change, election);
        }
        replay
    }

    fn change(&mut self, change: &Change, election: &str) {
        let at = change.revision;
        let gone = |event: &&Event| event.family == "sessions" && matches!(&*event.op, "expired" | "closed");
        self.dead.extend(change.events.iter().filter(gone).map(|event| event.name.clone()));
        let events: Vec<&Event> = change
            .events
            .iter()
            .filter(|event| event.family == "elections" && event.name == election)
            .collect();
        // What ends in a revision comes before what it makes possible, in whatever order they are told.
        for event in &events {
            let session = event.session.clone().unwrap_or_default();
            match (event.op.as_str(), event.token) {
                ("resigned" | "expired", Some(token)) => {
                    if self.leader.take() != Some(token) {
                        self.wrong.push(format!("E1: {token} ended at {at} and did not lead"));
                    }
                    if let Some(led) = self.terms.get_mut(&token) {
                        led.until = Some(at);
                    }
                }
                ("left" | "expired", None) => drop(self.candidates.remove(&session)),
                _ => {}
            }
        }
        let was_vacant = self.leader.is_none();
        for event in &events {
            let session = event.session.clone().unwrap_or_default();
            match (event.op.as_str(), event.token) {
                ("waiting", _) => drop(self.candidates.insert(session)),
                ("leading", Some(token)) => {
                    if let Some(other) = self.leader.replace(token) {
                        self.wrong.push(format!("E1: {token} leads at {at} beside {other}"));
                    }
                    let newest = self.terms.last_key_value().map_or(0, |(token, _)| *token);
                    if token != at || token <= newest {
                        self.wrong.push(format!("E1: token {token} at {at} after {newest}"));
                    }
                    self.terms.insert(token, Led { session, until: None });
                }
                _ => {}
            }
        }
        for event in &events {
            let told = match event.op.as_str() {
                "elected" | "proclaimed" => event.token,
                "vacant" => None,
                _ => continue,
            };
            if told != self.leader {
                self.wrong.push(format!("E2: {} of {told:?} at {at}, and {:?} leads", event.op, self.leader));
            }
            self.news.push((at, event.op.clone(), told));
        }
        self.consistent(at, &events, was_vacant);
    }

    fn consistent(&mut self, at: u64, events: &[&Event], was_vacant: bool) {
        let told = |op: &str| events.iter().any(|event| event.op == op);
        let ended =
            events.iter().any(|event| event.token.is_some() && matches!(&*event.op, "resigned" | "expired"));
        if ended && self.leader.is_none() && !told("vacant") {
            self.wrong.push(format!("E2: nobody leads from {at}, and nobody was told"));
        }
        if was_vacant && self.leader.is_some() && !told("elected") && told("leading") {
            self.wrong.push(format!("E2: {:?} leads from {at}, and nobody was told", self.leader));
        }
        if self.leader.is_none() && !self.candidates.is_empty() {
            self.wrong.push(format!("E3: {:?} would lead at {at}, and nobody does", self.candidates));
        }
        let leader = self.leader.and_then(|token| self.terms.get(&token)).map(|led| &led.session);
        for dead in self.candidates.iter().chain(leader).filter(|session| self.dead.contains(*session)) {
            self.wrong.push(format!("E1: {dead} is dead and there at {at}"));
        }
    }
}

impl ElectionHistory {
    pub fn extend(&mut self, other: Self) {
        self.terms.extend(other.terms);
        self.spoke.extend(other.spoke);
        self.silenced.extend(other.silenced);
        self.late += other.late;
        self.observers.extend(other.observers);
    }

    #[must_use]
    pub fn summary(&self) -> String {
        let (terms, spoke, late) = (self.terms.len(), self.spoke.len(), self.late);
        format!("{terms} terms, {spoke} words of leaders, {late} too late")
    }

    /// What is wrong; nothing if all is well. The log must begin with the first revision.
    #[must_use]
    pub fn violations(&self, log: &Log, election: &str) -> Vec<String> {
        let replay = Replay::of(log, election);
        let mut wrong = replay.wrong;
        wrong.extend(self.silenced.iter().map(|what| format!("E1: {what}")));
        for term in &self.terms {
            if replay.terms.get(&term.token).is_none_or(|led| led.session != term.session) {
                wrong.push(format!("E1: never won: {term:?}"));
            }
        }
        for spoke in &self.spoke {
            let fits =
                |led: &Led| spoke.token < spoke.revision && led.until.is_none_or(|end| spoke.revision < end);
            if !replay.terms.get(&spoke.token).is_some_and(fits) {
                wrong.push(format!("E3: with an old token: {spoke:?} {:?}", replay.terms.get(&spoke.token)));
            }
        }
        self.disjoint(&mut wrong);
        for seen in &self.observers {
            let from = seen.first().map_or(0, |(revision, ..)| *revision);
            let to = seen.last().map_or(0, |(revision, ..)| *revision);
            let all: Vec<&News> =
                replay.news.iter().filter(|(revision, ..)| (from..=to).contains(revision)).collect();
            if all != seen.iter().collect::<Vec<_>>() {
                wrong.push(format!("E2: an observer was told something else from {from} to {to}"));
            }
        }
        wrong
    }

    /// Those who are sure to lead are so one after the other, in the order of their tokens.
    fn disjoint(&self, wrong: &mut Vec<String>) {
        let mut terms: Vec<&Term> = self.terms.iter().collect();
        terms.sort_by_key(|term| term.token);
        terms.dedup_by_key(|term| term.token);
        for (position, term) in terms.iter().enumerate() {
            for later in &terms[position + 1..] {
                if later.ret < term.call {
                    wrong.push(format!("E1: {} was won before {} was asked for", later.token, term.token));
                }
                if later.ret < term.sure && term.ret < later.sure {
                    wrong.push(format!("E1: both are sure to lead: {term:?} {later:?}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(family: &str, op: &str, session: &str, token: Option<u64>) -> Event {
        let name = if family == "sessions" { session } else { "e" };
        let session = (!session.is_empty()).then(|| session.to_owned());
        Event { family: family.into(), op: op.into(), name: name.into(), session, token, ..Event::default() }
    }

    fn of(op: &str, session: &str, token: Option<u64>) -> Event {
        event("elections", op, session, token)
    }

    /// Ann leads, Bob stands; Ann's session runs out; Bob leads, says something and resigns.
    fn log() -> Log {
        let change = |revision, events| Change { revision, events };
        Log {
            changes: vec![
                change(5, vec![of("leading", "ann", Some(5)), of("elected", "ann", Some(5))]),
                change(6, vec![of("waiting", "bob", None)]),
                change(
                    8,
                    vec![
                        of("leading", "bob", Some(8)),
                        of("left", "bob", None),
                        of("elected", "bob", Some(8)),
                        of("expired", "ann", Some(5)),
                        event("sessions", "expired", "ann", None),
                    ],
                ),
                change(9, vec![of("proclaimed", "bob", Some(8))]),
                change(10, vec![of("resigned", "bob", Some(8)), of("vacant", "", None)]),
            ],
        }
    }

    fn history() -> ElectionHistory {
        let at = Duration::from_millis;
        let term = |session: &str, token, call, ret, sure| Term {
            session: session.into(),
            token,
            call: at(call),
            ret: at(ret),
            sure: at(sure),
        };
        ElectionHistory {
            terms: vec![term("ann", 5, 0, 10, 100), term("bob", 8, 20, 150, 200)],
            spoke: vec![Spoke { token: 8, revision: 9 }],
            observers: vec![vec![(8, "elected".into(), Some(8)), (9, "proclaimed".into(), Some(8))]],
            ..ElectionHistory::default()
        }
    }

    #[test]
    fn a_sound_history_is_sound() {
        assert_eq!(history().violations(&log(), "e"), Vec::<String>::new());
    }

    #[test]
    fn whatever_breaks_is_found() {
        type Break = fn(&mut ElectionHistory, &mut Log);
        let cases: [(&str, Break); 13] = [
            ("E1: 8 leads at 8 beside", |_, log| drop(log.changes[2].events.remove(3))),
            ("E1: token", |_, log| log.changes[2].revision = 7),
            ("E1: ann is dead", |_, log| {
                log.changes[1].events.push(event("sessions", "closed", "ann", None));
            }),
            ("E1: bob is dead", |_, log| {
                log.changes[0].events.push(event("sessions", "closed", "bob", None));
            }),
            ("E1: never won", |history, _| history.terms[0].session = "cid".into()),
            ("E1: both are sure", |history, _| history.terms[0].sure = Duration::from_millis(170)),
            ("E1: 8 was won before 5", |history, _| history.terms[0].call = Duration::from_millis(160)),
            ("E2: nobody leads from 10", |_, log| drop(log.changes[4].events.pop())),
            ("E2: Some(8) leads from 8", |_, log| drop(log.changes[2].events.remove(2))),
            ("E2: an observer", |history, _| {
                // It was told of Ann, and not that Bob followed.
                history.observers[0][0] = (5, "elected".into(), Some(5));
            }),
            ("E2: proclaimed of Some(5)", |_, log| log.changes[3].events[0].token = Some(5)),
            ("E3: {\"bob\"} would lead", |_, log| {
                log.changes[2].events = vec![of("expired", "ann", Some(5)), of("vacant", "", None)];
            }),
            ("E3: with an old token", |history, _| history.spoke[0] = Spoke { token: 5, revision: 9 }),
        ];
        for (expected, break_it) in cases {
            let (mut history, mut log) = (history(), log());
            break_it(&mut history, &mut log);
            let wrong = history.violations(&log, "e").join("\n");
            assert!(wrong.contains(expected), "{expected}: {wrong}");
        }
    }
}
