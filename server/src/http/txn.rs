//! ① Transactions: `{"if":[..],"then":[..],"else":[..]}`.

use std::collections::HashSet;

use coracle_api::{self as api, Code, Problem, Span};
use coracle_recipes::{self as recipes, counter, election, lock, queue, semaphore, topic};
use coracle_store::command::{
    Attach, Comparison, Condition, Delete, DeleteRange, Precondition, Put, Transaction,
};
use coracle_store::{
    Action, ContentType, Family, Key, Millis, Operation, Outcome, Revision, SessionId, Value, limits,
};
use http::StatusCode;

use super::call::{Call, check_name, held, outcome, unexpected};
use super::problem::{Answer, Refused, bad_body, too_large};
use super::{body, json, kv, respond};

/// `POST /v1/txn`
pub async fn run(mut call: Call) -> Answer {
    let (txn, bytes) = call.json::<api::Txn>().await?;
    let max = usize::try_from(call.edge.config.max_value.0).unwrap_or(usize::MAX);
    let too_many = |what: &str, actual: usize| {
        let detail = format!("too many {what} max={} actual={actual}", limits::OPERATIONS);
        Refused::from(
            Problem::new(Code::TooManyOps, detail).with("max", limits::OPERATIONS).with("actual", actual),
        )
    };
    if txn.compares.len() > limits::OPERATIONS {
        return Err(too_many("compares", txn.compares.len()));
    }
    if txn.then.len() + txn.otherwise.len() > limits::OPERATIONS {
        return Err(too_many("operations", txn.then.len() + txn.otherwise.len()));
    }
    let words: Vec<&'static str> = txn.then.iter().map(api::Operation::word).collect();
    let other_words: Vec<&'static str> = txn.otherwise.iter().map(api::Operation::word).collect();
    unique(&txn.then)?;
    unique(&txn.otherwise)?;
    let transaction = Transaction {
        conditions: txn.compares.into_iter().map(condition).collect::<Answer<_>>()?,
        then: operations(txn.then, max)?,
        otherwise: operations(txn.otherwise, max)?,
    };
    let mutation = call.mutation(&bytes)?;
    let reply = call.submit(&mutation.command(Action::Transaction(transaction))).await?;
    let (revision, replayed, outcome) = outcome(reply)?;
    let Outcome::Transaction(done) = outcome else { return Err(unexpected(&outcome)) };
    let words = if done.succeeded { words } else { other_words };
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(b"{\"succeeded\":");
    out.extend_from_slice(if done.succeeded { b"true" } else { b"false" });
    json::number_member(&mut out, "revision", revision.0);
    json::member(&mut out, "results");
    out.push(b'[');
    for (i, (result, word)) in done.results.iter().zip(words).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_result(&mut out, word, result);
    }
    out.extend_from_slice(b"]}");
    Ok(respond::replayed(respond::json_bytes(StatusCode::OK, revision, out), replayed))
}

fn write_result(out: &mut Vec<u8>, word: &str, result: &Outcome) {
    out.extend_from_slice(b"{\"op\":\"");
    out.extend_from_slice(word.as_bytes());
    out.push(b'"');
    match result {
        Outcome::Got(key, record) => {
            json::member(out, "entry");
            match record {
                Some(record) => json::entry(out, key, record, true),
                None => out.extend_from_slice(b"null"),
            }
        }
        Outcome::Put(put) => json::number_member(out, "version", put.version),
        Outcome::Deleted(deleted) => json::number_member(out, "deleted", deleted.deleted),
        Outcome::Program(bytes) => {
            if let Ok(outcome) = recipes::Outcome::decode(bytes) {
                write_recipe_result(out, &outcome);
            }
        }
        Outcome::None
        | Outcome::Session(_)
        | Outcome::Closed(_)
        | Outcome::Transaction(_)
        | Outcome::Expired(_)
        | Outcome::Compacted(_) => {}
    }
    out.push(b'}');
}

