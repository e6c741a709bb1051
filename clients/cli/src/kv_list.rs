//! `kv ls`, `kv tree`, `kv history`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;

use coracle_client::api::{Entry, Prefix};
use serde_json::json;

use crate::bytes_arg::{bytes, readable};
use crate::connection::Connection;
use crate::exit::Failure;
use crate::output::Format;

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "these are flags")]
pub struct Ls {
    /// Only keys that start with this
    #[arg(default_value = "")]
    prefix: OsString,
    /// Group what goes on after the next `/`, as in a folder
    #[arg(long)]
    folder: bool,
    /// Values too
    #[arg(long)]
    values: bool,
    /// Only the number of keys
    #[arg(long, conflicts_with_all = ["folder", "values", "limit", "desc"])]
    count: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// From the last key to the first
    #[arg(long)]
    desc: bool,
    /// As it was at this revision
    #[arg(long, value_name = "REVISION")]
    revision: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub struct Tree {
    /// Only keys that start with this
    #[arg(default_value = "")]
    prefix: OsString,
}

#[derive(Debug, clap::Args)]
pub struct History {
    key: OsString,
    /// At most so many versions
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

pub async fn ls(connection: &Connection, args: Ls) -> Result<(), Failure> {
    let mut list = connection.client()?.kv().list(bytes(&args.prefix));
    if let Some(revision) = args.revision {
        list = list.revision(revision);
    }
    if args.count {
        let (count, revision) = list.count().await?;
        let fields = [("count", count.to_string()), ("revision", revision.to_string())];
        return connection.output().item(&json!({"count": count, "revision": revision}), &fields);
    }
    if !args.values {
        list = list.keys_only();
    }
    if args.folder {
        list = list.folder();
    }
    if args.desc {
        list = list.descending();
    }
    let (entries, prefixes) = match args.limit {
        Some(limit) => {
            let page = list.limit(limit).page(None).await?;
            (page.items, page.prefixes)
        }
        None => list.limit(1000).entries().await?,
    };
    show(connection, entries, prefixes, args.values, args.desc)
}

fn show(
    connection: &Connection,
    entries: Vec<Entry>,
    prefixes: Vec<Prefix>,
    values: bool,
    desc: bool,
) -> Result<(), Failure> {
    let mut lines: Vec<Line> = entries.into_iter().map(Line::Entry).collect();
    if !prefixes.is_empty() {
        lines.extend(prefixes.into_iter().map(Line::Folder));
        lines.sort_by(|a, b| a.key().cmp(b.key()));
        if desc {
            lines.reverse();
        }
    }
    let mut header = vec!["KEY", "REVISION", "VERSION", "SESSION"];
    if values {
        header.push("VALUE");
    }
    connection.output().list(&lines, &header, |line| match line {
        Line::Folder(folder) => vec![readable(folder.prefix.as_bytes())],
        Line::Entry(entry) => row(entry, values),
    })
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Line {
    Entry(Entry),
    Folder(Prefix),
}

impl Line {
    fn key(&self) -> &[u8] {
        match self {
            Line::Entry(entry) => entry.key.as_bytes(),
            Line::Folder(folder) => folder.prefix.as_bytes(),
        }
    }
}

fn row(entry: &Entry, values: bool) -> Vec<String> {
    let mut row = vec![
        readable(entry.key.as_bytes()),
        entry.mod_revision.to_string(),
        entry.version.to_string(),
        entry.session.map(|session| session.to_string()).unwrap_or_default(),
    ];
    if values {
        row.push(entry.value.as_ref().map(|value| short(&value.bytes)).unwrap_or_default());
    }
    row
}

/// The start of a value, for a cell of a table.
pub fn short(value: &[u8]) -> String {
    let text = readable(&value[..value.len().min(240)]);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

pub async fn history(connection: &Connection, args: History) -> Result<(), Failure> {
    let mut history = connection.client()?.kv().history(bytes(&args.key));
    if let Some(limit) = args.limit {
        history = history.limit(limit);
    }
    let versions = history.await?.items;
    connection.output().list(&versions, &["REVISION", "TIME", "VERSION", "VALUE"], |version| {
        let value = version.entry.as_ref().and_then(|entry| entry.value.as_ref());
        vec![
            version.revision.to_string(),
            version.time.to_string(),
            version.entry.as_ref().map_or_else(|| "deleted".to_owned(), |entry| entry.version.to_string()),
            value.map(|value| short(&value.bytes)).unwrap_or_default(),
        ]
    })
}

pub async fn tree(connection: &Connection, args: Tree) -> Result<(), Failure> {
    let (entries, _) =
        connection.client()?.kv().list(bytes(&args.prefix)).keys_only().limit(1000).entries().await?;
    let output = connection.output();
    if matches!(output.format_or(Format::Table), Format::Json | Format::Ndjson) {
        return output.list(&entries, &[], |_| Vec::new());
    }
    let mut root = Node::default();
    for entry in &entries {
        let rest = &entry.key.as_bytes()[bytes(&args.prefix).len()..];
        root.add(rest);
    }
    let mut text = String::new();
    root.draw("", &mut text);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\n{text}\n{} keys", readable(bytes(&args.prefix)), entries.len())?;
    Ok(())
}

/// A folder of the drawing.
#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Vec<u8>, Node>,
}

impl Node {
    fn add(&mut self, key: &[u8]) {
        let mut node = self;
        for part in key.split_inclusive(|byte| *byte == b'/') {
            node = node.children.entry(part.to_vec()).or_default();
        }
    }

    fn draw(&self, indent: &str, text: &mut String) {
        let last = self.children.len().saturating_sub(1);
        for (index, (name, child)) in self.children.iter().enumerate() {
            let (branch, below) =
                if index == last { ("└── ", "    ") } else { ("├── ", "│   ") };
            let _ = writeln!(text, "{indent}{branch}{}", readable(name));
            child.draw(&format!("{indent}{below}"), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_drawn() {
        let mut root = Node::default();
        for key in ["a/b/c", "a/d", "a", "e//f"] {
            root.add(key.as_bytes());
        }
        let mut text = String::new();
        root.draw("", &mut text);
        let expect =
            "├── a\n├── a/\n│   ├── b/\n│   │   └── c\n│   └── d\n└── e/\n    └── /\n        └── f\n";
        assert_eq!(text, expect);
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(short(b"blue"), "blue");
        assert_eq!(short(&[b'x'; 100]).chars().count(), 61);
        assert_eq!(short("\u{e4}".repeat(200).as_bytes()).chars().count(), 61);
    }
}
