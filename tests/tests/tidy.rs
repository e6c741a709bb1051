//! The law of the repository, as tests: arrows, purity, names, sizes, pages, links.
//!
//! Only files that git tracks are judged. Each test collects all that is wrong and shows it at once.

#![allow(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "names in this repository are lower case"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which of our crates a crate may depend on. What is not listed is forbidden. Tests may use whatever runs.
const ARROWS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("core/store", &[]),
    ("core/raft", &["coracle-store"]),
    ("recipes", &["coracle-store"]),
    ("server", &["coracle-api", "coracle-store", "coracle-raft", "coracle-recipes"]),
    ("clients/rust", &["coracle-api"]),
    ("clients/cli", &["coracle-api", "coracle-client", "coracle-server"]),
    ("examples", &["coracle-client"]),
    // The load generator is no client of ours: it costs the same on both sides of a comparison.
    ("bench", &["coracle-server"]),
    ("tests", &["coracle-api", "coracle-client", "coracle-store", "coracle-recipes", "coracle-server"]),
];

/// Dependencies that one crate alone may name.
const ONLY_IN: &[(&str, &str)] = &[
    ("openraft", "core/raft"),
    ("openraft-rt", "core/raft"),
    ("openraft-rt-tokio", "core/raft"),
    ("openraft-macros", "core/raft"),
    ("redb", "core/raft"),
    ("axum", "server"),
    ("matchit", "server"),
];

/// Crates whose source is a pure function of the log.
const PURE: &[&str] = &["core/store/src", "recipes/src"];

/// What a pure function does not know.
const IMPURE: &[&str] = &[
    "HashMap",
    "HashSet",
    "RandomState",
    "SystemTime",
    "Instant",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::process",
    "std::io",
    "rand::",
    "uuid::",
    "tokio::",
    "println!",
    "f64",
];

/// Names that say nothing.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "misc", "manager", "handler", "handlers"];

const LINES_MAX: usize = 500;

#[test]
fn arrows_point_one_way() {
    let mut wrong = String::new();
    for (folder, allowed) in ARROWS {
        for (name, section) in dependencies(folder) {
            let own = name.starts_with("coracle");
            if own && section == "dependencies" && !allowed.contains(&name.as_str()) {
                writeln!(wrong, "{folder} may not depend on {name}").unwrap();
            }
            // Tests of a crate obey the arrows as well, or the crate could not be tested alone.
            if own && section == "dev-dependencies" && *folder != "tests" && !allowed.contains(&name.as_str())
            {
                writeln!(wrong, "the tests of {folder} may not depend on {name}").unwrap();
            }
            if let Some((_, home)) = ONLY_IN.iter().find(|(only, _)| *only == name)
                && home != folder
            {
                writeln!(wrong, "{name} belongs to {home}, not to {folder}").unwrap();
            }
        }
    }
    let members: BTreeSet<String> = manifests().into_iter().filter(|folder| !folder.is_empty()).collect();
    let listed: BTreeSet<String> = ARROWS.iter().map(|(folder, _)| (*folder).to_owned()).collect();
    for folder in members.symmetric_difference(&listed) {
        writeln!(wrong, "{folder} is not both a crate and listed here").unwrap();
    }
    none(&wrong);
}

#[test]
fn the_state_machine_is_pure() {
    let mut wrong = String::new();
    for path in tracked(|path| path.ends_with(".rs") && PURE.iter().any(|folder| path.starts_with(folder))) {
        for (number, line) in code_lines(&path) {
            for word in IMPURE.iter().filter(|word| has_word(&line, word)) {
                writeln!(wrong, "{path}:{number} names {word}").unwrap();
            }
        }
    }
    none(&wrong);
}

#[test]
fn names_say_something() {
    let empty = |path: &String| {
        Path::new(path).components().any(|part| {
            let name = part.as_os_str().to_string_lossy();
            let stem = name.split('.').next().unwrap_or_default();
            EMPTY_NAMES.contains(&stem)
        })
    };
    none(&tracked(|_| true).into_iter().filter(empty).collect::<Vec<_>>().join("\n"));
}

