//! Overload: several times the peak offered by clients that do not back off, and what becomes of those who renew and
//! release meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::http1::{Connection, Request};
use crate::load::LATENCY_US_MAX;
use crate::processes::{Reading, ToF64, Watched};
use crate::table::grouped;
use crate::tail::{cells, peak};
use crate::workload::{KeyChoice, Shape, fill_value, key_name};
use crate::{ProgramOptions, Sizes};

#[derive(Args)]
pub struct Overload {
    /// Length of the overload, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Puts offered, as a multiple of the peak that is found first
    #[arg(long, default_value_t = 10.0)]
    times: f64,
    /// Connections they are offered on, all nodes together
    #[arg(long, default_value_t = 2000)]
    connections: usize,
    /// Sessions that renew, and release and take a lock, ten times a second, each on a connection of its own
    #[arg(long, default_value_t = 20)]
    sessions: usize,
    /// Priority of this program while it overloads; the greater the lower (as `nice` has it)
    #[arg(long, default_value_t = 0)]
    nice: i32,
    #[command(flatten)]
    sizes: Sizes,
    #[command(flatten)]
    programs: ProgramOptions,
}

/// What the peak is looked for with: more gain little, and wait longer.
const PEAK_CLIENTS: [usize; 2] = [64, 512];
const WARMUP: Duration = Duration::from_secs(2);
/// How often it is looked how many puts are due.
const TURN: Duration = Duration::from_millis(1);
/// Between what a session asks for.
const PAUSE: Duration = Duration::from_millis(100);

/// What came back, of one kind of request.
#[derive(Default)]
struct Answers {
    /// Time from the request to its answer, by status.
    by_status: BTreeMap<u16, Histogram<u64>>,
    /// Refusals for now that do not say when to come again.
    without_retry_after: u64,
    lost: u64,
}

#[derive(Default)]
struct Scene {
    measuring: Cell<bool>,
    ended: Cell<bool>,
    /// Connections that wait for a put to be due, the one that waits longest first.
    free: RefCell<VecDeque<Rc<Notify>>>,
    /// Puts that were due when no connection was free.
    unsent: Cell<u64>,
    puts: RefCell<Answers>,
    renewals: RefCell<Answers>,
    releases: RefCell<Answers>,
}

pub async fn run(options: Overload) -> Result<()> {
    ensure!(options.times.is_finite() && options.times > 0.0, "the multiple must be positive");
    let program = options.programs.program(crate::ServiceName::Coracle, &[])?;
    let directory = options.programs.directory()?;
    let cluster = program.start(options.programs.nodes, directory.path()).await?;
    let (hosts, watched) = (cluster.hosts(), Watched { servers: cluster.pids(), ..Watched::default() });
    let shape = Shape {
        clients: options.connections,
        keys: options.sizes.keys,
        value_bytes: options.sizes.value_size,
        sessions: 1,
    };
    let mut highest = 0.0_f64;
    for clients in PEAK_CLIENTS {
        let peak = peak(&hosts, clients, shape).await?;
        println!("closed loop, C={clients}: {}/s", grouped(peak));
        highest = highest.max(peak);
    }
    println!("peak memory of the nodes so far {:?} MiB", watched.peak_rss_mib()?);
    if options.nice != 0 {
        rustix::process::setpriority_process(None, options.nice).context("change the own priority")?;
    }
    let scene = Rc::<Scene>::default();
    let mut tasks = JoinSet::new();
    for number in 0..options.connections {
        let connection = Connection::dial(&hosts[number % hosts.len()]).await?;
        tasks.spawn_local(put_when_due(connection, number, shape, scene.clone()));
    }
    for number in 0..options.sessions {
        let connection = Connection::dial(&hosts[number % hosts.len()]).await?;
        tasks.spawn_local(renew_and_release(connection, number, scene.clone()));
    }
    // Sessions and locks are there before the overload is.
    sleep(PAUSE * 5).await;
    let rate = highest * options.times;
    tasks.spawn_local(offer(rate, scene.clone()));

    sleep(WARMUP).await;
    let (before, opened) = (watched.read()?, Instant::now());
    scene.unsent.set(0);
    scene.measuring.set(true);
    sleep(Duration::from_secs(options.seconds)).await;
    scene.measuring.set(false);
    let (after, window) = (watched.read()?, opened.elapsed());
    scene.ended.set(true);
    while let Some(task) = tasks.join_next().await {
        task??;
        // Those who waited for a put to be due do their last.
        scene.free.borrow_mut().drain(..).for_each(|turn| turn.notify_one());
    }
    report(&scene, highest, window, [&before, &after], &watched)
}

