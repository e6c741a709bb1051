//! Coracle's load generator: one service under load, or two of them in turn.

mod cluster;
mod compare;
mod coracle;
mod delivery;
mod etcd;
mod gateway;
mod grpc;
mod http1;
mod load;
mod measure;
mod nats;
mod observed;
mod overload;
mod peers;
mod processes;
mod protobuf;
mod record;
mod service;
mod steady;
mod table;
mod tail;
#[cfg(test)]
mod tests;
mod workload;
mod zookeeper;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::{Kind, Program};
use crate::compare::{Campaign, Stage, alternate};
use crate::load::Plan;
use crate::measure::{Subject, publish};
use crate::processes::Watched;
use crate::record::{Machine, Record, Setting};
use crate::steady::Steady;
use crate::workload::{Connections, Shape, Work, Workload};

#[derive(Parser)]
#[command(name = "coracle-bench", version, about = "Measures Coracle, alone or beside other services")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure one service: a running one (--url), or a cluster started for this
    Run(Run),
    /// Start clusters on this machine and measure them in turn, A B A B
    Compare(Compare),
    /// The tail of latency at half the peak, during checkpoints, snapshots, compaction, and with a follower that stands still
    Tail(tail::Tail),
    /// Ten times the peak: what is still done, refused, and kept
    Overload(overload::Overload),
    /// Start a cluster of Coracle, keep it under a mixed load at half of its peak, and tell whether its memory is flat
    Steady(SteadyRun),
    /// Print records (JSON lines) as a Markdown table
    Table {
        file: PathBuf,
        /// Put it between the marks `<!-- bench:begin -->` and `<!-- bench:end -->` of this document instead
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Fetch the programs that Coracle is compared with
    FetchPeers {
        #[arg(long)]
        cache: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Run {
    /// A node of a running service; repeat it for each node. Without it a cluster is started and stopped
    #[arg(long = "url")]
    urls: Vec<String>,
    /// Server processes of the running service, to know their CPU and memory
    #[arg(long = "pid", requires = "urls", value_delimiter = ',')]
    pids: Vec<u32>,
    #[arg(long, value_enum, default_value = "coracle")]
    service: ServiceName,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    programs: ProgramOptions,
}

#[derive(Args)]
struct Compare {
    /// Whom Coracle is compared with, one or several at once; `coracle` is another build of it (--other)
    #[arg(value_enum, required = true, value_delimiter = ',')]
    peers: Vec<ServiceName>,
    /// Neighbouring pairs of measurements for each workload
    #[arg(long, default_value_t = 3)]
    pairs: u32,
    /// The other build of Coracle
    #[arg(long, required_if_eq("peers", "coracle"))]
    other: Option<PathBuf>,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    programs: ProgramOptions,
}

#[derive(Args)]
struct SteadyRun {
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Seconds between two looks at the memory
    #[arg(long, default_value_t = 3.0)]
    every: f64,
    #[command(flatten)]
    sizes: Sizes,
    #[command(flatten)]
    programs: ProgramOptions,
}

#[derive(Args)]
struct LoadOptions {
    /// What to measure, each with its own number of clients, and of nodes, if given: put@1,put,put@64/1
    #[arg(
        long,
        alias = "workload",
        value_delimiter = ',',
        default_value = "put@1,put,get,stale-get,mixed,cas,lock,lock-contended@8,renew,renew-many,session,watch,\
                         watch-rate@100,queue@8,queue-pairs@8,queue-deep@8,queue-batch@8,pick,publish,put@64/1"
    )]
    workloads: Vec<Work>,
    /// Concurrent clients of workloads that do not say it themselves
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Length of each measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Load before each measurement, in seconds
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Operations per second of all clients together (open loop); without it each client asks again when answered,
    /// but of watch-rate and renew-many
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    sizes: Sizes,
    /// Sessions of renew-many: each is renewed every 5 s
    #[arg(long, default_value_t = 100_000)]
    sessions: u32,
    /// HTTP/2 connections to each node of etcd, shared by the clients, or `each` for one to each client, or `gateway`
    /// for its JSON gateway; of several, each is measured in its turn
    #[arg(long, value_delimiter = ',', default_value = "2,each")]
    connections: Vec<Connections>,
    /// Also show the CPU time and the sleeps of the servers' threads, per operation
    #[arg(long)]
    threads: bool,
    /// Add the records to this file, as JSON lines
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What is written, alike for every service.
#[derive(Args)]
struct Sizes {
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    /// Size of the values, in bytes
    #[arg(long, default_value_t = 256)]
    value_size: usize,
}

#[derive(Args)]
struct ProgramOptions {
    /// Nodes of a cluster that is started, for work that does not say it itself
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    #[arg(long, default_value = "target/release/coracle")]
    coracle: PathBuf,
    /// An argument for each node of Coracle; repeat it for more
    #[arg(long = "coracle-arg", allow_hyphen_values = true)]
    coracle_arguments: Vec<String>,
    /// etcd's binary; default: the fetched one
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// NATS's server
    #[arg(long, default_value = "/usr/sbin/nats-server")]
    nats: PathBuf,
    /// ZooKeeper's jar, with those it needs in the same directory; it runs with the `java` of the path
    #[arg(long, default_value = "/usr/share/java/zookeeper.jar")]
    zookeeper: PathBuf,
    /// Where the clusters' data go, in a directory that is removed afterwards
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep that directory, with the logs
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ServiceName {
    Coracle,
    Etcd,
    #[value(name = "zookeeper")]
    ZooKeeper,
    Nats,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let cli = Cli::parse();
    // One thread: the generator shares the machine with the servers, and more threads would only cost more.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        // Whoever interrupts gets the same orderly end as everybody: dropping the work stops what it has started.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = obey(cli.command) => done,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn obey(command: Command) -> Result<()> {
    match command {
        Command::Run(run) if run.urls.is_empty() => {
            let program = run.programs.program(run.service, &run.load.connections)?;
            run_clusters(&[program], &run.load, &run.programs, 1).await
        }
        Command::Run(run) => run_against(run).await,
        Command::Compare(compare) => {
            let mut ours = compare.programs.program(ServiceName::Coracle, &[])?;
            let mut programs = Vec::new();
            for peer in compare.peers {
                let mut theirs = compare.programs.program(peer, &compare.load.connections)?;
                if let Some(other) = compare.other.as_ref().filter(|_| peer == ServiceName::Coracle) {
                    "this build".clone_into(&mut ours.title);
                    "other build".clone_into(&mut theirs.title);
                    theirs.path = existing(other)?;
                }
                programs.push(theirs);
            }
            programs.insert(0, ours);
            run_clusters(&programs, &compare.load, &compare.programs, compare.pairs).await
        }
        Command::Tail(options) => tail::run(options).await,
        Command::Overload(options) => overload::run(options).await,
        Command::Steady(run) => run_steadily(&run).await,
        Command::Table { file, into } => print_table(&file, into.as_deref()),
        Command::FetchPeers { cache } => {
            println!("{}", peers::fetch(&cache.unwrap_or_else(peers::cache))?.display());
            Ok(())
        }
    }
}

fn print_table(file: &Path, into: Option<&Path>) -> Result<()> {
    let read =
        |path: &Path| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let report = table::render(&table::parse(&read(file)?)?);
    let Some(document) = into else {
        print!("{report}");
        return Ok(());
    };
    let text = table::replace_in(&read(document)?, &report);
    let text = text.with_context(|| format!("put the table into {}", document.display()))?;
    std::fs::write(document, text).with_context(|| format!("write {}", document.display()))
}

async fn run_clusters(
    programs: &[Program],
    load: &LoadOptions,
    options: &ProgramOptions,
    pairs: u32,
) -> Result<()> {
    let directory = options.directory()?;
    let (threads, stages) = (load.threads, load.stages(options.nodes)?);
    let campaign = Campaign { pairs, threads, directory: directory.path(), stages };
    let records = alternate(programs, &campaign, load.file()?).await?;
    println!("\n{}", table::render(&records));
    let errors: u64 = records.iter().map(Record::error_count).sum();
    if errors > 0 {
        eprintln!("warning: {errors} operations failed; they are in no figure above");
    }
    options.kept(directory.path());
    Ok(())
}

async fn run_steadily(run: &SteadyRun) -> Result<()> {
    let (length, every) = (seconds("minutes", run.minutes * 60.0)?, seconds("every", run.every)?);
    let program = run.programs.program(ServiceName::Coracle, &[])?;
    let directory = run.programs.directory()?;
    println!("{}, commit {}", program.version()?, record::commit());
    let cluster = program.start(run.programs.nodes, directory.path()).await?;
    let steady = Steady { length, every, keys: run.sizes.keys, value_bytes: run.sizes.value_size };
    println!("{}", steady.measure(&cluster).await?);
    run.programs.kept(directory.path());
    Ok(())
}

fn seconds(name: &str, value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("--{name} is not a duration value={value}"))
}

async fn run_against(run: Run) -> Result<()> {
    let hosts: Vec<String> = run.urls.iter().map(|url| host(url)).collect::<Result<_>>()?;
    let kind = run.service.kind();
    let connections = *run.load.connections.first().context("no connections")?;
    let setting = Setting {
        campaign: record::now(),
        commit: record::commit(),
        machine: Machine::describe(None)?,
        service: run.service.title().to_owned(),
        version: "a running service".to_owned(),
        nodes: hosts.len(),
    };
    let watched = Watched { servers: run.pids, bystanders: Vec::new(), threads: run.load.threads };
    let mut subject = Subject::new(kind, connections, hosts, watched, setting);
    let mut file = run.load.file()?;
    for stage in run.load.stages(subject.hosts.len())? {
        ensure!(stage.nodes == subject.hosts.len(), "the running service has {} nodes", subject.hosts.len());
        for plan in &stage.plans {
            publish(&subject.measure(plan, 1).await?, file.as_mut())?;
        }
    }
    Ok(())
}

impl LoadOptions {
    /// The work, that of clusters of one size together, in the order in which it was asked for.
    fn stages(&self, nodes: usize) -> Result<Vec<Stage>> {
        let (warmup, window) = (seconds("warmup", self.warmup)?, seconds("seconds", self.seconds)?);
        let mut stages: Vec<Stage> = Vec::new();
        for work in &self.workloads {
            let workload = work.workload;
            let shape = Shape {
                clients: work.clients.unwrap_or(self.clients),
                keys: self.sizes.keys,
                value_bytes: self.sizes.value_size,
                sessions: self.sessions,
            };
            let rate = self.rate.filter(|_| workload != Workload::LockContended);
            let rate = rate.or_else(|| workload.own_rate(shape));
            let plan = Plan { workload, shape, warmup, window, rate };
            load::check(&plan)?;
            let nodes = work.nodes.unwrap_or(nodes);
            match stages.iter_mut().find(|stage| stage.nodes == nodes) {
                Some(stage) => stage.plans.push(plan),
                None => stages.push(Stage { nodes, plans: vec![plan] }),
            }
        }
        Ok(stages)
    }

    fn file(&self) -> Result<Option<File>> {
        let open = |path: &PathBuf| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("open {}", path.display()))
        };
        self.json.as_ref().map(open).transpose()
    }
}

