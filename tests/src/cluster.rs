//! Some nodes that found a cluster together.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use tempfile::TempDir;

use crate::http::Http;
use crate::log::Log;
use crate::node::{Node, START};
use crate::wait;

/// Nodes `n1`, `n2`, … of one cluster, and whoever joined later.
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// After the nodes, so that it goes when they are gone.
    folder: TempDir,
}

impl Cluster {
    /// Starts `count` nodes and waits until all serve.
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// The same with further arguments of `serve` for all.
    pub async fn start_with(count: usize, arguments: &[&str]) -> Self {
        let mut cluster = Self::prepare(count);
        for node in &mut cluster.nodes {
            node.add(arguments);
        }
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.ready().await;
        cluster
    }

    /// Nodes that are not started yet.
    ///
    /// # Panics
    /// If there is no place for their files.
    #[must_use]
    pub fn prepare(count: usize) -> Self {
        let folder = TempDir::with_prefix("coracle-test-").expect("a temporary folder");
        let mut nodes: Vec<Node> = (1..=count).map(|n| Node::new(&format!("n{n}"), folder.path())).collect();
        if count > 1 {
            let founder = |node: &Node| format!("{}={}", node.name, node.peer_address());
            let founders = nodes.iter().map(founder).collect::<Vec<_>>().join(",");
            for node in &mut nodes {
                node.add(&["--initial-cluster", &founders]);
            }
        }
        Self { nodes, folder }
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until every running node is ready.
    pub async fn ready(&mut self) {
        for node in &mut self.nodes {
            if node.runs() {
                node.ready().await;
            }
        }
    }

    #[must_use]
    pub fn https(&self) -> Vec<Http> {
        self.nodes.iter().map(|node| node.http().clone()).collect()
    }

    /// Index of the node that all running nodes call leader.
    pub async fn leader(&mut self) -> usize {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|&index| self.nodes[index].runs()).collect();
        let nodes = &self.nodes;
        wait::until("all agree on a leader", START, || async {
            let (mut leaders, mut found) = (BTreeSet::new(), None);
            for &index in &running {
                let status = nodes[index].status().await?;
                leaders.insert((status["leader"].to_string(), status["term"].as_u64()));
                if status["leader"] == status["member_id"] {
                    found = Some(index);
                }
            }
            ensure!(leaders.len() == 1, "{leaders:?}");
            found.ok_or_else(|| anyhow!("the leader does not run: {leaders:?}"))
        })
        .await
    }

    /// Index of a running node that does not lead.
    ///
    /// # Panics
    /// If there is none.
    pub async fn follower(&mut self) -> usize {
        let leader = self.leader().await;
        let count = self.nodes.len();
        (0..count).find(|&index| index != leader && self.nodes[index].runs()).expect("a second node")
    }

    /// What happened, as every running node tells it: they must tell the same.
    ///
    /// # Panics
    /// If two nodes differ.
    pub async fn one_log(&mut self) -> Log {
        self.converged().await;
        let mut logs = Vec::new();
        for node in &mut self.nodes {
            if node.runs() {
                logs.push((node.name.clone(), Log::read(node.http()).await));
            }
        }
        let (first, log) = logs.pop().expect("a running node");
        for (name, other) in logs {
            let differs = other.changes.iter().zip(&log.changes).find(|(one, two)| one != two);
            assert!(other == log, "C2: the logs of {name} and {first} differ, first at {differs:?}");
        }
        log
    }

    /// Waits until all running nodes are at one revision with one state hash; answers these.
    pub async fn converged(&mut self) -> (u64, String) {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|&index| self.nodes[index].runs()).collect();
        let nodes = &self.nodes;
        wait::until("all nodes have one state", Duration::from_secs(20), || async {
            let mut states = BTreeSet::new();
            for &index in &running {
                states.insert(nodes[index].state().await?);
            }
            ensure!(states.len() == 1, "{states:?}");
            states.pop_first().ok_or_else(|| anyhow!("no node runs"))
        })
        .await
    }
}
