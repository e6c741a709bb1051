//! The life of a server: start in order, run, drain, stop.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_raft::network::tls::{Acceptor, ClientAuth, EdgeTls, PeerTls};
use coracle_raft::node::{Node, Options, Start, StartError};
use coracle_raft::types::Member;
use coracle_recipes::Recipes;
use coracle_store::{Millis, Settings};
use tokio::net::TcpListener;

use crate::accept::{self, Listening};
use crate::config::{self, Config};
use crate::edge::{Edge, Hosts};
use crate::{join, telemetry};

/// Why a server ended other than by being asked to. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Config(#[from] config::ConfigError),
    #[error("cannot listen for clients on {address}: {reason}")]
    Listen { address: SocketAddr, reason: std::io::Error },
    #[error("{0}")]
    Tls(#[from] coracle_raft::network::tls::TlsError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("cannot join the cluster at {url}: {reason}")]
    Join { url: String, reason: String },
    #[error("the node stopped by itself: {0}")]
    Stopped(Arc<str>),
}

/// Run a server until `shutdown` resolves (or SIGTERM or SIGINT arrives), then drain and stop.
///
/// # Errors
/// See [`RunError`].
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), RunError> {
    telemetry::start(&config)?;
    raise_file_limit();
    do_without_huge_pages();
    let server = Server::start(config).await?;
    let node = server.edge.node.clone();
    tokio::select! {
        () = shutdown => {}
        () = signalled() => {}
        reason = node.stopped() => {
            tracing::error!(%reason, "the node stopped by itself");
            server.cut().await;
            return Err(RunError::Stopped(reason));
        }
    }
    drop(node);
    server.stop().await;
    Ok(())
}

/// Each connection is a file: take as many as the system lets us.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, current = limit.current, "the limit of open files could not be raised");
    }
}

/// The kernel clears a page when it is first touched, in one go, and 2 MiB of it take up to five milliseconds on a
/// virtual machine: nobody else on that core runs meanwhile, and a request passes all of them. Said of the whole process,
/// and of what the allocator has asked for already.
fn do_without_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "huge pages could not be switched off: some requests take milliseconds longer");
    }
}

/// SIGTERM or SIGINT.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be watched for");
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// A running server.
pub struct Server {
    edge: Edge,
    address: SocketAddr,
    listening: Listening,
}

impl Server {
    /// Open the ports, the data directory, the node, in this order, so that what is wrong shows before anything is
    /// changed.
    ///
    /// # Errors
    /// See [`RunError`]; nothing is left running.
    pub async fn start(config: Config) -> Result<Self, RunError> {
        config.check()?;
        let acceptor = acceptor(&config)?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|reason| RunError::Listen { address: config.listen, reason })?;
        let address =
            listener.local_addr().map_err(|reason| RunError::Listen { address: config.listen, reason })?;
        let client = client_url(&config, address);
        let member =
            Member { name: config.name.clone(), peer: peer_address(&config), client: client.clone() };
        let start = founding_or_joining(&config, &member).await?;
        let node = Node::start(options(&config, member, start), || Box::new(Recipes)).await?;
        let hosts = Hosts::new(
            config
                .allowed_host
                .iter()
                .cloned()
                .chain(host_of_url(&client))
                .chain(config.advertise_peer.clone()),
        );
        tracing::info!(
            name = config.name, id = node.id(), listen = %address, peers = %config.peer_listen,
            data = %config.data.display(), tls = acceptor.is_tls(), "serving"
        );
        let edge = Edge::new(node, config, client, hosts);
        let listening = accept::listen(listener, acceptor, edge.clone());
        Ok(Self { edge, address, listening })
    }

    /// Where clients connect; the real port if port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node behind it.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.edge.node
    }

    /// Refuse readiness, hand over leadership, say `bye`, answer what waits, let requests finish, close the node.
    pub async fn stop(self) {
        let grace = self.edge.config.shutdown_grace.as_duration();
        tracing::info!("stopping");
        self.edge.drain();
        hand_over(&self.edge.node, grace / 2).await;
        self.listening.close(grace).await;
        self.edge.node.shutdown().await;
        tracing::info!("stopped");
    }

    /// The node is gone already: only say so.
    async fn cut(self) {
        self.edge.drain();
        self.listening.close(Duration::from_secs(1)).await;
    }
}

