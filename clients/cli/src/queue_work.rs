//! `queue work`: a command for each message, as many at once as asked for.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use coracle_client::api::Span;
use coracle_client::{Job, Nack, Queue};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::child;
use crate::connection::Connection;
use crate::exit::Failure;
use crate::lock_run::Signals;

pub const EXAMPLES: &str = "Examples:
  coracle queue work mail -- ./deliver.sh
  coracle queue work mail --parallel 4 --visibility 1m -- ./deliver.sh
  coracle queue work mail --once -- cat            one message, then end

The command gets the message on its standard input, and CORACLE_QUEUE, CORACLE_MESSAGE_ID, CORACLE_DELIVERIES and
CORACLE_RECEIPT. It exits with 0: acknowledged. 75 (a failure that passes): given back, after --retry-delay. Anything
else: given back, and it counts towards the queue's max_deliveries. As long as it runs the delivery is renewed; if it is
lost nevertheless, the command gets SIGKILL. Ctrl-C waits for those that run; a second one kills them and gives their
messages back, uncounted.";

/// What a command exits with to say: try again later. (`EX_TEMPFAIL` of sysexits.)
const TRY_LATER: u8 = 75;

#[derive(Debug, clap::Args)]
pub struct Work {
    queue: String,
    /// How many messages are worked on at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    parallel: u32,
    /// How long a delivery is nobody else's; renewed while the command runs [default: that of the queue]
    #[arg(long, value_name = "DURATION")]
    visibility: Option<Span>,
    /// How long a message stays away after exit code 75
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    retry_delay: Span,
    /// End after one message
    #[arg(long)]
    once: bool,
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub async fn run(connection: &Connection, work: Work) -> Result<(), Failure> {
    let queue = connection.client_for_many_calls()?.queue(&work.queue);
    let signals = Signals::new()?;
    let mut crew = Crew { running: JoinSet::new(), stop: watch::Sender::new(false) };
    let parallel = if work.once { 1 } else { work.parallel as usize };
    loop {
        while crew.running.len() >= parallel {
            tokio::select! {
                Some(ended) = crew.running.join_next() => told(ended)?,
                () = signals.stop() => return crew.wind_up(&signals).await,
            }
        }
        let mut receive = queue.receive().wait(Duration::from_secs(20));
        if let Some(visibility) = work.visibility {
            receive = receive.visibility(visibility.into());
        }
        let jobs = tokio::select! {
            biased;
            () = signals.stop() => return crew.wind_up(&signals).await,
            Some(ended) = crew.running.join_next() => { told(ended)?; continue }
            jobs = receive => jobs?,
        };
        for job in jobs {
            let (queue, argv, delay) = (queue.clone(), work.command.clone(), work.retry_delay);
            let stop = crew.stop.subscribe();
            crew.running.spawn(async move { one(&queue, job, &argv, delay.into(), stop).await });
            if work.once {
                return crew.wind_up(&signals).await;
            }
        }
    }
}

/// The commands that run.
struct Crew {
    running: JoinSet<Result<(), Failure>>,
    /// True: give back what is being worked on.
    stop: watch::Sender<bool>,
}

impl Crew {
    /// Wait for what still runs; at a signal no longer.
    async fn wind_up(mut self, signals: &Signals) -> Result<(), Failure> {
        loop {
            tokio::select! {
                ended = self.running.join_next() => match ended {
                    Some(ended) => told(ended)?,
                    None if *self.stop.borrow() => return Err(Failure::Exit(130)),
                    None => return Ok(()),
                },
                () = signals.stop() => drop(self.stop.send_replace(true)),
            }
        }
    }
}

fn told(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    ended.map_err(|error| Failure::Other(error.to_string()))?
}

/// Work on one message. Only what makes further work senseless is a failure.
async fn one(
    queue: &Queue,
    job: Job,
    argv: &[OsString],
    delay: Duration,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let id = job.message().id.clone();
    let mut command = tokio::process::Command::from(child::command(Signal::KILL, argv)?);
    command
        .env("CORACLE_QUEUE", queue.name())
        .env("CORACLE_MESSAGE_ID", &id)
        .env("CORACLE_DELIVERIES", job.message().deliveries.to_string())
        .env("CORACLE_RECEIPT", job.receipt())
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    let mut process = command.spawn()?;
    if let Some(mut input) = process.stdin.take() {
        let bytes = job.message().value.bytes.clone();
        // A command that does not read its input is its own business.
        tokio::spawn(async move { input.write_all(&bytes).await });
    }
    let status = tokio::select! {
        status = process.wait() => status?,
        reason = job.lost() => {
            eprintln!("coracle: delivery lost, killing the command: {reason} message={id}");
            let _ = process.kill().await;
            return Ok(());
        }
        () = async { drop(stop.wait_for(|stop| *stop).await) } => {
            let _ = process.kill().await;
            let reason = Some("the worker was stopped".to_owned());
            let stopped = Nack { uncounted: true, delay: Some(Duration::ZERO), reason, ..Nack::default() };
            if let Err(error) = job.nack(&stopped).await {
                eprintln!("coracle: {error} message={id}");
            }
            return Ok(());
        }
    };
    let code = child::exit_code(status);
    let settled = match code {
        0 => job.ack().await,
        TRY_LATER => job.nack(&Nack { delay: Some(delay), ..given_back(code) }).await,
        _ => job.nack(&given_back(code)).await,
    };
    if let Err(error) = settled {
        eprintln!("coracle: {error} message={id}");
    }
    Ok(())
}

fn given_back(code: u8) -> Nack {
    Nack { reason: Some(format!("exit code {code}")), ..Nack::default() }
}
