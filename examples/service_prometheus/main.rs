//! Prometheus scrapes what is registered: targets come, die, go, while the leader is killed.
//!
//! One program, two roles: the driver (default) and the `exporter`, which registers itself. README.md tells the story.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use coracle_client::{Coracle, Instance, api};
use coracle_examples::{Cluster, Process, Signal, flag, free_ports, get, installed, option, serve};
use serde::Deserialize;

const SERVICE: &str = "exporters";
/// Short, so that a dead exporter does not make the example long.
const TTL: Duration = Duration::from_secs(2);
const DEREGISTER_AFTER: Duration = Duration::from_secs(4);

#[tokio::main]
async fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    let result = if role.as_deref() == Some("exporter") { exporter().await } else { drive().await };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAIL: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A process with something to scrape, registered for as long as it lives.
async fn exporter() -> Result<()> {
    let (id, port) = (option("--id")?, option("--port")?.parse()?);
    let client = Coracle::connect([option("--url")?]).await?;
    let metrics = format!("# TYPE example_up gauge\nexample_up{{id=\"{id}\"}} 1\n");
    let serving = tokio::spawn(serve(port, move || metrics.clone()));
    let instance = Instance::new("127.0.0.1", port).id(&id).ttl(TTL).tag("metrics").meta("team", "ann");
    let registration = client.service(SERVICE).register(instance).await?;
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = stop.recv() => registration.deregister().await?,
        ended = serving => ended??,
    }
    Ok(())
}

async fn drive() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("service_prometheus-").tempdir()?.keep();
    let result = play(&folder, if flag("--short") { 3 } else { 20 }).await;
    match &result {
        Ok(()) => std::fs::remove_dir_all(&folder)?,
        Err(_) => eprintln!("kept for inspection: {}", folder.display()),
    }
    result
}

async fn play(folder: &Path, exporters: usize) -> Result<()> {
    let started = Instant::now();
    let program = installed("prometheus")?;
    let mut cluster = Cluster::start(folder, &[]).await?;
    println!("cluster     {}", cluster.urls());
    let service = cluster.client().await?.service(SERVICE);
    let config = api::ServiceConfig { deregister_after: Some(DEREGISTER_AFTER.into()), ..Default::default() };
    service.configure(&config).await?;

    // Prometheus asks one node; the leader, which will be killed, is another.
    let leader = cluster.leader().await?.name.clone();
    let asked = cluster.nodes.iter().find(|node| node.name != leader).context("three nodes")?.url.clone();
    let port = free_ports(1)?[0];
    let _prometheus = prometheus(&program, folder, &asked, port)?;
    println!("prometheus  http://127.0.0.1:{port}, discovers at {asked}/v1/services/{SERVICE}");

    let mut all = BTreeMap::new();
    for (n, port) in free_ports(exporters)?.into_iter().enumerate() {
        let id = format!("e{n}");
        all.insert(id.clone(), start(&id, port, &cluster.urls())?);
    }
    let ids: Vec<String> = all.keys().cloned().collect();
    let up = |ids: &[String]| ids.iter().map(|id| (id.clone(), "up".to_owned())).collect::<BTreeMap<_, _>>();
    let took = until(port, "all exporters up", &up(&ids)).await?;
    println!("up          {exporters} exporters scraped, {took:.1?} after the last was started");

    cluster.leader().await?.kill()?;
    println!("killed      the leader of the cluster");

    // One says goodbye, one dies, one is new.
    let polite = &ids[0];
    all[polite].signal(Signal::TERM)?;
    let rest = &ids[1..];
    let took = until(port, "the one that deregistered gone", &up(rest)).await?;
    println!("gone        {polite}, which deregistered: no target any more {took:.1?} later");

    let dead = &ids[1];
    all[dead].signal(Signal::KILL)?;
    let mut expected = up(rest);
    expected.insert(dead.clone(), "down, critical".to_owned());
    let took = until(port, "the killed one known as critical", &expected).await?;
    println!("critical    {dead}, which was killed: told by its label {took:.1?} later");
    let took = until(port, "the killed one gone", &up(&ids[2..])).await?;
    println!("gone        {dead}, {took:.1?} later");

    let fresh = "fresh".to_owned();
    all.insert(fresh.clone(), start(&fresh, free_ports(1)?[0], &cluster.urls())?);
    let last: Vec<String> = ids[2..].iter().cloned().chain([fresh]).collect();
    let took = until(port, "the new one up", &up(&last)).await?;
    println!("up          the new one {took:.1?} after it was started");

    let scraped = query(port, "example_up").await?;
    ensure!(scraped >= last.len(), "Prometheus has {scraped} series of {} exporters", last.len());
    println!("PASS        {:.1?}", started.elapsed());
    Ok(())
}

fn start(id: &str, port: u16, urls: &str) -> Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["exporter", "--id", id, "--port", &port.to_string(), "--url", urls]);
    Process::start(id, command.stdin(Stdio::null()))
}

/// Prometheus with a configuration that knows no target: where to ask is all.
fn prometheus(program: &Path, folder: &Path, node: &str, port: u16) -> Result<Process> {
    let config = folder.join("prometheus.yml");
    let text = include_str!("prometheus.yml").replace("http://127.0.0.1:7070", node);
    std::fs::write(&config, text)?;
    let log = std::fs::File::create(folder.join("prometheus.log"))?;
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    Process::start("prometheus", command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))
}

#[derive(Deserialize)]
struct Targets {
    data: Active,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Active {
    active_targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    labels: BTreeMap<String, String>,
    health: String,
}

/// What Prometheus knows, from its own API: exporters by id, `up`, or `down` with the status that Coracle told.
async fn targets(port: u16) -> Result<BTreeMap<String, String>> {
    let (status, body) = get(port, "/api/v1/targets?state=active").await?;
    ensure!(status == 200, "Prometheus answers {status}");
    let targets: Targets = serde_json::from_str(&body)?;
    let mut known = BTreeMap::new();
    for Target { labels, health } in targets.data.active_targets {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        ensure!(label("team") == "ann" && label("service") == SERVICE, "labels are missing: {labels:?}");
        let how =
            if label("status") == "passing" { health } else { format!("{health}, {}", label("status")) };
        ensure!(known.insert(label("id"), how).is_none(), "one exporter is two targets");
    }
    Ok(known)
}

/// Wait until Prometheus knows just these; how long that took.
async fn until(port: u16, what: &str, expected: &BTreeMap<String, String>) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let known = targets(port).await;
        if known.as_ref().is_ok_and(|known| known == expected) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > Duration::from_mins(1) {
            bail!("not after a minute: {what}; Prometheus knows {known:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Number of series that a query finds.
async fn query(port: u16, query: &str) -> Result<usize> {
    let (_, body) = get(port, &format!("/api/v1/query?query={query}")).await?;
    let answer: serde_json::Value = serde_json::from_str(&body)?;
    Ok(answer["data"]["result"].as_array().map_or(0, Vec::len))
}