/// Make another voter the leader, if this node leads and there is one.
async fn hand_over(node: &Node, within: Duration) {
    if node.leader() != Some(node.id()) {
        return;
    }
    let other =
        |m: &&coracle_raft::node::MemberStatus| m.voter && m.id != node.id() && m.reachable != Some(false);
    let members = node.members();
    let Some(next) = members.iter().filter(other).max_by_key(|m| m.matched) else { return };
    let deadline = std::time::Instant::now() + within;
    if let Err(error) = node.transfer(next.id, deadline).await {
        tracing::warn!(?error, to = next.id, "leadership could not be handed over");
    }
}

fn acceptor(config: &Config) -> Result<Acceptor, RunError> {
    let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return Ok(Acceptor::plain());
    };
    let tls = EdgeTls {
        certificate: certificate.clone(),
        key: key.clone(),
        client_ca: config.tls_client_ca.clone(),
        client_auth: match config.tls_client_auth {
            config::ClientAuth::None => ClientAuth::None,
            config::ClientAuth::Optional => ClientAuth::Optional,
            config::ClientAuth::Required => ClientAuth::Required,
        },
    };
    Ok(Acceptor::tls(tls.server()?))
}

fn peer_tls(config: &Config) -> Option<PeerTls> {
    Some(PeerTls {
        certificate: config.peer_tls_cert.clone()?,
        key: config.peer_tls_key.clone()?,
        ca: config.peer_tls_ca.clone()?,
    })
}

fn options(config: &Config, member: Member, start: Start) -> Options {
    let mut options = Options::new(config.data.clone(), member, config.peer_listen, start);
    options.peer_tls = peer_tls(config);
    options.settings = Settings {
        quota_bytes: config.quota.0,
        history_age: Millis(config.history_age.as_millis()),
        history_count: config.history_count,
        history_bytes: config.history_bytes.0,
    };
    options.checkpoint_bytes = config.checkpoint_bytes.0;
    options.checkpoint_interval = config.checkpoint_interval.as_duration();
    options.segment_bytes = config.segment_bytes.0;
    options.keep_entries = config.keep_log_entries;
    options.keep_bytes = config.keep_log_bytes.0;
    options
}

/// Used only until the data directory says who the node is.
async fn founding_or_joining(config: &Config, member: &Member) -> Result<Start, RunError> {
    // A start that was cut short leaves files, and still: who was told to join must never found.
    let trace = |entry: std::fs::DirEntry| entry.file_name() == "LOCK" || entry.file_name() == "IDENTITY.new";
    let is_new = std::fs::read_dir(&config.data).map_or(true, |entries| entries.flatten().all(trace));
    if let Some(url) = config.join.as_ref().filter(|_| is_new) {
        return join::admit(url, member, config)
            .await
            .map_err(|reason| RunError::Join { url: url.clone(), reason });
    }
    // All founders must say the same, so client URLs, known to each node only for itself, stay out of it.
    let founder =
        |f: &config::Founder| Member { name: f.name.clone(), peer: f.peer.clone(), client: String::new() };
    let members: Vec<_> = config.initial_cluster.0.iter().map(founder).collect();
    let members = if members.is_empty() { vec![member.clone()] } else { members };
    Ok(Start::Found { members, token: config.cluster_token.clone() })
}

fn peer_address(config: &Config) -> String {
    let listed = || config.initial_cluster.0.iter().find(|f| f.name == config.name).map(|f| f.peer.clone());
    config.advertise_peer.clone().or_else(listed).unwrap_or_else(|| reachable(config.peer_listen).to_string())
}

fn client_url(config: &Config, address: SocketAddr) -> String {
    let scheme = if config.tls_cert.is_some() { "https" } else { "http" };
    config.advertise_url.clone().unwrap_or_else(|| format!("{scheme}://{}", reachable(address)))
}

/// "Any address" is one to listen on, not one to connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

fn host_of_url(url: &str) -> Option<String> {
    Some(url.split("://").nth(1)?.split('/').next()?.to_owned())
}

/// TLS towards the client port of the cluster to join: its authority is the one this node's own client port uses.
pub(crate) fn join_tls(config: &Config) -> Result<Option<join::ClientConfig>, String> {
    let (Some(certificate), Some(key), Some(ca)) = (&config.tls_cert, &config.tls_key, &config.tls_client_ca)
    else {
        return Ok(None);
    };
    let tls = PeerTls { certificate: certificate.clone(), key: key.clone(), ca: ca.clone() };
    tls.client().map(Some).map_err(|error| error.to_string())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_process_does_without_huge_pages() {
        super::do_without_huge_pages();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
    }
}
