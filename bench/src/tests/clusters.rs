//! Processes that are started, fail, and are stopped.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::cluster::{Kind, Program};
use crate::processes::{Watched, process_cpu};
use crate::workload::Connections;

fn script(directory: &std::path::Path, text: &str) -> Program {
    let path = directory.join("program");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Program {
        kind: Kind::Coracle,
        title: "script".to_owned(),
        path,
        arguments: vec!["--more".to_owned()],
        connections: vec![Connections::Each],
    }
}

#[test]
fn a_node_that_ends_shows_its_log_and_leaves_no_process() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let text = format!(
        "#!/bin/sh\necho $$ >> {}\necho asked: $*\ncase $5 in n1) exit 3;; *) exec sleep 60;; esac\n",
        pids.display()
    );
    let program = script(directory.path(), &text);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let started = tokio::task::LocalSet::new().block_on(&runtime, program.start(3, directory.path()));
    let failure = format!("{:#}", started.err().expect("a cluster that cannot start"));
    assert!(failure.contains("exit status: 3"), "{failure}");
    assert!(failure.contains("asked: serve --data"), "{failure}");
    assert!(failure.contains("--initial-cluster n1=127.0.0.1:") && failure.contains("--more"), "{failure}");
    // Those that got so far as to write their number down; the sleeping ones are gone too.
    for pid in fs::read_to_string(pids).unwrap().lines() {
        assert!(process_cpu(pid.parse().unwrap()).is_err(), "process {pid} is still there");
    }
}

#[test]
fn threads_are_accounted_by_name() {
    let watched = Watched { servers: vec![std::process::id()], bystanders: Vec::new(), threads: true };
    let before = watched.read().unwrap();
    let worker = std::thread::Builder::new().name("busy".to_owned());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (report, reported) = std::sync::mpsc::channel();
    let worker = worker
        .spawn(move || {
            // Its own time, not that of the clock: a crowded machine gives it only a part of that.
            let spent = || -> u64 {
                let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
                text.split(' ').next().unwrap().parse().unwrap()
            };
            while spent() < 60_000_000 {
                std::hint::spin_loop();
            }
            report.send(()).unwrap();
            stopped.recv().unwrap_err();
        })
        .unwrap();
    reported.recv().unwrap();
    let after = watched.read().unwrap();
    drop(stop);
    worker.join().unwrap();
    let costs = watched.thread_costs(&before, &after, 10);
    let busy = costs.iter().find(|cost| cost.name == "busy").expect("the thread");
    // 60 ms in 10 operations, and a little for the beginning and the end.
    assert!(busy.total_us() >= 6000.0 && busy.total_us() < 9000.0, "{busy:?}");
    assert!(after.generator >= before.generator);
    assert!(watched.peak_rss_mib().unwrap()[0] > 0);
}
