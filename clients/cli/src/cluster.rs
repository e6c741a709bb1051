//! `cluster`: status, members, health; and `version`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::Subcommand;
use coracle_client::Coracle;
use coracle_client::api::{Cluster as Status, Member, MemberAdd};
use serde::Serialize;
use serde_json::json;

use crate::connection::Connection;
use crate::exit::{Failure, NOT_FOUND, UNAVAILABLE};

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// The cluster as the answering node sees it
    #[command(after_help = "Example:\n  coracle cluster status")]
    Status,
    /// List members
    #[command(after_help = "Example:\n  coracle cluster members")]
    Members,
    /// Admit a node as a learner; then start it with `serve --join` or the printed answer
    #[command(
        after_help = "Example:\n  coracle cluster join n4 --peer 10.0.0.4:7071 --client-url http://10.0.0.4:7070"
    )]
    Join {
        name: String,
        /// Where the other nodes reach it
        #[arg(long, value_name = "HOST:PORT")]
        peer: String,
        /// Where clients reach it
        #[arg(long, value_name = "URL")]
        client_url: String,
    },
    /// Remove a member for good
    #[command(after_help = "Example:\n  coracle cluster remove n4")]
    Remove {
        /// Id or name
        member: String,
    },
    /// Make a learner a voter
    #[command(after_help = "Example:\n  coracle cluster promote n4")]
    Promote {
        /// Id or name
        member: String,
    },
    /// Make a voter the leader
    #[command(after_help = "Example:\n  coracle cluster transfer n2")]
    Transfer {
        /// Id or name
        member: String,
    },
    /// Ask every member whether it serves; exit code 5 if one does not
    #[command(after_help = "Example:\n  coracle cluster health -o json")]
    Health,
}

pub async fn run(connection: &Connection, cluster: Cluster) -> Result<(), Failure> {
    match cluster {
        Cluster::Status => status(connection).await,
        Cluster::Members => {
            let members = connection.client()?.cluster().members().await?;
            show_members(connection, &members)
        }
        Cluster::Join { name, peer, client_url } => {
            let added = connection.client()?.cluster().add(&MemberAdd { name, peer, client_url }).await?;
            connection
                .output()
                .item(&added, &[("id", added.id.clone()), ("cluster", added.cluster_id.clone())])
        }
        Cluster::Remove { member } => {
            let client = connection.client()?;
            let id = find(connection, &client, &member).await?;
            client.cluster().remove(&id).await?;
            connection.output().item(&json!({"removed": id}), &[("removed", id.clone())])
        }
        Cluster::Promote { member } => {
            let client = connection.client()?;
            let id = find(connection, &client, &member).await?;
            client.cluster().promote(&id).await?;
            connection.output().item(&json!({"promoted": id}), &[("promoted", id.clone())])
        }
        Cluster::Transfer { member } => {
            let client = connection.client()?;
            let id = find(connection, &client, &member).await?;
            client.cluster().transfer(&id).await?;
            connection.output().item(&json!({"leader": id}), &[("leader", id.clone())])
        }
        Cluster::Health => health(connection).await,
    }
}

/// The id of a member named by id or by name.
async fn find(connection: &Connection, client: &Coracle, named: &str) -> Result<String, Failure> {
    if connection.curl {
        // One curl command has no room for the look-up.
        let is_id = !named.is_empty() && named.bytes().all(|b| b.is_ascii_digit());
        let why = "there is no curl command for a member by its name; `coracle cluster members` tells its id";
        return if is_id { Ok(named.to_owned()) } else { Err(Failure::Usage(why.into())) };
    }
    let members = client.cluster().members().await?;
    let member = members.iter().find(|m| m.id == named).or_else(|| members.iter().find(|m| m.name == named));
    member.map(|member| member.id.clone()).ok_or_else(|| {
        eprintln!("coracle: no such member member={named:?}");
        Failure::Exit(NOT_FOUND)
    })
}

async fn status(connection: &Connection) -> Result<(), Failure> {
    let status = connection.client()?.cluster().status().await?;
    let fields = [
        ("cluster", status.cluster_id.clone()),
        ("answered by", format!("{} (member {}, {})", status.name, status.member_id, lower(&status.role))),
        ("leader", status.leader.clone().unwrap_or_else(|| "none".to_owned())),
        ("term", status.term.to_string()),
        ("revision", status.revision.to_string()),
        ("compact revision", status.compact_revision.to_string()),
        ("applied index", status.applied_index.to_string()),
        ("epoch", status.epoch.to_string()),
        ("state hash", status.state_hash.clone().unwrap_or_default()),
        ("version", status.version.clone()),
    ];
    connection.output().item(&status, &fields)
}

