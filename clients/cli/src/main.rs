//! The one binary of Coracle: the server and the command line.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: `exit.rs`.

mod args;
mod barrier;
mod bench;
mod bytes_arg;
mod child;
mod claim;
mod cluster;
mod connection;
mod counter;
mod dev;
mod election;
mod events;
mod exit;
mod export;
mod fence;
mod files;
mod group;
mod import;
mod kv;
mod kv_edit;
mod kv_list;
mod kv_watch;
mod latch;
mod lock;
mod lock_run;
mod output;
mod progress;
mod queue;
mod queue_work;
mod semaphore;
mod serve;
mod service;
mod service_run;
mod session;
mod subscription;
mod topic;
mod txn;
mod upkeep;
mod value_arg;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Args, Command};
use crate::exit::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let Args { connection, command } = args;
    match command {
        Command::Serve(serve) => serve::run(&serve),
        Command::Exec(exec) => Err(child::become_command(&exec)),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "coracle", &mut script);
            Ok(std::io::stdout().write_all(&script)?)
        }
        command => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let result = runtime.block_on(async {
                match command {
                    Command::Dev(dev) => dev::run(dev).await,
                    Command::Kv(kv) => kv::run(&connection, kv).await,
                    Command::Lock(lock) => lock::run(&connection, lock).await,
                    Command::Semaphore(semaphore) => semaphore::run(&connection, semaphore).await,
                    Command::Elect(elect) => election::elect(&connection, elect).await,
                    Command::Election(election) => election::run(&connection, election).await,
                    Command::Queue(queue) => queue::run(&connection, queue).await,
                    Command::Barrier(barrier) => barrier::run(&connection, barrier).await,
                    Command::Latch(latch) => latch::run(&connection, latch).await,
                    Command::Counter(counter) => counter::run(&connection, counter).await,
                    Command::Group(group) => group::run(&connection, group).await,
                    Command::Fence(fence) => fence::run(&connection, fence).await,
                    Command::Service(service) => service::run(&connection, service).await,
                    Command::Topic(topic) => topic::run(&connection, topic).await,
                    Command::Session(session) => session::run(&connection, session).await,
                    Command::Txn(txn) => txn::run(&connection, txn).await,
                    Command::Events(events) => events::run(&connection, events).await,
                    Command::Cluster(cluster) => cluster::run(&connection, cluster).await,
                    Command::Compact(compact) => upkeep::compact(&connection, compact).await,
                    Command::Hash => upkeep::hash(&connection).await,
                    Command::Bench(bench) => bench::run(&connection, bench).await,
                    Command::Version => cluster::version(&connection).await,
                    Command::Serve(_) | Command::Exec(_) | Command::Completion { .. } => unreachable!(),
                }
            });
            // A blocked read of stdin must not keep the process alive.
            runtime.shutdown_background();
            result
        }
    }
}
