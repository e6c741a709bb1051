//! One attempt of one action, and what its answer means.

use std::time::Duration;

use serde_json::{Value, json};

use crate::history::{Action, Answer, Outcome};
use crate::http::{Call, Http, Reply};
use crate::replay::Item;

/// What one attempt told.
pub enum Told {
    Known(Outcome),
    /// Certainly without an effect, and worth another try elsewhere.
    Nothing(String),
    /// It may have had an effect.
    Doubt(String),
}

pub async fn send(node: &Http, action: &Action, key: Option<&str>) -> Told {
    let mut call = request(node, action).patience(Duration::from_secs(8));
    let reads = matches!(action, Action::Get { .. } | Action::List { .. });
    if let Some(key) = key.filter(|_| !reads) {
        call = call.header("idempotency-key", key);
    }
    let reply = match call.send().await {
        Ok(reply) => reply,
        Err(error) => {
            let refused = error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect);
            return if refused || reads {
                Told::Nothing("not_sent".to_owned())
            } else {
                Told::Doubt("lost".to_owned())
            };
        }
    };
    if let Some(answer) = answer(action, &reply) {
        let revision = if let Answer::Granted { token } = answer { token } else { reply.revision() };
        return Told::Known(Outcome::Ok { revision, answer });
    }
    let problem = reply.json();
    let code = problem["code"].as_str().unwrap_or_default().to_owned();
    assert!(!code.is_empty() && reply.status >= 400, "neither a good answer nor a problem: {reply:?}");
    if problem["effect"] != "none" {
        return Told::Doubt(code);
    }
    // Said by the node and not by the log: the same may be right a moment later.
    if reply.status >= 500 || matches!(code.as_str(), "idempotency_in_flight" | "rate_limited") {
        return Told::Nothing(code);
    }
    let (revision, current) = (problem["revision"].as_u64(), problem["current_revision"].as_u64());
    Told::Known(Outcome::No { code, revision, current })
}

fn request(node: &Http, action: &Action) -> Call {
    match action {
        Action::Put { key, value, if_match, session } => {
            let session = session.as_ref().map(|session| format!("?session={session}")).unwrap_or_default();
            with_match(node.put(&format!("/v1/kv/{key}{session}"), value.clone()), *if_match)
        }
        Action::Delete { key, if_match } => with_match(node.delete(&format!("/v1/kv/{key}")), *if_match),
        Action::Txn { guard, puts, delete, otherwise } => {
            let put = |(key, value): &(String, String)| json!({"op": "put", "key": key, "value": value});
            let mut then: Vec<Value> = puts.iter().map(put).collect();
            then.extend(delete.as_ref().map(|key| json!({"op": "delete", "key": key})));
            let txn = json!({"if": [{"key": guard.0, "mod_revision": guard.1}], "then": then, "else": [put(otherwise)]});
            node.post("/v1/txn", txn.to_string()).header("content-type", "application/json")
        }
        Action::Get { key, stale, min_revision } => {
            let consistency = if *stale { "stale" } else { "linearizable" };
            let newer =
                if *min_revision > 0 { format!("&min_revision={min_revision}") } else { String::new() };
            node.get(&format!("/v1/kv/{key}?format=json&consistency={consistency}{newer}"))
        }
        Action::List { prefix } => node.get(&format!("/v1/kv?prefix={prefix}&limit=1000")),
        Action::Acquire { lock, session } => {
            node.post(&format!("/v1/locks/{lock}/acquire?session={session}&wait=2s"), "")
        }
        Action::Release { lock, session, .. } => {
            node.post(&format!("/v1/locks/{lock}/release?session={session}"), "")
        }
    }
}

fn with_match(call: Call, if_match: Option<u64>) -> Call {
    match if_match {
        None => call,
        Some(0) => call.header("if-none-match", "*"),
        Some(revision) => call.header("if-match", &format!("\"{revision}\"")),
    }
}

/// The good answer in a reply, if it is one.
fn answer(action: &Action, reply: &Reply) -> Option<Answer> {
    let absent =
        matches!(action, Action::Get { .. }) && reply.status == 404 && reply.code() == "key_not_found";
    if absent {
        return Some(Answer::Item(None));
    }
    if !matches!(reply.status, 200 | 201) {
        return None;
    }
    let json = reply.json();
    Some(match action {
        Action::Put { .. } => Answer::Written { version: json["version"].as_u64()? },
        Action::Delete { .. } => Answer::Deleted(json["deleted"].as_u64()?),
        Action::Txn { .. } => Answer::Succeeded(json["succeeded"].as_bool()?),
        Action::Get { .. } => Answer::Item(Some(item(&json)?)),
        Action::List { .. } => {
            let items = json["items"].as_array()?;
            Answer::Items(
                items
                    .iter()
                    .map(|json| Some((json["key"].as_str()?.to_owned(), item(json)?)))
                    .collect::<Option<_>>()?,
            )
        }
        Action::Acquire { .. } => Answer::Granted { token: json["token"].as_u64()? },
        Action::Release { .. } => Answer::Released,
    })
}

fn item(json: &Value) -> Option<Item> {
    Some(Item {
        value: json["value"].as_str()?.to_owned(),
        create_revision: json["create_revision"].as_u64()?,
        mod_revision: json["mod_revision"].as_u64()?,
        version: json["version"].as_u64()?,
        session: json["session"].as_str().map(str::to_owned),
    })
}
