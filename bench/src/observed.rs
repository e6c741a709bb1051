//! What nodes of Coracle tell of themselves while they are under load: when a checkpoint, a compaction … happened.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::http1::{Connection, Request};

/// How often each node is asked; what happened is known to so much.
pub const EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    Checkpoint,
    Segment,
    Compaction,
    Snapshot,
}

/// From when to when something happened, since a common beginning.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub what: Happening,
    pub from: Duration,
    pub to: Duration,
}

/// Asks nodes for their metrics, again and again, until it is told to stop.
pub struct Observer {
    spans: Rc<RefCell<Vec<Span>>>,
    ended: Rc<Cell<bool>>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Happening {
    pub const ALL: [Self; 4] = [Self::Checkpoint, Self::Segment, Self::Compaction, Self::Snapshot];

    pub const fn title(self) -> &'static str {
        match self {
            Self::Checkpoint => "a checkpoint is written",
            Self::Segment => "a file of the log is full",
            Self::Compaction => "history is compacted",
            Self::Snapshot => "a member joins by snapshot",
        }
    }
}

impl Observer {
    /// Must run inside a local task set.
    pub fn start(hosts: &[String], began: Instant) -> Self {
        let (spans, ended) = (Rc::default(), Rc::default());
        let tasks = hosts
            .iter()
            .map(|host| {
                tokio::task::spawn_local(observe(host.clone(), began, Rc::clone(&spans), Rc::clone(&ended)))
            })
            .collect();
        Self { spans, ended, tasks }
    }

    /// What was told by somebody else than the nodes.
    pub fn add(&self, span: Span) {
        self.spans.borrow_mut().push(span);
    }

    pub async fn stop(self) -> Result<Vec<Span>> {
        self.ended.set(true);
        for task in self.tasks {
            task.await?.context("watch the nodes' metrics")?;
        }
        Ok(self.spans.take())
    }
}

async fn observe(
    host: String,
    began: Instant,
    spans: Rc<RefCell<Vec<Span>>>,
    ended: Rc<Cell<bool>>,
) -> Result<()> {
    let mut connection = Connection::dial(&host).await?;
    let (mut before, mut asked) = (metrics(&mut connection).await?, began.elapsed());
    while !ended.get() {
        sleep(EVERY).await;
        let (now, to) = (metrics(&mut connection).await?, began.elapsed());
        let grown = |name: &str| {
            now.get(name).copied().unwrap_or_default() - before.get(name).copied().unwrap_or_default()
        };
        let happened = |what, from| spans.borrow_mut().push(Span { what, from, to });
        if grown("coracle_checkpoints_total") > 0.0 {
            let took = Duration::try_from_secs_f64(grown("coracle_checkpoint_seconds_total"))?;
            happened(Happening::Checkpoint, asked.saturating_sub(took));
        }
        if grown("coracle_wal_segments_total") > 0.0 {
            happened(Happening::Segment, asked);
        }
        if grown("coracle_compact_revision") > 0.0 {
            happened(Happening::Compaction, asked);
        }
        (before, asked) = (now, to);
    }
    Ok(())
}

/// The figures of one node that have no labels.
pub async fn metrics(connection: &mut Connection) -> Result<BTreeMap<String, f64>> {
    let request =
        Request { method: "GET", path: format_args!("/metrics"), headers: format_args!(""), body: b"" };
    let response = connection.call(request).await?;
    ensure!(response.status == 200, "/metrics answers {}", response.status);
    Ok(parse(std::str::from_utf8(response.body)?))
}

pub fn parse(text: &str) -> BTreeMap<String, f64> {
    let figure = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        (!name.contains(['{', '#'])).then_some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(figure).collect()
}
