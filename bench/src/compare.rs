//! Two clusters on one machine, loaded in turn: A B A B.

use std::fs::File;
use std::path::Path;

use anyhow::Result;

use crate::cluster::{Cluster, Program};
use crate::load::Plan;
use crate::measure::{Subject, publish};
use crate::processes::Watched;
use crate::record::{Machine, Record, Setting, commit, now};

/// What a comparison, or a run on clusters of its own, needs to know.
pub struct Campaign<'a> {
    pub nodes: usize,
    pub pairs: u32,
    pub threads: bool,
    pub directory: &'a Path,
    pub plans: Vec<Plan>,
}

/// Starts a cluster of each program, measures every plan on each in turn, and stops them.
pub async fn alternate(
    programs: &[Program],
    campaign: &Campaign<'_>,
    mut file: Option<File>,
) -> Result<Vec<Record>> {
    let (name, commit) = (now(), commit());
    let machine = Machine::describe(Some(campaign.directory))?;
    if matches!(machine.filesystem.as_str(), "tmpfs" | "ramfs") {
        eprintln!(
            "warning: the data lies in memory ({}), where fsync costs nothing; choose --dir on a disk",
            machine.filesystem
        );
    }
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut versions = Vec::new();
    for (number, program) in programs.iter().enumerate() {
        let data = campaign.directory.join(number.to_string());
        versions.push(program.version()?);
        clusters.push(program.start(campaign.nodes, &data).await?);
    }
    let mut subjects: Vec<Subject> = Vec::new();
    for (number, (program, cluster)) in programs.iter().zip(&clusters).enumerate() {
        let others = clusters.iter().enumerate().filter(|(other, _)| *other != number);
        let watched = Watched {
            servers: cluster.pids(),
            bystanders: others.flat_map(|(_, cluster)| cluster.pids()).collect(),
            threads: campaign.threads,
        };
        for &connections in program.connections() {
            let setting = Setting {
                campaign: name.clone(),
                commit: commit.clone(),
                machine: machine.clone(),
                service: program.side(connections),
                version: versions[number].clone(),
                nodes: campaign.nodes,
            };
            subjects.push(Subject::new(program.kind, connections, cluster.hosts(), watched.clone(), setting));
        }
    }
    let mut records = Vec::new();
    for plan in &campaign.plans {
        for pair in 1..=campaign.pairs {
            for subject in subjects.iter_mut().filter(|subject| subject.does(plan)) {
                let record = subject.measure(plan, pair).await?;
                publish(&record, file.as_mut())?;
                records.push(record);
            }
        }
    }
    Ok(records)
}
