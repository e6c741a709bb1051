//! The program as a script sees it: what it prints where, and how it ends.

#[path = "../../rust/tests/it/document.rs"]
mod document;

use std::process::{Command, Output};

/// Nobody listens on the discard port of loopback.
const NOBODY: &str = "http://127.0.0.1:9";

fn coracle(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command.args(arguments).env("CORACLE_URL", NOBODY).output().expect("the program starts")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn usage_errors_end_with_2_and_say_so_on_stderr() {
    for arguments in [&["kv", "fly"][..], &["serve", "--what", "1"], &["serve", "--quota", "much"]] {
        let output = coracle(arguments);
        assert_eq!(code(&output), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_cluster_that_is_not_there_ends_with_5() {
    let output = coracle(&["kv", "get", "a", "--timeout", "500ms"]);
    assert_eq!(code(&output), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
}

#[test]
fn curl_is_shown_and_not_run() {
    let output = coracle(&["kv", "put", "app/color", "blue", "--curl"]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(
        shown.starts_with("curl -X PUT http://127.0.0.1:9/v1/kv/app") && shown.contains("blue"),
        "{shown}"
    );
}

#[test]
fn the_settings_show_where_they_come_from() {
    let output = coracle(&["serve", "--quota", "1GiB", "--print-config"]);
    let shown = String::from_utf8(output.stdout).unwrap();
    let quota = shown.lines().find(|line| line.contains("quota")).expect("the quota is shown");
    assert!(quota.contains("1GiB") && quota.contains("flag"), "{quota}");
}

/// The commands without subcommands, each with its help.
fn commands(path: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let help = String::from_utf8(coracle(&arguments).stdout).unwrap();
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    for name in names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help") {
        commands(&[path, &[name.to_owned()]].concat(), found);
    }
    found.push((path.to_vec(), help));
}

/// A line of a shell as words; `None` if it takes a shell.
fn words(line: &str) -> Option<Vec<String>> {
    // What follows a gap is a comment.
    let line = line.split("  ").next().unwrap();
    if line.contains(['<', '|', '$', '>', ';', '"']) {
        return None;
    }
    let parts = line.split('\'').enumerate();
    let quoted = |(i, part): (usize, &str)| match i % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    };
    Some(parts.flat_map(quoted).collect())
}

/// The method and the target of a curl command.
fn asked(line: &str) -> (&str, &str) {
    let method = line.split_once("-X ").map_or("GET", |(_, rest)| rest.split(' ').next().unwrap());
    let from = line.find(NOBODY).expect("the address") + NOBODY.len();
    let target = line[from..].split(['\'', ' ', '\n']).next().unwrap();
    (method, target)
}

#[test]
fn every_command_shows_its_curl_or_says_that_there_is_none() {
    let mut all = Vec::new();
    commands(&[], &mut all);
    let mut tried = 0;
    for (path, help) in &all {
        // Those make no requests.
        if ["serve", "dev", "completion"].iter().any(|local| path.first().is_some_and(|first| first == local))
        {
            continue;
        }
        let examples =
            help.lines().map(str::trim).filter(|line| line.starts_with("coracle ") && !path.is_empty());
        for example in examples.filter_map(words) {
            let arguments: Vec<&str> =
                ["--curl"].into_iter().chain(example.iter().skip(1).map(String::as_str)).collect();
            let output = coracle(&arguments);
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let shown = code(&output) == Some(0) && out.starts_with("curl ") && out.contains(NOBODY);
            let refused = code(&output) == Some(2) && err.contains("no curl command");
            assert!(shown || refused, "{example:?}: {output:?}");
            if shown {
                let (method, target) = asked(&out);
                assert_eq!(document::fault(method, target), None, "{example:?}: {out}");
            }
            tried += 1;
        }
    }
    assert!(tried > 30, "examples are no longer found in the help: tried={tried}");
}

#[test]
fn every_command_can_be_completed() {
    let mut all = Vec::new();
    commands(&[], &mut all);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(coracle(&["completion", shell]).stdout).unwrap();
        for word in all.iter().flat_map(|(path, _)| path) {
            assert!(script.contains(word.as_str()), "{shell} does not know {word}");
        }
    }
}