/// What the operations of recipes tell; the others say only that they happened.
fn write_recipe_result(out: &mut Vec<u8>, outcome: &recipes::Outcome) {
    match outcome {
        recipes::Outcome::Counter(counter::Outcome::Value(value, previous)) => {
            json::member(out, "value");
            json::to_json(out, value);
            json::member(out, "previous");
            json::to_json(out, previous);
        }
        recipes::Outcome::Queue(queue::Outcome::Sent(sent)) => {
            if let Some(sent) = sent.first() {
                json::member(out, "id");
                json::string(out, &sent.id.to_string());
            }
        }
        recipes::Outcome::Topic(topic::Outcome::Published(_, last)) => {
            json::number_member(out, "seq", *last);
        }
        _ => {}
    }
}

/// No key may be changed twice: which of the two would win?
fn unique(operations: &[api::Operation]) -> Answer<()> {
    let mut seen = HashSet::new();
    for operation in operations {
        let key = match operation {
            api::Operation::Put { key, .. } | api::Operation::Delete { key } => key,
            // What recipes do to one object in one entry is done one after the other.
            api::Operation::Get { .. }
            | api::Operation::DeletePrefix { .. }
            | api::Operation::Release { .. }
            | api::Operation::Add { .. }
            | api::Operation::Send { .. }
            | api::Operation::Publish { .. }
            | api::Operation::Ack { .. } => continue,
        };
        if !seen.insert(key.as_bytes()) {
            let shown = super::wire::name_text(key.as_bytes());
            let problem =
                Problem::new(Code::DuplicateKey, format!("a branch changes a key twice key={shown:?}"));
            return Err(problem.with("key", shown).into());
        }
    }
    Ok(())
}

fn key_of(key: &api::Key) -> Answer<Key> {
    kv::check_key(key.as_bytes()).map_err(|_| {
        let actual = key.as_bytes().len();
        bad_body(format!("a key has 1 to {} bytes actual={actual}", limits::KEY_BYTES))
    })?;
    Ok(Key::new(Family::KV, key.as_bytes()))
}

fn comparison(word: api::Comparison) -> Comparison {
    match word {
        api::Comparison::Equal => Comparison::Equal,
        api::Comparison::NotEqual => Comparison::NotEqual,
        api::Comparison::Less => Comparison::Less,
        api::Comparison::Greater => Comparison::Greater,
    }
}

fn condition(compare: api::Compare) -> Answer<Condition> {
    Ok(match compare {
        api::Compare::Key { key, condition } => {
            let key = key_of(&key)?;
            let mut is = Comparison::Equal;
            let mut condition = condition;
            while let api::Condition::Is(word, of) = condition {
                is = comparison(word);
                condition = *of;
            }
            match condition {
                api::Condition::Is(..) => return Err(bad_body("a comparison of a comparison")),
                api::Condition::Exists(exists) => Condition::Exists(key, exists),
                api::Condition::CreateRevision(r) => Condition::CreateRevision(key, is, Revision(r)),
                api::Condition::ModRevision(r) => Condition::ModRevision(key, is, Revision(r)),
                api::Condition::Version(version) => Condition::Version(key, is, version),
                api::Condition::Value(bytes) => Condition::Value(key, is, Value::from(&*bytes)),
            }
        }
        api::Compare::Held { claim, token } => held(&claim, token).map_err(bad_body)?,
        api::Compare::Session { session } => Condition::Alive(SessionId(session.value())),
        api::Compare::Counter { counter, is, value } => {
            named("counter", &counter)?;
            recipes::Condition::Counter(counter.into(), comparison(is), value).encode()
        }
    })
}

/// The operations of a branch.
fn operations(list: Vec<api::Operation>, value_max: usize) -> Answer<Vec<Operation>> {
    list.into_iter().map(|one| operation(one, value_max)).collect()
}

