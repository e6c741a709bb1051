//! Every example in its short form, as its README says to run it. One after the other: each starts a cluster.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use coracle_examples::coracle_binary;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn passes(program: &str, arguments: &[&str]) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let coracle = coracle_binary().expect("the program under test is built");
    let output =
        Command::new(program).args(arguments).env("CORACLE_BIN", coracle).output().expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.lines().any(|line| line.starts_with("PASS")), "{out}\n{err}");
}

#[test]
fn a_tree_is_mirrored_while_the_leader_dies() {
    passes(env!("CARGO_BIN_EXE_config_mirror"), &["--short"]);
}

#[test]
fn a_contended_file_stays_whole() {
    passes(env!("CARGO_BIN_EXE_distributed_lock"), &["--short"]);
}

#[test]
fn the_curl_stories_come_true() {
    passes(concat!(env!("CARGO_MANIFEST_DIR"), "/curl/run"), &[]);
}
