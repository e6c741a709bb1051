//! The load: clients that repeat one operation, as fast as they are answered or at a fixed rate.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::service::{Client, Service};
use crate::workload::{Found, Shape, Workload};

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub workload: Workload,
    pub shape: Shape,
    /// Load before the measurement.
    pub warmup: Duration,
    /// The measurement.
    pub window: Duration,
    /// Operations per second of all clients together; absent is the closed loop: each client asks again when it is answered.
    pub rate: Option<f64>,
}

/// What came back inside the window.
pub struct Tally {
    /// Microseconds from the moment an operation began, or should have begun.
    pub latencies: Histogram<u64>,
    pub window: Duration,
    pub errors: BTreeMap<String, u64>,
}

pub const LATENCY_US_MAX: u64 = 120_000_000;
/// How long operations under way at the end may take; the wait for a contended lock is the longest.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long clients may take to give back what the service keeps for them.
const LEAVING: Duration = Duration::from_mins(1);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

struct Scene {
    measuring: Cell<bool>,
    ended: Cell<bool>,
    latencies: RefCell<Histogram<u64>>,
    errors: RefCell<BTreeMap<String, u64>>,
    /// Workers that have not ended.
    workers: Cell<usize>,
    /// For things that feeders make; a worker that takes one gives its place back. Closed when the workers have ended.
    room: Semaphore,
    bounded: bool,
}

/// Runs the plan; `at_edge` is called when the window opens and when it closes. Must run inside a local task set.
pub async fn offer<S: Service>(service: &S, plan: Plan, mut at_edge: impl FnMut()) -> Result<Tally> {
    let cast = plan.workload.cast(plan.shape.clients);
    let backlog = plan.workload.backlog();
    let scene = Rc::new(Scene {
        measuring: Cell::new(false),
        ended: Cell::new(false),
        latencies: RefCell::new(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?),
        errors: RefCell::default(),
        workers: Cell::new(cast.workers),
        room: Semaphore::new(backlog.unwrap_or(Semaphore::MAX_PERMITS)),
        bounded: backlog.is_some(),
    });
    let mut settling = JoinSet::new();
    for number in 0..cast.total() {
        let client = service.client(plan.workload, number).await;
        let mut client = client.with_context(|| format!("prepare client {number}"))?;
        settling.spawn_local(async move {
            client.settle().await.with_context(|| format!("settle client {number}"))?;
            anyhow::Ok((number, client))
        });
    }
    let mut clients = Vec::with_capacity(cast.total());
    while let Some(settled) = settling.join_next().await {
        clients.push(settled??);
    }

    let begun = Instant::now();
    let mut loops = JoinSet::new();
    // With feeders the rate is theirs: who takes, takes what comes.
    let paced = if cast.feeders > 0 { cast.feeders } else { cast.workers };
    for (number, client) in clients {
        let rate = plan.rate.filter(|_| number < paced);
        let pace = rate.map(|rate| Pace::new(begun, rate, paced, number));
        if cast.feeds(number) {
            loops.spawn_local(feed(client, pace, scene.clone()));
        } else {
            loops.spawn_local(repeat(client, pace, scene.clone()));
        }
    }
    sleep(plan.warmup).await;
    at_edge();
    let opened = Instant::now();
    scene.measuring.set(true);
    sleep(plan.window).await;
    scene.measuring.set(false);
    let window = opened.elapsed();
    at_edge();
    scene.ended.set(true);

    let mut leaving = JoinSet::new();
    let farewell = async {
        while let Some(ended) = loops.join_next().await {
            let client = ended?;
            // What a client leaves behind expires; it is no part of the measurement.
            leaving.spawn_local(async move { drop(client.leave().await) });
        }
        anyhow::Ok(())
    };
    if let Ok(ended) = timeout(FAREWELL, farewell).await {
        ended?;
    } else {
        scene.count(format!("{} clients were not answered within {FAREWELL:?}", loops.len()));
    }
    drop(timeout(LEAVING, leaving.join_all()).await);
    let latencies = scene.latencies.borrow().clone();
    let errors = scene.errors.take();
    Ok(Tally { latencies, window, errors })
}

