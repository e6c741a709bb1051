//! `bench`: how fast the cluster answers from here, in a few seconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coracle_client::api::Span;
use coracle_client::{Coracle, Error, Session};
use serde::Serialize;

use crate::connection::Connection;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coracle bench                                  four kinds of work, three seconds each\n  \
                        coracle bench put get --clients 64 --time 10s\n  \
                        coracle bench -u http://n1:7070,http://n2:7070,http://n3:7070 -o json\n\n\
                        Clients are spread over the nodes given. What is written is under `bench-` and is removed. To compare \
                        with other services: docs/PERFORMANCE.md."
)]
pub struct Bench {
    /// What to do; everything, unless said
    #[arg(value_enum)]
    work: Vec<Work>,
    /// Callers at the same time, each with one call under way
    #[arg(long, short = 'c', default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    clients: u16,
    /// How long each kind of work is done
    #[arg(long, default_value = "3s", value_name = "DURATION")]
    time: Span,
    /// Bytes of a value or message
    #[arg(long, default_value_t = 256, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(..=1_048_576))]
    value_size: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Work {
    /// Write a key
    Put,
    /// Read a key, linearizably
    Get,
    /// Acquire a lock of one's own and release it
    Lock,
    /// Send to a queue of all, receive from it, acknowledge
    Queue,
}

const ALL: [Work; 4] = [Work::Put, Work::Get, Work::Lock, Work::Queue];
/// Keys of each client.
const KEYS: usize = 100;

/// What came of one kind of work.
#[derive(Debug, Serialize)]
struct Figures {
    work: Work,
    clients: u16,
    operations: usize,
    per_second: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<String, usize>,
}

/// One caller.
struct Caller {
    client: Coracle,
    session: Session,
    /// What all that this run writes begins with.
    run: String,
    number: u16,
    value: Vec<u8>,
}

pub async fn run(connection: &Connection, bench: Bench) -> Result<(), Failure> {
    let run = format!("bench-{}-{}", std::process::id(), nanos());
    let urls: Vec<&str> = connection.url.split(',').collect();
    let mut callers = Vec::new();
    for number in 0..bench.clients {
        // Each begins with another node.
        let first = usize::from(number) % urls.len();
        let urls = [&urls[first..], &urls[..first]].concat();
        let client = Connection { url: urls.join(","), ..connection.clone() }.client_for_many_calls()?;
        let session = client.session().name("coracle bench").open().await?;
        let value = vec![b'.'; bench.value_size as usize];
        callers.push(Caller { client, session, run: run.clone(), number, value });
    }
    let mut measured = Vec::new();
    let work = if bench.work.is_empty() { ALL.to_vec() } else { bench.work };
    let outcome = measure(&mut callers, &work, bench.time.into(), &mut measured).await;
    // Whatever came of it, nothing stays.
    let cleared = clear(callers, &run).await;
    outcome.and(cleared)?;
    let header = ["WORK", "PER SECOND", "P50 MS", "P90 MS", "P99 MS", "MAX MS", "ERRORS"];
    connection.output().list(&measured, &header, row)?;
    let failed = measured.iter().flat_map(|figures| figures.errors.keys()).next();
    failed.map_or(Ok(()), |error| Err(Failure::Other(format!("some calls failed: {error}"))))
}

async fn measure(
    callers: &mut Vec<Caller>,
    work: &[Work],
    time: Duration,
    measured: &mut Vec<Figures>,
) -> Result<(), Error> {
    if work.contains(&Work::Get) {
        futures::future::try_join_all(callers.iter().map(Caller::write_all)).await?;
    }
    for &work in work {
        let begin = Instant::now();
        let (mut latencies, mut errors) = (Vec::new(), BTreeMap::new());
        let tasks: Vec<_> =
            callers.drain(..).map(|caller| tokio::spawn(caller.repeat(work, begin + time))).collect();
        for task in tasks {
            let (caller, took, failed) = task.await.expect("a caller does not panic");
            callers.push(caller);
            latencies.extend(took);
            for error in failed {
                *errors.entry(error).or_default() += 1;
            }
        }
        measured.push(Figures::of(work, callers.len(), latencies, begin.elapsed(), errors));
    }
    Ok(())
}

async fn clear(callers: Vec<Caller>, run: &str) -> Result<(), Error> {
    if let Some(caller) = callers.first() {
        caller.client.kv().delete_prefix(format!("{run}/")).await?;
        match caller.client.queue(run).delete().await {
            Err(Error::Problem(problem)) if problem.status == 404 => {}
            other => drop(other?),
        }
    }
    futures::future::try_join_all(callers.into_iter().map(|caller| caller.session.close())).await.map(drop)
}

impl Caller {
    async fn repeat(self, work: Work, end: Instant) -> (Self, Vec<Duration>, Vec<String>) {
        let (mut took, mut errors) = (Vec::new(), Vec::new());
        for turn in 0.. {
            let begin = Instant::now();
            if begin >= end {
                break;
            }
            match self.once(work, turn).await {
                Ok(()) => took.push(begin.elapsed()),
                Err(error) => {
                    errors.push(error.to_string());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        (self, took, errors)
    }

    async fn once(&self, work: Work, turn: usize) -> Result<(), Error> {
        match work {
            Work::Put => self.write(turn).await,
            Work::Get => self.client.kv().get(self.key(turn)).await.map(drop),
            Work::Lock => {
                let lock = self.client.lock(format!("{}-{}", self.run, self.number));
                lock.session(&self.session).acquire().await?.release().await
            }
            Work::Queue => {
                let queue = self.client.queue(self.run.as_str());
                queue.send(self.value.clone()).await?;
                for job in queue.receive().max(1).wait(Duration::from_secs(5)).await? {
                    job.ack().await?;
                }
                Ok(())
            }
        }
    }

    async fn write_all(&self) -> Result<(), Error> {
        for turn in 0..KEYS {
            self.write(turn).await?;
        }
        Ok(())
    }

    async fn write(&self, turn: usize) -> Result<(), Error> {
        self.client.kv().put(self.key(turn), self.value.clone()).await.map(drop)
    }

    fn key(&self, turn: usize) -> String {
        format!("{}/{}/{}", self.run, self.number, turn % KEYS)
    }
}

impl Figures {
    fn of(
        work: Work,
        clients: usize,
        mut latencies: Vec<Duration>,
        took: Duration,
        errors: BTreeMap<String, usize>,
    ) -> Self {
        latencies.sort_unstable();
        let at = |thousandths: usize| {
            let place = latencies.len() * thousandths / 1_000;
            let latency = latencies.get(place).or(latencies.last()).copied().unwrap_or_default();
            (latency.as_secs_f64() * 1e5).round() / 1e2
        };
        let operations = f64::from(u32::try_from(latencies.len()).unwrap_or(u32::MAX));
        Self {
            work,
            clients: u16::try_from(clients).unwrap_or(u16::MAX),
            operations: latencies.len(),
            per_second: (operations / took.as_secs_f64()).round(),
            p50_ms: at(500),
            p90_ms: at(900),
            p99_ms: at(990),
            max_ms: at(1_000),
            errors,
        }
    }
}

fn row(figures: &Figures) -> Vec<String> {
    let work = match figures.work {
        Work::Put => "put",
        Work::Get => "get, linearizable",
        Work::Lock => "lock + release",
        Work::Queue => "send + receive + ack",
    };
    let millis = |millis: f64| format!("{millis:.2}");
    vec![
        work.to_owned(),
        format!("{:.0}", figures.per_second),
        millis(figures.p50_ms),
        millis(figures.p90_ms),
        millis(figures.p99_ms),
        millis(figures.max_ms),
        figures.errors.values().sum::<usize>().to_string(),
    ]
}

/// Tells this run from others.
fn nanos() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_latencies() {
        let latencies = (1..=100).rev().map(Duration::from_millis).collect();
        let figures = Figures::of(Work::Put, 4, latencies, Duration::from_secs(2), BTreeMap::new());
        assert_eq!((figures.operations, figures.clients), (100, 4));
        let all = [figures.per_second, figures.p50_ms, figures.p90_ms, figures.p99_ms, figures.max_ms];
        assert_eq!(all.map(|figure| figure.to_string()), ["50", "51", "91", "100", "100"]);
        assert_eq!(row(&figures)[..3], ["put", "50", "51.00"]);
        let none = Figures::of(Work::Get, 1, Vec::new(), Duration::from_secs(1), BTreeMap::new());
        assert_eq!((none.operations, none.max_ms.to_string().as_str()), (0, "0"));
    }
}
