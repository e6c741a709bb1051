//! Commands around a service: one that is an instance, and one that is run at each change.

use std::ffi::OsString;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use coracle_client::api::{Instance, ServiceInstances};
use coracle_client::{RegistrationEnd, RegistrationState, Seen, Service, Update};
use futures::StreamExt;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::child;
use crate::exit::{CLAIM_LOST, Failure};
use crate::lock_run::{Signals, give_terminal};

/// Register an instance for as long as the command runs, or until interrupted. A signal to stop deregisters it first; the
/// command gets the signal `linger` later.
pub async fn register(
    service: &Service,
    name: &str,
    instance: coracle_client::Instance,
    argv: &[OsString],
    linger: Duration,
) -> Result<(), Failure> {
    let signals = Signals::new()?;
    let registration = service.register(instance).await?;
    eprintln!("coracle: registered service={name} id={}", registration.id());
    let mut states = Box::pin(registration.states().skip(1));
    let mut process = match argv {
        [] => None,
        argv => Some(Child::start(name, registration.id(), argv)?),
    };
    let mut ended = None;
    let stop = loop {
        tokio::select! {
            exit = exited(&mut process) => break Stop::Exit(exit?),
            signal = signals.next() => match (&process, signal) {
                (_, Signal::INT | Signal::TERM | Signal::HUP | Signal::QUIT) => break Stop::Signal(signal),
                (Some(child), other) => child.signal(other),
                (None, _) => {}
            },
            Some(state) = states.next() => {
                tell(state);
                if let RegistrationState::Ended(end) = state {
                    ended = Some(end);
                    if process.is_none() {
                        break Stop::Exit(if end == RegistrationEnd::Replaced { CLAIM_LOST } else { 0 });
                    }
                }
            }
        }
    };
    drop(states);
    let farewell = async {
        match ended {
            None => registration.deregister().await,
            Some(_) => Ok(()),
        }
    };
    let code = match stop {
        Stop::Exit(code) => {
            farewell.await?;
            code
        }
        Stop::Signal(signal) => {
            // Nobody answers: the ttl will tell. What we were asked to do is to stop.
            match tokio::time::timeout(FAREWELL, farewell).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("coracle: {error}"),
                Err(_) => eprintln!("coracle: could not be deregistered in time"),
            }
            match &mut process {
                None => 0,
                Some(child) => child.stop(signal, linger, &signals).await?,
            }
        }
    };
    if code == 0 { Ok(()) } else { Err(Failure::Exit(code)) }
}

/// Longest farewell of one who was told to stop.
const FAREWELL: Duration = Duration::from_secs(3);

enum Stop {
    Exit(u8),
    Signal(Signal),
}

/// The command that is the instance.
struct Child {
    process: tokio::process::Child,
    group: Pid,
}

impl Child {
    fn start(service: &str, id: &str, argv: &[OsString]) -> Result<Self, Failure> {
        let mut command = Command::from(child::command(Signal::TERM, argv)?);
        command.env("CORACLE_SERVICE_NAME", service).env("CORACLE_SERVICE_ID", id);
        let process = command.kill_on_drop(true).spawn()?;
        let group = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = group.ok_or_else(|| Failure::Other("the command has no process id".into()))?;
        give_terminal(group);
        Ok(Self { process, group })
    }

    fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = kill_process_group(self.group, signal);
    }

    /// Pass the signal on when the time is over, or another signal comes; wait for the end.
    async fn stop(&mut self, signal: Signal, linger: Duration, signals: &Signals) -> Result<u8, Failure> {
        tokio::select! {
            exit = self.process.wait() => return Ok(child::exit_code(exit?)),
            _ = signals.next() => {}
            () = tokio::time::sleep(linger) => {}
        }
        self.signal(signal);
        loop {
            tokio::select! {
                exit = self.process.wait() => return Ok(child::exit_code(exit?)),
                another = signals.next() => self.signal(another),
            }
        }
    }
}

async fn exited(child: &mut Option<Child>) -> Result<u8, Failure> {
    match child {
        Some(child) => Ok(child::exit_code(child.process.wait().await?)),
        None => std::future::pending().await,
    }
}

fn tell(state: RegistrationState) {
    let text = match state {
        RegistrationState::Registered => "registered",
        RegistrationState::Draining => "somebody drains this instance: it is picked no more",
        RegistrationState::Suspended => "the registration could not be renewed, trying again",
        RegistrationState::Ended(RegistrationEnd::Drained) => "drained",
        RegistrationState::Ended(RegistrationEnd::Deregistered) => "deregistered by somebody else",
        RegistrationState::Ended(RegistrationEnd::Replaced) => "somebody else has registered this id",
    };
    eprintln!("coracle: {text}");
}

/// Print the instances to call, or run a command with them, at the beginning and at each change.
pub async fn watch(service: Service, name: &str, all: bool, argv: &[OsString]) -> Result<(), Failure> {
    let mut watch = service.watch().from_snapshot();
    let mut seen = Seen::default();
    let mut told: Option<Vec<Instance>> = None;
    loop {
        // Whatever came while the command ran is one change.
        let mut look = false;
        let mut next = watch.next().await;
        while let Some(update) = next {
            let update = update?;
            match &update {
                Update::Reconnecting { detail } => eprintln!("coracle: reconnecting: {detail}"),
                Update::Gap { from, to } => {
                    eprintln!("coracle: changes {from}..={to} are gone, starting anew");
                }
                _ => {}
            }
            // With the settings, who is to be called may change without any instance.
            look |= seen.update(&update)? || matches!(update, Update::Change { .. } | Update::Synced { .. });
            next = futures::FutureExt::now_or_never(watch.next()).flatten();
        }
        if !look {
            continue;
        }
        let items = if all { seen.instances().cloned().collect() } else { to_call(&service).await? };
        let matter: Vec<Instance> = items.iter().map(what_matters).collect();
        if told.as_ref() != Some(&matter) {
            if argv.is_empty() {
                crate::output::line(&mut std::io::stdout().lock(), &items)?;
            } else {
                execute(name, &items, argv).await?;
            }
            told = Some(matter);
        }
    }
}

/// An instance without what changes all the time and makes no difference to its callers.
fn what_matters(instance: &Instance) -> Instance {
    Instance {
        generation: 0,
        load: None,
        session: None,
        ttl: None,
        valid_for: None,
        up_since: None,
        ..instance.clone()
    }
}

/// Who is to be called: asked for, because the server knows what protects the service. Nobody, if there is no service.
async fn to_call(service: &Service) -> Result<Vec<Instance>, Failure> {
    match service.healthy().await {
        Ok(ServiceInstances { items, .. }) => Ok(items),
        Err(error) if error.code() == Some(coracle_client::api::Code::ServiceNotFound) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Run the command to its end. That it fails is its own business: the next change is the next attempt.
async fn execute(name: &str, items: &[Instance], argv: &[OsString]) -> Result<(), Failure> {
    let addresses: Vec<String> = items.iter().map(Instance::authority).collect();
    let mut command = Command::from(child::command(Signal::TERM, argv)?);
    let mut process = command
        .env("CORACLE_SERVICE_NAME", name)
        .env("CORACLE_SERVICE_ADDRESSES", addresses.join(" "))
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = process.stdin.take() {
        let mut json = serde_json::to_vec(items)?;
        writeln!(json)?;
        // A command that does not read it does not want it.
        let _ = stdin.write_all(&json).await;
    }
    let status = process.wait().await?;
    if !status.success() {
        eprintln!("coracle: the command failed code={}", child::exit_code(status));
    }
    Ok(())
}