#[test]
fn files_fit_a_reader() {
    let mut wrong = String::new();
    for path in tracked(|path| path.ends_with(".rs")) {
        let lines = read(&path).lines().count();
        if lines > LINES_MAX {
            writeln!(wrong, "{path} has {lines} lines").unwrap();
        }
    }
    none(&wrong);
}

#[test]
fn every_problem_has_its_page() {
    let codes: BTreeSet<String> = read("api/src/code.rs").lines().filter_map(problem_code).collect();
    assert!(codes.len() > 60, "codes are no longer found in api/src/code.rs");
    let folder = "docs/problems/";
    let pages: BTreeSet<String> = tracked(|path| path.starts_with(folder) && path.ends_with(".md"))
        .into_iter()
        .map(|path| path[folder.len()..path.len() - 3].to_owned())
        .filter(|name| name != "README")
        .collect();
    let mut wrong = String::new();
    for code in codes.difference(&pages) {
        writeln!(wrong, "no page: {folder}{code}.md").unwrap();
    }
    for page in pages.difference(&codes) {
        writeln!(wrong, "a page of no problem: {folder}{page}.md").unwrap();
    }
    none(&wrong);
}

#[test]
fn links_resolve() {
    let mut wrong = String::new();
    for path in tracked(|path| path.ends_with(".md")) {
        let folder = root().join(&path).parent().unwrap().to_owned();
        for link in links(&read(&path)) {
            let target = link.split('#').next().unwrap_or_default();
            let local = !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
            if local && !folder.join(target).exists() {
                writeln!(wrong, "{path} links to {target}").unwrap();
            }
        }
    }
    none(&wrong);
}

/// What docs/RULES.md names as showing a rule is there: conversations, and tests by their module and name.
#[test]
fn every_rule_is_shown_by_something() {
    let page = "docs/RULES.md";
    let folders = ["recipes/testdata", "core/store/testdata", "server/testdata"];
    let sources: Vec<(String, String)> =
        tracked(|path| path.ends_with(".rs")).into_iter().map(|path| (path.clone(), read(&path))).collect();
    let is_test = |module: &str, name: &str| {
        let of_module = |path: &str| {
            Path::new(path)
                .components()
                .any(|part| part.as_os_str().to_string_lossy().trim_end_matches(".rs") == module)
        };
        sources.iter().any(|(path, text)| of_module(path) && text.contains(&format!("fn {name}(")))
    };
    let (mut wrong, mut shown) = (String::new(), 0);
    for row in read(page).lines().filter(|line| line.starts_with("| ")) {
        let Some(named) = row.split('|').nth(2) else { continue };
        let before = shown;
        for span in named.split('`').skip(1).step_by(2) {
            let there = match span.split_once("::") {
                Some((module, name)) => is_test(module, name),
                None if span.ends_with(".txt") => {
                    folders.iter().any(|folder| root().join(folder).join(span).exists())
                }
                None => continue,
            };
            shown += 1;
            if !there {
                writeln!(wrong, "{page} names {span}, which is not there").unwrap();
            }
        }
        if shown == before && !named.contains("---") && !named.ends_with(" by ") {
            writeln!(wrong, "nothing shows {row}").unwrap();
        }
    }
    assert!(shown > 150, "rows are no longer found in {page}");
    none(&wrong);
}

#[test]
fn nothing_is_left_undone_in_silence() {
    // Written apart, or this file would accuse itself.
    let words = [
        concat!("#[", "ignore"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
    ];
    let mut wrong = String::new();
    for path in tracked(|path| path.ends_with(".rs")) {
        for (number, line) in code_lines(&path) {
            for word in words.iter().filter(|word| line.contains(**word)) {
                writeln!(wrong, "{path}:{number} has {word}").unwrap();
            }
        }
    }
    none(&wrong);
}

#[test]
fn nothing_names_the_machine_it_was_made_on() {
    let words = [
        concat!("/", "work/"),
        concat!("/", "root/"),
        concat!("/", "home/"),
        concat!("crates", ".io"),
        concat!("py", "pi.org"),
        concat!("pythonhosted", ".org"),
        concat!("npm", "js.org"),
        concat!("npm", "js.com"),
        concat!("proxy.golang", ".org"),
    ];
    let mut wrong = String::new();
    for path in tracked(|path| path != "Cargo.lock") {
        let bytes = std::fs::read(root().join(&path)).unwrap();
        for (number, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                writeln!(wrong, "{path}:{} names {word}", number + 1).unwrap();
            }
        }
    }
    none(&wrong);
}

