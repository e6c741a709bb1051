//! Eight processes, one file, one lock: holders are killed and paused, and the file stays whole.
//!
//! One program, two roles: the driver (default), which also runs the file's [`append`] service, and the `worker`.
//! README.md tells the story; [`ledger`] is the verdict.

mod append;
mod crew;
mod ledger;
mod worker;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use coracle_examples::{Cluster, flag};

use crate::append::AppendService;
use crate::crew::{Crew, Said};

const LOCK: &str = "ledger";
/// Each finished hold leaves its token here, guarded by `If-Held`.
const LAST_TOKEN: &str = "ledger/last-token";
const WORKERS: usize = 8;
/// Short, so that a dead or paused holder does not make the example long.
const TTL: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    let result = if role.as_deref() == Some("worker") { worker::run().await } else { drive().await };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAIL: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn drive() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("distributed_lock-").tempdir()?.keep();
    let plan = if flag("--short") {
        Plan { kills: 2, pauses: 2, holds: 24 }
    } else {
        Plan { kills: 8, pauses: 8, holds: 200 }
    };
    let result = play(&folder, plan).await;
    match &result {
        Ok(()) => std::fs::remove_dir_all(&folder)?,
        Err(_) => eprintln!("kept for inspection: {}", folder.display()),
    }
    result
}

#[derive(Clone, Copy)]
struct Plan {
    kills: usize,
    pauses: usize,
    /// Finished holds at the end, at least.
    holds: usize,
}

async fn play(folder: &Path, plan: Plan) -> Result<()> {
    let started = Instant::now();
    let cluster = Cluster::start(folder, &[]).await?;
    println!("cluster   {}", cluster.urls());
    let file = folder.join("ledger.txt");
    let service = AppendService::start(&file)?;
    let mut crew = Crew::start(WORKERS, &cluster.urls(), service.address())?;
    println!("workers   {WORKERS} processes append to one file under the lock {LOCK:?}, ttl {TTL:?}");

    for round in 0..plan.kills.max(plan.pauses) {
        if round < plan.kills {
            kill_a_holder(&mut crew).await?;
        }
        if round < plan.pauses {
            pause_a_holder(&mut crew).await?;
        }
    }
    while crew.finished() < plan.holds {
        crew.next().await?;
    }
    crew.stop().await?;

    let ledger = ledger::parse(&std::fs::read_to_string(&file)?)?;
    ledger.check(&crew.interrupted)?;
    println!(
        "check     {} sections, {} whole, none interleaved, tokens rise",
        ledger.sections.len(),
        ledger.whole()
    );
    check_last_token(&cluster, &crew).await?;
    println!("PASS      {:.1?}", started.elapsed());
    Ok(())
}

/// `kill -9` whoever holds the lock; another gets it, and a new worker takes the place of the dead.
async fn kill_a_holder(crew: &mut Crew) -> Result<()> {
    loop {
        let (holder, token) = crew.next_holder().await?;
        crew.kill(holder)?;
        let killed = Instant::now();
        let (next, next_token) = crew.next_holder_above(token).await?;
        let gap = killed.elapsed();
        crew.replace(holder)?;
        // The signal may have come too late to hit a holder: then it does not count.
        if !crew.has_finished(token) && gap > TTL / 2 {
            println!(
                "killed    worker {holder}, holding token {token}; worker {next} got {next_token} after {gap:.1?}"
            );
            return Ok(());
        }
    }
}

/// SIGSTOP whoever holds the lock until another has it, then SIGCONT: what the first still writes is refused.
async fn pause_a_holder(crew: &mut Crew) -> Result<()> {
    loop {
        let (holder, token) = crew.next_holder().await?;
        crew.pause(holder, token)?;
        let paused = Instant::now();
        // The next holder's first line is what raises the fence of the file.
        let (_, next_token) = crew.next_holder_above(token).await?;
        let passed_on = paused.elapsed();
        tokio::time::sleep_until((paused + TTL + TTL / 4).into()).await;
        crew.resume(holder)?;
        let pause = paused.elapsed();
        // The session was last renewed up to a third of its ttl before the signal.
        if crew.has_finished(token) || passed_on < TTL / 2 {
            continue;
        }
        println!(
            "paused    worker {holder}, holding token {token}, for {pause:.1?}: {next_token} was granted meanwhile"
        );
        if both_refuse(crew, holder, token).await? {
            return Ok(());
        }
    }
}

/// Hear how the file and the store refuse a late holder; false if it had no line left to write.
async fn both_refuse(crew: &mut Crew, holder: usize, token: u64) -> Result<bool> {
    let mut by_file = false;
    loop {
        let (worker, said) = crew.next().await?;
        if worker != holder {
            continue;
        }
        match said {
            Said::RefusedByFile { late, seen } if late == token => {
                println!("refused   by the file: append with token {late}; it has seen {seen}");
                by_file = true;
            }
            Said::RefusedByStore { late, reason } if late == token => {
                println!("refused   by the store: put with `If-Held: locks/{LOCK}; token={late}`: {reason}");
                return Ok(by_file);
            }
            Said::Finished(late) => ensure!(late != token, "the paused holder's late write went through"),
            _ => {}
        }
    }
}

/// The guarded key has the token of the last finished hold, or of one that was interrupted after it.
async fn check_last_token(cluster: &Cluster, crew: &Crew) -> Result<()> {
    let entry = cluster.client().await?.kv().get(LAST_TOKEN).await?.context("no hold left its token")?;
    let value = entry.value.context("a key without a value")?;
    let stored: u64 = value.as_str().context("not text")?.parse()?;
    let last = crew.last_finished();
    let fits = stored == last || (stored > last && crew.interrupted.contains(&stored));
    ensure!(fits, "the guarded key has token {stored}, the last finished hold had {last}");
    println!("check     the key guarded by If-Held has the last token, {stored}");
    Ok(())
}
