//! The OpenAPI document: reviewed, complete, and what the server really does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use coracle_api::Code;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::server::start;

static DOCUMENT: LazyLock<Value> = LazyLock::new(resolved);

/// Codes of what is not there yet. A code that some operation answers does not belong here any more.
const LATER: &[Code] = &[
    Code::NotImplemented,
    Code::Unauthenticated,
    Code::PermissionDenied,
    Code::UserNotFound,
    Code::RoleNotFound,
    Code::LastAdmin,
    Code::RateLimited,
    Code::NotAcceptable,
    Code::IdempotencyInFlight,
    Code::EpochChanged,
];

/// The document as it stands in the repository.
pub fn committed() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The document with what parameters and responses refer to in its place.
fn resolved() -> Value {
    fn resolve(value: &mut Value, components: &Value) {
        let to = value["$ref"].as_str().and_then(|to| to.strip_prefix("#/components/")).map(str::to_owned);
        if let Some((kind, name)) = to.as_deref().and_then(|to| to.split_once('/')) {
            *value = components[kind][name].clone();
            assert!(!value.is_null(), "nothing is at {to:?}");
        }
    }
    let mut document: Value = serde_json::from_str(coracle_server::openapi()).unwrap();
    let components = document["components"].clone();
    for operation in document["paths"]
        .as_object_mut()
        .unwrap()
        .values_mut()
        .flat_map(|m| m.as_object_mut().unwrap().values_mut())
    {
        operation["parameters"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(|param| resolve(param, &components));
        operation["responses"]
            .as_object_mut()
            .unwrap()
            .values_mut()
            .for_each(|response| resolve(response, &components));
    }
    document
}

/// Method in capitals, path, operation.
pub fn operations() -> Vec<(String, &'static str, &'static Value)> {
    let mut all = Vec::new();
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            all.push((method.to_uppercase(), path.as_str(), operation));
        }
    }
    all
}

#[test]
fn is_the_reviewed_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/openapi.json");
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&path, coracle_server::openapi()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(coracle_server::openapi().lines()).find(|(old, new)| old != new);
    assert!(
        committed == coracle_server::openapi(),
        "api/openapi.json is another, first line (committed, made): {differs:#?}\n\
         REWRITE=1 cargo test -p coracle-server --test http document:: writes it; then read the diff"
    );
}

