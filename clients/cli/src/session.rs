//! `session`: look, close, open.

use clap::Subcommand;
use coracle_client::api::{OnExpire, Progress, SessionCreate, SessionId, SessionState, Span};
use futures::StreamExt as _;

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::{CLAIM_LOST, Failure};
use crate::lock_run::Signals;

#[derive(Debug, Subcommand)]
pub enum Session {
    /// List sessions
    #[command(after_help = "Example:\n  coracle session ls")]
    Ls,
    /// Show a session: what it holds, what it waits for, what else lives with it
    #[command(after_help = "Example:\n  coracle session show 7587d8aa00000001")]
    Show { id: SessionId },
    /// Close a session: everything it holds is released
    #[command(after_help = "Example:\n  coracle session rm 7587d8aa00000001")]
    Rm { id: SessionId },
    /// Renew a session once; with --progress, say how far its work has come
    #[command(after_help = "Examples:\n  coracle session renew 7587d8aa00000001\n  \
                            coracle session renew 7587d8aa00000001 --progress 40 --note indexing")]
    Renew(Renew),
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
    /// It counts as stalled if its progress does not move for so long
    #[arg(long, value_name = "DURATION")]
    stall_after: Option<Span>,
    /// After it expired, nobody gets its locks for so long
    #[arg(long, value_name = "DURATION")]
    lock_delay: Option<Span>,
    /// Renew it until interrupted, then close it
    #[arg(long)]
    hold: bool,
}

#[derive(Debug, clap::Args)]
pub struct Renew {
    id: SessionId,
    /// How far the work has come, 0 to 100
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    progress: Option<u8>,
    /// A word on it
    #[arg(long, value_name = "TEXT", requires = "progress")]
    note: Option<String>,
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
        Session::Renew(renewal) => renew(connection, renewal).await,
        Session::New(new) => open(connection, new).await,
    }
}

async fn list(connection: &Connection) -> Result<(), Failure> {
    let sessions = connection.client()?.sessions().list().await?;
    connection.output().list(
        &sessions,
        &["SESSION", "STATE", "TTL", "LEFT", "DONE", "HOLDS", "WAITS", "ITEMS", "KEYS", "NAME"],
        |s| {
            vec![
                s.id.to_string(),
                state(s.state).to_owned(),
                s.ttl.to_string(),
                s.valid_for.map(|left| left.to_string()).unwrap_or_default(),
                s.progress.as_ref().map(|progress| format!("{}%", progress.percent)).unwrap_or_default(),
                s.holds.len().to_string(),
                s.waits.len().to_string(),
                s.items.len().to_string(),
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
        ("state", state(session.state).to_owned()),
        ("ttl", session.ttl.to_string()),
        ("left", session.valid_for.map(|left| left.to_string()).unwrap_or_default()),
    ];
    if let Some(progress) = &session.progress {
        let note = progress.note.as_deref().map(|note| readable(note.as_bytes())).unwrap_or_default();
        fields.push(("progress", format!("{}% {note}", progress.percent)));
    }
    if let Some(since) = session.stalled_since {
        fields.push(("stalled since", since.to_string()));
    }
    fields.extend(
        session.holds.iter().map(|h| ("holds", format!("{} token={}", name(&h.family, &h.name), h.token))),
    );
    let waits = session.waits.iter();
    fields.extend(waits.map(|w| ("waits", format!("{} position={}", name(&w.family, &w.name), w.position))));
    let items = session.items.iter().map(|it| {
        let item = it.item.as_deref().map(|item| format!("/{}", readable(item.as_bytes())));
        (&*it.state, format!("{}{}", name(&it.family, &it.name), item.unwrap_or_default()))
    });
    fields.extend(items);
    fields.extend(session.keys.iter().map(|key| ("key", readable(key.as_bytes()))));
    connection.output().item(&session, &fields)
}

/// `locks/deploy`
fn name(family: &str, name: &str) -> String {
    format!("{family}/{}", readable(name.as_bytes()))
}

fn state(state: SessionState) -> &'static str {
    match state {
        SessionState::Active => "active",
        SessionState::Suspect => "suspect",
        SessionState::Stalled => "stalled",
        SessionState::Expired => "expired",
        SessionState::Unknown => "unknown",
    }
}

async fn renew(connection: &Connection, renewal: Renew) -> Result<(), Failure> {
    let Renew { id, progress, note } = renewal;
    let sessions = connection.client()?.sessions();
    let renewed = match progress {
        Some(percent) => sessions.report(id, Progress { percent, note }).await?,
        None => sessions.renew(id).await?,
    };
    let mut fields = vec![("valid for", renewed.valid_for.to_string())];
    let holds = renewed.holds.iter();
    fields.extend(holds.map(|h| ("holds", format!("{} token={}", name(&h.family, &h.name), h.token))));
    let lost = renewed.lost.iter();
    fields.extend(lost.map(|l| {
        ("lost", format!("{} reason={} revision={}", name(&l.family, &l.name), l.reason, l.revision))
    }));
    connection.output().item(&renewed, &fields)
}

async fn open(connection: &Connection, new: New) -> Result<(), Failure> {
    let client = connection.client()?;
    let create = SessionCreate {
        ttl: new.ttl,
        name: new.name,
        on_expire: new.on_expire.map(Into::into),
        stall_after: new.stall_after,
        lock_delay: new.lock_delay,
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
    let mut losses = Box::pin(session.losses());
    loop {
        tokio::select! {
            biased;
            Some(lost) = losses.next() => {
                let what = name(&lost.family, &lost.name);
                eprintln!("coracle: taken from the session: {what} reason={}", lost.reason);
            }
            reason = session.lost() => {
                eprintln!("coracle: session lost: {reason}");
                return Err(Failure::Exit(CLAIM_LOST));
            }
            () = signals.stop() => return Ok(session.close().await?),
        }
    }
}
