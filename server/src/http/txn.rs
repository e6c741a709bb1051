//! ① Transactions: `{"if":[..],"then":[..],"else":[..]}`.

use std::collections::HashSet;

use coracle_api::{self as api, Code, Problem};
use coracle_recipes::{self as recipes, lock};
use coracle_store::command::{
    Attach, Comparison, Condition, Delete, DeleteRange, Precondition, Put, Transaction,
};
use coracle_store::{Action, Family, Key, Operation, Outcome, Revision, SessionId, Value, limits};
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
    let words: Vec<&'static str> = txn.then.iter().map(word).collect();
    let other_words: Vec<&'static str> = txn.otherwise.iter().map(word).collect();
    unique(&txn.then)?;
    unique(&txn.otherwise)?;
    let transaction = Transaction {
        conditions: txn.compares.into_iter().map(condition).collect::<Answer<_>>()?,
        then: txn.then.into_iter().map(|op| operation(op, max)).collect::<Answer<_>>()?,
        otherwise: txn.otherwise.into_iter().map(|op| operation(op, max)).collect::<Answer<_>>()?,
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

fn word(operation: &api::Operation) -> &'static str {
    match operation {
        api::Operation::Get { .. } => "get",
        api::Operation::Put { .. } => "put",
        api::Operation::Delete { .. } | api::Operation::DeletePrefix { .. } => "delete",
        api::Operation::Release { .. } => "release",
    }
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
        Outcome::None
        | Outcome::Session(_)
        | Outcome::Closed(_)
        | Outcome::Transaction(_)
        | Outcome::Expired(_)
        | Outcome::Compacted(_)
        | Outcome::Program(_) => {}
    }
    out.push(b'}');
}

/// No key may be changed twice: which of the two would win?
fn unique(operations: &[api::Operation]) -> Answer<()> {
    let mut seen = HashSet::new();
    for operation in operations {
        let key = match operation {
            api::Operation::Put { key, .. } | api::Operation::Delete { key } => key,
            api::Operation::Get { .. }
            | api::Operation::DeletePrefix { .. }
            | api::Operation::Release { .. } => continue,
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
    })
}

fn operation(operation: api::Operation, value_max: usize) -> Answer<Operation> {
    Ok(match operation {
        api::Operation::Get { key } => Operation::Get(key_of(&key)?),
        api::Operation::Put { key, value, session, keep_session } => {
            if value.bytes.len() > value_max {
                return Err(too_large("value_bytes", value_max as u64, Some(value.bytes.len() as u64)));
            }
            if value.content_type.len() > 255 || value.content_type.chars().any(char::is_control) {
                return Err(bad_body("content_type: at most 255 bytes, no control characters"));
            }
            let attach = match (session, keep_session) {
                (None, false) => Attach::None,
                (None, true) => Attach::Keep,
                (Some(session), false) => Attach::Session(SessionId(session.value())),
                (Some(_), true) => return Err(bad_body("session and keep_session exclude each other")),
            };
            Operation::Put(Put {
                key: key_of(&key)?,
                content_type: body::named(&value.content_type, &value.bytes),
                value: Value::from(&*value.bytes),
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
        api::Operation::Release { lock: name, session } => {
            check_name(&name).map_err(|detail| bad_body(format!("lock: {detail}")))?;
            let claim = lock::Claim { lock: name.into(), session: SessionId(session.value()), token: None };
            recipes::Operation::Lock(lock::Operation::Release(claim)).encode()
        }
    })
}
