//! Server processes on this machine, started for a measurement and stopped after it.

use std::fmt::Write;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::http1::{Connection, Request};
use crate::service::{Client, Service};
use crate::workload::{Connections, Shape, Workload};
use crate::{coracle, etcd, gateway, nats, zookeeper};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Coracle,
    Etcd,
    ZooKeeper,
    Nats,
}

impl Kind {
    /// Whether it does this work, and its client here asks for it.
    pub const fn does(self, workload: Workload, connections: Connections) -> bool {
        match (self, connections) {
            (Self::Coracle, _) => true,
            (Self::Etcd, Connections::Gateway) => gateway::Gateway::does(workload),
            (Self::Etcd, _) => etcd::Etcd::does(workload),
            (Self::ZooKeeper, _) => zookeeper::ZooKeeper::does(workload),
            (Self::Nats, _) => nats::Nats::does(workload),
        }
    }
}

/// A program to be measured.
#[derive(Clone, Debug)]
pub struct Program {
    pub kind: Kind,
    /// In the words of the table.
    pub title: String,
    pub path: PathBuf,
    /// Added to the command line of each node.
    pub arguments: Vec<String>,
    /// Each is measured in its turn, if the service multiplexes.
    pub connections: Vec<Connections>,
}

/// Running nodes; dropping it stops them.
pub struct Cluster {
    pub kind: Kind,
    nodes: Vec<Node>,
}

struct Node {
    process: Child,
    host: String,
    log: PathBuf,
}

const START_TIME_MAX: Duration = Duration::from_secs(30);
const STOP_TIME_MAX: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);

impl Program {
    pub fn connections(&self) -> &[Connections] {
        match self.kind {
            Kind::Coracle | Kind::ZooKeeper | Kind::Nats => &[Connections::Each],
            Kind::Etcd => &self.connections,
        }
    }

    /// What a side of the comparison is called.
    pub fn side(&self, connections: Connections) -> String {
        match self.kind {
            Kind::Coracle | Kind::ZooKeeper | Kind::Nats => self.title.clone(),
            Kind::Etcd => format!("{}, {connections}", self.title),
        }
    }

