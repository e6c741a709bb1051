//! `session`: look, close, open.

use clap::Subcommand;
use coracle_client::api::{OnExpire, SessionCreate, SessionId, Span};

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::{CLAIM_LOST, Failure};
use crate::lock_run::Signals;

#[derive(Debug, Subcommand)]
pub enum Session {
    /// List sessions
    #[command(after_help = "Example:\n  coracle session ls")]
    Ls,
    /// Show a session: what it holds, what it waits for, its keys
    #[command(after_help = "Example:\n  coracle session show 7587d8aa00000001")]
    Show { id: SessionId },
    /// Close a session: everything it holds is released
    #[command(after_help = "Example:\n  coracle session rm 7587d8aa00000001")]
    Rm { id: SessionId },
    /// Open a session
    #[command(after_help = "Examples:\n  coracle session new --ttl 5m --name batch -o raw\n  \
                            coracle session new --hold            renewed until Ctrl-C, then closed")]
    New(New),
}

#[derive(Debug, clap::Args)]
pub struct New {
    /// How long it outlives its last renewal [default: that of the server]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<Span>,
    /// Who, for those who look
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// What its end does to its keys [default: that of the server]
    #[arg(long, value_enum)]
    on_expire: Option<KeysAtTheEnd>,
    /// Renew it until interrupted, then close it
    #[arg(long)]
    hold: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KeysAtTheEnd {
    /// They stay
    Release,
    /// They are deleted
    Delete,
}

impl From<KeysAtTheEnd> for OnExpire {
    fn from(keys: KeysAtTheEnd) -> Self {
        match keys {
            KeysAtTheEnd::Release => OnExpire::Release,
            KeysAtTheEnd::Delete => OnExpire::Delete,
        }
    }
}

pub async fn run(connection: &Connection, session: Session) -> Result<(), Failure> {
    match session {
        Session::Ls => list(connection).await,
        Session::Show { id } => show(connection, id).await,
        Session::Rm { id } => {
            let closed = connection.client()?.sessions().close(id).await?;
            let fields =
                [("released", closed.released.len().to_string()), ("revision", closed.revision.to_string())];
            connection.output().item(&closed, &fields)
        }
        Session::New(new) => open(connection, new).await,
    }
}

async fn list(connection: &Connection) -> Result<(), Failure> {
    let sessions = connection.client()?.sessions().list().await?;
    connection.output().list(
        &sessions,
        &["SESSION", "STATE", "TTL", "LEFT", "HOLDS", "WAITS", "KEYS", "NAME"],
        |s| {
            vec![
                s.id.to_string(),
                format!("{:?}", s.state).to_lowercase(),
                s.ttl.to_string(),
                s.valid_for.map(|left| left.to_string()).unwrap_or_default(),
                s.holds.len().to_string(),
                s.waits.len().to_string(),
                s.keys.len().to_string(),
                s.name.as_deref().map(|name| readable(name.as_bytes())).unwrap_or_default(),
            ]
        },
    )
}

async fn show(connection: &Connection, id: SessionId) -> Result<(), Failure> {
    let session = connection.client()?.sessions().show(id).await?;
    let mut fields = vec![
        ("session", session.id.to_string()),
        ("name", session.name.as_deref().map(|name| readable(name.as_bytes())).unwrap_or_default()),
        ("state", format!("{:?}", session.state).to_lowercase()),
        ("ttl", session.ttl.to_string()),
        ("left", session.valid_for.map(|left| left.to_string()).unwrap_or_default()),
    ];
    if let Some(progress) = &session.progress {
        let note = progress.note.as_deref().map(|note| readable(note.as_bytes())).unwrap_or_default();
        fields.push(("progress", format!("{}% {note}", progress.percent)));
    }
    let name = |family: &str, name: &str| format!("{family}/{}", readable(name.as_bytes()));
    fields.extend(
        session.holds.iter().map(|h| ("holds", format!("{} token={}", name(&h.family, &h.name), h.token))),
    );
    let waits = session.waits.iter();
    fields.extend(waits.map(|w| ("waits", format!("{} position={}", name(&w.family, &w.name), w.position))));
    fields.extend(session.keys.iter().map(|key| ("key", readable(key.as_bytes()))));
    connection.output().item(&session, &fields)
}

async fn open(connection: &Connection, new: New) -> Result<(), Failure> {
    let client = connection.client()?;
    let create = SessionCreate {
        ttl: new.ttl,
        name: new.name,
        on_expire: new.on_expire.map(Into::into),
        ..SessionCreate::default()
    };
    let signals = Signals::new()?;
    let created = client.sessions().create(&create).await?;
    let fields = [("session", created.id.to_string()), ("ttl", created.ttl.to_string())];
    connection.output().item(&created, &fields)?;
    if !new.hold {
        return Ok(());
    }
    let session = client.sessions().attach(created.id).await?;
    eprintln!("coracle: renewed until interrupted session={}", session.id());
    tokio::select! {
        reason = session.lost() => {
            eprintln!("coracle: session lost: {reason}");
            Err(Failure::Exit(CLAIM_LOST))
        }
        () = signals.stop() => Ok(session.close().await?),
    }
}