#[test]
fn every_crate_takes_the_lints_and_versions_of_the_workspace() {
    let mut wrong = String::new();
    for folder in manifests().into_iter().filter(|folder| !folder.is_empty()) {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        if !manifest.contains("[lints]\nworkspace = true") {
            writeln!(wrong, "{folder} does not take the lints of the workspace").unwrap();
        }
        for (name, line) in dependency_lines(&manifest) {
            if !line.contains("workspace = true") {
                writeln!(wrong, "{folder} gives a version of its own to {name}").unwrap();
            }
        }
    }
    none(&wrong);
}

/// Show what is wrong.
fn none(wrong: &str) {
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Tracked files that still exist, relative to the root, with `/` between the parts.
fn tracked(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let listed =
        Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output().expect("git runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("names are UTF-8");
    let files: Vec<String> = names
        .split('\0')
        .filter(|path| !path.is_empty() && wanted(path) && root().join(path).is_file())
        .map(str::to_owned)
        .collect();
    assert!(!files.is_empty(), "no file was judged");
    files
}

/// Folders with a `Cargo.toml`; the root's is empty.
fn manifests() -> Vec<String> {
    tracked(|path| path.ends_with("Cargo.toml"))
        .into_iter()
        .map(|path| path.trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned())
        .collect()
}

/// Names of a crate's dependencies, with the section each is in.
fn dependencies(folder: &str) -> Vec<(String, String)> {
    let manifest = read(&format!("{folder}/Cargo.toml"));
    let mut section = String::new();
    let mut found = Vec::new();
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        } else if let Some(name) = dependency_name(line)
            && section.ends_with("dependencies")
        {
            found.push((name, section.clone()));
        }
    }
    found
}

fn dependency_lines(manifest: &str) -> Vec<(String, &str)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && let Some(name) = dependency_name(line) {
            found.push((name, line));
        }
    }
    found
}

/// `serde` of `serde.workspace = true` and of `serde = { … }`.
fn dependency_name(line: &str) -> Option<String> {
    let (name, _) = line.split_once('=')?;
    let name = name.trim().trim_end_matches(".workspace");
    (!name.is_empty() && !name.starts_with('#')).then(|| name.to_owned())
}

/// Lines with their numbers from 1, without comments.
fn code_lines(path: &str) -> Vec<(usize, String)> {
    let uncommented =
        |(number, line): (usize, &str)| (number + 1, line.split("//").next().unwrap().to_owned());
    read(path).lines().enumerate().map(uncommented).collect()
}

/// Whether `line` has `word` with no letter, digit or `_` directly before it or, if it ends in one, after it.
fn has_word(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let after = &line[at + word.len()..];
        let open_end = word.ends_with(joins) && after.starts_with(joins);
        !line[..at].ends_with(joins) && !open_end
    })
}

/// `lock_held` of the row `LockHeld "lock_held" 409 …`.
fn problem_code(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (_, text, status) = (words.next()?, words.next()?, words.next()?);
    let code = text.strip_prefix('"')?.strip_suffix('"')?;
    (status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit())).then(|| code.to_owned())
}

/// Targets of `[text](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second part lies between backticks.
        for part in line.split('`').step_by(2) {
            let targets = part.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            found.extend(targets.map(|(target, _)| target.trim().to_owned()));
        }
    }
    found
}

#[test]
fn the_law_can_be_broken() {
    assert!(has_word("use std::fs;", "std::fs") && has_word("a: Instant,", "Instant"));
    assert!(!has_word("InstantLike", "Instant") && !has_word("brand::x", "rand::"));
    assert_eq!(links("[a](b.md#c) `[x](y)` [d](e)"), ["b.md#c", "e"]);
    assert_eq!(problem_code("    LockHeld \"lock_held\" 409 AfterChange").as_deref(), Some("lock_held"));
    assert_eq!(dependency_name("serde.workspace = true").as_deref(), Some("serde"));
}
