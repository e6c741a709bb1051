//! The document as one page for people: plain HTML without a script, that loads nothing.

use std::fmt::Write as _;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::http::routes;

const STYLE: &str = include_str!("page.css");

/// The page as it is served, made once.
pub fn html() -> &'static str {
    static HTML: OnceLock<String> = OnceLock::new();
    HTML.get_or_init(|| Page { document: super::document() }.html())
}

struct Page {
    document: Value,
}

/// Method and path.
type Operation = (String, String);

impl Page {
    fn html(&self) -> String {
        let mut nav = String::new();
        let mut main = String::new();
        let info = &self.document["info"];
        let _ = write!(main, "<h1>{}</h1>", escaped(text(&info["title"])));
        for paragraph in text(&info["description"]).split("\n\n") {
            let _ = write!(main, "<p>{}</p>", prose(paragraph));
        }
        main.push_str("<p>This page is made of <a href=\"/openapi.json\">/openapi.json</a>. In the examples <code>$C</code> \
                       is the address of a node, such as <code>http://127.0.0.1:7070</code>.</p>");
        for tag in self.document["tags"].as_array().into_iter().flatten() {
            let name = text(&tag["name"]);
            let _ = write!(nav, "<b>{}</b>", escaped(name));
            let _ = write!(main, "<h2>{}</h2><p>{}</p>", escaped(name), prose(text(&tag["description"])));
            for operation in operations(name) {
                self.operation(&operation, &mut nav, &mut main);
            }
        }
        nav.push_str("<b>Types</b>");
        main.push_str("<h2>Types</h2>");
        for (name, schema) in self.document["components"]["schemas"].as_object().into_iter().flatten() {
            let _ = write!(nav, "<a href=\"#{name}\">{name}</a>");
            let _ = write!(main, "<h3 id=\"{name}\"><a href=\"#{name}\">{name}</a></h3>");
            shape(schema, &mut main);
        }
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>Coracle</title><style>{STYLE}</style><nav>{nav}</nav>\
             <main>{main}</main></html>\n"
        )
    }

    fn operation(&self, (method, path): &Operation, nav: &mut String, out: &mut String) {
        let operation = &self.document["paths"][path][method];
        let id = text(&operation["operationId"]);
        let _ = write!(nav, "<a href=\"#{id}\">{id}</a>");
        let _ = write!(
            out,
            "<h3 id=\"{id}\"><a href=\"#{id}\"><span class=\"method {method}\">{}</span> {}</a></h3><p>{} {}</p>",
            method.to_uppercase(),
            escaped(path),
            prose(text(&operation["summary"])),
            prose(text(&operation["description"])),
        );
        let params: Vec<&Value> =
            list(&operation["parameters"]).iter().map(|param| self.resolved(param)).collect();
        let _ = write!(out, "<pre><code>{}</code></pre>", escaped(&curl(method, path, operation, &params)));
        parameters(&params, out);
        for (kind, content) in object(&operation["requestBody"]["content"]) {
            let must = if operation["requestBody"]["required"] == true { ", required" } else { "" };
            let _ = write!(out, "<h4>Body</h4><p><code>{}</code>{must} ", escaped(kind));
            if content["schema"].as_object().is_some_and(|schema| !schema.is_empty()) {
                let _ = write!(out, "{}", kind_of(&content["schema"]));
            }
            let _ = write!(out, " {}</p>", prose(text(&operation["requestBody"]["description"])));
        }
        out.push_str("<h4>Answers</h4><table>");
        let mut problems = String::new();
        for (status, response) in object(&operation["responses"]) {
            let response = self.resolved(response);
            for (kind, content) in object(&response["content"]) {
                if kind == "application/problem+json" {
                    for code in list(&content["schema"]["allOf"][1]["properties"]["code"]["enum"]) {
                        let code = text(code);
                        let _ = write!(
                            problems,
                            "<a href=\"/problems/{code}\"><code>{status} {code}</code></a> "
                        );
                    }
                    continue;
                }
                let what = kind_of(&content["schema"]);
                let when = text(&content["x-with"]);
                let when = if when.is_empty() {
                    String::new()
                } else {
                    format!(" with <code>{}</code>", escaped(when))
                };
                let _ = write!(out, "<tr><td>{status}{when}<td><code>{}</code><td>{what}", escaped(kind));
            }
            if object(&response["content"]).next().is_none() {
                let _ = write!(out, "<tr><td>{status}<td><td>{}", prose(text(&response["description"])));
            }
        }
        let _ = write!(out, "</table><details><summary>Problems</summary><p>{problems}</p></details>");
    }

    /// What a reference stands for, or the thing itself.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let target = value["$ref"].as_str().and_then(|to| self.document.pointer(to.strip_prefix('#')?));
        target.unwrap_or(value)
    }
}

