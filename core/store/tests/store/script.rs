//! The language of the golden conversations.
//!
//! One stanza is one entry or one read. Time moves only by `at=`. Keys are of the KV family; sessions go by name.
//! A change is printed under the reply, one line an event. Operations of a transaction and guards are input lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use coracle_store::command::{
    Append, Comparison, Delete, DeleteRange, Expiry, OnExpire, OpenSession, Put, Transaction, UpdateSession,
};
use coracle_store::program::NoProgram;
use coracle_store::{
    Action, Attach, Cause, Command, Condition, ContentType, Event, Family, HistoryError, Idempotency, Key,
    Loader, Millis, Operation, Outcome, Page, Principal, Record, Reply, Revision, Selection, Session,
    SessionId, Settings, Store, Table, Timestamp, WatcherId, Watchers,
};
use datadriven::TestCase;

use crate::rows_of;
use crate::words::{Words, kv, precondition, range, value};

pub struct Script {
    store: Store,
    now: Timestamp,
    sessions: Vec<String>,
    watchers: Watchers,
    watcher_names: BTreeMap<WatcherId, String>,
    /// What a disk would hold.
    disk: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

impl Script {
    pub fn new() -> Self {
        Self {
            store: Store::new(Box::new(NoProgram)),
            now: Timestamp(0),
            sessions: Vec::new(),
            watchers: Watchers::default(),
            watcher_names: BTreeMap::new(),
            disk: BTreeMap::new(),
        }
    }

