//! The language of the golden conversations: what all recipes share.
//!
//! One stanza is one entry or one question. Time moves only by `at=`; what waits for it happens in an `advance`, as it
//! does in a cluster. Sessions go by name. Under the reply stands what the entry did, as people are told it.
//! Operations of a transaction and guards are input lines. The words of a recipe are in a file of its own, which
//! [`RECIPES`] lists; they are told apart by their arguments.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use coracle_recipes::{Outcome, Recipes, Refusal, describe};
use coracle_store::command::{Expiry, OnExpire, OpenSession, Precondition, Put, Transaction};
use coracle_store::{
    Action, Attach, Command, ContentType, Event, Family, Idempotency, Key, Millis, Operation,
    Outcome as StoreOutcome, Principal, Refusal as StoreRefusal, SessionId, Store, Timestamp,
};
use datadriven::TestCase;

/// Every recipe's words, one line each.
#[rustfmt::skip]
const RECIPES: &[&dyn Speech] = &[
    &crate::barrier_words::Words,
    &crate::counter_words::Words,
    &crate::election_words::Words,
    &crate::fence_words::Words,
    &crate::group_words::Words,
    &crate::latch_words::Words,
    &crate::lock_words::Words,
    &crate::queue_words::Words,
    &crate::semaphore_words::Words,
    &crate::service_words::Words,
    &crate::topic_words::Words,
];

/// The words of one recipe. Each answers `None` to what is not its own, without taking an argument.
pub trait Speech {
    /// Something to look at.
    fn question(&self, script: &mut Script, words: &mut Words) -> Option<String>;
    /// Something to do.
    fn operation(&self, script: &mut Script, words: &mut Words) -> Option<coracle_recipes::Operation>;
    fn outcome(&self, script: &Script, outcome: &Outcome) -> Option<String>;
    fn refusal(&self, script: &Script, refusal: &Refusal) -> Option<String>;
    /// A guard or compare, such as `held deploy 4`.
    fn condition(&self, line: &[&str]) -> Option<coracle_recipes::Condition>;
}

pub struct Script {
    pub store: Store,
    now: Timestamp,
    sessions: Vec<String>,
}

/// A verb with its arguments; what is left over is a mistake.
pub struct Words {
    pub verb: String,
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

    pub fn has(&self, name: &str) -> bool {
        self.args.contains_key(name)
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.args.insert(name.to_owned(), vec![value.to_owned()]);
    }

    pub fn list(&mut self, name: &str) -> Vec<String> {
        self.args.remove(name).unwrap_or_default()
    }

    pub fn maybe(&mut self, name: &str) -> Option<String> {
        self.list(name).pop()
    }

    pub fn text(&mut self, name: &str) -> String {
        self.maybe(name).unwrap_or_else(|| panic!("{} needs {name}=", self.verb))
    }

    pub fn number(&mut self, name: &str) -> Option<u64> {
        self.maybe(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    }

    pub fn flag(&mut self, name: &str) -> bool {
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
        Some(match words.verb.as_str() {
            "sessions" => {
                let line = |session: &std::sync::Arc<coracle_store::Session>| {
                    let held = self.store.view().attached(session.id).count();
                    format!("{} holds or waits for {held}\n", self.who(session.id))
                };
                let text: String = self.store.sessions().map(line).collect();
                if text.is_empty() { "none".into() } else { text }
            }
            "due" => match self.store.due() {
                Some(at) => format!("due at={}ms", at.0),
                None => "nothing due".into(),
            },
            _ => return RECIPES.iter().find_map(|recipe| recipe.question(self, words)),
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
            "advance" => Action::Advance,
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
        match words.verb.as_str() {
            "open" => Operation::OpenSession(self.open(&words.text("session"))),
            "close" => Operation::CloseSession(self.id(&words.text("session"))),
            "put" => Operation::Put(Put {
                key: Key::new(Family::KV, words.text("key").as_bytes()),
                value: words.text("value").into_bytes().into(),
                content_type: ContentType::Text,
                attach: Attach::None,
                precondition: Precondition::None,
                return_previous: false,
            }),
            _ => match RECIPES.iter().find_map(|recipe| recipe.operation(self, words)) {
                Some(operation) => operation.encode(),
                None => panic!("{} is no operation", words.verb),
            },
        }
    }

    /// `session=NAME`, or `private=NAME` for one opened in the same entry.
    pub fn attach(&mut self, words: &mut Words) -> Attach {
        match words.maybe("private") {
            Some(name) => Attach::Private(self.open(&name)),
            None => Attach::Session(self.id(&words.text("session"))),
        }
    }

    pub fn open(&mut self, name: &str) -> OpenSession {
        OpenSession {
            name: name.into(),
            on_expire: OnExpire::Release,
            ..OpenSession::new(self.id(name), Millis(10_000))
        }
    }

    pub fn id(&mut self, name: &str) -> SessionId {
        let position = self.sessions.iter().position(|other| other == name).unwrap_or_else(|| {
            self.sessions.push(name.into());
            self.sessions.len() - 1
        });
        SessionId(position as u64 + 1)
    }

    pub fn who(&self, id: SessionId) -> &str {
        usize::try_from(id.0).ok().and_then(|id| self.sessions.get(id - 1)).map_or("?", |name| name)
    }

    fn outcome(&self, outcome: &StoreOutcome) -> String {
        match outcome {
            StoreOutcome::Program(bytes) => {
                let outcome = Outcome::decode(bytes).expect("an outcome");
                let told = RECIPES.iter().find_map(|recipe| recipe.outcome(self, &outcome));
                told.unwrap_or_else(|| format!("{outcome:?}"))
            }
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
        let refusal = Refusal::decode(bytes).expect("a refusal");
        let told = RECIPES.iter().find_map(|recipe| recipe.refusal(self, &refusal));
        told.unwrap_or_else(|| format!("{refusal:?}"))
    }

    fn event(&self, event: &Event) -> Option<String> {
        if let Some(described) = describe(event) {
            let who = described.session.map_or("-", |id| self.who(id));
            let token = described.token.map(|token| format!(" token={token}")).unwrap_or_default();
            let item = described.item.map(|item| format!(" item={item}")).unwrap_or_default();
            return Some(format!("{} {}{item} {who}{token}", described.op, described.name));
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

fn condition(line: &str) -> coracle_store::Condition {
    let words: Vec<_> = line.split_whitespace().collect();
    match RECIPES.iter().find_map(|recipe| recipe.condition(&words)) {
        Some(condition) => condition.encode(),
        None => panic!("{line} is no condition"),
    }
}