/// The operations of a family, in the order of its table.
fn operations(family: &str) -> Vec<Operation> {
    let families = routes::families().into_iter().filter(|it| it.name == family);
    let rows = families.flat_map(|family| family.rows);
    rows.map(|row| (row.method.as_str().to_ascii_lowercase(), row.documented_path())).collect()
}

/// A request that can be pasted into a shell.
fn curl(method: &str, path: &str, operation: &Value, params: &[&Value]) -> String {
    let mut path = path.to_owned();
    let mut query = Vec::new();
    for param in params {
        let name = text(&param["name"]);
        let example = example(param);
        match text(&param["in"]) {
            "path" => path = path.replace(&format!("{{{name}}}"), &example),
            "query" if param["required"] == true => query.push(format!("{name}={example}")),
            _ => {}
        }
    }
    query.extend(operation["x-needs"].as_str().map(str::to_owned));
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let method = match method {
        "get" => String::new(),
        "head" => " -I".to_owned(),
        other => format!(" -X {}", other.to_uppercase()),
    };
    let body = object(&operation["requestBody"]["content"]).next().map(
        |(kind, content)| match &content["example"] {
            Value::Null if kind == "*/*" => " -d hello".to_owned(),
            Value::Null => String::new(),
            Value::String(text) => format!(" -d '{text}'"),
            other => format!(" -d '{other}'"),
        },
    );
    format!("curl{method} \"$C{path}{query}\"{}", body.unwrap_or_default())
}

fn example(param: &Value) -> String {
    match &param["example"] {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.first().map(|item| text(item).to_owned()).unwrap_or_default(),
        other => other.to_string(),
    }
}

fn parameters(params: &[&Value], out: &mut String) {
    if params.is_empty() {
        return;
    }
    out.push_str("<h4>Parameters</h4><table>");
    // Headers stand with the parameter that they are the twin of.
    let twin = |name: &str| {
        let same = format!("The same as `{name}`.");
        params.iter().find(|param| param["in"] == "header" && param["description"] == same.as_str())
    };
    for param in params.iter().filter(|param| param["in"] != "header") {
        let name = text(&param["name"]);
        let place = if param["in"] == "path" { " <small>path</small>" } else { "" };
        let must =
            if param["required"] == true && place.is_empty() { " <small>required</small>" } else { "" };
        let _ = write!(out, "<tr><td><code>{}</code>{place}{must}", escaped(name));
        let _ = write!(out, "<td>{}<td>{}", kind_of(&param["schema"]), prose(text(&param["description"])));
        if let Some(with) = param["x-with"].as_str() {
            let _ = write!(out, " <small>With <code>{}</code>.</small>", escaped(with));
        }
        if let Some(header) = twin(name) {
            let shown = format!("{}: {}", text(&header["name"]), example(header));
            let _ = write!(out, " <small>As a header: <code>{}</code></small>", escaped(&shown));
        }
    }
    out.push_str("</table>");
}