#[test]
fn is_whole() {
    let mut ids = BTreeSet::new();
    let mut wrong = Vec::new();
    for (method, path, operation) in operations() {
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{method} {path}: {what}"));
            }
        };
        must(!path.contains('*'), "the path has a *");
        must(ids.insert(operation["operationId"].as_str().unwrap()), "the operationId is there twice");
        must(operation["summary"].as_str().unwrap().ends_with('.'), "says nothing");
        let responses = operation["responses"].as_object().unwrap();
        must(responses.keys().any(|status| status.starts_with('2')), "has no good answer");
        for (_, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            let sample = content.get("example");
            let fits = sample.is_none_or(|sample| validator(&content["schema"]).is_valid(sample));
            must(fits, "the sample of the body is not of its schema");
        }
        let params = operation["parameters"].as_array().unwrap();
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            must(
                params.iter().any(|p| p["in"] == "path" && p["name"] == name),
                "does not say what is in the path",
            );
        }
        for param in params {
            let name = &param["name"];
            must(
                param["description"].as_str().is_some_and(|says| says.len() > 5),
                &format!("{name} says nothing"),
            );
            let schema = validator(&param["schema"]);
            must(schema.is_valid(&param["example"]), &format!("the example of {name} is not of its schema"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn knows_every_problem() {
    let mut answered: BTreeSet<&str> =
        DOCUMENT["x-problem-codes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for (_, _, operation) in operations() {
        for response in operation["responses"].as_object().unwrap().values() {
            let schema = &response["content"]["application/problem+json"]["schema"];
            let codes = schema["allOf"][1]["properties"]["code"]["enum"].as_array();
            answered.extend(codes.into_iter().flatten().filter_map(Value::as_str));
        }
    }
    let mut wrong = Vec::new();
    for code in Code::ALL {
        match (answered.contains(code.as_str()), LATER.contains(code)) {
            (false, false) => {
                wrong.push(format!("no operation answers {code}: say which in its row, or add it to LATER"));
            }
            (true, true) => wrong.push(format!("{code} is answered by now: take it off LATER")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn is_what_is_routed() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let mut routed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (method, path, _) in operations() {
        routed.entry(path).or_default().insert(method);
    }
    for (path, methods) in routed {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let target = match DOCUMENT["paths"][path].get(method.to_lowercase()) {
                Some(operation) => example(path, operation, None, "whatch=1", "7000000000000001").target,
                None => format!("{}?whatch=1", path.replace(['{', '}'], "")),
            };
            let answer = client.call(method, &target, &[], b"").await;
            let refused = [404, 405].contains(&answer.status)
                && ["route_not_found", "method_not_allowed"].contains(&answer.code().as_str());
            assert_eq!(!refused, methods.contains(method), "{method} {target}: {}", answer.text());
        }
    }
    running.server.stop().await;
}

/// A request that gives what an operation requires, and one parameter more.
#[derive(Clone)]
pub struct Example {
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

pub fn example(path: &str, operation: &Value, also: Option<&Value>, extra: &str, session: &str) -> Example {
    let mut target = path.to_owned();
    let mut query: Vec<(String, String)> = Vec::new();
    let mut headers = Vec::new();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items[0].as_str().unwrap().to_owned(),
        other => other.to_string(),
    };
    for param in operation["parameters"].as_array().unwrap() {
        let name = param["name"].as_str().unwrap();
        let mut value = text(&param["example"]);
        if value == "7587d8aa00000001" {
            session.clone_into(&mut value);
        }
        let escaped = value.replace('%', "%25").replace(';', "%3B").replace(' ', "%20").replace('"', "%22");
        match param["in"].as_str().unwrap() {
            "path" => target = target.replace(&format!("{{{name}}}"), &escaped),
            "query" if param["required"] == true || also == Some(param) => {
                query.push((name.to_owned(), escaped));
            }
            "header" if also == Some(param) => headers.push((name.to_owned(), value)),
            _ => {}
        }
    }
    let with = also.and_then(|param| param["x-with"].as_str()).unwrap_or_default();
    let pairs = with.split('&').chain(extra.split('&'));
    for (name, value) in pairs.filter_map(|pair| pair.split_once('=')) {
        if !query.iter().any(|(known, _)| known == name) {
            query.push((name.to_owned(), value.to_owned()));
        }
    }
    let content = operation["requestBody"]["content"].as_object().into_iter().flatten().next();
    let body = content.map(|(_, content)| &content["example"]).filter(|sample| !sample.is_null());
    let body = body.map(text).unwrap_or_default();
    let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Example { target: format!("{target}?{}", query.join("&")), headers, body }
}

/// What a request is told if it is refused as a bad one. On a connection of its own: it may become a stream.
async fn asked_alone(address: SocketAddr, method: &str, asked: &Example) -> String {
    let headers: Vec<_> = asked.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let mut client = Client::connect(address).await;
    client.send(&crate::client::request(method, &asked.target, &headers, asked.body.as_bytes())).await;
    let head = client.head().await.unwrap();
    if head.status == 400 { client.rest(head, method == "HEAD").await.text() } else { String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_those_that_are_known() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let session = client.post("/v1/sessions?ttl=1h", b"").await.json()["id"].as_str().unwrap().to_owned();
    let checks = operations().into_iter().map(|(method, path, operation)| {
        let session = session.clone();
        tokio::spawn(
            async move { wrong_parameters(running.address, &session, &method, path, operation).await },
        )
    });
    let mut wrong = Vec::new();
    for check in checks.collect::<Vec<_>>() {
        wrong.extend(check.await.unwrap());
    }
    running.server.stop().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn wrong_parameters(
    address: SocketAddr,
    session: &str,
    method: &str,
    path: &str,
    operation: &Value,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let needs = operation["x-needs"].as_str().unwrap_or_default();
    let params = operation["parameters"].as_array().unwrap();
    // What goes with one thing asked for does not go with another: ask for each.
    let with = params.iter().filter_map(|param| param["x-with"].as_str());
    let of_one_key: &[&str] = if path == "/v1/kv" { &["key=a", "history=true"] } else { &[] };
    let with: BTreeSet<&str> = with.chain(of_one_key.iter().copied()).chain([""]).collect();
    let mut known: BTreeSet<String> = BTreeSet::new();
    for with in with {
        let extra =
            if needs.is_empty() || with == "key=a" { with.to_owned() } else { format!("{needs}&{with}") };
        let mut unknown = example(path, operation, None, &extra, session);
        unknown.target.push_str("&whatch=1");
        let told = asked_alone(address, method, &unknown).await;
        let problem: Value = serde_json::from_str(&told).unwrap_or_default();
        let is_told = problem["code"] == "unknown_parameter";
        // The rest of a HEAD is not to be seen.
        if method != "HEAD" && with.is_empty() && !is_told {
            wrong.push(format!("{method} {}: {told}", unknown.target));
        }
        known.extend(
            problem["known"].as_array().into_iter().flatten().filter_map(|n| Some(n.as_str()?.to_owned())),
        );
    }
    let documented: BTreeSet<String> = params
        .iter()
        .filter(|param| param["in"] == "query")
        .filter_map(|param| param["name"].as_str())
        .map(|name| name.split_once('.').map_or(name.to_owned(), |(before, _)| format!("{before}.*")))
        .collect();
    if method != "HEAD" && known != documented {
        let (missing, too_much) = (known.difference(&documented), documented.difference(&known));
        let (missing, too_much): (Vec<_>, Vec<_>) = (missing.collect(), too_much.collect());
        wrong.push(format!("{method} {path}: taken, not documented: {missing:?}; the reverse: {too_much:?}"));
    }
    let given = params.iter().filter(|param| param["in"] != "path");
    let tries = given.map(|param| async move {
        let mut answers = Vec::new();
        // The parameter may itself be the one of several that is needed.
        for extra in [needs, ""] {
            let asked = example(path, operation, Some(param), extra, session);
            answers.push(asked_alone(address, method, &asked).await);
        }
        // A cursor is opaque: no example can be a good one.
        let taken = |answer: &String| answer.is_empty() || answer.contains("not a cursor of this server");
        let refused = !answers.iter().any(taken);
        refused.then(|| format!("{method} {path}: {param}: {answers:#?}"))
    });
    wrong.extend(futures::future::join_all(tries).await.into_iter().flatten());
    wrong
}

fn validator(schema: &Value) -> Validator {
    let mut root = schema.clone();
    if let Some(root) = root.as_object_mut() {
        root.insert("components".to_owned(), DOCUMENT["components"].clone());
    }
    jsonschema::draft202012::new(&root).unwrap_or_else(|error| panic!("{error}: {schema}"))
}

/// The operation of a request, and its path in the document.
fn operation(method: &str, target: &str) -> Option<(&'static str, &'static Value)> {
    let path = target.split('?').next().unwrap();
    let fits = |known: &str| {
        if let Some(rest) = path.strip_prefix("/v1/kv/") {
            return if rest.is_empty() { known == "/v1/kv" } else { known == "/v1/kv/{key}" };
        }
        let (path, known): (Vec<_>, Vec<_>) = (path.split('/').collect(), known.split('/').collect());
        path.len() == known.len()
            && path.iter().zip(&known).all(|(p, k)| (k.starts_with('{') && !p.is_empty()) || p == k)
    };
    // A name may be spelled like a route: the one with fewer names in it is meant.
    let paths = DOCUMENT["paths"].as_object().unwrap().iter().filter(|(known, _)| fits(known));
    let (path, methods) = paths.min_by_key(|(known, _)| known.matches('{').count())?;
    Some((path, methods.get(method.to_lowercase())?))
}

/// Whether JSON is of the schema that the document has for this status and type.
fn check_body(method: &str, path: &str, status: u16, kind: &str, body: &Value) {
    static VALIDATORS: LazyLock<Mutex<HashMap<String, Validator>>> = LazyLock::new(Mutex::default);
    let operation = &DOCUMENT["paths"][path][method.to_lowercase()];
    let response = &operation["responses"][status.to_string()];
    assert!(!response.is_null(), "{method} {path} is not documented to answer {status}: {body}");
    let schema = &response["content"][kind]["schema"];
    assert!(!schema.is_null(), "{method} {path} is not documented to answer {status} with {kind}: {body}");
    let mut validators = VALIDATORS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let validator = validators.entry(schema.to_string()).or_insert_with(|| validator(schema));
    let errors: Vec<_> = validator.iter_errors(body).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{method} {path} {status}: {errors:#?}\n{body}\n{schema}");
}

/// An answer is one that the document has.
pub fn check(method: &str, target: &str, answer: &Answer) {
    let kind = answer.header("content-type").unwrap_or_default();
    let kind = if kind.starts_with("application/json") { "application/json" } else { kind };
    let Some((path, operation)) = operation(method, target) else {
        let outside = DOCUMENT["x-problem-codes"].as_array().unwrap();
        let documented = method == "HEAD" || method == "OPTIONS" || outside.contains(&json!(answer.code()));
        assert!(documented, "{method} {target} is not documented and answers {}", answer.text());
        return;
    };
    let raw = &operation["responses"][answer.status.to_string()]["content"]["*/*"];
    if method == "HEAD"
        || matches!(answer.status, 204 | 304)
        || (!raw.is_null() && (answer.header("etag").is_some() || answer.header("coracle-receipt").is_some()))
    {
        return;
    }
    if !kind.ends_with("json") || kind.contains("ndjson") {
        let content = &operation["responses"][answer.status.to_string()]["content"];
        assert!(!content[kind].is_null(), "{method} {target} is not documented to answer with {kind}");
        return;
    }
    match serde_json::from_slice(&answer.body) {
        Ok(body) => check_body(method, path, answer.status, kind, &body),
        Err(error) => panic!("{method} {target}: {error}: {}", answer.text()),
    }
}

/// A line of a stream is a frame that the document has.
pub fn check_frame(method: &str, target: &str, frame: &str) {
    let (path, _) = operation(method, target).expect("streams are documented");
    check_body(method, path, 200, "application/x-ndjson", &serde_json::from_str(frame).unwrap());
}