fn operation(operation: api::Operation, value_max: usize) -> Answer<Operation> {
    Ok(match operation {
        api::Operation::Get { key } => Operation::Get(key_of(&key)?),
        api::Operation::Put { key, value, session, keep_session } => {
            let (content_type, value) = carried(&value, value_max)?;
            let attach = match (session, keep_session) {
                (None, false) => Attach::None,
                (None, true) => Attach::Keep,
                (Some(session), false) => Attach::Session(SessionId(session.value())),
                (Some(_), true) => return Err(bad_body("session and keep_session exclude each other")),
            };
            Operation::Put(Put {
                key: key_of(&key)?,
                content_type,
                value,
                attach,
                precondition: Precondition::None,
                return_previous: false,
            })
        }
        api::Operation::Delete { key } => Operation::Delete(Delete {
            key: key_of(&key)?,
            precondition: Precondition::None,
            return_previous: false,
        }),
        api::Operation::DeletePrefix { prefix } => {
            let prefix = key_of(&prefix)?;
            let end = super::kv_list::successor(prefix.name()).map(|end| Key::new(Family::KV, &end));
            Operation::DeleteRange(DeleteRange { start: prefix, end })
        }
        api::Operation::Release { holding, session, token } => {
            release(holding, SessionId(session.value()), token.map(Revision))?.encode()
        }
        api::Operation::Add { counter, delta, min, max } => {
            named("counter", &counter)?;
            let bounds = counter::MIN..=counter::MAX;
            if [Some(delta), min, max].into_iter().flatten().any(|number| !bounds.contains(&number)) {
                let (least, most) = bounds.into_inner();
                return Err(bad_body(format!("delta, min, max: whole numbers min={least} max={most}")));
            }
            counter::add(&counter, delta, min, max).encode()
        }
        api::Operation::Send { queue: name, message } => {
            named("queue", &name)?;
            let (content_type, value) = carried(&message.value, value_max)?;
            let message = queue::Message {
                value,
                content_type,
                priority: message.priority.unwrap_or(0),
                group: message.group.map(Into::into),
                delay: millis(message.delay.unwrap_or_default()),
                ttl: message.ttl.map(millis),
                dedup_id: message.dedup_id.map(Into::into),
                headers: Vec::new(),
                item: None,
            };
            let send = queue::Send { queue: name.into(), messages: vec![message], attach: Attach::None };
            recipes::Operation::Queue(queue::Operation::Send(send)).encode()
        }
        api::Operation::Ack { queue: name, receipt } => {
            named("queue", &name)?;
            let receipts = vec![super::queue::receipt(&receipt).map_err(bad_body)?];
            let receipts = queue::Receipts { queue: name.into(), receipts, all: true };
            recipes::Operation::Queue(queue::Operation::Ack(receipts)).encode()
        }
        api::Operation::Publish { topic: name, value, message_key, ttl } => {
            named("topic", &name)?;
            let (content_type, body) = carried(&value, value_max)?;
            let draft = topic::Draft {
                key: message_key.map(Into::into),
                ttl: ttl.map(millis),
                headers: Vec::new(),
                content_type,
                body,
                dead: None,
            };
            let publish = topic::Publish { topic: name.into(), messages: vec![draft], expect_last_seq: None };
            recipes::Operation::Topic(topic::Operation::Publish(publish)).encode()
        }
    })
}

/// What gives a claim back: by the session that holds it, and only that grant if there is a token.
fn release(holding: api::Holding, session: SessionId, token: Option<Revision>) -> Answer<recipes::Operation> {
    Ok(match holding {
        api::Holding::Lock(name) => {
            named("lock", &name)?;
            let claim = lock::Claim { lock: name.into(), session, token };
            recipes::Operation::Lock(lock::Operation::Release(claim))
        }
        api::Holding::Semaphore(name) => {
            named("semaphore", &name)?;
            let claim = semaphore::Claim { semaphore: name.into(), session, token };
            recipes::Operation::Semaphore(semaphore::Operation::Release(claim))
        }
        api::Holding::Election(name) => {
            named("election", &name)?;
            let claim = election::Claim { election: name.into(), session, token };
            recipes::Operation::Election(election::Operation::Resign(claim, false))
        }
    })
}

/// A value within its bounds, as it is stored.
fn carried(value: &api::Value, max: usize) -> Answer<(ContentType, Value)> {
    if value.bytes.len() > max {
        return Err(too_large("value_bytes", max as u64, Some(value.bytes.len() as u64)));
    }
    if value.content_type.len() > limits::CONTENT_TYPE_BYTES
        || value.content_type.chars().any(char::is_control)
    {
        return Err(bad_body("content_type: at most 255 bytes, no control characters"));
    }
    Ok((body::named(&value.content_type, &value.bytes), Value::from(&*value.bytes)))
}

fn named(what: &str, name: &str) -> Answer<()> {
    check_name(name).map_err(|detail| bad_body(format!("{what}: {detail}")))
}

fn millis(span: Span) -> Millis {
    Millis(span.as_millis())
}
