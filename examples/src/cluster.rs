//! A cluster of three `coracle serve` processes on loopback.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use coracle_client::Coracle;

/// Three nodes; killed when dropped.
pub struct Cluster {
    pub nodes: Vec<Node>,
    folder: PathBuf,
}

/// One node: how it is started, and its process while it runs.
pub struct Node {
    pub name: String,
    pub url: String,
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Child>,
}

impl Cluster {
    /// Start three nodes with their data and logs in `folder`, and wait until each serves.
    ///
    /// # Errors
    /// A process cannot be started, or one is not ready within 30 s.
    pub async fn start(folder: &Path, flags: &[&str]) -> Result<Self> {
        let binary = crate::coracle_binary()?;
        let ports = free_ports(6)?;
        let founders: Vec<String> =
            (0..3).map(|i| format!("n{}=127.0.0.1:{}", i + 1, ports[2 * i + 1])).collect();
        let nodes = (0..3)
            .map(|i| {
                let name = format!("n{}", i + 1);
                let own = [
                    ("--data", folder.join(&name).display().to_string()),
                    ("--name", name.clone()),
                    ("--listen", format!("127.0.0.1:{}", ports[2 * i])),
                    ("--peer-listen", format!("127.0.0.1:{}", ports[2 * i + 1])),
                    ("--initial-cluster", founders.join(",")),
                ];
                let arguments = own
                    .into_iter()
                    .flat_map(|(flag, value)| [flag.to_owned(), value])
                    .chain(flags.iter().map(ToString::to_string));
                Node {
                    url: format!("http://127.0.0.1:{}", ports[2 * i]),
                    log: folder.join(format!("{name}.log")),
                    binary: binary.clone(),
                    arguments: arguments.collect(),
                    name,
                    process: None,
                }
            })
            .collect();
        let mut cluster = Self { nodes, folder: folder.to_owned() };
        for node in &mut cluster.nodes {
            node.start()?;
        }
        for node in &cluster.nodes {
            node.ready(Duration::from_secs(30)).await?;
        }
        Ok(cluster)
    }

    /// Base URLs of all nodes, separated by commas, as `CORACLE_URL` takes them.
    #[must_use]
    pub fn urls(&self) -> String {
        self.nodes.iter().map(|node| node.url.as_str()).collect::<Vec<_>>().join(",")
    }

    /// # Errors
    /// No node answers.
    pub async fn client(&self) -> Result<Coracle> {
        Ok(Coracle::connect([self.urls()]).await?)
    }

    /// The node that leads, once one does.
    ///
    /// # Errors
    /// None does within 10 s.
    pub async fn leader(&mut self) -> Result<&mut Node> {
        let end = Instant::now() + Duration::from_secs(10);
        let name = loop {
            let members = self.client().await?.cluster().members().await;
            if let Ok(members) = members
                && let Some(leader) = members.into_iter().find(|member| member.leader)
            {
                break leader.name;
            }
            if Instant::now() > end {
                bail!("no leader within 10 s");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        self.nodes.iter_mut().find(|node| node.name == name).context("a leader that is none of our nodes")
    }

    /// Where data and logs are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Node {
    /// Start the process; what it prints is appended to its log.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.binary)
            .arg("serve")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.process = Some(child);
        Ok(())
    }

    /// `kill -9`, and wait until the process is gone.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.process.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Wait until the node serves.
    ///
    /// # Errors
    /// It does not within `patience`; says what the process printed last.
    pub async fn ready(&self, patience: Duration) -> Result<()> {
        let client = Coracle::builder()
            .endpoints([self.url.as_str()])
            .deadline(Duration::from_secs(1))
            .attempt_timeout(Duration::from_secs(1))
            .build()?;
        let end = Instant::now() + patience;
        while let Err(error) = client.ready().await {
            if Instant::now() > end {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(15).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                bail!("{} is not ready after {patience:?}: {error}\n{}", self.name, last.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Best effort: there is nobody left to tell.
        let _ = self.kill();
    }
}

/// Ports that nobody listens on, each given out once. Below those that connections get from the operating system: or one
/// could be taken before its server is up.
///
/// # Errors
/// There are none.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Examples that run side by side begin at different places.
    let start = std::process::id().wrapping_mul(7_919);
    let candidates = std::iter::repeat_with(|| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)));
    let ports: Vec<u16> = candidates
        .take(PORTS.len())
        .filter_map(|n| u16::try_from(PORTS.start + n % (PORTS.end - PORTS.start)).ok())
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect();
    ensure!(ports.len() == count, "no free ports");
    Ok(ports)
}
