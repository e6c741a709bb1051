//! Every parameter and every JSON body of every endpoint, given wrongly: a problem that names it, and nothing changed.
//!
//! What is wrong is decided by the OpenAPI document: a value that does not fit the schema of its parameter.

use std::fmt::Write as _;
use std::net::SocketAddr;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::client::{Answer, Client, request};
use crate::document::{Example, example, operations};
use crate::server::start;

const SESSION: &str = "7000000000000001";

/// Values as they stand in a query, decoded for the schema.
fn candidates() -> Vec<(String, String)> {
    let plain = [
        "",
        "x",
        "-1",
        "0",
        "1.5",
        "1e3",
        "+1",
        "0x10",
        "9007199254740993",
        "18446744073709551616",
        "-9223372036854775809",
        "true,false",
        "maybe",
        "-5s",
        "1parsec",
        "s",
        "99999999999999999999h",
        "null",
        "[]",
        "../..",
        "locks/",
        "8000000000000001",
    ];
    let mut all: Vec<(String, String)> =
        plain.iter().map(|text| (text.replace('+', "%2B"), (*text).to_owned())).collect();
    all.push(("%00".into(), "\0".into()));
    all.push(("a%0Ab%1B[31m".into(), "a\nb\u{1b}[31m".into()));
    all.push(("k".repeat(5000), "k".repeat(5000)));
    all
}

/// Whether a text is a value of the parameter. Schemas of parameters stand alone.
fn fits(schema: &Value, validator: &Validator, text: &str) -> bool {
    let value = match schema["type"].as_str() {
        Some("integer" | "number") => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => json!(number),
            _ => return false,
        },
        // A flag may stand alone, and is a number to some.
        Some("boolean") if ["", "0", "1"].contains(&text) => return true,
        Some("boolean") => json!(text.parse::<bool>().ok()),
        Some("array") => json!([text]),
        _ => json!(text),
    };
    validator.is_valid(&value)
}

async fn asked(address: SocketAddr, method: &str, asked: &Example) -> Answer {
    let headers: Vec<_> = asked.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let mut client = Client::connect(address).await;
    client.send(&request(method, &asked.target, &headers, asked.body.as_bytes())).await;
    let head = client.head().await.expect("an answer");
    if head.status < 300 {
        Answer { body: Vec::new(), ..head }
    } else {
        client.rest(head, method == "HEAD").await
    }
}

/// Sends what must be refused, and says what was not.
async fn refused(address: SocketAddr, method: &str, request: &Example, name: &str, wrong: &mut String) {
    let answer = asked(address, method, request).await;
    if answer.status == 400 && method == "HEAD" {
        return;
    }
    // A header and its twin in the query are told by the name of the header.
    let (text, header) = (answer.text(), name.replace('_', "-"));
    let named = answer.status == 413 || text.contains(name) || text.contains(&header);
    // A name that is wrong in a way that makes it another path is another matter.
    let elsewhere = [404, 405].contains(&answer.status);
    if !(400..500).contains(&answer.status) || !(named || elsewhere) {
        let short: String = request.target.chars().take(120).collect();
        let _ = writeln!(wrong, "{method} {short} ({name}): {} {}", answer.status, answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_given_wrongly_is_named_and_changes_nothing() {
    let running = start(|_| {}).await;
    let address = running.address;
    let before = running.server.node().read(|store| (store.revision(), store.hash()));
    let checks = operations().into_iter().map(|(method, path, operation)| {
        tokio::spawn(async move { wrong_parameters(address, &method, path, operation).await })
    });
    let (mut wrong, mut sent) = (String::new(), 0);
    for check in checks.collect::<Vec<_>>() {
        let (said, requests) = check.await.expect("no panic");
        wrong.push_str(&said);
        sent += requests;
    }
    let after = running.server.node().read(|store| (store.revision(), store.hash()));
    running.server.stop().await;
    assert!(wrong.is_empty(), "{wrong}");
    assert!(sent > 1000, "only {sent} requests");
    assert_eq!(before, after, "something was changed");
}

/// What was not refused as it should be, and how much was sent.
async fn wrong_parameters(
    address: SocketAddr,
    method: &str,
    path: &str,
    operation: &Value,
) -> (String, usize) {
    let (mut wrong, mut sent) = (String::new(), 0);
    let needs = operation["x-needs"].as_str().unwrap_or_default();
    let params = operation["parameters"].as_array().expect("parameters");
    for param in params.iter().filter(|param| param["in"] == "query") {
        let name = param["name"].as_str().expect("a name");
        let schema = jsonschema::draft202012::new(&param["schema"]).expect("a schema");
        for (raw, text) in candidates() {
            if fits(&param["schema"], &schema, &text) {
                continue;
            }
            let asked = example(path, operation, None, "", SESSION);
            let (head, given) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
            let with = param["x-with"].as_str().unwrap_or_default();
            // What else is needed; an example of the parameter itself makes room for the wrong value.
            let others = given.split('&').chain([needs, with]);
            let mut pairs: Vec<&str> =
                others.filter(|pair| !pair.is_empty() && pair.split('=').next() != Some(name)).collect();
            pairs.sort_unstable();
            pairs.dedup();
            let wrong_pair = format!("{name}={raw}");
            pairs.push(&wrong_pair);
            let request = Example { target: format!("{head}?{}", pairs.join("&")), ..asked.clone() };
            refused(address, method, &request, name, &mut wrong).await;
            sent += 1;
        }
    }
    (wrong, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_json_body_given_wrongly_is_refused_and_changes_nothing() {
    let running = start(|_| {}).await;
    let before = running.server.node().read(|store| (store.revision(), store.hash()));
    let (mut wrong, mut sent) = (String::new(), 0);
    let deep = "{\"a\":".repeat(200) + "1" + &"}".repeat(200);
    for (method, path, operation) in operations() {
        if operation["requestBody"]["content"]["application/json"].is_null() {
            continue;
        }
        let needs = operation["x-needs"].as_str().unwrap_or_default();
        for body in [
            "[]",
            "{",
            "{\"",
            "\"x\"",
            "7",
            "null x",
            "{\"whatch\":1}",
            "{}{}",
            "{\"a\":1,\"a\":2}",
            "\u{0}",
            "{\"__proto__\":{}}",
            &deep,
        ] {
            let mut request = example(path, operation, None, needs, SESSION);
            body.clone_into(&mut request.body);
            refused(running.address, &method, &request, "body", &mut wrong).await;
            sent += 1;
        }
    }
    let after = running.server.node().read(|store| (store.revision(), store.hash()));
    running.server.stop().await;
    assert!(wrong.is_empty(), "{wrong}");
    assert!(sent > 20, "only {sent} requests");
    assert_eq!(before, after, "something was changed");
}
