//! The verdict: equal trees, and an event record that is exactly the history.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use coracle_client::{Coracle, Update};
use coracle_examples::Cluster;
use futures::StreamExt as _;

use crate::record::Seen;
use crate::{END, PREFIX, tree};

/// The same files with the same bytes.
pub fn equal_trees(left: &Path, right: &Path) -> Result<()> {
    let (here, there) = (tree::files(left)?, tree::files(right)?);
    if let Some(path) = here.symmetric_difference(&there).next() {
        bail!("only on one side: {}", path.display());
    }
    for path in here {
        ensure!(fs::read(left.join(&path))? == fs::read(right.join(&path))?, "differs: {}", path.display());
    }
    Ok(())
}

/// The record is in order, agrees with the keys as they are now, and with the history that each node keeps.
pub async fn events(client: &Coracle, cluster: &Cluster, seen: &[Seen], before: u64) -> Result<String> {
    in_order(seen)?;
    versions_are_dense(seen)?;
    let now = client.kv().list(PREFIX).keys_only().limit(1000).all().await?;
    let last = last_of_each_key(seen);
    ensure!(
        now.items.len() == last.values().filter(|event| event.op == "put").count(),
        "keys and record differ"
    );
    for entry in &now.items {
        let key = entry.key.as_bytes().escape_ascii().to_string();
        let event = last.get(key.as_str()).with_context(|| format!("missing in the record: {key}"))?;
        let (revision, version) = (entry.mod_revision, entry.version);
        ensure!((event.revision, event.version) == (revision, version), "another last change: {key}");
    }
    for node in &cluster.nodes {
        let kept = history(&node.url, before).await.with_context(|| format!("history of {}", node.name))?;
        if let Some((one, other)) = kept.iter().zip(seen).find(|(one, other)| one != other) {
            bail!("{}: its history has {one:?} where the follower saw {other:?}", node.name);
        }
        ensure!(kept.len() == seen.len(), "{}: {} events kept, {} seen", node.name, kept.len(), seen.len());
    }
    Ok(format!(
        "{} events, none missing, doubled or out of order; revisions {} to {}; the same history on {} nodes",
        seen.len(),
        seen.first().map_or(0, |event| event.revision),
        seen.last().map_or(0, |event| event.revision),
        cluster.nodes.len(),
    ))
}

/// Revisions rise; within a revision the places count up.
fn in_order(seen: &[Seen]) -> Result<()> {
    for pair in seen.windows(2) {
        let next_place = pair[1].revision == pair[0].revision && pair[1].place == pair[0].place + 1;
        let next_revision = pair[1].revision > pair[0].revision && pair[1].place == 0;
        ensure!(next_place || next_revision, "out of order: {:?} then {:?}", pair[0], pair[1]);
    }
    Ok(())
}

/// Each key's versions count up by one from 1, and start again after a delete: nothing is missing or doubled.
fn versions_are_dense(seen: &[Seen]) -> Result<()> {
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    for event in seen {
        let version = versions.entry(&event.key).or_default();
        let expected = if event.op == "delete" { 0 } else { *version + 1 };
        ensure!(event.version == expected, "version {expected} expected: {event:?}");
        *version = expected;
    }
    Ok(())
}

fn last_of_each_key(seen: &[Seen]) -> BTreeMap<&str, &Seen> {
    seen.iter().map(|event| (event.key.as_str(), event)).collect()
}

/// What one node tells when asked for everything after `before`.
async fn history(url: &str, before: u64) -> Result<Vec<Seen>> {
    let client = Coracle::connect([url]).await?;
    let mut watch = client.kv().watch_prefix(PREFIX).error_on_gap().after(before);
    let mut kept = Vec::new();
    loop {
        let update = tokio::time::timeout(Duration::from_secs(30), watch.next()).await?;
        if let Update::Change { revision, events, .. } = update.context("the stream ended")?? {
            kept.extend(events.iter().enumerate().map(|(place, event)| Seen::new(revision, place, event)));
        }
        if kept.last().is_some_and(|event| event.key == END) {
            return Ok(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revision: u64, key: &str, version: u64) -> Seen {
        Seen { revision, place: 0, op: "put".into(), version, bytes: 1, key: key.into() }
    }

    #[test]
    fn a_missing_a_doubled_and_a_misplaced_event_are_found() {
        let good = [put(2, "a", 1), put(3, "b", 1), put(4, "a", 2), put(5, "a", 3)];
        assert!(in_order(&good).is_ok() && versions_are_dense(&good).is_ok());
        let missing = [put(2, "a", 1), put(5, "a", 3)];
        assert!(versions_are_dense(&missing).is_err());
        let doubled = [put(2, "a", 1), put(2, "a", 1)];
        assert!(in_order(&doubled).is_err());
        let misplaced = [put(3, "b", 1), put(2, "a", 1)];
        assert!(in_order(&misplaced).is_err());
    }
}
