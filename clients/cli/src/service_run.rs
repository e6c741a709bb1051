//! Commands around a service: one that is an instance, and one that is run at each change.

use std::ffi::OsString;
use std::io::Write;
use std::process::Stdio;

use coracle_client::api::{Instance, ServiceInstances};
use coracle_client::{RegistrationEnd, RegistrationState, Seen, Service, Update};
use futures::StreamExt;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::child;
use crate::exit::{CLAIM_LOST, Failure};
use crate::lock_run::{Signals, give_terminal};

/// Register an instance for as long as the command runs, or until interrupted.
pub async fn register(
    service: &Service,
    name: &str,
    instance: coracle_client::Instance,
    argv: &[OsString],
) -> Result<(), Failure> {
    let signals = Signals::new()?;
    let registration = service.register(instance).await?;
    eprintln!("coracle: registered service={name} id={}", registration.id());
    let mut states = Box::pin(registration.states().skip(1));
    let mut ended = None;
    let mut process = match argv {
        [] => None,
        argv => {
            let mut command = Command::from(child::command(Signal::TERM, argv)?);
            command.env("CORACLE_SERVICE_NAME", name).env("CORACLE_SERVICE_ID", registration.id());
            let process = command.kill_on_drop(true).spawn()?;
            let group = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
            let group = group.ok_or_else(|| Failure::Other("the command has no process id".into()))?;
            give_terminal(group);
            Some((process, group))
        }
    };
    let code = loop {
        let exited = async {
            match &mut process {
                Some((process, _)) => process.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            exit = exited => break child::exit_code(exit?),
            signal = signals.next() => match &process {
                Some((_, group)) => drop(kill_process_group(*group, signal)),
                None if matches!(signal, Signal::USR1 | Signal::USR2) => {}
                None => break 0,
            },
            Some(state) = states.next() => {
                tell(state);
                if let RegistrationState::Ended(end) = state {
                    ended = Some(end);
                    if process.is_none() {
                        break if end == RegistrationEnd::Replaced { CLAIM_LOST } else { 0 };
                    }
                }
            }
        }
    };
    if ended.is_none() {
        registration.deregister().await?;
    }
    if code == 0 { Ok(()) } else { Err(Failure::Exit(code)) }
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
