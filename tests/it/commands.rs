//! The command line against a node: what one command makes, another lists.

use std::process::Command;

use coracle_tests::cluster::Cluster;
use coracle_tests::program;

fn coracle(url: &str, line: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program::path());
    let output = command.args(line.split(' ')).env("CORACLE_URL", url).output().expect("the program starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), format!("{out}{err}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_makes_another_lists() {
    let cluster = Cluster::start(1).await;
    let url = cluster.nodes[0].url();
    let (done, id) = coracle(&url, "session new --ttl 5m --name crew -o raw");
    assert_eq!(done, Some(0), "{id}");
    for line in [
        "barrier create start --kind gate",
        "barrier create step --parties 3",
        "latch create nightly 3",
        "counter add sold 7",
        "fence check printer 811",
        "queue send mail hello",
        "topic pub orders.paid 1",
        "kv put app/color blue",
        "semaphore limit gpu 4",
        "service register db --address db.example --permanent",
    ] {
        let (code, told) = coracle(&url, line);
        assert_eq!(code, Some(0), "{line}: {told}");
    }
    for (line, expected) in [
        ("barrier ls -o raw", "start\nstep\n"),
        ("barrier ls ste -o raw", "step\n"),
        ("latch ls -o table", "LATCH    LEFT  OF  OPEN\nnightly  3     3   false\n"),
        ("counter ls -o table", "COUNTER  VALUE  CHANGED BY\nsold     7      "),
        ("fence ls print -o table", "RESOURCE  TOKEN\nprinter   811\n"),
        ("group ls -o json", "[]\n"),
        ("queue ls -o raw", "mail\n"),
        ("queue ls nail -o raw", ""),
        ("topic ls -o raw", "orders.paid\n"),
        ("kv ls app/ -o raw", "app/color\n"),
        ("semaphore ls -o raw", "gpu\n"),
        ("service ls -o raw", "db\n"),
        ("session ls -o raw", id.trim()),
        ("lock ls -o json", "[]\n"),
        ("election ls -o json", "[]\n"),
        ("cluster members -o json", "[\n"),
        ("compact --keep 2 -o raw", ""),
    ] {
        let (code, told) = coracle(&url, line);
        assert_eq!(code, Some(0), "{line}: {told}");
        assert!(told.starts_with(expected), "{line}: {told:?}");
    }
    let (code, told) = coracle(&url, "hash -o raw");
    assert_eq!((code, told.trim().len()), (Some(0), 32), "{told}");
    assert_eq!(coracle(&url, "latch show absent").0, Some(3));
}