/// Makes everything that a workload finds, with all clients.
pub async fn prepare<S: Service>(service: &S, found: Found, shape: Shape) -> Result<()> {
    let mut writers = JoinSet::new();
    let stride = u32::try_from(shape.clients)?;
    for number in 0..shape.clients {
        let mut client = service.client(found.maker(), number).await?;
        writers.spawn_local(async move {
            for key in (u32::try_from(number)?..shape.keys).step_by(stride as usize) {
                client.prepare(key).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written?.context("make what the measurement finds")?;
    }
    Ok(())
}

async fn repeat<C: Client>(mut client: C, mut pace: Option<Pace>, scene: Rc<Scene>) -> C {
    while !scene.ended.get() {
        let due = due(&mut pace).await;
        match client.step(due).await {
            Ok(()) => {
                scene.record(client.made().unwrap_or(due).elapsed());
                if scene.bounded {
                    scene.room.add_permits(1);
                }
            }
            Err(error) => scene.fail(&mut client, &error).await,
        }
    }
    scene.workers.set(scene.workers.get() - 1);
    if scene.workers.get() == 0 {
        scene.room.close();
    }
    client
}

/// Makes what the workers take until the last of them has ended: each ends with a step, which needs something to take.
async fn feed<C: Client>(mut client: C, mut pace: Option<Pace>, scene: Rc<Scene>) -> C {
    while let Ok(place) = scene.room.acquire().await {
        place.forget();
        let due = due(&mut pace).await;
        if let Err(error) = client.step(due).await {
            scene.fail(&mut client, &error).await;
            scene.room.add_permits(1);
        }
    }
    client
}

async fn due(pace: &mut Option<Pace>) -> Instant {
    match pace {
        Some(pace) => pace.next().await,
        None => Instant::now(),
    }
}

impl Scene {
    async fn fail(&self, client: &mut impl Client, error: &anyhow::Error) {
        self.count(format!("{error:#}"));
        sleep(PAUSE_AFTER_ERROR).await;
        if let Err(error) = client.recover().await {
            self.count(format!("recover: {error:#}"));
        }
    }

    fn record(&self, latency: Duration) {
        if self.measuring.get() {
            let us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX).clamp(1, LATENCY_US_MAX);
            self.latencies.borrow_mut().saturating_record(us);
        }
    }

    /// Errors count whenever they happen: one in the warm-up also says that something is wrong.
    fn count(&self, error: String) {
        *self.errors.borrow_mut().entry(error).or_default() += 1;
    }
}

/// When a client of the open loop has to begin its next operation, whether or not the last one was quick.
pub struct Pace {
    due: Instant,
    interval: Duration,
}

impl Pace {
    pub fn new(begun: Instant, rate: f64, clients: usize, number: usize) -> Self {
        let between = Duration::from_secs_f64(1.0 / rate);
        let clients = u32::try_from(clients).unwrap_or(u32::MAX);
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        Self { due: begun + between * number, interval: between * clients }
    }

    /// Waits until the operation is due and returns the moment from which its latency counts: when it was due if the
    /// client is late (so that waiting behind a slow answer counts), else now (the timer's own millisecond does not).
    pub async fn next(&mut self) -> Instant {
        let due = self.due;
        self.due += self.interval;
        if Instant::now() >= due {
            return due;
        }
        sleep_until(due).await;
        Instant::now()
    }
}

pub fn check(plan: &Plan) -> Result<()> {
    ensure!(plan.shape.clients > 0, "at least one client is needed");
    let pairs = plan.workload == Workload::QueuePairs;
    ensure!(!pairs || plan.shape.clients > 1, "one client is no pair work={}", plan.workload.name());
    ensure!(plan.shape.sessions > 0, "at least one session is needed");
    ensure!(plan.shape.keys > 0, "at least one key is needed");
    ensure!(!plan.window.is_zero(), "the measurement needs a duration");
    ensure!(plan.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0), "the rate must be positive");
    Ok(())
}
