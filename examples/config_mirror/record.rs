//! The follower's record of what it saw: one line an event, in the order of arrival.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use coracle_client::api::Event;

/// The line that says that the watch stands.
pub const SYNCED: &str = "synced";

/// One event of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub revision: u64,
    /// Place within its revision, from 0.
    pub place: usize,
    pub op: String,
    /// Changes of the key since it was created; 0 after a delete.
    pub version: u64,
    pub bytes: usize,
    /// Escaped.
    pub key: String,
}

impl Seen {
    pub fn new(revision: u64, place: usize, event: &Event) -> Self {
        let key = event.key.as_ref().map(|key| key.as_bytes().escape_ascii().to_string()).unwrap_or_default();
        let bytes = event.value.as_ref().map_or(0, |value| value.bytes.len());
        Self { revision, place, op: event.op.clone(), version: event.version, bytes, key }
    }

    pub fn line(&self) -> String {
        let Seen { revision, place, op, version, bytes, key } = self;
        let mut line = format!("{revision} {place} {op} {version} {bytes} {key}");
        line.push('\n');
        line
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let mut next = || words.next();
        Some(Self {
            revision: next()?.parse().ok()?,
            place: next()?.parse().ok()?,
            op: next()?.to_owned(),
            version: next()?.parse().ok()?,
            bytes: next()?.parse().ok()?,
            key: next()?.to_owned(),
        })
    }
}

/// Whether the follower's watch stands.
pub fn is_synced(log: &Path) -> bool {
    fs::read_to_string(log).is_ok_and(|text| text.lines().any(|line| line == SYNCED))
}

/// Everything the follower saw; an error if it ever had to start over.
pub fn read(log: &Path) -> Result<Vec<Seen>> {
    let text = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut seen = Vec::new();
    let mut strange = String::new();
    for line in text.lines().filter(|line| *line != SYNCED && !line.starts_with('#')) {
        match Seen::parse(line) {
            Some(event) => seen.push(event),
            None => writeln!(strange, "{line}")?,
        }
    }
    if !strange.is_empty() {
        bail!("the follower lost changes:\n{strange}");
    }
    Ok(seen)
}
