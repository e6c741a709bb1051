//! Memory over a long run: a mixed load at half of what the cluster can do, and what its nodes hold meanwhile.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cluster::Cluster;
use crate::coracle::Coracle;
use crate::load::{Plan, Tally, check, offer};
use crate::processes::{ToF64, rss_kib};
use crate::table::{grouped, median};
use crate::workload::{Shape, Workload};

/// What runs at once, each with so many clients.
const MIX: [(Workload, usize); 4] =
    [(Workload::Put, 16), (Workload::Lock, 16), (Workload::Queue, 8), (Workload::Session, 16)];
/// Of what was reached without a rate.
const SHARE: f64 = 0.5;
const PEAK: Duration = Duration::from_secs(5);
const WARMUP: Duration = Duration::from_secs(2);
/// A node is flat if the last quarter of the run holds at most so much more than the second. The first is left out:
/// caches, buffers and history fill.
const FLAT: f64 = 0.05;
/// Lines of the curve.
const LINES: usize = 30;

pub struct Steady {
    pub length: Duration,
    /// Between two looks at the memory.
    pub every: Duration,
    pub keys: u32,
    pub value_bytes: usize,
}

/// Resident memory of each node over time, in KiB.
#[derive(Default)]
pub struct Curve {
    pub samples: Vec<(Duration, Vec<u64>)>,
}

/// What a node held, in MiB.
#[derive(Debug, PartialEq)]
pub struct Change {
    pub second_quarter: f64,
    pub last_quarter: f64,
    pub flat: bool,
}

impl Steady {
    /// Finds the peak, then keeps the cluster at half of it and looks at its memory; tells both as it goes on.
    pub async fn measure(&self, cluster: &Cluster) -> Result<String> {
        ensure!(!self.every.is_zero(), "the time between two looks is zero");
        ensure!(self.length >= self.every * 8, "a run needs two looks in each quarter");
        let mut peak = Vec::new();
        let mut running = self.begin(cluster, PEAK, &[None; MIX.len()])?;
        while let Some(done) = running.join_next().await {
            peak.push(done??);
        }
        peak.sort_by_key(|(part, _)| *part);
        let rate = |tally: &Tally| tally.latencies.len().to_f64() / tally.window.as_secs_f64();
        let rates: Vec<Option<f64>> = peak.iter().map(|(_, tally)| Some(rate(tally) * SHARE)).collect();
        eprintln!("peak, all at once:{}", parts(&peak));

        let mut running = self.begin(cluster, self.length, &rates)?;
        let begun = Instant::now();
        let mut looks = interval_at(begun + WARMUP, self.every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut curve, mut steady) = (Curve::default(), Vec::new());
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    let resident = cluster.pids().into_iter().map(rss_kib).collect::<Result<Vec<_>>>()?;
                    eprintln!("{:>6.0} s  {} MiB", begun.elapsed().as_secs_f64(), mib(&resident));
                    curve.samples.push((begun.elapsed(), resident));
                }
                done = running.join_next() => match done {
                    Some(done) => steady.push(done??),
                    None => break,
                },
            }
        }
        steady.sort_by_key(|(part, _)| *part);
        Ok(format!("At half of the peak:{}\n\n{}", parts(&steady), curve.report()?))
    }

    fn begin(
        &self,
        cluster: &Cluster,
        window: Duration,
        rates: &[Option<f64>],
    ) -> Result<JoinSet<Result<(usize, Tally)>>> {
        let mut running = JoinSet::new();
        for (part, ((workload, clients), rate)) in MIX.into_iter().zip(rates).enumerate() {
            let shape = Shape { clients, keys: self.keys, value_bytes: self.value_bytes, sessions: 1 };
            let plan = Plan { workload, shape, warmup: WARMUP, window, rate: *rate };
            check(&plan).with_context(|| format!("nothing was done at the peak work={}", workload.name()))?;
            let hosts = cluster.hosts();
            running.spawn_local(async move {
                let service = Coracle::new(&hosts, shape);
                Ok((part, offer(&service, plan, || {}).await?))
            });
        }
        Ok(running)
    }
}

impl Curve {
    /// A row for each of a few dozen looks, then how the memory of each node changed.
    pub fn report(&self) -> Result<String> {
        let mut text = String::from("resident memory of each node, in MiB:\n");
        let step = self.samples.len().div_ceil(LINES).max(1);
        for (at, resident) in self.samples.iter().step_by(step) {
            writeln!(text, "{:>6.0} s  {}", at.as_secs_f64(), mib(resident))?;
        }
        let minutes = self.samples.last().map_or(0.0, |(at, _)| at.as_secs_f64() / 60.0);
        for (node, change) in self.changes()?.iter().enumerate() {
            let Change { second_quarter, last_quarter, flat } = change;
            let by = last_quarter - second_quarter;
            // The middles of the two quarters are half of the run apart.
            let a_minute = by / (minutes / 2.0).max(f64::MIN_POSITIVE);
            let verdict = if *flat { "flat" } else { "grows" };
            writeln!(
                text,
                "node {}: {verdict}, {second_quarter:.0} MiB in the second quarter, {last_quarter:.0} in the last: \
                 {by:+.1} MiB, {a_minute:+.2} a minute",
                node + 1
            )?;
        }
        Ok(text)
    }

    /// Node by node: the medians of the second and of the last quarter of the looks.
    pub fn changes(&self) -> Result<Vec<Change>> {
        let count = self.samples.len();
        let quarter = count / 4;
        ensure!(quarter > 0, "too few looks at the memory count={count}");
        let nodes = self.samples[0].1.len();
        let middle = |node: usize, range: std::ops::Range<usize>| {
            let held: Vec<f64> = self.samples[range].iter().map(|(_, held)| held[node].to_f64()).collect();
            median(&held) / 1024.0
        };
        let change = |node| {
            let second_quarter = middle(node, quarter..2 * quarter);
            let last_quarter = middle(node, count - quarter..count);
            Change { second_quarter, last_quarter, flat: last_quarter <= second_quarter * (1.0 + FLAT) }
        };
        Ok((0..nodes).map(change).collect())
    }
}

fn mib(resident: &[u64]) -> String {
    resident.iter().map(|kib| format!("{:>6.0}", kib.to_f64() / 1024.0)).collect::<Vec<_>>().join(" ")
}

fn parts(tallies: &[(usize, Tally)]) -> String {
    let mut text = String::new();
    for (part, tally) in tallies {
        let at = |quantile| tally.latencies.value_at_quantile(quantile).to_f64() / 1000.0;
        let rate = tally.latencies.len().to_f64() / tally.window.as_secs_f64();
        let (name, rate) = (MIX[*part].0.name(), grouped(rate));
        write!(text, "\n  {name:<8} {rate:>7}/s, p50 {:.1} ms, p99 {:.1} ms", at(0.5), at(0.99))
            .expect("a string takes any text");
        for (error, count) in &tally.errors {
            write!(text, "\n    {count} × {error}").expect("a string takes any text");
        }
    }
    text
}
