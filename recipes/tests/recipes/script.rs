//! The language of the golden conversations.
//!
//! One stanza is one entry or one question. Time moves only by `at=`. Sessions go by name. Under the reply stands
//! what the entry did, as people are told it. Operations of a transaction and guards are input lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use coracle_recipes::lock::{self, Acquire, Claim, Hold, Mode, Place, Turn};
use coracle_recipes::{Condition, Outcome, Recipes, Refusal, describe};
use coracle_store::command::{Expiry, OnExpire, OpenSession, Precondition, Put, Transaction};
use coracle_store::{
    Action, Attach, Command, ContentType, Event, Family, Idempotency, Key, Millis, Operation,
    Outcome as StoreOutcome, Principal, Refusal as StoreRefusal, Revision, SessionId, Store, Timestamp,
};
use datadriven::TestCase;

pub struct Script {
    store: Store,
    now: Timestamp,
    sessions: Vec<String>,
}

/// A verb with its arguments; what is left over is a mistake.
struct Words {
    verb: String,
    args: BTreeMap<String, Vec<String>>,
}

impl Words {
    fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let verb = words.next().expect("a verb").to_string();
        let split = |word: &str| match word.split_once('=') {
            Some((name, value)) => (name.to_string(), vec![value.to_string()]),
            None => (word.to_string(), Vec::new()),
        };
        Self { verb, args: words.map(split).collect() }
    }

    fn list(&mut self, name: &str) -> Vec<String> {
        self.args.remove(name).unwrap_or_default()
    }

    fn maybe(&mut self, name: &str) -> Option<String> {
        self.list(name).pop()
    }

    fn text(&mut self, name: &str) -> String {
        self.maybe(name).unwrap_or_else(|| panic!("{} needs {name}=", self.verb))
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        self.maybe(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    }

    fn flag(&mut self, name: &str) -> bool {
        self.args.remove(name).is_some()
    }
}

impl Script {
    pub fn new() -> Self {
        Self { store: Store::new(Box::new(Recipes)), now: Timestamp(0), sessions: Vec::new() }
    }

