//! The tail of latency: puts at a share of the peak rate while checkpoints, compactions, full log files and snapshots
//! happen, and while a follower stands still.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Program};
use crate::coracle::Coracle;
use crate::http1::Connection;
use crate::load::{self, LATENCY_US_MAX, Pace, Plan};
use crate::observed::{self, Happening, Observer, Span};
use crate::processes::{Reading, ToF64, Watched};
use crate::record::Noise;
use crate::service::{Client, Service};
use crate::table::grouped;
use crate::workload::{Shape, Workload};
use crate::{ProgramOptions, Sizes};

#[derive(Args)]
pub struct Tail {
    /// Length of the load under which everything happens, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long the follower stands still, in seconds; the load before it is measured for as long
    #[arg(long, default_value_t = 10)]
    stall: u64,
    /// Rate of the load, as a share of the peak that is found first
    #[arg(long, default_value_t = 0.5)]
    share: f64,
    /// Connections among which the load is spread
    #[arg(long, default_value_t = 256)]
    clients: usize,
    #[command(flatten)]
    sizes: Sizes,
    #[command(flatten)]
    programs: ProgramOptions,
}

/// What the peak is measured with.
const PEAK_CLIENTS: usize = 64;
const SETTLE: Duration = Duration::from_secs(3);
/// How long the load goes on behind the follower that is back.
const BACK: Duration = Duration::from_secs(10);

/// One operation: when it was due, and how long after that it was answered.
#[derive(Clone, Copy)]
struct Sample {
    due: Duration,
    us: u64,
}

pub async fn run(options: Tail) -> Result<()> {
    ensure!(options.programs.nodes >= 3, "a follower can only stand still beside two other nodes");
    ensure!(options.share.is_finite() && options.share > 0.0, "the share must be positive");
    let program = options.programs.program(crate::ServiceName::Coracle, &[])?;
    let directory = options.programs.directory()?;
    let mut cluster = program.start(options.programs.nodes, directory.path()).await?;
    let shape = Shape {
        clients: options.clients,
        keys: options.sizes.keys,
        value_bytes: options.sizes.value_size,
        sessions: 1,
    };
    let peak = peak(&cluster.hosts(), PEAK_CLIENTS, shape).await?;
    let rate = peak * options.share;
    println!(
        "peak {}/s (closed loop, C={PEAK_CLIENTS}); offered from here on {}/s",
        grouped(peak),
        grouped(rate)
    );
    everything_happens(&options, &program, &mut cluster, directory.path(), rate).await?;
    a_follower_stands_still(&options, &cluster, rate).await?;
    if options.programs.keep {
        println!("data and logs are in {}", directory.path().display());
    }
    Ok(())
}

/// Puts a second of so many clients in a closed loop.
pub async fn peak(hosts: &[String], clients: usize, shape: Shape) -> Result<f64> {
    let shape = Shape { clients, ..shape };
    let (warmup, window) = (Duration::from_secs(2), Duration::from_secs(6));
    let plan = Plan { workload: Workload::Put, shape, warmup, window, rate: None };
    let tally = load::offer(&Coracle::new(hosts, shape), plan, || {}).await?;
    ensure!(tally.errors.is_empty(), "errors at the peak: {:?}", tally.errors);
    Ok(tally.latencies.len().to_f64() / tally.window.as_secs_f64())
}