/// A schema in a few words, with links to types.
fn kind_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    if let Some(value) = schema.get("const") {
        return format!("<code>{}</code>", escaped(value.as_str().unwrap_or(&value.to_string())));
    }
    let all =
        |schemas: &Value, between: &str| list(schemas).iter().map(kind_of).collect::<Vec<_>>().join(between);
    for word in ["anyOf", "oneOf"] {
        if schema.get(word).is_some() {
            return all(&schema[word], " or ");
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().map(|word| format!("<code>{}</code>", escaped(text(word))));
        return words.collect::<Vec<_>>().join(" ");
    }
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" or "),
        Value::String(kind) if kind == "array" => format!("list of {}", kind_of(&schema["items"])),
        Value::String(kind) if kind == "integer" => {
            let bound =
                |word: &str| schema.get(word).filter(|b| b.as_u64() != Some(u64::MAX)).map(Value::to_string);
            match (bound("minimum"), bound("maximum")) {
                (Some(min), Some(max)) => format!("{min} to {max}"),
                (Some(min), None) if min != "0" => format!("integer from {min}"),
                _ => "integer".to_owned(),
            }
        }
        Value::String(kind) if kind == "string" => match schema["pattern"].as_str() {
            Some(pattern) if pattern == coracle_api::schema::DURATION => {
                "<a href=\"#Duration\">Duration</a>".to_owned()
            }
            Some(pattern) if pattern == coracle_api::schema::SESSION => {
                "<a href=\"#SessionId\">SessionId</a>".to_owned()
            }
            _ => "text".to_owned(),
        },
        Value::String(kind)
            if kind == "object" && schema.get("additionalProperties").is_some_and(Value::is_object) =>
        {
            format!("map to {}", kind_of(&schema["additionalProperties"]))
        }
        Value::String(kind) => kind.clone(),
        _ => "anything".to_owned(),
    }
}

/// A named schema in full.
fn shape(schema: &Value, out: &mut String) {
    let _ = write!(out, "<p>{}</p>", prose(text(&schema["description"])));
    if let Some(members) = schema["properties"].as_object() {
        members_of(members, &schema["required"], out);
    } else if let Some(choices) = schema.get("oneOf").or_else(|| schema.get("anyOf")) {
        for choice in list(choices) {
            if choice.get("properties").is_some() {
                shape(choice, out);
            } else {
                let _ = write!(out, "<p>{} {}</p>", kind_of(choice), prose(text(&choice["description"])));
            }
        }
    } else {
        let _ = write!(out, "<p>{}</p>", kind_of(schema));
        if let Some(pattern) = schema["pattern"].as_str() {
            let _ = write!(out, "<p><small><code>{}</code></small></p>", escaped(pattern));
        }
    }
}

fn members_of(members: &Map<String, Value>, required: &Value, out: &mut String) {
    out.push_str("<table>");
    for (name, member) in members {
        let optional =
            if list(required).iter().any(|r| r == name.as_str()) { "" } else { " <small>optional</small>" };
        let _ = write!(out, "<tr><td><code>{}</code>{optional}<td>{}", escaped(name), kind_of(member));
        let _ = write!(out, "<td>{}", prose(text(&member["description"])));
    }
    out.push_str("</table>");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Text with words in backticks.
fn prose(text: &str) -> String {
    let mut out = String::new();
    for (i, part) in text.split('`').enumerate() {
        let part = escaped(part);
        if i % 2 == 1 {
            let _ = write!(out, "<code>{part}</code>");
        } else {
            out.push_str(&part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_nothing_and_leads_nowhere_else() {
        for foreign in
            ["<script", "<link", "<img", "<iframe", "src=", "url(", "@import", "href=\"http", "href=\"//"]
        {
            assert!(!html().contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn has_every_operation_and_every_link_a_target() {
        let document = super::super::document();
        for operation in object(&document["paths"]).flat_map(|(_, methods)| object(methods)).map(|(_, it)| it)
        {
            let id = text(&operation["operationId"]);
            assert!(html().contains(&format!("<h3 id=\"{id}\">")), "{id}");
        }
        for link in html().split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(html().contains(&format!("id=\"{link}\"")), "{link}");
        }
        assert!(html().contains("curl -X POST &quot;$C/v1/locks/x/acquire?ttl=1m&quot;"));
    }
}