    pub fn answer(&mut self, case: &TestCase) -> String {
        let mut words = Words { verb: case.directive.clone(), args: case.args.clone().into_iter().collect() };
        if let Some(at) = words.maybe("at") {
            let (seconds, scale) = match at.strip_suffix("ms") {
                Some(number) => (number, 1),
                None => (at.strip_suffix('s').expect("at=2s or at=2000ms"), 1_000),
            };
            self.now = Timestamp(seconds.parse::<u64>().expect("a number") * scale);
        }
        let mut text = match self.question(&mut words) {
            Some(text) => text,
            None => self.entry(&mut words, &case.input),
        };
        assert!(words.args.is_empty(), "{} does not know {:?}", words.verb, words.args);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    fn question(&mut self, words: &mut Words) -> Option<String> {
        let view = self.store.view();
        Some(match words.verb.as_str() {
            "line" => {
                let limit = words.number("limit").map_or(100, |limit| usize::try_from(limit).expect("small"));
                let Some(line) = lock::line(view, &words.text("lock"), limit) else {
                    return Some("free".into());
                };
                let mut text = String::new();
                for hold in &line.holders {
                    let _ = writeln!(text, "{} since={}ms", self.hold(hold), hold.since.0);
                }
                for place in &line.waiters {
                    let (who, mode) = (self.who(place.session), mode(place.mode));
                    let _ = writeln!(text, "{}. {who}{mode} since={}ms", place.position, place.since.0);
                }
                let _ = writeln!(text, "waiting={}", line.waiting);
                text
            }
            "poll" => {
                let session = self.id(&words.text("session"));
                match lock::poll(self.store.view(), &words.text("lock"), session) {
                    Turn::Held(hold) => format!("held {}", self.hold(&hold)),
                    Turn::Waiting(place) => self.waiting(&place),
                    Turn::Gone => "gone".into(),
                }
            }
            "names" => {
                let limit = words.number("limit").map_or(100, |limit| usize::try_from(limit).expect("small"));
                let (prefix, after) = (words.maybe("prefix").unwrap_or_default(), words.maybe("after"));
                format!("{:?}", lock::names(view, &prefix, after.as_deref(), limit))
            }
            "keys" => format!("{} keys of locks", view.scan(lock::FAMILY, &[]).count()),
            "sessions" => {
                let line = |session: &std::sync::Arc<coracle_store::Session>| {
                    let held = view.attached(session.id).count();
                    format!("{} holds or waits for {held}\n", self.who(session.id))
                };
                let text: String = self.store.sessions().map(line).collect();
                if text.is_empty() { "none".into() } else { text }
            }
            _ => return None,
        })
    }

    fn entry(&mut self, words: &mut Words, input: &str) -> String {
        let idempotency = words.maybe("retry").map(|key| Idempotency { key: key.into(), fingerprint: 0 });
        let (mut guards, mut conditions, mut then, mut otherwise) = (vec![], vec![], vec![], vec![]);
        for line in input.lines().filter(|line| !line.trim().is_empty()) {
            let (kind, rest) = line.trim().split_once(' ').expect("a line of if, then, else or guard");
            match kind {
                "guard" => guards.push(condition(rest)),
                "if" => conditions.push(condition(rest)),
                "then" => then.push(self.operation(&mut Words::parse(rest))),
                "else" => otherwise.push(self.operation(&mut Words::parse(rest))),
                other => panic!("{other} is not if, then, else or guard"),
            }
        }
        let action = match words.verb.as_str() {
            "txn" => Action::Transaction(Transaction { conditions, then, otherwise }),
            "compact" => Action::Compact(self.store.revision()),
            "expire" => {
                let names = words.list("sessions");
                Action::Expire(
                    names.iter().map(|name| Expiry { session: self.id(name), generation: 1 }).collect(),
                )
            }
            _ => Action::One(self.operation(words)),
        };
        let command = Command { principal: Principal("anonymous".into()), idempotency, guards, action };
        let before = self.store.revision();
        let reply = self.store.apply(self.now, &command.encode());
        let mut text = match &reply.result {
            Ok(outcome) => self.outcome(outcome),
            Err(refusal) => format!("refused: {}", self.refusal(refusal)),
        };
        text.push_str(if reply.replayed { " (replayed)\n" } else { "\n" });
        for change in self.store.changes_after(before).into_iter().flatten() {
            for line in change.events.iter().filter_map(|event| self.event(event)) {
                let _ = writeln!(text, "  @{} {line}", change.revision);
            }
        }
        text
    }

    fn operation(&mut self, words: &mut Words) -> Operation {
        let lock = match words.verb.as_str() {
            "open" => return Operation::OpenSession(self.open(&words.text("session"))),
            "close" => return Operation::CloseSession(self.id(&words.text("session"))),
            "put" => {
                return Operation::Put(Put {
                    key: Key::new(Family::KV, words.text("key").as_bytes()),
                    value: words.text("value").into_bytes().into(),
                    content_type: ContentType::Text,
                    attach: Attach::None,
                    precondition: Precondition::None,
                    return_previous: false,
                });
            }
            "acquire" => lock::Operation::Acquire(Acquire {
                lock: words.text("lock").into(),
                mode: if words.flag("shared") { Mode::Shared } else { Mode::Exclusive },
                owner: words.maybe("owner").unwrap_or_default().into(),
                meta: "".into(),
                wait: !words.flag("try"),
                attach: match words.maybe("private") {
                    Some(name) => Attach::Private(self.open(&name)),
                    None => Attach::Session(self.id(&words.text("session"))),
                },
            }),
            "release" => lock::Operation::Release(self.claim(words)),
            "withdraw" => lock::Operation::Withdraw(self.claim(words)),
            "transfer" => {
                let to = self.id(&words.text("to"));
                lock::Operation::Transfer(self.claim(words), to)
            }
            "break" => lock::Operation::Break(words.text("lock").into(), words.text("reason").into()),
            other => panic!("{other} is no operation"),
        };
        coracle_recipes::Operation::Lock(lock).encode()
    }

    fn claim(&mut self, words: &mut Words) -> Claim {
        let (lock, session) = (words.text("lock").into(), self.id(&words.text("session")));
        Claim { lock, session, token: words.number("token").map(Revision) }
    }

    fn open(&mut self, name: &str) -> OpenSession {
        OpenSession {
            id: self.id(name),
            ttl: Millis(10_000),
            name: name.into(),
            meta: "".into(),
            on_expire: OnExpire::Release,
        }
    }

    fn id(&mut self, name: &str) -> SessionId {
        let position = self.sessions.iter().position(|other| other == name).unwrap_or_else(|| {
            self.sessions.push(name.into());
            self.sessions.len() - 1
        });
        SessionId(position as u64 + 1)
    }

    fn who(&self, id: SessionId) -> &str {
        usize::try_from(id.0).ok().and_then(|id| self.sessions.get(id - 1)).map_or("?", |name| name)
    }

    fn hold(&self, hold: &Hold) -> String {
        let owner = if hold.owner.is_empty() { String::new() } else { format!(" owner={}", hold.owner) };
        format!("{}{} token={}{owner}", self.who(hold.session), mode(hold.mode), hold.token)
    }

    fn holds(&self, holds: &[Hold]) -> String {
        holds.iter().map(|hold| self.hold(hold)).collect::<Vec<_>>().join(", ")
    }

    fn waiting(&self, place: &Place) -> String {
        format!("waiting position={} behind=[{}]", place.position, self.holds(&place.blockers))
    }

    fn outcome(&self, outcome: &StoreOutcome) -> String {
        match outcome {
            StoreOutcome::Program(bytes) => match Outcome::decode(bytes).expect("an outcome") {
                Outcome::Lock(lock::Outcome::Held(hold)) => format!("held {}", self.hold(&hold)),
                Outcome::Lock(lock::Outcome::Waiting(place)) => self.waiting(&place),
                Outcome::Lock(lock::Outcome::Freed(ended, granted)) => {
                    format!("freed ended=[{}] granted=[{}]", self.holds(&ended), self.holds(&granted))
                }
            },
            StoreOutcome::Transaction(transaction) => {
                let branch = if transaction.succeeded { "then" } else { "else" };
                let results =
                    transaction.results.iter().map(|outcome| format!("\n- {}", self.outcome(outcome)));
                format!("{branch}{}", results.collect::<String>())
            }
            StoreOutcome::Expired(count) => format!("expired {count}"),
            _ => "ok".into(),
        }
    }

    fn refusal(&self, refusal: &StoreRefusal) -> String {
        let StoreRefusal::Program(bytes) = refusal else { return refusal.to_string() };
        let Refusal::Lock(refusal) = Refusal::decode(bytes).expect("a refusal");
        match refusal {
            lock::Refusal::Held(by, waiting) => format!("held by=[{}] waiting={waiting}", self.holds(&by)),
            other => format!("{other:?}"),
        }
    }

    fn event(&self, event: &Event) -> Option<String> {
        if let Some(described) = describe(event) {
            let who = described.session.map_or("?", |id| self.who(id));
            let token = described.token.map(|token| format!(" token={token}")).unwrap_or_default();
            return Some(format!("{} {} {who}{token}", described.op, described.name));
        }
        match (event.key.family(), &event.record) {
            (Family::SESSION, None) => {
                let id = u64::from_be_bytes(event.key.name().try_into().expect("eight bytes"));
                Some(format!("ended session {}", self.who(SessionId(id))))
            }
            (Family::KV, Some(record)) => Some(format!("put {:?}={:?}", event.key, record.value)),
            _ => None,
        }
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "",
        Mode::Shared => " shared",
    }
}

/// `held deploy 4`: that token holds that lock.
fn condition(line: &str) -> coracle_store::Condition {
    let words: Vec<_> = line.split_whitespace().collect();
    let ["held", name, token] = words[..] else { panic!("{line} is no condition") };
    Condition::LockHeld(name.into(), Revision(token.parse().expect("a number"))).encode()
}