/// Load, and in its second half a new member, who needs a snapshot.
async fn everything_happens(
    options: &Tail,
    program: &Program,
    cluster: &mut Cluster,
    directory: &Path,
    rate: f64,
) -> Result<()> {
    let (hosts, watched) = (cluster.hosts(), Watched { servers: cluster.pids(), ..Watched::default() });
    let load = Load::start(&hosts, options, rate).await?;
    sleep(SETTLE).await;
    let opened = load.began.elapsed();
    let before = watched.read()?;
    let observer = Observer::start(&hosts, load.began);
    let half = Duration::from_secs(options.seconds) / 2;
    sleep(half).await;
    let from = load.began.elapsed();
    let newcomer = cluster.join(program, directory).await?;
    let figures = observed::metrics(&mut Connection::dial(&newcomer).await?).await?;
    let to = load.began.elapsed();
    if figures.get("coracle_snapshots_installed_total").is_some_and(|count| *count > 0.0) {
        observer.add(Span { what: Happening::Snapshot, from, to });
    } else {
        println!(
            "the new member needed no snapshot: the log reached back to its beginning; take more --seconds"
        );
    }
    cluster.dismiss_last().await?;
    let gone = load.began.elapsed();
    println!(
        "a member joined {:.1} s after the load began, served after {:.1} s, and was removed after {:.1} s",
        from.as_secs_f64(),
        to.as_secs_f64(),
        gone.as_secs_f64()
    );
    sleep(half.saturating_sub(to.saturating_sub(from))).await;
    let closed = load.began.elapsed();
    let after = watched.read()?;
    let spans = observer.stop().await?;
    let samples = load.stop().await?;
    let inside: Vec<Sample> =
        samples.into_iter().filter(|sample| (opened..closed).contains(&sample.due)).collect();
    report(&inside, &spans, closed.saturating_sub(opened))?;
    print_noise(&before, &after);
    Ok(())
}

/// Load on the other nodes only, before, while and after one follower does not run.
async fn a_follower_stands_still(options: &Tail, cluster: &Cluster, rate: f64) -> Result<()> {
    let hosts = cluster.hosts();
    let mut follower = None;
    for (number, host) in hosts.iter().enumerate() {
        let figures = observed::metrics(&mut Connection::dial(host).await?).await?;
        if figures.get("coracle_is_leader") == Some(&0.0) {
            follower = Some(number);
        }
    }
    let follower = follower.context("no node says that it follows")?;
    let others: Vec<String> = hosts
        .iter()
        .enumerate()
        .filter(|(number, _)| *number != follower)
        .map(|(_, host)| host.clone())
        .collect();
    let load = Load::start(&others, options, rate).await?;
    let stall = Duration::from_secs(options.stall);
    sleep(SETTLE).await;
    let opened = load.began.elapsed();
    sleep(stall).await;
    let stopped = load.began.elapsed();
    cluster.signal(follower, Signal::STOP)?;
    sleep(stall).await;
    cluster.signal(follower, Signal::CONT)?;
    let continued = load.began.elapsed();
    sleep(BACK).await;
    let closed = load.began.elapsed();
    let samples = load.stop().await?;
    println!(
        "\n| clients of the other two nodes | operations | p50 | p99 | p99.9 | max |\n|---|---|---|---|---|---|"
    );
    let mut p99 = Vec::new();
    for (title, range) in [
        ("before", opened..stopped),
        ("while a follower stands still", stopped..continued),
        ("when it is back", continued..closed),
    ] {
        let latencies = histogram(samples.iter().filter(|sample| range.contains(&sample.due)))?;
        println!("| {title} | {}", cells(&latencies));
        p99.push(latencies.value_at_quantile(0.99).to_f64());
    }
    println!(
        "p99 while it stands still ÷ before: {:.1} (must: 2); when it is back: {:.1}",
        p99[1] / p99[0],
        p99[2] / p99[0]
    );
    Ok(())
}

fn report(samples: &[Sample], spans: &[Span], length: Duration) -> Result<()> {
    let whole = histogram(samples.iter())?;
    let p50 = whole.value_at_quantile(0.5).to_f64();
    println!(
        "\n| while | share of the time | times | operations | p50 | p99 | p99.9 | max |\n|---|---|---|---|---|---|---|---|"
    );
    println!("| everything | 100 % | | {}", cells(&whole));
    let mut worst = (whole.value_at_quantile(0.99).to_f64() / p50, "everything");
    for what in Happening::ALL {
        let windows: Vec<&Span> = spans.iter().filter(|span| span.what == what).collect();
        let merged = union(windows.iter().map(|span| (span.from, span.to)).collect());
        let covered: Duration = merged.iter().map(|(from, to)| to.saturating_sub(*from)).sum();
        let latencies = histogram(samples.iter().filter(|sample| holds(&merged, sample.due)))?;
        let share = 100.0 * covered.as_secs_f64() / length.as_secs_f64();
        println!("| {} | {share:.0} % | {} | {}", what.title(), windows.len(), cells(&latencies));
        let ratio = latencies.value_at_quantile(0.99).to_f64() / p50;
        if !latencies.is_empty() && ratio > worst.0 {
            worst = (ratio, what.title());
        }
    }
    let any = union(spans.iter().map(|span| (span.from, span.to)).collect());
    let calm = histogram(samples.iter().filter(|sample| !holds(&any, sample.due)))?;
    println!("| none of these | | | {}", cells(&calm));
    if let Some(slowest) = samples.iter().max_by_key(|sample| sample.us) {
        println!("the slowest was due {:.1} s after the load began", slowest.due.as_secs_f64());
    }
    println!("largest p99 ÷ p50 of everything: {:.1} (must: 5), {}", worst.0, worst.1);
    Ok(())
}

