//! ① The OpenAPI 3.1 document, made from the route tables.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use coracle_api::{Code, PROBLEM_JSON, Problem, Span, schema};
use http::Method;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::endpoint::{Body, Content, Endpoint, Family, OUTSIDE};
use super::params::{Kind, Param, Place};
use super::{events, routes};

pub mod page;
mod schemas;

use schemas::Schemas;

/// Where the schema of a problem is.
const PROBLEM: &str = "#/components/schemas/Problem";

const ABOUT: &str = "Keys, sessions and recipes of coordination, over HTTP. Any node answers.\n\nParameters are \
    snake_case, an unknown or doubled one is refused. Durations are `500ms`, `30s`, `1h30m`; a bare number is \
    seconds. Every failure is `application/problem+json` with a `code` for programs; each code has a page at \
    `/problems/{code}`. A path that is not here is 404 `route_not_found`, another method 405 `method_not_allowed`.";

/// The document as it is served, made once.
pub fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
        text.push('\n');
        text
    })
}

/// The document.
#[must_use]
pub fn document() -> Value {
    let families = routes::families();
    let mut schemas = Schemas::new();
    let mut problems = BTreeMap::new();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let all: Vec<&Endpoint> = families.iter().flat_map(|family| &family.rows).collect();
    for Family { name, rows, .. } in &families {
        for row in rows {
            let mut operation = operation(row, &mut schemas, &mut problems);
            operation["tags"] = json!([name]);
            operation["operationId"] = operation_id(row, &all).into();
            let known = paths.entry(row.documented_path()).or_default();
            known.insert(row.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    let tags = families.iter().map(|Family { name, says, .. }| json!({ "name": name, "description": says }));
    let parameters = share_parameters(&mut paths);
    let problem = schemas.answer(SchemaGenerator::subschema_for::<Problem>);
    debug_assert!(problem["$ref"] == PROBLEM);
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Coracle",
            "version": "1",
            "description": ABOUT,
            "license": { "name": "Apache License 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The node that serves this document." }],
        "tags": tags.collect::<Vec<_>>(),
        "paths": paths,
        "components": { "headers": headers(), "parameters": parameters, "responses": problems },
        "x-problem-codes": OUTSIDE,
    });
    sorted(schemas.put_into(document))
}

/// Members in the order of their names, whatever a map of this build does.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> =
                members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            members.into_iter().collect()
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// `locks.acquire`, `locks.list`, `locks.get`: the words of the path, and what the method does if that is not among
/// them.
fn operation_id(row: &Endpoint, all: &[&Endpoint]) -> String {
    if !row.name.is_empty() {
        return row.name.to_owned();
    }
    let path = row.documented_path();
    let is_word = |part: &&str| !part.is_empty() && !part.starts_with('{') && *part != "v1";
    let words: Vec<_> = path.split('/').filter(is_word).collect();
    let mut id = words.join(".").replace(".json", "");
    let children = format!("{path}/{{");
    let names_children = all.iter().any(|other| other.documented_path().starts_with(&children));
    let shared = all.iter().filter(|other| other.path == row.path).count() > 1;
    let word = match (path.ends_with('}'), &row.method) {
        (false, &Method::GET) if names_children => ".list",
        (false, &Method::POST) if names_children => ".create",
        (false, _) if !names_children && !shared => "",
        (_, &Method::GET) => ".get",
        (_, &Method::HEAD) => ".head",
        (_, &Method::PUT) => ".put",
        (_, &Method::DELETE) => ".delete",
        _ => ".post",
    };
    id.push_str(word);
    id
}

/// Take parameters that stand in several places out of there, each under its name.
fn share_parameters(paths: &mut BTreeMap<String, Map<String, Value>>) -> BTreeMap<String, Value> {
    let lists = |paths: &mut BTreeMap<String, Map<String, Value>>, see: &mut dyn FnMut(&mut Value)| {
        let operations =
            paths.values_mut().flat_map(|methods| methods.iter_mut().map(|(_, operation)| operation));
        operations.filter_map(|operation| operation["parameters"].as_array_mut()).flatten().for_each(see);
    };
    let mut seen: BTreeMap<String, (usize, Value)> = BTreeMap::new();
    lists(paths, &mut |param| {
        seen.entry(sorted(param.clone()).to_string()).or_insert((0, param.clone())).0 += 1;
    });
    seen.retain(|_, (times, _)| *times > 1);
    let text = |param: &Value| param["name"].as_str().unwrap_or_default().to_owned();
    let alike = |name: &str| seen.values().filter(|(_, param)| text(param) == name).count();
    // Names do not depend on what else is there, so that a new route changes nothing about the others.
    let name = |key: &str, param: &Value| match text(param) {
        name if alike(&name) == 1 => name,
        name => format!("{name}-{:04x}", xxhash_rust::xxh3::xxh3_64(key.as_bytes()) & 0xffff),
    };
    let names: BTreeMap<&String, String> =
        seen.iter().map(|(key, (_, param))| (key, name(key, param))).collect();
    lists(paths, &mut |param| {
        if let Some(name) = names.get(&sorted(param.clone()).to_string()) {
            *param = json!({ "$ref": format!("#/components/parameters/{name}") });
        }
    });
    names.iter().map(|(key, name)| (name.clone(), seen[*key].1.clone())).collect()
}

