//! The table of endpoints in docs/HTTP.md beside the OpenAPI document: neither has what the other does not know.

use std::collections::BTreeSet;
use std::path::Path;

use crate::document;

const METHODS: [&str; 5] = ["GET", "HEAD", "PUT", "POST", "DELETE"];

/// `GET /v1/locks/{}`: what a parameter is called says nothing.
fn endpoint(method: &str, path: &str) -> String {
    let segment = |segment: &str| if segment.starts_with('{') { "{}".to_owned() } else { segment.to_owned() };
    let path: Vec<String> = path.trim_end_matches('/').split('/').map(segment).collect();
    format!("{} {}", method.to_uppercase(), path.join("/"))
}

/// What the first cell of a row names: methods, then paths or the last words of paths beside the one before.
fn named(cell: &str, all: &BTreeSet<String>, found: &mut BTreeSet<String>) {
    let (mut methods, mut last, mut fresh) = (Vec::new(), String::new(), false);
    for word in cell.split('`').skip(1).step_by(2) {
        if METHODS.contains(&word) {
            if !fresh {
                methods.clear();
            }
            methods.push(word);
            fresh = true;
            continue;
        }
        fresh = false;
        last = match word.strip_prefix("...") {
            Some(end) => {
                let end = endpoint("", end).trim().to_owned();
                let whole =
                    all.iter().find(|one| one.ends_with(&end)).unwrap_or_else(|| panic!("nothing is {word}"));
                whole.split(' ').nth(1).unwrap().to_owned()
            }
            None if word.starts_with('/') => word.to_owned(),
            None => format!("{}/{word}", last.rsplit_once('/').unwrap_or_else(|| panic!("{cell}: {word}")).0),
        };
        found.extend(methods.iter().map(|method| endpoint(method, &last)));
    }
}

#[test]
fn the_table_has_every_endpoint_and_no_other() {
    let document = document::committed();
    let paths = document["paths"].as_object().unwrap();
    let all: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|method| endpoint(method, path)))
        .collect();
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/HTTP.md")).unwrap();
    let mut found = BTreeSet::new();
    for row in
        text.lines().filter(|line| METHODS.iter().any(|method| line.starts_with(&format!("| `{method}`"))))
    {
        named(row.split(" | ").next().unwrap(), &all, &mut found);
    }
    // The exact form of a key that a path cannot carry is a rule of its own.
    let exact = ["PUT /v1/kv", "POST /v1/kv"].map(str::to_owned);
    let missing: Vec<&String> = all.difference(&found).filter(|one| !exact.contains(one)).collect();
    let strange: Vec<&String> = found.difference(&all).collect();
    assert_eq!((missing, strange), (Vec::new(), Vec::new()), "in the document only, in the table only");
}
