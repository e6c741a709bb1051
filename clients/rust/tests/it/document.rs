//! The OpenAPI document as the judge of what the client sends: no path, method or parameter that no server takes.

use std::sync::LazyLock;

use serde_json::Value;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../api/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

/// What is wrong with a request, if anything is.
pub fn fault(method: &str, target: &str) -> Option<String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let paths = DOCUMENT["paths"].as_object().unwrap();
    // A word of its own goes before a name: `/v1/x/all` before `/v1/x/{name}`.
    let best =
        paths.iter().filter(|(template, _)| fits(template, path)).min_by_key(|(t, _)| t.matches('{').count());
    let Some((template, methods)) = best else { return Some(format!("no such path: {path}")) };
    let Some(operation) = methods.get(method.to_lowercase()) else {
        return Some(format!("no such method: {method} {template}"));
    };
    let parameters: Vec<&Value> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(resolved)
        .filter(|p| p["in"] == "query")
        .collect();
    let asked: Vec<&str> =
        query.split('&').filter_map(|pair| pair.split('=').next()).filter(|n| !n.is_empty()).collect();
    let known = |name: &&str| parameters.iter().any(|parameter| parameter["name"] == **name);
    if let Some(stray) = asked.iter().find(|name| !known(name)) {
        return Some(format!("{method} {template} does not take {stray}"));
    }
    let missing = |parameter: &&&Value| {
        parameter["required"] == true && !asked.contains(&parameter["name"].as_str().unwrap_or_default())
    };
    parameters.iter().find(missing).map(|it| format!("{method} {template} needs {}", it["name"]))
}

fn resolved(parameter: &Value) -> &Value {
    match parameter["$ref"].as_str().and_then(|at| at.strip_prefix('#')) {
        Some(pointer) => DOCUMENT.pointer(pointer).expect("the reference leads somewhere"),
        None => parameter,
    }
}

fn fits(template: &str, path: &str) -> bool {
    // Keys have slashes of their own.
    if template == "/v1/kv/{key}" {
        return path.len() > "/v1/kv/".len() && path.starts_with("/v1/kv/");
    }
    let (mut ours, mut theirs) = (path.split('/'), template.split('/'));
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some(segment), Some(word))
                if segment == word || (word.starts_with('{') && !segment.is_empty()) => {}
            _ => return false,
        }
    }
}

#[test]
fn a_stranger_is_noticed() {
    assert_eq!(fault("GET", "/v1/kv/a/b?revision=1"), None);
    assert_eq!(fault("POST", "/v1/queues/q/break?reason=x&items=drop"), None);
    let on_break = fault("POST", "/v1/queues/q/break?reason=x&on_break=drop");
    assert_eq!(on_break.unwrap(), "POST /v1/queues/{name}/break does not take on_break");
    assert!(fault("GET", "/v1/quees").is_some());
    assert!(fault("PATCH", "/v1/kv/a").is_some());
    assert!(
        fault("POST", "/v1/elections/e/proclaim?session=7587d8aa00000001")
            .unwrap()
            .ends_with("needs \"token\"")
    );
}
