//! Every example in its short form, as its README says to run it. One after the other: each starts a cluster.

use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use coracle_examples::{coracle_binary, installed};

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
fn programs_work_together_without_knowing_each_other() {
    passes(env!("CARGO_BIN_EXE_coordination"), &["--short"]);
}

#[test]
fn a_contended_file_stays_whole() {
    passes(env!("CARGO_BIN_EXE_distributed_lock"), &["--short"]);
}

/// Examples with programs of others: run wherever those are installed. Where `CORACLE_ALL_EXAMPLES` is set, as in CI, one that
/// is missing is a failure; elsewhere the test says, past the capture of its output, that it has shown nothing.
fn passes_with(peer: &str, program: &str) {
    match installed(peer) {
        Ok(_) => passes(program, &["--short"]),
        Err(error) if std::env::var_os("CORACLE_ALL_EXAMPLES").is_some() => panic!("{error:#}"),
        Err(error) => {
            let line = format!("\n*** SKIPPED, nothing was tested: {program}: {error:#}\n");
            std::io::stderr().write_all(line.as_bytes()).expect("stderr");
        }
    }
}

#[test]
fn prometheus_discovers_its_targets() {
    passes_with("prometheus", env!("CARGO_BIN_EXE_service_prometheus"));
}

#[test]
fn haproxy_follows_a_service() {
    passes_with("haproxy", env!("CARGO_BIN_EXE_service_haproxy"));
}

#[test]
fn the_curl_stories_come_true() {
    passes(concat!(env!("CARGO_MANIFEST_DIR"), "/curl/run"), &[]);
}
