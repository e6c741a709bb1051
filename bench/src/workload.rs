//! The operations that are measured, the same for every service.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::delivery::WRITERS;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Write one of the keys, chosen at random.
    Put,
    /// Linearizable read of one of the keys.
    Get,
    /// Read of one of the keys from whatever the asked node has.
    StaleGet,
    /// Nine linearizable reads and a write, of keys chosen at random.
    Mixed,
    /// Replace a key that each client has to itself, if it is still at the revision last seen.
    Cas,
    /// Acquire and release a lock that each client has to itself, under one session.
    Lock,
    /// All clients want the same lock: one operation is one hand-over.
    LockContended,
    /// Renew the client's session.
    Renew,
    /// Very many sessions, each renewed as often as its holder would: a client renews its share of them in turn, a session
    /// a call.
    RenewMany,
    /// Open a session and close it.
    Session,
    /// Write a key under a prefix that all clients watch, each with a stream of its own; done when the own stream tells it.
    Watch,
    /// Streams on one prefix that others write to at a fixed rate: one operation is one write that came on one stream.
    WatchRate,
    /// Send a message to a queue that all clients share, receive one from it, acknowledge it: three calls.
    Queue,
    /// Half of the clients send to a queue, the others take from it: one operation is one message received and
    /// acknowledged.
    QueuePairs,
    /// Send, receive and acknowledge behind as many messages as there are keys.
    QueueDeep,
    /// Send, receive and acknowledge a hundred messages a call; what is counted are messages.
    QueueBatch,
    /// Ask for an instance of a service that has as many as there are keys.
    Pick,
    /// Publish a message to a topic that all clients share.
    Publish,
}

impl Workload {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::StaleGet => "stale-get",
            Self::Mixed => "mixed",
            Self::Cas => "cas",
            Self::Lock => "lock",
            Self::LockContended => "lock-contended",
            Self::Renew => "renew",
            Self::RenewMany => "renew-many",
            Self::Session => "session",
            Self::Watch => "watch",
            Self::WatchRate => "watch-rate",
            Self::Queue => "queue",
            Self::QueuePairs => "queue-pairs",
            Self::QueueDeep => "queue-deep",
            Self::QueueBatch => "queue-batch",
            Self::Pick => "pick",
            Self::Publish => "publish",
        }
    }

    pub const fn title(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "linearizable get",
            Self::StaleGet => "stale get",
            Self::Mixed => "nine linearizable gets, one put",
            Self::Cas => "compare-and-set",
            Self::Lock => "lock + release, distinct locks",
            Self::LockContended => "one contended lock, hand-overs",
            Self::Renew => "session renewals",
            Self::RenewMany => "renewals of very many sessions",
            Self::Session => "session opened + closed",
            Self::Watch => "put, told to as many streams as clients",
            Self::WatchRate => "writes told to each of C streams, from due to told",
            Self::Queue => "one queue, send + receive + ack",
            Self::QueuePairs => "one queue, half send, half receive + ack",
            Self::QueueDeep => "one long queue, send + receive + ack",
            Self::QueueBatch => "one queue, messages sent + received + acked a hundred a call",
            Self::Pick => "pick an instance",
            Self::Publish => "publish to one topic",
        }
    }

    /// What must be there before the measurement, as many as there are keys.
    pub const fn finds(self) -> Option<Found> {
        match self {
            Self::Get | Self::StaleGet | Self::Mixed => Some(Found::Keys),
            Self::QueueDeep => Some(Found::Messages),
            Self::Pick => Some(Found::Instances),
            _ => None,
        }
    }

    /// Who does what, of so many clients.
    pub const fn cast(self, clients: usize) -> Cast {
        match self {
            Self::QueuePairs => Cast { feeders: clients / 2, workers: clients.div_ceil(2) },
            Self::WatchRate => Cast { feeders: WRITERS, workers: clients },
            _ => Cast { feeders: 0, workers: clients },
        }
    }

    /// Things that may be made and not yet taken, so that feeders do not run away from slower workers; the same number
    /// for every service.
    pub const fn backlog(self) -> Option<usize> {
        match self {
            Self::QueuePairs => Some(64),
            _ => None,
        }
    }

    /// Operations per second of a workload that makes no sense as fast as possible.
    pub fn own_rate(self, shape: Shape) -> Option<f64> {
        match self {
            Self::WatchRate => Some(500.0),
            Self::RenewMany => Some(f64::from(shape.sessions) / RENEWED_EVERY.as_secs_f64()),
            _ => None,
        }
    }

    /// Operations that a client does in one step.
    pub const fn operations(self) -> u64 {
        match self {
            Self::QueueBatch => BATCH as u64,
            _ => 1,
        }
    }

    pub const fn needs_session(self) -> bool {
        matches!(self, Self::Lock | Self::LockContended | Self::Renew)
    }
}

/// The clients of a workload. The feeders have the first numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// They only make what the others take: what they do is no operation.
    pub feeders: usize,
    pub workers: usize,
}

impl Cast {
    pub const fn total(self) -> usize {
        self.feeders + self.workers
    }

    pub const fn feeds(self, number: usize) -> bool {
        number < self.feeders
    }
}

