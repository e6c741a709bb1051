//! What is written at a rate and told to streams: marks in the values, and the order in which a stream has to tell them.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

/// Clients that write, beside those that read the streams: enough that none is late for its turn behind a slow answer.
pub const WRITERS: usize = 10;

/// Marks tell times since then: writers and streams are in one process.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Begins a value: whose write it is, the how-manieth, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub writer: usize,
    pub turn: u64,
    pub due: Instant,
}

impl Mark {
    pub fn text(self) -> String {
        let due = self.due.saturating_duration_since(*BEGIN).as_micros();
        format!("{}:{}:{due}", self.writer, self.turn)
    }

    /// From a value that begins with it and goes on behind a colon.
    pub fn parse(value: &str) -> Result<Self> {
        let mut numbers = value.splitn(4, ':').map(str::parse::<u64>);
        let mut number = || numbers.next().context("told something else")?.context("told something else");
        let (writer, turn, due) = (number()?, number()?, number()?);
        Ok(Self { writer: usize::try_from(writer)?, turn, due: *BEGIN + Duration::from_micros(due) })
    }
}

/// What one stream has told, held against what was written.
#[derive(Default)]
pub struct Deliveries {
    pending: VecDeque<Mark>,
    /// The newest turn of each writer; 0 before its first.
    newest: [u64; WRITERS],
    /// When what was taken last was due.
    pub due: Option<Instant>,
}

impl Deliveries {
    pub fn add(&mut self, value: &str) -> Result<()> {
        self.pending.push_back(Mark::parse(value)?);
        Ok(())
    }

    /// The next write that was told; false if none is left. Each writer's must come once and in order.
    pub fn take(&mut self) -> Result<bool> {
        let Some(mark) = self.pending.pop_front() else { return Ok(false) };
        let newest = self.newest.get_mut(mark.writer).context("told of a writer that is not there")?;
        ensure!(*newest == 0 || mark.turn == *newest + 1, "a write was told twice or not at all");
        *newest = mark.turn;
        self.due = Some(mark.due);
        Ok(true)
    }
}