fn show_members(connection: &Connection, members: &[Member]) -> Result<(), Failure> {
    connection.output().list(members, &["ID", "NAME", "ROLE", "LEADER", "STATE", "CLIENTS", "PEERS"], |m| {
        let leader = if m.leader { "leader" } else { "" };
        vec![
            m.id.clone(),
            m.name.clone(),
            lower(&m.role),
            leader.to_owned(),
            lower(&m.state),
            m.client_url.clone(),
            m.peer.clone(),
        ]
    })
}

fn lower(word: &impl std::fmt::Debug) -> String {
    format!("{word:?}").to_lowercase()
}

#[derive(Serialize)]
struct Health {
    name: String,
    /// Empty if nobody told how clients reach the member.
    url: String,
    ready: bool,
    /// What is wrong, if something is.
    problem: Option<String>,
    milliseconds: u64,
    revision: Option<u64>,
    leader: Option<String>,
}

/// Every URL we know, from the command line and from the members, is asked; a member none of them leads to
/// is not healthy as far as we can tell.
async fn health(connection: &Connection) -> Result<(), Failure> {
    let members = connection.client_for_many_calls()?.cluster().members().await?;
    let told = members.iter().map(|member| member.client_url.trim_end_matches('/'));
    let given = connection.url.split(',').map(|url| url.trim().trim_end_matches('/'));
    let urls: BTreeSet<&str> = told.chain(given).filter(|url| !url.is_empty()).collect();
    let asked = futures::future::join_all(urls.into_iter().map(|url| ask(connection, url))).await;

    let mut healths = Vec::new();
    for member in &members {
        let by_id =
            asked.iter().find(|a| a.status.as_ref().is_ok_and(|status| status.member_id == member.id));
        let by_url =
            || asked.iter().find(|a| !a.url.is_empty() && a.url == member.client_url.trim_end_matches('/'));
        healths.push(match by_id.or_else(by_url) {
            Some(asked) => asked.health(&member.name),
            None => Health {
                name: member.name.clone(),
                url: String::new(),
                ready: false,
                problem: Some("no URL leads to it".to_owned()),
                milliseconds: 0,
                revision: None,
                leader: None,
            },
        });
    }
    connection.output().list(
        &healths,
        &["NAME", "READY", "MS", "REVISION", "LEADER", "URL", "PROBLEM"],
        |h| {
            vec![
                h.name.clone(),
                h.ready.to_string(),
                h.milliseconds.to_string(),
                h.revision.map(|revision| revision.to_string()).unwrap_or_default(),
                h.leader.clone().unwrap_or_default(),
                h.url.clone(),
                h.problem.clone().unwrap_or_default(),
            ]
        },
    )?;
    if healths.iter().all(|health| health.ready) { Ok(()) } else { Err(Failure::Exit(UNAVAILABLE)) }
}

/// What one URL answered.
struct Asked {
    url: String,
    milliseconds: u64,
    status: Result<Status, String>,
    /// What keeps it from serving.
    unready: Option<String>,
}

impl Asked {
    fn health(&self, name: &str) -> Health {
        let status = self.status.as_ref();
        Health {
            name: name.to_owned(),
            url: self.url.clone(),
            ready: self.unready.is_none(),
            problem: self.unready.clone(),
            milliseconds: self.milliseconds,
            revision: status.ok().map(|status| status.revision),
            leader: status.ok().and_then(|status| status.leader.clone()),
        }
    }
}

async fn ask(connection: &Connection, url: &str) -> Asked {
    let start = Instant::now();
    let client = match connection.client_of(url, Duration::from_secs(3)) {
        Ok(client) => client,
        Err(failure) => {
            let problem = format!("{failure:?}");
            return Asked {
                url: url.to_owned(),
                milliseconds: 0,
                status: Err(problem.clone()),
                unready: Some(problem),
            };
        }
    };
    let unready = client.ready().await.err().map(|error| error.to_string());
    let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let status = client.cluster().status().await.map_err(|error| error.to_string());
    Asked { url: url.to_owned(), milliseconds, status, unready }
}

/// Our version, and that of the node that answers, if one does.
pub async fn version(connection: &Connection) -> Result<(), Failure> {
    let ours = env!("CARGO_PKG_VERSION");
    let client = connection.client_of(&connection.url, Duration::from_secs(2))?;
    let (server, reason) = match client.version().await {
        Ok(version) => (Some(version.version), None),
        Err(shown @ coracle_client::Error::Shown(_)) => return Err(shown.into()),
        Err(error) => (None, Some(error.to_string())),
    };
    let shown = server.clone().unwrap_or_else(|| format!("unknown ({})", reason.unwrap_or_default()));
    let fields = [("client", ours.to_owned()), ("server", shown)];
    connection.output().item(&json!({"client": ours, "server": server}), &fields)
}