impl ProgramOptions {
    /// Where the clusters' data go; removed at the end, unless it is to be kept.
    fn directory(&self) -> Result<TempDir> {
        ensure!(self.nodes > 0, "a cluster needs a node");
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let mut directory = tempfile::Builder::new().prefix("coracle-bench-").tempdir_in(&parent)?;
        directory.disable_cleanup(self.keep);
        Ok(directory)
    }

    fn kept(&self, directory: &Path) {
        if self.keep {
            eprintln!("data and logs are in {}", directory.display());
        }
    }

    fn program(&self, service: ServiceName, connections: &[Connections]) -> Result<Program> {
        let path = match service {
            ServiceName::Coracle => existing(&self.coracle).context("build it with cargo build --release")?,
            ServiceName::Etcd => {
                let fetched = || peers::etcd_in(&peers::cache());
                existing(&self.etcd.clone().unwrap_or_else(fetched))
                    .context("get it with coracle-bench fetch-peers")?
            }
            ServiceName::ZooKeeper => existing(&self.zookeeper).context("Debian's package is zookeeper")?,
            ServiceName::Nats => existing(&self.nats).context("Debian's package is nats-server")?,
        };
        let arguments = match service {
            ServiceName::Coracle => self.coracle_arguments.clone(),
            ServiceName::Etcd | ServiceName::ZooKeeper | ServiceName::Nats => Vec::new(),
        };
        let connections = connections.to_vec();
        Ok(Program { kind: service.kind(), title: service.title().to_owned(), path, arguments, connections })
    }
}

impl ServiceName {
    const fn kind(self) -> Kind {
        match self {
            Self::Coracle => Kind::Coracle,
            Self::Etcd => Kind::Etcd,
            Self::ZooKeeper => Kind::ZooKeeper,
            Self::Nats => Kind::Nats,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Coracle => "Coracle",
            Self::Etcd => "etcd",
            Self::ZooKeeper => "ZooKeeper",
            Self::Nats => "NATS JetStream, no fsync",
        }
    }
}

fn existing(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("find {}", path.display()))
}

/// `host:port` of a plain URL, or of text that is just that.
fn host(url: &str) -> Result<String> {
    ensure!(!url.starts_with("https://"), "TLS is not measured url={url}");
    let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    ensure!(host.contains(':') && !host.contains('/'), "not a node's URL url={url}");
    Ok(host.to_owned())
}