/// What a workload finds when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    Keys,
    Messages,
    Instances,
}

impl Found {
    /// The workload whose clients make it.
    pub const fn maker(self) -> Workload {
        match self {
            Self::Keys => Workload::Put,
            Self::Messages => Workload::QueueDeep,
            Self::Instances => Workload::Pick,
        }
    }
}

/// A workload, how many clients ask at once, and of how many nodes; written `put@64/1`, or `put` for the default numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub workload: Workload,
    pub clients: Option<usize>,
    pub nodes: Option<usize>,
}

impl FromStr for Work {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |of: &str, digits: Option<&str>| {
            let number = digits.map(str::parse::<usize>).transpose();
            let number = number.with_context(|| format!("number of {of} in {text}"))?;
            ensure!(number != Some(0), "no {of} work={text}");
            Ok(number)
        };
        let (rest, nodes) = text.split_once('/').map_or((text, None), |(rest, nodes)| (rest, Some(nodes)));
        let (name, clients) =
            rest.split_once('@').map_or((rest, None), |(name, clients)| (name, Some(clients)));
        let workload =
            <Workload as clap::ValueEnum>::from_str(name, true).map_err(|reason| anyhow::anyhow!(reason))?;
        Ok(Self { workload, clients: number("clients", clients)?, nodes: number("nodes", nodes)? })
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.workload.name())?;
        self.clients.map_or(Ok(()), |clients| write!(f, "@{clients}"))?;
        self.nodes.map_or(Ok(()), |nodes| write!(f, "/{nodes}"))
    }
}

/// Sizes that both services are given alike.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub clients: usize,
    pub keys: u32,
    pub value_bytes: usize,
    /// Of [`Workload::RenewMany`], all clients together.
    pub sessions: u32,
}

/// How clients share HTTP/2 connections: a service that multiplexes is much cheaper with few of them, because
/// answers leave together; but clients that are programs of their own have nothing to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// So many to each node, shared by all clients.
    Shared(usize),
    /// One for each client, as HTTP/1.1 has.
    Each,
    /// The same, to etcd's gateway: JSON over HTTP/1.1.
    Gateway,
}

impl Connections {
    pub const fn total(self, nodes: usize, clients: usize) -> usize {
        match self {
            Self::Shared(per_node) => per_node * nodes,
            Self::Each | Self::Gateway => clients,
        }
    }
}

impl FromStr for Connections {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(0) => bail!("at least one connection is needed"),
            Ok(per_node) => Ok(Self::Shared(per_node)),
            Err(_) if text == "each" => Ok(Self::Each),
            Err(_) if text == "gateway" => Ok(Self::Gateway),
            Err(_) => bail!("neither a number nor each nor gateway connections={text}"),
        }
    }
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(1) => f.write_str("1 connection a node"),
            Self::Shared(per_node) => write!(f, "{per_node} connections a node"),
            Self::Each => f.write_str("a connection each"),
            Self::Gateway => f.write_str("JSON gateway"),
        }
    }
}

/// Longer than any measurement, so that nothing expires in the middle of one.
pub const SESSION_TTL: Duration = Duration::from_hours(1);

/// The sessions of one of the clients that renew very many.
pub fn share(number: usize, shape: Shape) -> impl Iterator<Item = u32> {
    let first = u32::try_from(number).unwrap_or(u32::MAX);
    (first..shape.sessions).step_by(shape.clients)
}

/// Writes the value of a key: it begins with the key, so that a read can be checked without keeping what was written.
pub fn fill_value(value: &mut Vec<u8>, key: &str, bytes: usize) {
    value.clear();
    value.extend_from_slice(key.as_bytes());
    value.push(b':');
    value.resize(bytes.max(value.len()), b'.');
}

/// Whether these bytes are what [`fill_value`] wrote for the key.
pub fn is_value_of(value: &[u8], key: &str, bytes: usize) -> bool {
    value.len() == bytes.max(key.len() + 1)
        && value.starts_with(key.as_bytes())
        && value[key.len()] == b':'
        && value[key.len() + 1..].iter().all(|&byte| byte == b'.')
}

/// Chooses keys: xorshift, different for each client and the same in each run.
pub struct KeyChoice {
    state: u64,
    keys: u32,
}

impl KeyChoice {
    pub fn new(client: usize, keys: u32) -> Self {
        let seed = (client as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self { state: seed | 1, keys }
    }

    pub fn choose(&mut self) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        u32::try_from((self.state >> 33) % u64::from(self.keys)).expect("smaller than a u32")
    }
}

/// So many messages in a batch.
pub const BATCH: usize = 100;

/// How often a session of [`Workload::RenewMany`] is renewed, and how long it lives without: long enough for all of them
/// to be opened before the first is renewed.
pub const RENEWED_EVERY: Duration = Duration::from_secs(5);
pub const RENEWED_TTL: Duration = Duration::from_mins(1);

/// What a stream is waited for to say: whose write it is, and the how-manieth.
pub fn told(number: usize, turn: u64) -> String {
    format!("watch/{number:04}:{turn:08}")
}

pub fn key_name(name: &mut String, key: u32) {
    use fmt::Write;
    name.clear();
    write!(name, "bench/{key:08}").expect("a string takes any text");
}
