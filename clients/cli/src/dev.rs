//! `dev`: a cluster of real processes on this machine, to try things.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use coracle_client::Coracle;
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::child;
use crate::exit::Failure;
use crate::lock_run::Signals;

/// Distance between the ports of two nodes.
const STEP: u16 = 100;
const RESPAWN_AFTER: Duration = Duration::from_secs(1);
const READY_WITHIN: Duration = Duration::from_secs(30);
/// A node drains for 10 s when stopped.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// Real processes with data directories of their own; Ctrl-C stops them
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coracle dev\n  coracle dev --ephemeral\n  coracle dev --nodes 5 --base-port 9000\n  \
                        coracle dev --ephemeral --respawn    kill nodes as you like: they come back\n\n\
                        Each node writes its log to DIR/NAME.log. Kill one with kill -9 to see the others go on."
)]
pub struct Dev {
    /// How many nodes: 1, 3 or 5 make sense
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Remove the data at the end
    #[arg(long)]
    ephemeral: bool,
    /// Start a node again when it ends, after a second
    #[arg(long)]
    respawn: bool,
    /// Clients of the first node; its peers on the next, each further node 100 higher
    #[arg(long, default_value_t = 7070, value_parser = clap::value_parser!(u16).range(1..=60000))]
    base_port: u16,
    /// Where the data goes [default: ./coracle-dev, or a temporary directory with --ephemeral]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

struct Node {
    name: String,
    url: String,
    log: PathBuf,
    /// How it is started, now and again.
    argv: Vec<OsString>,
    process: Child,
}

impl Node {
    fn line(&self) -> String {
        let pid = self.process.id().unwrap_or_default();
        format!("{}  {}  pid {pid}  log {}", self.name, self.url, self.log.display())
    }
}

pub async fn run(dev: Dev) -> Result<(), Failure> {
    let signals = Signals::new()?;
    // Dropped, and with it removed, when this function ends.
    let mut temporary = None;
    let data = match (&dev.data, dev.ephemeral) {
        (Some(data), _) => data.clone(),
        (None, false) => PathBuf::from("coracle-dev"),
        (None, true) => {
            let folder = tempfile::Builder::new().prefix("coracle-dev-").tempdir()?;
            temporary.insert(folder).path().to_owned()
        }
    };
    std::fs::create_dir_all(&data).map_err(|e| Failure::Other(format!("{e} path={}", data.display())))?;
    let mut nodes = Vec::new();
    let mut result = start(&dev, &data, &mut nodes);
    if result.is_ok() {
        result = tokio::select! {
            ready = ready(&mut nodes) => match ready {
                Ok(()) => {
                    print_hints(&nodes);
                    watch_over(&mut nodes, dev.respawn, &signals).await;
                    Ok(())
                }
                Err(failure) => Err(failure),
            },
            () = signals.stop() => Ok(()),
        };
    }
    stop(&mut nodes).await;
    if dev.ephemeral {
        drop(temporary);
        if dev.data.is_some() {
            for node in &nodes {
                let _ = std::fs::remove_dir_all(data.join(&node.name));
                let _ = std::fs::remove_file(&node.log);
            }
            // Only if nothing else is in it.
            let _ = std::fs::remove_dir(&data);
        }
    }
    result
}

/// Ports of a node: clients, peers.
fn ports(base: u16, index: u16) -> (u16, u16) {
    let client = base + index * STEP;
    (client, client + 1)
}

/// Arguments of `serve` for a node.
fn arguments(base: u16, nodes: u16, index: u16, data: &Path) -> Vec<OsString> {
    let members: Vec<String> =
        (0..nodes).map(|i| format!("n{}=127.0.0.1:{}", i + 1, ports(base, i).1)).collect();
    let (client, peer) = ports(base, index);
    let name = format!("n{}", index + 1);
    let mut arguments = vec!["serve".into(), "--data".into(), data.join(&name).into()];
    for (flag, value) in [
        ("--name", name),
        ("--listen", format!("127.0.0.1:{client}")),
        ("--peer-listen", format!("127.0.0.1:{peer}")),
        ("--initial-cluster", members.join(",")),
    ] {
        arguments.extend([flag.into(), value.into()]);
    }
    arguments
}

fn start(dev: &Dev, data: &Path, nodes: &mut Vec<Node>) -> Result<(), Failure> {
    for index in 0..dev.nodes {
        let name = format!("n{}", index + 1);
        let log = data.join(format!("{name}.log"));
        File::create(&log).map_err(|e| Failure::Other(format!("{e} path={}", log.display())))?;
        let mut argv = vec![std::env::current_exe()?.into_os_string()];
        argv.extend(arguments(dev.base_port, dev.nodes, index, data));
        let process = spawn(&argv, &log)?;
        let url = format!("http://127.0.0.1:{}", ports(dev.base_port, index).0);
        nodes.push(Node { name, url, log, argv, process });
    }
    Ok(())
}

/// Start a node, in a group of its own, so that Ctrl-C reaches us alone and we stop the nodes in order.
fn spawn(argv: &[OsString], log: &Path) -> std::io::Result<Child> {
    let file = File::options().append(true).open(log)?;
    let mut command = tokio::process::Command::from(child::command(Signal::TERM, argv)?);
    command
        .stdin(std::process::Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .kill_on_drop(true)
        .spawn()
}

/// Wait until every node serves.
async fn ready(nodes: &mut [Node]) -> Result<(), Failure> {
    let end = Instant::now() + READY_WITHIN;
    for node in nodes {
        let client = Coracle::builder()
            .endpoints([&node.url])
            .deadline(Duration::from_millis(500))
            .attempt_timeout(Duration::from_millis(500))
            .build()?;
        loop {
            if let Some(status) = node.process.try_wait()? {
                return Err(died(node, status));
            }
            match client.ready().await {
                Ok(_) => break,
                Err(_) if Instant::now() < end => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => {
                    return Err(Failure::Other(format!(
                        "{} is not ready: {error} log={}",
                        node.name,
                        node.log.display()
                    )));
                }
            }
        }
    }
    Ok(())
}

fn died(node: &Node, status: ExitStatus) -> Failure {
    let log = std::fs::read(&node.log).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n  ");
    Failure::Other(format!("{} ended: {status} log={}\n  {tail}", node.name, node.log.display()))
}

fn print_hints(nodes: &[Node]) {
    let (Some(first), Some(last)) = (nodes.first(), nodes.last()) else { return };
    for node in nodes {
        println!("{}", node.line());
    }
    println!(
        "\nTry:\n  export C={first} CORACLE_URL={all}\n  \
         curl $C/v1/kv/app/color -X PUT -d blue\n  \
         curl {last}/v1/kv/app/color\n  \
         curl -N \"$C/v1/kv?prefix=app/&watch=true\"\n  \
         curl -X POST \"$C/v1/locks/deploy/acquire?ttl=30s&wait=1m\"\n  \
         curl $C/v1/cluster\n  \
         coracle lock deploy -- sleep 10\n  \
         coracle cluster health\n\nCtrl-C stops all.",
        first = first.url,
        last = last.url,
        all = nodes.iter().map(|node| node.url.as_str()).collect::<Vec<_>>().join(","),
    );
}

/// Tell when a node ends, and start it again if asked to, until somebody wants us to stop or none is left.
async fn watch_over(nodes: &mut [Node], respawn: bool, signals: &Signals) {
    let ends = nodes.iter_mut().map(|node| async move {
        while let Ok(status) = node.process.wait().await {
            eprintln!("coracle: {} ended: {status} log={}", node.name, node.log.display());
            if !respawn {
                return;
            }
            tokio::time::sleep(RESPAWN_AFTER).await;
            match spawn(&node.argv, &node.log) {
                Ok(process) => node.process = process,
                Err(error) => return eprintln!("coracle: {} cannot be started again: {error}", node.name),
            }
            println!("{}", node.line());
        }
    });
    tokio::select! {
        _ = join_all(ends) => {}
        () = signals.stop() => {}
    }
}

/// Ask every node to stop; kill those that do not.
async fn stop(nodes: &mut [Node]) {
    let stops = nodes.iter_mut().map(|node| async {
        let pid = node.process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_WITHIN, node.process.wait()).await.is_err() {
            eprintln!("coracle: {} does not stop, killing it", node.name);
            let _ = node.process.kill().await;
        }
    });
    join_all(stops).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_told_of_all() {
        let line = |index| {
            let arguments = arguments(7070, 3, index, Path::new("d"));
            arguments.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let cluster = "--initial-cluster n1=127.0.0.1:7071,n2=127.0.0.1:7171,n3=127.0.0.1:7271";
        assert_eq!(
            line(0),
            format!(
                "serve --data d/n1 --name n1 --listen 127.0.0.1:7070 --peer-listen 127.0.0.1:7071 {cluster}"
            )
        );
        assert_eq!(
            line(2),
            format!(
                "serve --data d/n3 --name n3 --listen 127.0.0.1:7270 --peer-listen 127.0.0.1:7271 {cluster}"
            )
        );
        assert!(ports(60000, 8).1 < u16::MAX);
    }
}
