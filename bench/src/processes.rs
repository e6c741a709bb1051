//! What `/proc` says of the processes under test and of the machine around them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Linux reports CPU time to programs in hundredths of a second on every architecture this runs on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub servers: Duration,
    pub generator: Duration,
    pub bystanders: Duration,
    pub machine: MachineTime,
    /// By process and thread.
    threads: BTreeMap<(u32, u32), Thread>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct MachineTime {
    pub busy: Duration,
    /// Taken by the hypervisor for others.
    pub steal: Duration,
    pub total: Duration,
}

#[derive(Clone, Debug)]
struct Thread {
    name: String,
    cpu: Duration,
    switches: u64,
}

/// CPU of the threads of one name, in all server processes together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ThreadCost {
    pub name: String,
    /// Per operation, process by process.
    pub cpu_us: Vec<f64>,
    /// Voluntary context switches per operation: how often the threads went to sleep.
    pub sleeps: f64,
}

/// Who is looked at.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    pub servers: Vec<u32>,
    /// Processes that are up but not measured: the other cluster of a comparison.
    pub bystanders: Vec<u32>,
    pub threads: bool,
}

impl Watched {
    pub fn read(&self) -> Result<Reading> {
        let sum = |pids: &[u32]| pids.iter().map(|&pid| process_cpu(pid)).sum::<Result<Duration>>();
        let mut threads = BTreeMap::new();
        if self.threads {
            for &pid in &self.servers {
                read_threads(pid, &mut threads)?;
            }
        }
        Ok(Reading {
            servers: sum(&self.servers)?,
            generator: process_cpu(std::process::id())?,
            bystanders: sum(&self.bystanders)?,
            machine: machine_time()?,
            threads,
        })
    }

    /// The threads between two readings, the most expensive first.
    pub fn thread_costs(&self, before: &Reading, after: &Reading, operations: u64) -> Vec<ThreadCost> {
        let mut costs: BTreeMap<&str, ThreadCost> = BTreeMap::new();
        let per_operation = 1.0 / operations.max(1).to_f64();
        for ((pid, tid), thread) in &after.threads {
            let earlier = before.threads.get(&(*pid, *tid));
            let cpu = thread.cpu.saturating_sub(earlier.map_or(Duration::ZERO, |thread| thread.cpu));
            let sleeps = thread.switches.saturating_sub(earlier.map_or(0, |thread| thread.switches));
            let cost = costs.entry(&thread.name).or_insert_with(|| ThreadCost {
                name: thread.name.clone(),
                cpu_us: vec![0.0; self.servers.len()],
                sleeps: 0.0,
            });
            let node = self.servers.iter().position(|server| server == pid).unwrap_or_default();
            cost.cpu_us[node] += cpu.as_secs_f64() * 1e6 * per_operation;
            cost.sleeps += sleeps.to_f64() * per_operation;
        }
        let mut costs: Vec<ThreadCost> = costs.into_values().collect();
        costs.sort_by(|a, b| b.total_us().total_cmp(&a.total_us()));
        costs
    }

    /// Largest resident memory of each server so far, in MiB.
    pub fn peak_rss_mib(&self) -> Result<Vec<u64>> {
        self.servers.iter().map(|&pid| Ok(status_number(pid, "VmHWM:")? / 1024)).collect()
    }
}

impl MachineTime {
    /// Share of the time between that nobody used, in percent.
    pub fn idle_since(&self, before: &Self) -> f64 {
        let of = |time: fn(&Self) -> Duration| time(self).saturating_sub(time(before)).as_secs_f64();
        let used = of(|time| time.busy) + of(|time| time.steal);
        100.0 * (1.0 - used / of(|time| time.total).max(1e-9))
    }
}

impl ThreadCost {
    pub fn total_us(&self) -> f64 {
        self.cpu_us.iter().sum()
    }
}

/// Counts become divisors and dividends of rates; no count here comes near 2^53.
pub trait ToF64 {
    fn to_f64(self) -> f64;
}

impl ToF64 for u64 {
    #[allow(clippy::cast_precision_loss)] // See the trait.
    fn to_f64(self) -> f64 {
        self as f64
    }
}

/// User and system time of all threads of a process, of those that have ended too.
pub fn process_cpu(pid: u32) -> Result<Duration> {
    stat_cpu(&format!("/proc/{pid}/stat"))
}

fn stat_cpu(path: &str) -> Result<Duration> {
    let stat = read(path)?;
    parse_stat(&stat).map(|(_, cpu)| cpu).with_context(|| format!("unexpected text in {path}"))
}

/// Name and CPU time from a `stat` line; the name may hold spaces and parentheses.
pub fn parse_stat(stat: &str) -> Option<(&str, Duration)> {
    let name = &stat[stat.find('(')? + 1..stat.rfind(')')?];
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((name, TICK * user + TICK * system))
}

fn read_threads(pid: u32, threads: &mut BTreeMap<(u32, u32), Thread>) -> Result<()> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let path = format!("/proc/{pid}/task/{tid}");
        // A thread may end between the listing and the reading.
        let Ok(stat) = fs::read_to_string(format!("{path}/stat")) else { continue };
        let Some((name, ticks)) = parse_stat(&stat) else { continue };
        let cpu = fs::read_to_string(format!("{path}/schedstat"))
            .ok()
            .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
            .map_or(ticks, Duration::from_nanos);
        let switches = fs::read_to_string(format!("{path}/status"))
            .ok()
            .and_then(|text| labelled_number(&text, "voluntary_ctxt_switches:"))
            .unwrap_or_default();
        threads.insert((pid, tid), Thread { name: name.to_owned(), cpu, switches });
    }
    Ok(())
}

/// Resident memory of a process at this moment.
pub fn rss_kib(pid: u32) -> Result<u64> {
    status_number(pid, "VmRSS:")
}

fn machine_time() -> Result<MachineTime> {
    let stat = read("/proc/stat")?;
    parse_machine(&stat).context("unexpected text in /proc/stat")
}

pub fn parse_machine(stat: &str) -> Option<MachineTime> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    let time = |ticks: u64| Duration::from_secs_f64(ticks.to_f64() * TICK.as_secs_f64());
    let busy = user + nice + system + irq + softirq;
    Some(MachineTime { busy: time(busy), steal: time(steal), total: time(busy + idle + iowait + steal) })
}

fn status_number(pid: u32, label: &str) -> Result<u64> {
    let status = read(&format!("/proc/{pid}/status"))?;
    labelled_number(&status, label).with_context(|| format!("no {label} of process {pid}"))
}

pub fn labelled_number(text: &str, label: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(label))?.split_ascii_whitespace().next()?.parse().ok()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}
