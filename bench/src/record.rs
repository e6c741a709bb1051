//! One measurement as one line of JSON: what was run, where, and what came out.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::load::{Plan, Tally};
use crate::processes::{Reading, ThreadCost, ToF64, Watched};
use crate::workload::Workload;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The same in all records of one run of the program.
    pub campaign: String,
    pub date: String,
    pub commit: String,
    pub machine: Machine,
    /// Which side of a comparison, in the words of the table.
    pub service: String,
    pub version: String,
    /// Runs of the two sides with the same number are neighbours in time.
    pub pair: u32,
    pub nodes: usize,
    pub workload: Workload,
    pub clients: usize,
    pub keys: u32,
    pub value_bytes: usize,
    /// Of renewals of very many.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sessions: Option<u32>,
    pub connections: usize,
    /// Operations per second asked for; absent is the closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    pub warmup_s: f64,
    pub window_s: f64,
    pub operations: u64,
    pub per_second: f64,
    pub latency_us: Latency,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub errors: BTreeMap<String, u64>,
    /// Per operation, all server processes together; absent if they are not on this machine.
    pub server_cpu_us: Option<f64>,
    /// Per operation.
    pub generator_cpu_us: f64,
    /// Of each server process, since it started.
    pub peak_rss_mib: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub threads: Vec<ThreadCost>,
    pub noise: Noise,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// What disturbed the measurement, as shares of the whole machine's CPU in percent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Noise {
    /// Taken by the hypervisor for others.
    pub steal: f64,
    /// Used by the cluster that was up but not measured.
    pub bystander: f64,
    /// Used by anything else on this machine.
    pub foreign: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// Of the servers' data; empty if they were not started here.
    pub filesystem: String,
}

/// What is the same for all records of a side.
#[derive(Clone, Debug)]
pub struct Setting {
    pub campaign: String,
    pub commit: String,
    pub machine: Machine,
    pub service: String,
    pub version: String,
    pub nodes: usize,
}

impl Record {
    pub fn new(
        context: &Setting,
        plan: &Plan,
        connections: usize,
        pair: u32,
        tally: Tally,
        watched: &Watched,
        edges: [&Reading; 2],
    ) -> Result<Self> {
        let [before, after] = edges;
        let operations = tally.latencies.len() * plan.workload.operations();
        let micros = |spent: f64| spent * 1e6 / operations.max(1).to_f64();
        let servers = (after.servers.saturating_sub(before.servers)).as_secs_f64();
        let generator = (after.generator.saturating_sub(before.generator)).as_secs_f64();
        let at = |quantile| tally.latencies.value_at_quantile(quantile);
        Ok(Self {
            campaign: context.campaign.clone(),
            date: now(),
            commit: context.commit.clone(),
            machine: context.machine.clone(),
            service: context.service.clone(),
            version: context.version.clone(),
            pair,
            nodes: context.nodes,
            workload: plan.workload,
            clients: plan.shape.clients,
            keys: plan.shape.keys,
            value_bytes: plan.shape.value_bytes,
            sessions: (plan.workload == Workload::RenewMany).then_some(plan.shape.sessions),
            connections,
            rate: plan.rate,
            warmup_s: plan.warmup.as_secs_f64(),
            window_s: tally.window.as_secs_f64(),
            operations,
            per_second: operations.to_f64() / tally.window.as_secs_f64(),
            latency_us: Latency {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: tally.latencies.max(),
            },
            server_cpu_us: (!watched.servers.is_empty()).then_some(micros(servers)),
            generator_cpu_us: micros(generator),
            peak_rss_mib: watched.peak_rss_mib()?,
            threads: watched.thread_costs(before, after, operations),
            noise: Noise::between(before, after),
            errors: tally.errors,
        })
    }

    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl Noise {
    pub fn between(before: &Reading, after: &Reading) -> Self {
        let total = after.machine.total.saturating_sub(before.machine.total).as_secs_f64().max(1e-9);
        let share = |spent: f64| (spent / total * 1000.0).round().max(0.0) / 10.0;
        let busy = after.machine.busy.saturating_sub(before.machine.busy).as_secs_f64();
        let bystander = after.bystanders.saturating_sub(before.bystanders).as_secs_f64();
        let ours = after.servers.saturating_sub(before.servers).as_secs_f64()
            + after.generator.saturating_sub(before.generator).as_secs_f64();
        Self {
            steal: share(after.machine.steal.saturating_sub(before.machine.steal).as_secs_f64()),
            bystander: share(bystander),
            foreign: share(busy - ours - bystander),
        }
    }
}

impl Machine {
    pub fn describe(data: Option<&Path>) -> Result<Self> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(": "));
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib = crate::processes::labelled_number(&meminfo, "MemTotal:").unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            cpu: cpu.map_or("unknown", |(_, model)| model.trim()).to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: memory_kib.div_ceil(1024 * 1024),
            kernel: kernel.trim().to_owned(),
            filesystem: data.map(filesystem).transpose()?.unwrap_or_default(),
        })
    }
}

/// The type of the mount that holds the path.
fn filesystem(path: &Path) -> Result<String> {
    let path = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let holds = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        path.starts_with(point).then(|| (point.len(), kind.to_owned()))
    };
    let deepest = mounts.lines().filter_map(holds).max_by_key(|(depth, _)| *depth);
    Ok(deepest.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind))
}

/// The commit in the working directory, with a mark if tracked files differ from it.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| changes.is_empty());
    if clean { commit } else { format!("{commit}+changes") }
}

pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