    pub fn answer(&mut self, case: &TestCase) -> String {
        let mut words = Words::of(case);
        let mut text = match self.read(&mut words) {
            Some(text) => text,
            None => self.write(&mut words, &case.input),
        };
        words.done();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    fn read(&mut self, words: &mut Words) -> Option<String> {
        Some(match words.verb.as_str() {
            "get" if words.has("rev") => {
                let (key, at) = (kv(&words.text("key")), words.number("rev").map(Revision));
                match self.store.get_at(&key, at.unwrap_or_default()) {
                    Ok(record) => record.map_or("absent".into(), |record| self.record(&record)),
                    Err(error) => history_error(error),
                }
            }
            "get" => {
                let record = self.store.get(&kv(&words.text("key")));
                record.map_or("absent".into(), |record| self.record(record))
            }
            "range" => {
                let range = range(words);
                self.store.range(&range).map_or_else(history_error, |page| self.page(&page))
            }
            "count" => {
                let range = range(words);
                self.store.count(&range).map_or_else(history_error, |count| count.to_string())
            }
            "history" => {
                let events = self.store.key_history(&kv(&words.text("key")));
                let line = |(revision, time, event): (Revision, Timestamp, &Event)| {
                    format!("@{revision} at={}ms {}\n", time.0, self.event(event))
                };
                let lines: Vec<String> = events.map(line).collect();
                none_if_empty(lines.into_iter().rev().collect())
            }
            "changes" => {
                let after = Revision(words.number("after").unwrap_or(0));
                match self.store.changes_after(after) {
                    Err(error) => history_error(error),
                    Ok(changes) => {
                        let mut text = String::new();
                        for change in changes {
                            for event in &change.events {
                                let _ = writeln!(text, "@{} {}", change.revision, self.event(event));
                            }
                        }
                        none_if_empty(text)
                    }
                }
            }
            "sessions" => none_if_empty(self.store.sessions().fold(String::new(), |mut text, session| {
                let keys: Vec<_> = self.store.view().attached(session.id).map(|key| self.name(key)).collect();
                let _ = writeln!(text, "{} keys={keys:?}", self.session(session));
                text
            })),
            "status" => {
                let size = self.store.history();
                format!(
                    "revision={} compacted={} now={}ms keys={} live={} changes={}",
                    self.store.revision(),
                    self.store.compact_revision(),
                    self.store.now().0,
                    self.store.key_count(),
                    self.store.live_bytes(),
                    size.changes
                )
            }
            "watch" => self.watch(words),
            "unwatch" => {
                let name = words.text("name");
                let id = *self.watcher_names.iter().find(|(_, other)| **other == name).expect("a watcher").0;
                self.watcher_names.remove(&id);
                self.watchers.remove(id);
                "ok".into()
            }
            "checkpoint" => self.checkpoint(),
            "restart" => self.restart(),
            _ => return None,
        })
    }

    fn watch(&mut self, words: &mut Words) -> String {
        let selection = if let Some(key) = words.maybe("key") {
            Selection::Key(kv(&key))
        } else if let Some(prefix) = words.maybe("prefix") {
            Selection::Prefix(kv(&prefix).as_bytes().to_vec())
        } else if let Some(start) = words.maybe("start") {
            Selection::Range(kv(&start), kv(&words.text("end")))
        } else if words.flag("sessions") {
            Selection::Prefix(vec![Family::SESSION.0])
        } else {
            assert!(words.flag("all"), "key=, prefix=, start= end=, sessions or all");
            Selection::All
        };
        let id = self.watchers.insert(selection);
        self.watcher_names.insert(id, words.text("name"));
        "ok".into()
    }

    fn checkpoint(&mut self) -> String {
        let mut text = String::new();
        for row in rows_of(&self.store.take_delta()) {
            let name = match row.table {
                Table::Keys => self.name(&Key::from_bytes(&row.key).expect("a family")),
                Table::Changes => {
                    format!("from={}", u64::from_be_bytes(row.key[..].try_into().expect("eight bytes")))
                }
                Table::Head | Table::Replies => row.key.escape_ascii().to_string(),
            };
            let verb = if row.value.is_some() { "write" } else { "remove" };
            let _ = writeln!(text, "{verb} {:?} {name}", row.table);
            match row.value {
                Some(value) => self.disk.insert((row.table, row.key), value),
                None => self.disk.remove(&(row.table, row.key)),
            };
        }
        if text.is_empty() { "nothing to write".into() } else { text }
    }

    /// What was not checkpointed is gone: the log would bring it back.
    fn restart(&mut self) -> String {
        let mut loader = Loader::new(Box::new(NoProgram));
        for ((table, key), value) in &self.disk {
            loader.row(*table, key, value).expect("rows of a store");
        }
        match loader.finish() {
            Ok(store) => {
                self.store = store;
                format!("revision={}", self.store.revision())
            }
            Err(error) => error.to_string(),
        }
    }

    fn write(&mut self, words: &mut Words, input: &str) -> String {
        if let Some(at) = words.span("at") {
            self.now = Timestamp(at);
        }
        let principal = Principal(words.maybe("as").unwrap_or("anonymous".into()).into());
        let retry = words.maybe("retry");
        let (mut guards, mut conditions, mut then, mut otherwise) = (vec![], vec![], vec![], vec![]);
        for line in input.lines().filter(|line| !line.trim().is_empty()) {
            let (kind, rest) = line.trim().split_once(' ').expect("a line of if, then, else or guard");
            match kind {
                "guard" => guards.push(self.condition(rest)),
                "if" => conditions.push(self.condition(rest)),
                "then" => then.push(self.operation(&mut Words::parse(rest))),
                "else" => otherwise.push(self.operation(&mut Words::parse(rest))),
                other => panic!("{other} is not if, then, else or guard"),
            }
        }
        let action = match words.verb.as_str() {
            "noop" => Action::Noop,
            "txn" => Action::Transaction(Transaction { conditions, then, otherwise }),
            "expire" => {
                let names = words.list("sessions");
                Action::Expire(names.iter().map(|name| self.expiry(name)).collect())
            }
            "advance" => Action::Advance,
            "doubt" => {
                let missing = words.list("missing").iter().map(|name| self.expiry(name)).collect();
                Action::Doubt(missing, words.list("renewed").iter().map(|name| self.id(name)).collect())
            }
            "compact" => Action::Compact(Revision(words.number("to").expect("to="))),
            "configure" => Action::Configure(Settings {
                quota_bytes: words.number("quota").expect("quota="),
                ..Settings::default()
            }),
            _ => Action::One(self.operation(words)),
        };
        let fingerprint = |action: &Action| {
            let mut hasher = DefaultHasher::new();
            minicbor::to_vec(action).expect("memory").hash(&mut hasher);
            hasher.finish()
        };
        let idempotency = retry.map(|key| Idempotency { key: key.into(), fingerprint: fingerprint(&action) });
        let command = Command { principal, idempotency, guards, action };
        self.apply(&command.encode())
    }

    fn apply(&mut self, command: &[u8]) -> String {
        let before = self.store.revision();
        let reply = self.store.apply(self.now, command);
        let mut text = self.reply(&reply);
        let changes: Vec<_> = self.store.changes_after(before).expect("the newest").cloned().collect();
        for change in changes {
            for event in &change.events {
                let _ = writeln!(text, "  @{} {}", change.revision, self.event(event));
            }
            let mut woken = Vec::new();
            self.watchers.matching(&change, &mut |id| woken.push(self.watcher_names[&id].as_str()));
            woken.sort_unstable();
            if !woken.is_empty() {
                let _ = writeln!(text, "  wakes {}", woken.join(" "));
            }
        }
        text
    }

    fn operation(&mut self, words: &mut Words) -> Operation {
        let operation = match words.verb.as_str() {
            "put" => Operation::Put(Put {
                key: kv(&words.text("key")),
                value: value(words),
                content_type: ContentType::Text,
                attach: self.attach(words),
                precondition: precondition(words),
                return_previous: words.flag("previous"),
            }),
            "append" => Operation::Append(Append {
                directory: kv(&words.text("dir")),
                value: value(words),
                content_type: ContentType::Text,
                attach: self.attach(words),
            }),
            "delete" => Operation::Delete(Delete {
                key: kv(&words.text("key")),
                precondition: precondition(words),
                return_previous: words.flag("previous"),
            }),
            "delete-range" => Operation::DeleteRange(DeleteRange {
                start: kv(&words.maybe("start").unwrap_or_default()),
                end: words.maybe("end").map(|end| kv(&end)),
            }),
            "read" => Operation::Get(kv(&words.text("key"))),
            "open" => Operation::OpenSession(self.open(words, "session")),
            "update" => Operation::UpdateSession(UpdateSession {
                id: self.id(&words.text("session")),
                progress: words.number("progress").map(|progress| u8::try_from(progress).expect("small")),
                note: words.maybe("note").map(Into::into),
                meta: None,
            }),
            "close" => Operation::CloseSession(self.id(&words.text("session"))),
            "program" => Operation::Program(Vec::new().into()),
            other => panic!("{other} is no operation"),
        };
        words.done();
        operation
    }

    fn open(&mut self, words: &mut Words, name: &str) -> OpenSession {
        let name = words.text(name);
        let id = self.id(&name);
        OpenSession {
            name: name.into(),
            on_expire: if words.flag("release") { OnExpire::Release } else { OnExpire::Delete },
            stall_after: words.span("stall").map(Millis),
            lock_delay: words.span("lock_delay").map(Millis),
            ..OpenSession::new(id, Millis(words.span("ttl").unwrap_or(10_000)))
        }
    }

    fn attach(&mut self, words: &mut Words) -> Attach {
        if words.has("private") {
            Attach::Private(self.open(words, "private"))
        } else if let Some(name) = words.maybe("session") {
            Attach::Session(self.id(&name))
        } else if words.flag("keep") {
            Attach::Keep
        } else {
            Attach::None
        }
    }

    fn condition(&mut self, line: &str) -> Condition {
        let words: Vec<_> = line.split_whitespace().collect();
        let comparison = |sign: &str| match sign {
            "=" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            ">" => Comparison::Greater,
            other => panic!("{other} is no comparison"),
        };
        let number = |text: &str| text.parse().expect("a number");
        match words[..] {
            ["exists", key] => Condition::Exists(kv(key), true),
            ["absent", key] => Condition::Exists(kv(key), false),
            ["mod", key, sign, than] => {
                Condition::ModRevision(kv(key), comparison(sign), Revision(number(than)))
            }
            ["create", key, sign, than] => {
                Condition::CreateRevision(kv(key), comparison(sign), Revision(number(than)))
            }
            ["version", key, sign, than] => Condition::Version(kv(key), comparison(sign), number(than)),
            ["value", key, sign, than] => Condition::Value(kv(key), comparison(sign), than.as_bytes().into()),
            ["alive", name] => Condition::Alive(self.id(name)),
            ["program"] => Condition::Program(Vec::new().into()),
            _ => panic!("{line} is no condition"),
        }
    }

    /// `ann` as she is now, or `ann.3` as of generation 3.
    fn expiry(&mut self, text: &str) -> Expiry {
        let (name, generation) = text.split_once('.').unwrap_or((text, ""));
        let session = self.id(name);
        let now = || self.store.session(session).map_or(1, |session| session.generation);
        let generation = generation.parse().unwrap_or_else(|_| now());
        Expiry { session, generation }
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

    fn name(&self, key: &Key) -> String {
        match key.family() {
            Family::SESSION => {
                let id = u64::from_be_bytes(key.name().try_into().expect("eight bytes"));
                format!("session/{}", self.who(SessionId(id)))
            }
            _ => key.name().escape_ascii().to_string(),
        }
    }

    fn reply(&self, reply: &Reply) -> String {
        let mut text = match &reply.result {
            Ok(outcome) => self.outcome(outcome),
            Err(refusal) => format!("refused: {refusal}"),
        };
        if reply.replayed {
            let _ = write!(text, " (replayed from revision {})", reply.revision);
        }
        text.push('\n');
        text
    }

    fn outcome(&self, outcome: &Outcome) -> String {
        let previous = |record: &Option<Record>| {
            record.as_ref().map(|record| format!(" previous=({})", self.record(record))).unwrap_or_default()
        };
        match outcome {
            Outcome::None => "ok".into(),
            Outcome::Put(put) => {
                let session = put.session.map(|id| format!(" session={}", self.who(id))).unwrap_or_default();
                format!(
                    "put {} version={}{session}{}",
                    self.name(&put.key),
                    put.version,
                    previous(&put.previous)
                )
            }
            Outcome::Deleted(deleted) => {
                let more = if deleted.more { " more" } else { "" };
                format!("deleted {}{more}{}", deleted.deleted, previous(&deleted.previous))
            }
            Outcome::Got(key, record) => {
                let record = record.as_ref().map_or("absent".into(), |record| self.record(record));
                format!("got {} {record}", self.name(key))
            }
            Outcome::Session(id) => format!("session {}", self.who(*id)),
            Outcome::Closed(keys) => {
                format!("closed {:?}", keys.iter().map(|key| self.name(key)).collect::<Vec<_>>())
            }
            Outcome::Transaction(transaction) => {
                let branch = if transaction.succeeded { "then" } else { "else" };
                let results =
                    transaction.results.iter().map(|outcome| format!("\n- {}", self.outcome(outcome)));
                format!("{branch}{}", results.collect::<String>())
            }
            Outcome::Expired(count) => format!("expired {count}"),
            Outcome::Compacted(revision) => format!("compacted {revision}"),
            Outcome::Program(_) => "program".into(),
        }
    }

    fn record(&self, record: &Record) -> String {
        let session = record.session.map(|id| format!(" session={}", self.who(id))).unwrap_or_default();
        let value = if record.value.len() > 32 {
            format!("{} bytes", record.value.len())
        } else {
            record.value.escape_ascii().to_string()
        };
        let Record { create_revision, mod_revision, version, .. } = record;
        format!("{value} create={create_revision} mod={mod_revision} version={version}{session}")
    }

    fn session(&self, session: &Session) -> String {
        let progress = session.progress.map(|progress| format!(" progress={progress}")).unwrap_or_default();
        let note = session.note.as_ref().map(|note| format!(" note={note}")).unwrap_or_default();
        let private = if session.private { " private" } else { "" };
        let since = |what: &str, at: Option<Timestamp>| at.map(|at| format!(" {what}={}ms", at.0));
        let stalled = since("stalled", session.stalled).unwrap_or_default();
        let suspect = since("suspect", session.suspect).unwrap_or_default();
        let (name, generation) = (self.who(session.id), session.generation);
        format!("{name} generation={generation}{progress}{note}{private}{stalled}{suspect}")
    }

    fn event(&self, event: &Event) -> String {
        let name = self.name(&event.key);
        let cause = match event.cause {
            Cause::Command => "",
            Cause::SessionExpired => " cause=session_expired",
            Cause::SessionClosed => " cause=session_closed",
            Cause::Broken => " cause=broken",
        };
        match &event.record {
            Some(record) if event.key.family() == Family::SESSION => {
                let session = Session::decode(&record.value).expect("a session");
                format!("put session/{}{cause}", self.session(&session))
            }
            Some(record) => {
                let verb = if event.previous.is_none() { "create" } else { "put" };
                format!("{verb} {name}={}{cause}", self.record(record))
            }
            None => format!("delete {name}{cause}"),
        }
    }

    fn page(&self, page: &Page) -> String {
        let line = |(key, record): &(Key, std::sync::Arc<Record>)| {
            format!("{}={}\n", self.name(key), self.record(record))
        };
        let more = if page.more { " more" } else { "" };
        format!("{}revision={}{more}", page.items.iter().map(line).collect::<String>(), page.revision)
    }
}

fn history_error(error: HistoryError) -> String {
    match error {
        HistoryError::Compacted(oldest) => format!("error: compacted, the oldest is {oldest}"),
        HistoryError::Future(newest) => format!("error: in the future, the newest is {newest}"),
    }
}

fn none_if_empty(text: String) -> String {
    if text.is_empty() { "none".into() } else { text }
}
