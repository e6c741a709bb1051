//! Clusters on one machine, loaded in turn: A B A B.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::{Cluster, Kind, Program};
use crate::load::Plan;
use crate::measure::{Subject, publish};
use crate::processes::Watched;
use crate::record::{Machine, Record, Setting, commit, now};
use crate::workload::{Shape, Workload};

/// Java compiles what it does often: before that, ZooKeeper is several times slower than it gets.
const JAVA_WARMUP: Duration = Duration::from_secs(15);

/// What a comparison, or a run on clusters of its own, needs to know.
pub struct Campaign<'a> {
    pub pairs: u32,
    pub threads: bool,
    pub directory: &'a Path,
    pub stages: Vec<Stage>,
}

/// What is measured on clusters of one size.
pub struct Stage {
    pub nodes: usize,
    pub plans: Vec<Plan>,
}

/// Stage by stage starts a cluster of each program that has something to do, measures every plan on each in turn, and
/// stops them.
pub async fn alternate(
    programs: &[Program],
    campaign: &Campaign<'_>,
    mut file: Option<File>,
) -> Result<Vec<Record>> {
    let machine = Machine::describe(Some(campaign.directory))?;
    if matches!(machine.filesystem.as_str(), "tmpfs" | "ramfs") {
        eprintln!(
            "warning: the data lies in memory ({}), where fsync costs nothing; choose --dir on a disk",
            machine.filesystem
        );
    }
    let (name, commit) = (now(), commit());
    let mut records = Vec::new();
    for stage in &campaign.stages {
        let setting = Setting {
            campaign: name.clone(),
            commit: commit.clone(),
            machine: machine.clone(),
            service: String::new(),
            version: String::new(),
            nodes: stage.nodes,
        };
        records.extend(perform(programs, campaign, stage, &setting, file.as_mut()).await?);
    }
    Ok(records)
}

async fn perform(
    programs: &[Program],
    campaign: &Campaign<'_>,
    stage: &Stage,
    setting: &Setting,
    mut file: Option<&mut File>,
) -> Result<Vec<Record>> {
    let busy = |program: &&Program| {
        let does = |plan: &Plan, &connections| program.kind.does(plan.workload, connections);
        program.connections().iter().any(|connections| stage.plans.iter().any(|plan| does(plan, connections)))
    };
    let mut clusters: Vec<(&Program, Cluster)> = Vec::new();
    for (number, program) in programs.iter().enumerate().filter(|(_, program)| busy(program)) {
        let data = campaign.directory.join(format!("{number}-{}", stage.nodes));
        clusters.push((program, program.start(stage.nodes, &data).await?));
    }
    let mut subjects: Vec<Subject> = Vec::new();
    for (number, (program, cluster)) in clusters.iter().enumerate() {
        let others = clusters.iter().enumerate().filter(|(other, _)| *other != number);
        let watched = Watched {
            servers: cluster.pids(),
            bystanders: others.flat_map(|(_, (_, cluster))| cluster.pids()).collect(),
            threads: campaign.threads,
        };
        let version = program.version()?;
        for &connections in program.connections() {
            let (service, version) = (program.side(connections), version.clone());
            let setting = Setting { service, version, ..setting.clone() };
            subjects.push(Subject::new(program.kind, connections, cluster.hosts(), watched.clone(), setting));
        }
    }
    for subject in subjects.iter_mut().filter(|subject| subject.kind == Kind::ZooKeeper) {
        let shape = Shape { clients: 64, keys: 10_000, value_bytes: 256, sessions: 1 };
        let (workload, warmup, window) = (Workload::Mixed, Duration::ZERO, JAVA_WARMUP);
        subject.measure(&Plan { workload, shape, warmup, window, rate: None }, 0).await?;
    }
    let mut records = Vec::new();
    for plan in &stage.plans {
        for pair in 1..=campaign.pairs {
            for subject in subjects.iter_mut().filter(|subject| subject.does(plan)) {
                let record = subject.measure(plan, pair).await?;
                publish(&record, file.as_deref_mut())?;
                records.push(record);
            }
        }
    }
    Ok(records)
}