fn operation(row: &Endpoint, schemas: &mut Schemas, shared: &mut BTreeMap<String, Value>) -> Value {
    let mut operation = json!({
        "summary": row.summary,
        "parameters": parameters(row),
        "responses": responses(row, schemas, shared),
    });
    if !row.more.is_empty() {
        operation["description"] = row.more.into();
    }
    if !row.needs.is_empty() {
        operation["x-needs"] = row.needs.into();
    }
    match row.body {
        Body::None => {}
        Body::Value => {
            operation["requestBody"] = json!({
                "description": "The value, as it is. Its content type is kept; a form, or none, means text if it is UTF-8.",
                "required": false,
                "content": { "*/*": { "schema": {} } },
            });
        }
        Body::Json(of, optional) => {
            let schema = schemas.request(of);
            operation["requestBody"] =
                json!({ "required": !optional, "content": { "application/json": { "schema": schema } } });
        }
    }
    if !row.sample.is_empty() {
        let kind = if matches!(row.body, Body::Json(..)) { "application/json" } else { "*/*" };
        let sample = serde_json::from_str(row.sample).unwrap_or_else(|_| row.sample.into());
        operation["requestBody"]["content"][kind]["example"] = sample;
    }
    operation
}

/// All parameters of a row, those of headers included.
fn parameters(row: &Endpoint) -> Vec<Value> {
    let mut params = Vec::new();
    for name in row.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let name = name.trim_start_matches('*');
        let known = |param: &&Param| param.place == Place::Path && param.name == name;
        let plain = Param::new("name", Kind::Name).in_path().says("The name; `/` as `%2F`.");
        params.push(shown(row.params.iter().find(known).unwrap_or(&plain), name));
    }
    for param in row.params.iter().filter(|param| param.place == Place::Query) {
        params.push(shown(param, param.name));
    }
    if let Some(first) = row.formats.first() {
        let with =
            if matches!(*first, "ndjson" | "sse") { row.stream.map_or("", |(_, when)| when) } else { "" };
        let mut format = json!({
            "name": "format", "in": "query", "description": "Form of the answer, as the header `Accept` asks for it.",
            "schema": { "type": "string", "enum": row.formats }, "example": first,
        });
        if !with.is_empty() {
            format["x-with"] = with.into();
        }
        params.push(format);
    }
    for param in &row.params {
        let Some((header, form)) = param.twin else { continue };
        let mut header = json!({
            "name": header, "in": "header", "description": format!("The same as `{}`.", param.name),
            "schema": { "type": "string" }, "example": form,
        });
        if !param.with.is_empty() {
            header["x-with"] = param.with.into();
        }
        params.push(header);
    }
    params
}

