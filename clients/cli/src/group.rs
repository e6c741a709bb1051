//! `group`: be a member, look who is there.

use clap::Subcommand;
use coracle_client::api::{Group as Shown, Span, Value};

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::{CLAIM_LOST, Failure, WAIT_RAN_OUT};
use crate::lock_run::Signals;
use crate::output::Format;

#[derive(Debug, Subcommand)]
pub enum Group {
    /// Be a member of a group until interrupted
    #[command(after_help = "Example:\n  coracle group join workers w1 --payload 10.0.0.7:8080")]
    Join {
        group: String,
        id: String,
        /// What it says of itself, at most 4 KiB
        #[arg(long, value_name = "TEXT", default_value = "")]
        payload: String,
        /// How long it stays when this process is gone
        #[arg(long, value_name = "DURATION", default_value = "15s")]
        ttl: Span,
    },
    /// List groups
    #[command(after_help = "Example:\n  coracle group ls -o ndjson")]
    Ls {
        /// Only names that begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Who is in a group
    #[command(after_help = "Examples:\n  coracle group show workers\n  \
                            coracle group show workers --min 3 --wait 1m      once three are there\n  \
                            coracle group show workers --slots 16             and whose share is what")]
    Show {
        group: String,
        /// Wait until so many are there
        #[arg(long, requires = "wait", conflicts_with = "slots")]
        min: Option<u64>,
        /// How long to wait for them
        #[arg(long, value_name = "DURATION", requires = "min")]
        wait: Option<Span>,
        /// Divide so many slots among them
        #[arg(long)]
        slots: Option<u64>,
    },
    /// Take a member out
    #[command(after_help = "Example:\n  coracle group rm workers w1")]
    Rm { group: String, id: String },
}

pub async fn run(connection: &Connection, group: Group) -> Result<(), Failure> {
    match group {
        Group::Join { group, id, payload, ttl } => {
            let client = connection.client_for_many_calls()?;
            let signals = Signals::new()?;
            let join =
                client.group(&group).join(id.as_str()).payload(Value::untyped(payload)).ttl(ttl.into());
            let membership = join.start().await?;
            if let Some(joined) = membership.joined() {
                let fields = [("view", joined.view.to_string()), ("size", joined.size.to_string())];
                connection.output().item(&joined, &fields)?;
            }
            let (group, id) = (readable(group.as_bytes()), readable(id.as_bytes()));
            eprintln!("coracle: a member until interrupted group={group} id={id}");
            let mut ups_and_downs = membership.changes();
            loop {
                tokio::select! {
                    () = signals.stop() => break,
                    () = membership.removed() => {
                        eprintln!("coracle: taken out of the group group={group} id={id}");
                        return Err(Failure::Exit(CLAIM_LOST));
                    }
                    changed = ups_and_downs.changed() => {
                        let now = ups_and_downs.borrow_and_update().is_some();
                        match changed {
                            Ok(()) if now => eprintln!("coracle: a member again group={group} id={id}"),
                            Ok(()) => eprintln!("coracle: no member any more, coming back group={group} id={id}"),
                            Err(_) => break,
                        }
                    }
                }
            }
            Ok(membership.leave().await?)
        }
        Group::Ls { prefix } => {
            let groups = connection.client()?.groups().list(&prefix).await?;
            connection.output().list(&groups, &["GROUP", "SIZE", "VIEW"], |group| {
                vec![readable(group.name.as_bytes()), group.size.to_string(), group.view.to_string()]
            })
        }
        Group::Show { group, min, wait, slots } => {
            let group = connection.client()?.group(&group);
            let shown = match (min, wait, slots) {
                (Some(min), Some(wait), _) => {
                    let Some(shown) = group.wait_for(min, wait.into()).await? else {
                        eprintln!("coracle: they are not there in time min={min}");
                        return Err(Failure::Exit(WAIT_RAN_OUT));
                    };
                    shown
                }
                (.., Some(slots)) => group.shares(slots).await?,
                _ => group.show().await?,
            };
            show(connection, &shown)
        }
        Group::Rm { group, id } => {
            let left = connection.client()?.group(&group).remove(&id).await?;
            connection.output().item(&left, &[("deleted", left.deleted.to_string())])
        }
    }
}

fn show(connection: &Connection, group: &Shown) -> Result<(), Failure> {
    let output = connection.output();
    if output.format() != Format::Table {
        return output.item(group, &[("size", group.size.to_string())]);
    }
    let members = group.members.as_deref().unwrap_or_default();
    output.list(members, &["MEMBER", "SINCE", "PROGRESS", "SLOTS", "PAYLOAD"], |member| {
        let slots: Vec<String> = member.slots.iter().flatten().map(u64::to_string).collect();
        vec![
            readable(member.id.as_bytes()),
            member.since.to_string(),
            member.progress.map(|done| format!("{done}%")).unwrap_or_default(),
            slots.join(" "),
            readable(&member.payload.bytes),
        ]
    })
}
