//! One measurement from beginning to end: keys, load, readings at both edges, a record.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;

use anyhow::Result;

use crate::cluster::Kind;
use crate::coracle::Coracle;
use crate::etcd::Etcd;
use crate::gateway::Gateway;
use crate::load::{self, Plan};
use crate::nats::Nats;
use crate::processes::{Reading, Watched};
use crate::record::{Record, Setting};
use crate::service::Service;
use crate::table::grouped;
use crate::workload::{Connections, Found};
use crate::zookeeper::ZooKeeper;

/// A service under test, and what has been prepared in it.
pub struct Subject {
    pub kind: Kind,
    pub connections: Connections,
    pub hosts: Vec<String>,
    pub watched: Watched,
    pub setting: Setting,
    /// What is there to be found, how many of them, and the size of their values.
    made: HashSet<(Found, u32, usize)>,
}

impl Subject {
    pub fn new(
        kind: Kind,
        connections: Connections,
        hosts: Vec<String>,
        watched: Watched,
        setting: Setting,
    ) -> Self {
        Self { kind, connections, hosts, watched, setting, made: HashSet::new() }
    }

    /// Whether it does the work of a plan at all.
    pub fn does(&self, plan: &Plan) -> bool {
        self.kind.does(plan.workload, self.connections)
    }

    pub async fn measure(&mut self, plan: &Plan, pair: u32) -> Result<Record> {
        load::check(plan)?;
        match self.kind {
            Kind::Coracle => {
                let service = Coracle::new(&self.hosts, plan.shape);
                self.measure_on(&service, plan, pair).await
            }
            Kind::Etcd if self.connections == Connections::Gateway => {
                self.measure_on(&Gateway::new(&self.hosts, plan.shape), plan, pair).await
            }
            Kind::ZooKeeper => self.measure_on(&ZooKeeper::new(&self.hosts, plan.shape), plan, pair).await,
            Kind::Nats => {
                self.measure_on(&Nats::new(&self.hosts, self.hosts.len(), plan.shape), plan, pair).await
            }
            Kind::Etcd => {
                let service = Etcd::open(&self.hosts, plan.shape, self.connections).await?;
                self.measure_on(&service, plan, pair).await
            }
        }
    }

    async fn measure_on(&mut self, service: &impl Service, plan: &Plan, pair: u32) -> Result<Record> {
        if let Some(found) = plan.workload.finds() {
            let made = (found, plan.shape.keys, plan.shape.value_bytes);
            if !self.made.contains(&made) {
                load::prepare(service, found, plan.shape).await?;
                self.made.retain(|(other, _, bytes)| *other != found || *bytes == plan.shape.value_bytes);
                self.made.insert(made);
            }
        }
        let mut edges: Vec<Result<Reading>> = Vec::new();
        let tally = load::offer(service, *plan, || edges.push(self.watched.read())).await?;
        let edges: Vec<Reading> = edges.into_iter().collect::<Result<_>>()?;
        let [before, after] = &edges[..] else { unreachable!("a window has two edges") };
        Record::new(
            &self.setting,
            plan,
            service.connections(plan.workload.cast(plan.shape.clients).total()),
            pair,
            tally,
            &self.watched,
            [before, after],
        )
    }
}

/// Shows a record on the terminal and adds it to the file.
pub fn publish(record: &Record, file: Option<&mut File>) -> Result<()> {
    eprint!("{}", summary(record));
    if let Some(file) = file {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        file.write_all(&line)?;
    }
    Ok(())
}

fn summary(record: &Record) -> String {
    let latency = record.latency_us;
    let mut text = format!(
        "{:<10} {:<15} C={:<4} over {:<3} {:>9}/s  p50 {:>6} p90 {:>6} p99 {:>6} max {:>7} µs  server {} µs  generator {:.0} µs  rss {:?} MiB  (stolen {:.0} %, foreign {:.0} %, bystander {:.0} %)\n",
        record.service,
        record.workload.name(),
        record.clients,
        record.connections,
        grouped(record.per_second),
        latency.p50,
        latency.p90,
        latency.p99,
        latency.max,
        record.server_cpu_us.map_or_else(|| "?".to_owned(), |us| format!("{us:.0}")),
        record.generator_cpu_us,
        record.peak_rss_mib,
        record.noise.steal,
        record.noise.foreign,
        record.noise.bystander,
    );
    for (error, count) in &record.errors {
        writeln!(text, "  {count} × {error}").expect("a string takes any text");
    }
    if !record.threads.is_empty() {
        writeln!(text, "  {:<18} {:>8}  sleeps/op  µs/op by node", "thread", "µs/op")
            .expect("a string takes any text");
    }
    for thread in &record.threads {
        let nodes: Vec<String> = thread.cpu_us.iter().map(|us| format!("{us:.2}")).collect();
        writeln!(
            text,
            "  {:<18} {:>8.2}  {:>9.3}  {}",
            thread.name,
            thread.total_us(),
            thread.sleeps,
            nodes.join("  ")
        )
        .expect("a string takes any text");
    }
    text
}
