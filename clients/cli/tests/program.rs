//! The program as a script sees it: what it prints where, and how it ends.

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