    /// The first line of what it prints of its version.
    pub fn version(&self) -> Result<String> {
        let output = match self.kind {
            Kind::ZooKeeper => {
                let mut java = Command::new("java");
                java.arg("-cp").arg(&self.path).arg("org.apache.zookeeper.version.VersionInfoMain").output()
            }
            _ => Command::new(&self.path).arg("--version").output(),
        };
        let output = output.with_context(|| format!("run {}", self.path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Starts the nodes with their data and logs under `directory`, and waits until each of them serves.
    pub async fn start(&self, nodes: usize, directory: &Path) -> Result<Cluster> {
        let ports = free_ports(nodes * 3)?;
        let (clients, peers) = ports.split_at(nodes);
        let (peers, voters) = peers.split_at(nodes);
        let mut cluster = Cluster { kind: self.kind, nodes: Vec::new() };
        for (number, &client) in clients.iter().enumerate() {
            let name = format!("n{}", number + 1);
            let data = directory.join(&name);
            fs::create_dir_all(&data)?;
            let log = directory.join(format!("{name}.log"));
            let output = File::create(&log)?;
            let program = if self.kind == Kind::ZooKeeper { Path::new("java") } else { &self.path };
            let mut command = Command::new(program);
            match self.kind {
                Kind::Coracle => coracle_arguments(&mut command, &name, &data, client, peers, number),
                Kind::Etcd => etcd_arguments(&mut command, &name, &data, client, peers, number),
                Kind::Nats => nats_arguments(&mut command, &name, &data, client, peers, number),
                Kind::ZooKeeper => {
                    zookeeper_arguments(&mut command, &self.path, &data, client, [peers, voters], number)?;
                }
            }
            command.args(&self.arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
            let process = command.spawn().with_context(|| format!("start {}", self.path.display()))?;
            cluster.nodes.push(Node { process, host: format!("127.0.0.1:{client}"), log });
        }
        cluster
            .wait_until_serving(0)
            .await
            .with_context(|| format!("start {} nodes of {}", nodes, self.title))?;
        Ok(cluster)
    }
}

impl Cluster {
    pub fn hosts(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.host.clone()).collect()
    }

    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.process.id()).collect()
    }

    /// Starts one more node of Coracle with an empty directory, which the cluster admits, and waits until it serves.
    pub async fn join(&mut self, program: &Program, directory: &Path) -> Result<String> {
        let member = self.nodes.len();
        let name = format!("n{}", member + 1);
        let (data, log) = (directory.join(&name), directory.join(format!("{name}.log")));
        fs::create_dir_all(&data)?;
        let output = File::create(&log)?;
        let ports = free_ports(2)?;
        let mut command = Command::new(&program.path);
        coracle_arguments(&mut command, &name, &data, ports[0], &ports[1..], 0);
        command.arg("--join").arg(format!("http://{}", self.nodes[0].host)).args(&program.arguments);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let process = command.spawn().with_context(|| format!("start {}", program.path.display()))?;
        let host = format!("127.0.0.1:{}", ports[0]);
        self.nodes.push(Node { process, host: host.clone(), log });
        self.wait_until_serving(member).await.context("join a node")?;
        Ok(host)
    }

    /// Removes the member that was admitted last, and stops it.
    pub async fn dismiss_last(&mut self) -> Result<()> {
        let Some(last) = self.nodes.pop() else { return Ok(()) };
        let stopped = Self { kind: self.kind, nodes: vec![last] };
        let mut connection = Connection::dial(&self.nodes[0].host).await?;
        let mut call = async |method, path: &str| -> Result<serde_json::Value> {
            let request =
                Request { method, path: format_args!("{path}"), headers: format_args!(""), body: b"" };
            let response = connection.call(request).await?;
            anyhow::ensure!(response.status == 200, "{method} {path} answers {}", response.status);
            Ok(serde_json::from_slice(response.body)?)
        };
        let name = format!("n{}", self.nodes.len() + 1);
        let members = call("GET", "/v1/members").await?;
        let member = members["items"].as_array().into_iter().flatten().find(|member| member["name"] == name);
        let id = member.and_then(|member| member["id"].as_str()).context("the new member is not listed")?;
        call("DELETE", &format!("/v1/members/{id}")).await?;
        // It waits for the process to end, and the load goes on meanwhile on this thread.
        tokio::task::spawn_blocking(move || drop(stopped)).await?;
        Ok(())
    }

    /// Sends a signal to one node.
    pub fn signal(&self, number: usize, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.nodes[number].process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process")?, signal)?;
        Ok(())
    }

    /// Waits for the nodes from this one on.
    async fn wait_until_serving(&mut self, first: usize) -> Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        let (kind, of) = (self.kind, self.nodes.len());
        for node in &mut self.nodes[first..] {
            loop {
                let failure = match serves(kind, &node.host, of).await {
                    Ok(()) => break,
                    Err(failure) => failure,
                };
                if let Some(status) = node.process.try_wait()? {
                    bail!("node ended with {status}:\n{}", last_lines(&node.log));
                }
                if Instant::now() > deadline {
                    bail!("node does not serve: {failure:#}\n{}", last_lines(&node.log));
                }
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    /// Asks the nodes to stop, and ends those that do not. Only processes that were started here, by their id.
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Some(pid) = i32::try_from(node.process.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let deadline = std::time::Instant::now() + STOP_TIME_MAX;
        for node in &mut self.nodes {
            while matches!(node.process.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(node.process.kill());
            drop(node.process.wait());
        }
    }
}

/// A write through the node itself: it knows its leader, and the leader has a majority.
async fn serves(kind: Kind, host: &str, of: usize) -> Result<()> {
    let shape = Shape { clients: 1, keys: 1, value_bytes: 1, sessions: 1 };
    let attempt = async {
        if kind == Kind::Coracle {
            let mut connection = Connection::dial(host).await?;
            let ready = Request {
                method: "GET",
                path: format_args!("/readyz"),
                headers: format_args!(""),
                body: b"",
            };
            let status = connection.call(ready).await?.status;
            anyhow::ensure!(status == 200, "/readyz answers {status}");
        }
        let hosts = [host.to_owned()];
        match kind {
            Kind::Coracle => write_once(&coracle::Coracle::new(&hosts, shape)).await,
            Kind::Etcd => write_once(&etcd::Etcd::open(&hosts, shape, Connections::Each).await?).await,
            Kind::ZooKeeper => write_once(&zookeeper::ZooKeeper::new(&hosts, shape)).await,
            Kind::Nats => write_once(&nats::Nats::new(&hosts, of, shape)).await,
        }
    };
    tokio::time::timeout(Duration::from_secs(2), attempt).await.context("no answer within 2 s")?
}

async fn write_once(service: &impl Service) -> Result<()> {
    service.client(Workload::Put, 0).await?.prepare(0).await
}

fn coracle_arguments(
    command: &mut Command,
    name: &str,
    data: &Path,
    client: u16,
    peers: &[u16],
    number: usize,
) {
    command.arg("serve").arg("--data").arg(data).args(["--name", name]);
    command.args(["--listen", &format!("127.0.0.1:{client}")]);
    command.args(["--peer-listen", &format!("127.0.0.1:{}", peers[number])]);
    if peers.len() > 1 {
        command.args(["--initial-cluster", &members(peers, "")]);
    }
}

fn etcd_arguments(command: &mut Command, name: &str, data: &Path, client: u16, peers: &[u16], number: usize) {
    let client = format!("http://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{}", peers[number]);
    command.args(["--name", name]).arg("--data-dir").arg(data);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &members(peers, "http://"), "--initial-cluster-state", "new"]);
    // The default of 2 GiB would end a long series of measurements; it changes no speed.
    command.args(["--quota-backend-bytes", "8589934592"]);
}

fn nats_arguments(command: &mut Command, name: &str, data: &Path, client: u16, peers: &[u16], number: usize) {
    command.args(["--addr", "127.0.0.1", "--port", &client.to_string(), "--name", name]);
    command.arg("--jetstream").arg("--store_dir").arg(data);
    if peers.len() > 1 {
        let routes: Vec<String> = peers.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        command.args([
            "--cluster_name",
            "bench",
            "--cluster",
            &routes[number],
            "--routes",
            &routes.join(","),
        ]);
    }
}

fn zookeeper_arguments(
    command: &mut Command,
    jar: &Path,
    data: &Path,
    client: u16,
    [peers, voters]: [&[u16]; 2],
    number: usize,
) -> Result<()> {
    let mut settings = format!(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\nmaxClientCnxns=0\nadmin.enableServer=false\n\
         clientPortAddress=127.0.0.1\nclientPort={client}\ndataDir={}\n",
        data.display()
    );
    if peers.len() > 1 {
        for (number, (peer, voter)) in (1..).zip(peers.iter().zip(voters)) {
            writeln!(settings, "server.{number}=127.0.0.1:{peer}:{voter}").expect("a string takes any text");
        }
    }
    let file = data.join("zoo.cfg");
    fs::write(&file, settings)?;
    fs::write(data.join("myid"), (number + 1).to_string())?;
    // What it needs lies beside it.
    let jars = jar.parent().context("a jar in no directory")?.join("*");
    command.arg("-Xmx1g").arg("-cp").arg(jars);
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(file);
    Ok(())
}

fn members(peers: &[u16], scheme: &str) -> String {
    let member = |(number, port): (usize, &u16)| format!("n{}={scheme}127.0.0.1:{port}", number + 1);
    peers.iter().enumerate().map(member).collect::<Vec<_>>().join(",")
}

/// Ports nobody listens on at this moment.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