fn shown(param: &Param, name: &str) -> Value {
    let mut says = param.says.to_owned();
    let (schema, example) = match param.kind {
        Kind::Text(min, max) => {
            let mut schema = json!({ "type": "string" });
            if min > 0 {
                schema["minLength"] = min.into();
            }
            if max < usize::MAX {
                schema["maxLength"] = max.into();
            }
            (schema, "x")
        }
        Kind::Name => (
            json!({ "type": "string", "minLength": 1, "maxLength": 512, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$" }),
            "x",
        ),
        Kind::Flag => (json!({ "type": "boolean" }), "true"),
        Kind::Number(min, max) => {
            let schema = json!({ "type": "integer", "format": "uint64", "minimum": min, "maximum": max });
            (schema, if min == 0 { "0" } else { "1" })
        }
        Kind::Duration(min, max) => {
            if max < Span::MAX {
                says = format!("{says} {min} to {max}.");
            }
            (
                json!({ "type": "string", "pattern": schema::DURATION }),
                if max.is_zero() { "0s" } else { "2s" },
            )
        }
        Kind::Word(words) => {
            (json!({ "type": "string", "enum": words }), words.first().copied().unwrap_or_default())
        }
        Kind::Integer(min, max) => {
            (json!({ "type": "integer", "format": "int64", "minimum": min, "maximum": max }), "1")
        }
        Kind::Family => (json!({ "type": "string", "enum": events::families().collect::<Vec<_>>() }), "kv"),
        Kind::Session => (json!({ "type": "string", "pattern": schema::SESSION }), "7587d8aa00000001"),
        Kind::Pattern(pattern) => (json!({ "type": "string", "pattern": pattern }), "1"),
    };
    let schema = if param.repeats { json!({ "type": "array", "items": schema }) } else { schema };
    let example = if param.example.is_empty() { example } else { param.example };
    let mut shown = json!({
        "name": name,
        "in": if param.place == Place::Path { "path" } else { "query" },
        "description": says,
        "schema": schema,
    });
    shown["example"] = match param.kind {
        Kind::Flag | Kind::Number(..) | Kind::Integer(..) => {
            serde_json::from_str(example).unwrap_or_default()
        }
        _ if param.repeats => json!([example]),
        _ => example.into(),
    };
    if matches!(param.kind, Kind::Flag) {
        // The bare word is a yes.
        shown["allowEmptyValue"] = true.into();
    }
    if param.required {
        shown["required"] = true.into();
    }
    if !param.with.is_empty() {
        shown["x-with"] = param.with.into();
    }
    shown
}

fn responses(row: &Endpoint, schemas: &mut Schemas, shared: &mut BTreeMap<String, Value>) -> Value {
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
    for (status, content) in &row.answers {
        let response = responses.entry(status.to_string()).or_insert_with(|| good(*status, row.changes));
        let (kind, schema) = match content {
            Content::None => continue,
            Content::Value => {
                for header in ["ETag", "Coracle-Create-Revision", "Coracle-Version", "Coracle-Session"] {
                    response["headers"][header] = json!({ "$ref": format!("#/components/headers/{header}") });
                }
                ("*/*", json!({}))
            }
            Content::Text(kind) => {
                (*kind, json!({ "type": if kind.contains("json") { "object" } else { "string" } }))
            }
            Content::Json(of) => ("application/json", schemas.answer(of)),
        };
        response["content"][kind] = json!({ "schema": schema });
    }
    // A stored value may be JSON itself.
    for (status, _) in row.answers.iter().filter(|(_, content)| matches!(content, Content::Value)) {
        if let Some(response) = responses.get_mut(&status.to_string())
            && let Some(content) = response["content"].get_mut("application/json")
        {
            let stored = json!({ "description": "A stored value that is JSON itself." });
            content["schema"] = json!({ "anyOf": [content["schema"].take(), stored] });
        }
    }
    if let Some((frames, when)) = row.stream {
        let schema = schemas.answer(frames);
        let response = responses.entry("200".to_owned()).or_insert_with(|| good(200, row.changes));
        for kind in ["application/x-ndjson", "text/event-stream"] {
            let mut content = json!({ "schema": schema, "x-streaming": true });
            if !when.is_empty() {
                content["x-with"] = when.into();
            }
            response["content"][kind] = content;
        }
    }
    let mut problems: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in row.all_problems() {
        problems.entry(code.status()).or_default().push(code);
    }
    for (status, codes) in problems {
        let problem = problem(&codes);
        // A failed check of readiness answers as well.
        if let Some(good) = responses.get_mut(&status.to_string()) {
            good["content"][PROBLEM_JSON] = problem["content"][PROBLEM_JSON].clone();
            continue;
        }
        let name = codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join("-");
        responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
        shared.insert(name, problem);
    }
    json!(responses)
}

/// The answer of one status for one of these reasons.
fn problem(codes: &[Code]) -> Value {
    let meanings: Vec<_> = codes.iter().map(|code| format!("`{code}`: {}.", code.title())).collect();
    let schema = json!({ "allOf": [{ "$ref": PROBLEM }, { "properties": { "code": { "enum": codes } } }] });
    json!({
        "description": meanings.join(" "),
        "headers": { "Coracle-Revision": { "$ref": "#/components/headers/Coracle-Revision" } },
        "content": { PROBLEM_JSON: { "schema": schema } },
    })
}

/// A good answer, still without what it carries.
fn good(status: u16, changes: bool) -> Value {
    let description = match status {
        201 => "It is made.",
        202 => "Not yet: it waits.",
        304 => "Nothing is newer.",
        503 => "A check fails.",
        _ => "Done.",
    };
    let mut headers = Map::new();
    let mut header = |name: &str| {
        headers.insert(name.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }))
    };
    header("Coracle-Revision");
    if changes {
        header("Idempotency-Replayed");
    }
    if status == 201 {
        header("Location");
    }
    json!({ "description": description, "headers": headers })
}

fn headers() -> Value {
    let header = |says: &str, schema: Value| json!({ "description": says, "schema": schema });
    let number = || json!({ "type": "integer", "format": "uint64", "minimum": 0 });
    json!({
        "Coracle-Revision": header("The revision that the answer reflects.", number()),
        "Coracle-Create-Revision": header("Revision of the change that made the key.", number()),
        "Coracle-Version": header("Changes of the key since it was made.", number()),
        "Coracle-Session": header("The session that the key lives with.", json!({ "type": "string", "pattern": schema::SESSION })),
        "ETag": header("Revision of the last change, quoted.", json!({ "type": "string" })),
        "Idempotency-Replayed": header("This is the answer of an earlier request with the same key.", json!({ "const": "true" })),
        "Location": header("Where it is now.", json!({ "type": "string" })),
    })
}