fn report(scene: &Scene, peak: f64, window: Duration, edges: [&Reading; 2], watched: &Watched) -> Result<()> {
    let seconds = window.as_secs_f64();
    let puts = scene.puts.borrow();
    let (sent, unsent) = (puts.count(), scene.unsent.get());
    println!(
        "offered {}/s: sent {}/s, the rest found no free connection",
        grouped((sent + unsent).to_f64() / seconds),
        grouped(sent.to_f64() / seconds)
    );
    let good = puts.good().to_f64() / seconds;
    println!("goodput {}/s: {:.0} % of the peak (must: 80 %)", grouped(good), 100.0 * good / peak);
    println!("\n| answers | of them | p50 | p99 | p99.9 | max |\n|---|---|---|---|---|---|");
    for (title, answers) in
        [("put", &*puts), ("renewal", &scene.renewals.borrow()), ("release", &scene.releases.borrow())]
    {
        for (status, latencies) in &answers.by_status {
            println!("| {title}: {status} | {}", cells(latencies));
        }
        if answers.lost > 0 {
            println!("| {title}: connection lost | {} | | | | |", answers.lost);
        }
    }
    match puts.by_status.get(&503) {
        Some(refused) => println!(
            "\n503 after p99 {:.1} ms (must: 50 ms); {} of {} without Retry-After",
            refused.value_at_quantile(0.99).to_f64() / 1000.0,
            puts.without_retry_after,
            refused.len()
        ),
        None => println!("\nnothing was refused: more --connections than places are needed"),
    }
    let [before, after] = edges;
    let cores =
        |time: fn(&Reading) -> Duration| time(after).saturating_sub(time(before)).as_secs_f64() / seconds;
    println!(
        "cores used: servers {:.2}, this program {:.2}; idle {:.0} %; peak memory of the nodes {:?} MiB",
        cores(|reading| reading.servers),
        cores(|reading| reading.generator),
        after.machine.idle_since(&before.machine),
        watched.peak_rss_mib()?
    );
    Ok(())
}

/// Lets free connections put as often as it is due; what finds none is only counted.
async fn offer(rate: f64, scene: Rc<Scene>) -> Result<()> {
    let (began, mut offered) = (Instant::now(), 0.0);
    let mut turn = interval(TURN);
    while !scene.ended.get() {
        turn.tick().await;
        let mut free = scene.free.borrow_mut();
        let due = began.elapsed().as_secs_f64() * rate;
        while offered < due {
            offered += 1.0;
            match free.pop_front() {
                Some(connection) => connection.notify_one(),
                None => scene.unsent.set(scene.unsent.get() + 1),
            }
        }
    }
    Ok(())
}

async fn put_when_due(
    mut connection: Connection,
    number: usize,
    shape: Shape,
    scene: Rc<Scene>,
) -> Result<()> {
    let (mut choice, mut key, mut value) = (KeyChoice::new(number, shape.keys), String::new(), Vec::new());
    let turn = Rc::new(Notify::new());
    while !scene.ended.get() {
        scene.free.borrow_mut().push_back(turn.clone());
        turn.notified().await;
        key_name(&mut key, choice.choose());
        fill_value(&mut value, &key, shape.value_bytes);
        let path = format_args!("/v1/kv/{key}");
        let request = Request { method: "PUT", path, headers: format_args!(""), body: &value };
        ask(&mut connection, request, &scene, &scene.puts).await?;
    }
    Ok(())
}

/// A session with a lock: renews, gives the lock back, takes it again if it may.
async fn renew_and_release(mut connection: Connection, number: usize, scene: Rc<Scene>) -> Result<()> {
    let answer = connection.call(post(format_args!("/v1/sessions?ttl=60s"))).await?;
    ensure!(answer.status == 201, "POST /v1/sessions answers {}", answer.status);
    let session: serde_json::Value = serde_json::from_slice(answer.body)?;
    let session = session["id"].as_str().context("a session without an id")?.to_owned();
    let mut held = false;
    let others = RefCell::default();
    while !scene.ended.get() {
        ask(&mut connection, post(format_args!("/v1/sessions/{session}/renew")), &scene, &scene.renewals)
            .await?;
        if held {
            let path = format_args!("/v1/locks/overload-{number}/release?session={session}");
            held = ask(&mut connection, post(path), &scene, &scene.releases).await? != Some(200);
        } else {
            let path = format_args!("/v1/locks/overload-{number}/acquire?session={session}");
            held = ask(&mut connection, post(path), &scene, &others).await? == Some(200);
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

const fn post(path: fmt::Arguments<'_>) -> Request<'_> {
    Request { method: "POST", path, headers: format_args!(""), body: b"" }
}

/// One request; the status of its answer, or none if the connection was lost and is a new one.
async fn ask(
    connection: &mut Connection,
    request: Request<'_>,
    scene: &Scene,
    answers: &RefCell<Answers>,
) -> Result<Option<u16>> {
    let began = Instant::now();
    let Ok(response) = connection.call(request).await else {
        answers.borrow_mut().lost += 1;
        connection.redial().await?;
        return Ok(None);
    };
    let status = response.status;
    let silent = status == 503 && !response.has_header(b"retry-after");
    if scene.measuring.get() {
        answers.borrow_mut().take(status, silent, began.elapsed())?;
    }
    Ok(Some(status))
}

impl Answers {
    fn take(&mut self, status: u16, silent: bool, took: Duration) -> Result<()> {
        let latencies = match self.by_status.entry(status) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?)
            }
        };
        latencies.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LATENCY_US_MAX));
        self.without_retry_after += u64::from(silent);
        Ok(())
    }

    fn count(&self) -> u64 {
        self.lost + self.by_status.values().map(Histogram::len).sum::<u64>()
    }

    fn good(&self) -> u64 {
        self.by_status.range(200..300).map(|(_, latencies)| latencies.len()).sum()
    }
}
