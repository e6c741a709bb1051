//! HAProxy whose backends follow a service: traffic over the living, none to those who left, no request lost.
//!
//! One program, two roles: the driver (default) and the `backend`, an HTTP server that says its id. README.md tells the
//! story; `follow.sh` is all that connects HAProxy to Coracle.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use coracle_client::api;
use coracle_examples::{
    Cluster, Process, Signal, coracle_binary, flag, free_ports, get, installed, option, serve,
};

const SERVICE: &str = "web";
/// Short, so that a dead backend does not make the example long.
const TTL: &str = "2s";

#[tokio::main]
async fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    let result = if role.as_deref() == Some("backend") { backend().await } else { drive().await };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAIL: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A server that knows nothing of Coracle: `coracle service register` runs it.
async fn backend() -> Result<()> {
    let (id, port) = (std::env::var("CORACLE_SERVICE_ID")?, option("--port")?.parse()?);
    serve(port, move || id.clone()).await
}

async fn drive() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("service_haproxy-").tempdir()?.keep();
    let result = play(&folder, if flag("--short") { 100 } else { 1000 }).await;
    match &result {
        Ok(()) => std::fs::remove_dir_all(&folder)?,
        Err(_) => eprintln!("kept for inspection: {}", folder.display()),
    }
    result
}

struct Stage {
    urls: String,
    port: u16,
    /// Requests of one look at the traffic.
    requests: usize,
}