fn print_noise(before: &Reading, after: &Reading) {
    let noise = Noise::between(before, after);
    println!(
        "of the machine: {:.0} % taken by the hypervisor, {:.0} % used by others, {:.0} % idle",
        noise.steal,
        noise.foreign,
        after.machine.idle_since(&before.machine)
    );
}

fn histogram<'a>(samples: impl Iterator<Item = &'a Sample>) -> Result<Histogram<u64>> {
    let mut latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?;
    samples.for_each(|sample| latencies.saturating_record(sample.us));
    Ok(latencies)
}

/// The last cells of a row: how many operations, and their latencies in milliseconds.
pub fn cells(latencies: &Histogram<u64>) -> String {
    let ms = |us: u64| format!("{:.2} ms", us.to_f64() / 1000.0);
    let at = |quantile| ms(latencies.value_at_quantile(quantile));
    let count = grouped(latencies.len().to_f64());
    format!("{count} | {} | {} | {} | {} |", at(0.5), at(0.99), at(0.999), ms(latencies.max()))
}

/// The same time in ranges that do not overlap, in order.
pub fn union(mut ranges: Vec<(Duration, Duration)>) -> Vec<(Duration, Duration)> {
    ranges.sort_unstable();
    let mut merged: Vec<(Duration, Duration)> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// Whether one of these ranges, in order, holds a moment.
pub fn holds(ranges: &[(Duration, Duration)], moment: Duration) -> bool {
    let next = ranges.partition_point(|(from, _)| *from <= moment);
    next > 0 && moment < ranges[next - 1].1
}

/// Puts at a fixed rate, every one remembered.
struct Load {
    began: Instant,
    scene: Rc<Scene>,
    clients: JoinSet<Result<()>>,
}

#[derive(Default)]
struct Scene {
    ended: Cell<bool>,
    samples: RefCell<Vec<Sample>>,
    errors: RefCell<BTreeMap<String, u64>>,
}

impl Load {
    async fn start(hosts: &[String], options: &Tail, rate: f64) -> Result<Self> {
        let shape = Shape {
            clients: options.clients,
            keys: options.sizes.keys,
            value_bytes: options.sizes.value_size,
            sessions: 1,
        };
        let service = Coracle::new(hosts, shape);
        let mut ready = Vec::with_capacity(options.clients);
        for number in 0..options.clients {
            ready.push(service.client(Workload::Put, number).await?);
        }
        let (began, scene) = (Instant::now(), Rc::<Scene>::default());
        let mut clients = JoinSet::new();
        for (number, client) in ready.into_iter().enumerate() {
            let pace = Pace::new(began, rate, options.clients, number);
            clients.spawn_local(repeat(client, pace, began, scene.clone()));
        }
        Ok(Self { began, scene, clients })
    }

    async fn stop(mut self) -> Result<Vec<Sample>> {
        self.scene.ended.set(true);
        while let Some(client) = self.clients.join_next().await {
            client??;
        }
        for (error, count) in self.scene.errors.take() {
            println!("{count} × {error}");
        }
        Ok(self.scene.samples.take())
    }
}

async fn repeat(mut client: impl Client, mut pace: Pace, began: Instant, scene: Rc<Scene>) -> Result<()> {
    while !scene.ended.get() {
        let due = pace.next().await;
        let done = client.step(due).await;
        let us = u64::try_from(due.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
        // What failed was not answered in time either.
        scene.samples.borrow_mut().push(Sample { due: due - began, us });
        if let Err(error) = done {
            *scene.errors.borrow_mut().entry(format!("{error:#}")).or_default() += 1;
            client.recover().await?;
        }
    }
    client.leave().await
}