async fn play(folder: &Path, requests: usize) -> Result<()> {
    let started = Instant::now();
    let mut cluster = Cluster::start(folder, &[]).await?;
    println!("cluster   {}", cluster.urls());
    let stage = Stage { urls: cluster.urls(), port: free_ports(1)?[0], requests };
    let service = cluster.client().await?.service(SERVICE);
    let config = api::ServiceConfig { deregister_after: Some("1h".parse()?), ..Default::default() };
    service.configure(&config).await?;

    let mut backends = BTreeMap::new();
    for (n, port) in free_ports(3)?.into_iter().enumerate() {
        let id = format!("b{n}");
        backends.insert(id.clone(), stage.backend(&id, port)?);
    }
    let haproxy = stage.haproxy(folder)?;
    // A signal to reload would be its end before it is ready for one.
    let end = Instant::now() + Duration::from_secs(20);
    while get(stage.port, "/").await.is_err() {
        ensure!(Instant::now() < end, "HAProxy does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _follow = stage.follow(folder, &haproxy)?;
    println!("haproxy   http://127.0.0.1:{} follows the service {SERVICE}", stage.port);
    stage.until_only(&["b0", "b1", "b2"]).await?;
    let spread = stage.look().await?;
    for (id, share) in &spread {
        ensure!(share * 4 > requests, "{id} got {share} of {requests}: {spread:?}");
    }
    println!("spread    {requests} requests: {spread:?}");

    cluster.leader().await?.kill()?;
    println!("killed    the leader of the cluster");
    stage.only(&["b0", "b1", "b2"]).await?;

    // From here on requests never stop, and none may fail: not while one leaves, not when one dies.
    service.drain("b0", Duration::from_mins(1)).await?;
    let took = stage.until_only(&["b1", "b2"]).await?;
    stage.only(&["b1", "b2"]).await?;
    println!("drained   b0: no request any more {took:.1?} later, though it still runs");

    backends["b1"].signal(Signal::TERM)?;
    let took = stage.until_only(&["b2"]).await?;
    backends.get_mut("b1").context("b1 is there")?.ended(Duration::from_secs(5)).await?;
    stage.only(&["b2"]).await?;
    println!("stopped   b1: deregistered as its process ended, no request any more {took:.1?} later");

    backends.insert("b3".to_owned(), stage.backend("b3", free_ports(1)?[0])?);
    let took = stage.until_only(&["b2", "b3"]).await?;
    println!("new       b3: gets its share {took:.1?} later");

    // Nobody says goodbye for it: the watcher dies with it, and HAProxy goes on to the next until the ttl is over.
    backends["b2"].signal(Signal::KILL)?;
    let took = stage.until_only(&["b3"]).await?;
    let removed = stage.one_server_left(folder).await?;
    stage.only(&["b3"]).await?;
    println!("killed    b2: passed over {took:.1?} later, out of the configuration {removed:.1?} after that");
    println!("PASS      {:.1?}", started.elapsed());
    Ok(())
}

impl Stage {
    /// A backend under `coracle service register`: registered as long as it runs.
    fn backend(&self, id: &str, port: u16) -> Result<Process> {
        let port = port.to_string();
        let mut command = Command::new(coracle_binary()?);
        command
            .args(["service", "register", SERVICE, "--address", "127.0.0.1", "--port", &port])
            .args(["--id", id, "--ttl", TTL, "--linger", "1s", "--"])
            .arg(std::env::current_exe()?)
            .args(["backend", "--port", &port])
            .env("CORACLE_URL", &self.urls);
        Process::start(id, command.stdin(Stdio::null()).stderr(Stdio::null()))
    }

    /// HAProxy as it is before it knows of anybody.
    fn haproxy(&self, folder: &Path) -> Result<Process> {
        let head = include_str!("haproxy.cfg")
            .replace("FOLDER", &folder.display().to_string())
            .replace("PORT", &self.port.to_string());
        std::fs::write(folder.join("head.cfg"), &head)?;
        std::fs::write(folder.join("haproxy.cfg"), &head)?;
        let log = std::fs::File::create(folder.join("haproxy.log"))?;
        let mut command = Command::new(installed("haproxy")?);
        command.arg("-W").arg("-f").arg(folder.join("haproxy.cfg"));
        Process::start("haproxy", command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))
    }

    fn follow(&self, folder: &Path, haproxy: &Process) -> Result<Process> {
        let log = std::fs::File::create(folder.join("follow.log"))?;
        let mut command = Command::new(coracle_binary()?);
        command
            .args(["service", "watch", SERVICE, "--"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/service_haproxy/follow.sh"))
            .env("CORACLE_URL", &self.urls)
            .env("HAPROXY_FOLDER", folder)
            .env("HAPROXY_PID", haproxy.pid().to_string());
        Process::start(
            "coracle service watch",
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log),
        )
    }

    /// Wait until the configuration has a single server; how long that took.
    async fn one_server_left(&self, folder: &Path) -> Result<Duration> {
        let began = Instant::now();
        loop {
            self.ask().await?;
            let config = std::fs::read_to_string(folder.join("haproxy.cfg"))?;
            if config.lines().filter(|line| line.trim_start().starts_with("server ")).count() == 1 {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < Duration::from_secs(30), "still several servers:\n{config}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One request through HAProxy: who answered.
    async fn ask(&self) -> Result<String> {
        let (status, body) = get(self.port, "/").await?;
        ensure!(status == 200, "HAProxy answers {status}: {}", body.trim());
        Ok(body)
    }

    /// Who answers how often.
    async fn look(&self) -> Result<BTreeMap<String, usize>> {
        let mut answered = BTreeMap::new();
        for _ in 0..self.requests {
            *answered.entry(self.ask().await?).or_default() += 1;
        }
        Ok(answered)
    }

    /// All of these answer, and nobody else.
    async fn only(&self, ids: &[&str]) -> Result<()> {
        let answered = self.look().await?;
        ensure!(answered.keys().eq(ids), "answers come from {answered:?}, not from {ids:?}");
        Ok(())
    }

    /// Ask on until that is so for a while; how long it took. At the start nobody has to answer yet; later, none may fail.
    async fn until_only(&self, ids: &[&str]) -> Result<Duration> {
        let began = Instant::now();
        let mut failed = None;
        loop {
            let mut answered = BTreeMap::new();
            let round = Instant::now();
            for _ in 0..8 * ids.len() {
                match self.ask().await {
                    Ok(id) => *answered.entry(id).or_insert(0) += 1,
                    Err(error) => failed = Some(error),
                }
            }
            let starting = ids.len() == 3;
            if let Some(error) = failed.take().filter(|_| !starting) {
                return Err(error.context(format!("a request failed on the way to {ids:?}")));
            }
            if answered.keys().eq(ids) && answered.values().sum::<usize>() == 8 * ids.len() {
                return Ok(round - began);
            }
            if began.elapsed() > Duration::from_secs(30) {
                bail!("answers come from {answered:?} after {:?}, not from {ids:?}", began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
