//! etcd under load: gRPC over a few shared connections, the calls that its own clients make.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use http::Uri;
use tokio::time::Instant;

use crate::delivery::{Deliveries, Mark};
use crate::grpc::{Channel, Stream};
use crate::protobuf::{self, Message};
use crate::service;
use crate::workload::{
    Connections, KeyChoice, RENEWED_TTL, SESSION_TTL, Shape, Workload, fill_value, is_value_of, key_name,
    share, told,
};

/// How long a client tries to take a message.
const TAKING: Duration = Duration::from_secs(10);

pub struct Etcd {
    nodes: Vec<String>,
    connections: Connections,
    /// Empty if each client makes its own.
    shared: Vec<Channel>,
    shape: Shape,
    /// Of the messages of this measurement. A queue of its own: keys that were deleted stay in etcd's index until they are
    /// compacted, and the search for the first message passes all of those before it.
    queue: String,
}

pub struct Client {
    channel: Channel,
    methods: Methods,
    workload: Workload,
    shape: Shape,
    choice: KeyChoice,
    key: String,
    value: Vec<u8>,
    lock: String,
    lease: u64,
    /// Those of a client that renews very many, in the order in which they are due.
    leases: VecDeque<u64>,
    /// It makes what the other clients take.
    feeds: bool,
    /// What the keys of the messages begin with.
    queue: String,
    /// Of renewals, or of a watch.
    stream: Option<Stream>,
    number: usize,
    /// Writes to what is watched.
    turn: u64,
    deliveries: Deliveries,
    /// Of the client's own key, in compare-and-set.
    revision: u64,
    /// The key that stands for the lock while it is held.
    ownership: Vec<u8>,
}

struct Methods {
    put: Uri,
    range: Uri,
    txn: Uri,
    lease_grant: Uri,
    lease_revoke: Uri,
    lease_keep_alive: Uri,
    lock: Uri,
    unlock: Uri,
    watch: Uri,
}

impl Etcd {
    /// Connects to the nodes, given as `host:port`.
    pub async fn open(nodes: &[String], shape: Shape, connections: Connections) -> Result<Self> {
        let mut shared = Vec::new();
        if let Connections::Shared(per_node) = connections {
            for node in nodes.iter().cycle().take(per_node * nodes.len()) {
                shared.push(Channel::dial(node).await?);
            }
        }
        let queue = format!("queue/{:020}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
        Ok(Self { nodes: nodes.to_vec(), connections, shared, shape, queue })
    }

    pub const fn does(workload: Workload) -> bool {
        !matches!(workload, Workload::QueueBatch | Workload::Pick | Workload::Publish)
    }

    /// The channels go round the nodes, so that a client's node is the same either way.
    async fn channel(&self, number: usize) -> Result<Channel> {
        match self.connections {
            Connections::Shared(_) => Ok(self.shared[number % self.shared.len()].clone()),
            Connections::Each | Connections::Gateway => {
                Channel::dial(&self.nodes[number % self.nodes.len()]).await
            }
        }
    }
}

impl service::Service for Etcd {
    type Client = Client;

    fn connections(&self, clients: usize) -> usize {
        self.connections.total(self.nodes.len(), clients)
    }

    async fn client(&self, workload: Workload, number: usize) -> Result<Client> {
        let channel = self.channel(number).await?;
        let mut client = Client {
            methods: Methods::on(&channel)?,
            channel,
            workload,
            shape: self.shape,
            choice: KeyChoice::new(number, self.shape.keys),
            key: String::new(),
            value: Vec::new(),
            lock: match workload {
                Workload::LockContended => "bench-contended".to_owned(),
                _ => format!("bench-{number}"),
            },
            lease: 0,
            leases: VecDeque::new(),
            feeds: workload.cast(self.shape.clients).feeds(number),
            queue: match workload {
                Workload::QueueDeep => "queue/deep".to_owned(),
                _ => self.queue.clone(),
            },
            stream: None,
            number,
            turn: 0,
            deliveries: Deliveries::default(),
            revision: 0,
            ownership: Vec::new(),
        };
        if workload.needs_session() {
            client.open_session(SESSION_TTL).await?;
        }
        if workload == Workload::StaleGet {
            // A linearizable read first: after it this node has all the keys, so that a missing one is an error.
            client.read(false).await?;
        }
        if workload == Workload::Watch || workload == Workload::WatchRate && !client.feeds {
            client.follow().await?;
        }
        if workload == Workload::Cas {
            client.key = format!("bench/cas/{number:04}");
            fill_value(&mut client.value, &client.key, client.shape.value_bytes);
            client.revision = client.put().await?;
        }
        Ok(client)
    }
}

impl service::Client for Client {
    async fn prepare(&mut self, number: u32) -> Result<()> {
        match self.workload {
            Workload::QueueDeep => self.send().await,
            _ => self.write(number).await,
        }
    }

    async fn settle(&mut self) -> Result<()> {
        if self.workload == Workload::RenewMany {
            for _ in share(self.number, self.shape) {
                self.open_session(RENEWED_TTL).await?;
                self.leases.push_back(std::mem::take(&mut self.lease));
            }
        }
        Ok(())
    }

    async fn step(&mut self, due: Instant) -> Result<()> {
        match self.workload {
            Workload::Put => {
                let key = self.choice.choose();
                self.write(key).await
            }
            Workload::Mixed => match self.choice.choose() {
                key if key % 10 == 0 => self.write(key).await,
                _ => self.read(false).await,
            },
            Workload::Get => self.read(false).await,
            Workload::StaleGet => self.read(true).await,
            Workload::Cas => self.compare_and_set().await,
            Workload::Lock | Workload::LockContended => {
                self.acquire().await?;
                self.release().await
            }
            Workload::Renew => self.renew().await,
            Workload::RenewMany => {
                self.lease = self.leases.pop_front().context("no lease")?;
                let renewed = self.renew().await;
                self.leases.push_back(std::mem::take(&mut self.lease));
                renewed
            }
            Workload::Session => {
                self.open_session(SESSION_TTL).await?;
                self.close_session().await
            }
            Workload::Watch => self.write_and_be_told().await,
            Workload::WatchRate if self.feeds => self.write_mark(due).await,
            Workload::WatchRate => self.be_told().await,
            Workload::QueuePairs if self.feeds => self.send().await,
            Workload::QueuePairs => self.take().await,
            Workload::Queue | Workload::QueueDeep => {
                self.send().await?;
                self.take().await
            }
            Workload::QueueBatch | Workload::Pick | Workload::Publish => bail!("etcd does not do this"),
        }
    }

    fn made(&self) -> Option<Instant> {
        self.deliveries.due
    }

    async fn recover(&mut self) -> Result<()> {
        self.stream = None;
        match self.workload {
            Workload::Cas => self.revision = self.put().await?,
            Workload::Watch => self.follow().await?,
            Workload::WatchRate if !self.feeds => self.follow().await?,
            Workload::Lock | Workload::LockContended if !self.ownership.is_empty() => self.release().await?,
            _ => {}
        }
        Ok(())
    }

    async fn leave(mut self) -> Result<()> {
        loop {
            if self.lease != 0 {
                self.close_session().await?;
            }
            let Some(next) = self.leases.pop_front() else { return Ok(()) };
            self.lease = next;
        }
    }
}

impl Client {
    async fn open_session(&mut self, ttl: Duration) -> Result<()> {
        let grant = Message::default().number(1, ttl.as_secs());
        let answer = self.channel.unary(&self.methods.lease_grant, grant.as_bytes()).await?;
        self.lease = protobuf::number(&answer, 2)?;
        ensure!(self.lease != 0, "lease grant answered without an id");
        Ok(())
    }

    async fn close_session(&mut self) -> Result<()> {
        let revoke = Message::default().number(1, self.lease);
        self.lease = 0;
        self.channel.unary(&self.methods.lease_revoke, revoke.as_bytes()).await.map(drop)
    }

    async fn write(&mut self, key: u32) -> Result<()> {
        key_name(&mut self.key, key);
        fill_value(&mut self.value, &self.key, self.shape.value_bytes);
        self.put().await.map(drop)
    }

    /// Watch the prefix; the watch is there once its making is answered.
    async fn follow(&mut self) -> Result<()> {
        self.deliveries = Deliveries::default();
        let create = Message::default().bytes(1, b"watch/").bytes(2, b"watch0");
        let request = Message::default().message(1, &create);
        let pending = self.channel.stream(&self.methods.watch).await?;
        let (stream, answer) = pending.begin(request.as_bytes()).await?;
        ensure!(protobuf::number(&answer, 3)? == 1, "watch was not made");
        self.stream = Some(stream);
        Ok(())
    }

    async fn write_and_be_told(&mut self) -> Result<()> {
        self.turn += 1;
        let mark = told(self.number, self.turn);
        self.key = format!("watch/{:04}", self.number);
        fill_value(&mut self.value, &mark, self.shape.value_bytes);
        self.put().await?;
        let stream = self.stream.as_mut().context("no stream")?;
        while !stream.receive().await?.windows(mark.len()).any(|text| text == mark.as_bytes()) {}
        Ok(())
    }

    async fn write_mark(&mut self, due: Instant) -> Result<()> {
        let mark = Mark { writer: self.number, turn: self.turn + 1, due };
        self.key = format!("watch/{:04}", self.number);
        fill_value(&mut self.value, &mark.text(), self.shape.value_bytes);
        self.put().await?;
        self.turn += 1;
        Ok(())
    }

    /// An answer of a watch may tell of several writes: its events are in field 11, the key and value of each in field 2.
    async fn be_told(&mut self) -> Result<()> {
        let stream = self.stream.as_mut().context("no stream")?;
        while !self.deliveries.take()? {
            let answer = stream.receive().await?;
            for event in protobuf::each(&answer, 11) {
                let value = protobuf::bytes(protobuf::bytes(event?, 2)?, 5)?;
                self.deliveries.add(std::str::from_utf8(value)?)?;
            }
        }
        Ok(())
    }

    async fn put(&mut self) -> Result<u64> {
        let put = Message::default().bytes(1, self.key.as_bytes()).bytes(2, &self.value);
        let answer = self.channel.unary(&self.methods.put, put.as_bytes()).await?;
        header_revision(&answer)
    }

    async fn read(&mut self, serializable: bool) -> Result<()> {
        key_name(&mut self.key, self.choice.choose());
        let range = Message::default().bytes(1, self.key.as_bytes()).number(7, u64::from(serializable));
        let answer = self.channel.unary(&self.methods.range, range.as_bytes()).await?;
        let entry = protobuf::bytes(&answer, 2)?;
        let value = protobuf::bytes(entry, 5)?;
        ensure!(is_value_of(value, &self.key, self.shape.value_bytes), "range answered another value");
        Ok(())
    }

    /// Compares the modification revision (target 2 in field 6), then puts.
    async fn compare_and_set(&mut self) -> Result<()> {
        let key = self.key.as_bytes();
        let compare = Message::default().number(2, 2).bytes(3, key).number(6, self.revision);
        let put = Message::default().bytes(1, key).bytes(2, &self.value);
        let then = Message::default().message(2, &put);
        let txn = Message::default().message(1, &compare).message(2, &then);
        let answer = self.channel.unary(&self.methods.txn, txn.as_bytes()).await?;
        ensure!(protobuf::number(&answer, 2)? == 1, "compare-and-set was refused");
        self.revision = header_revision(&answer)?;
        Ok(())
    }

    async fn acquire(&mut self) -> Result<()> {
        let lock = Message::default().bytes(1, self.lock.as_bytes()).number(2, self.lease);
        let answer = self.channel.unary(&self.methods.lock, lock.as_bytes()).await?;
        self.ownership = protobuf::bytes(&answer, 2)?.to_vec();
        ensure!(!self.ownership.is_empty(), "lock answered without a key");
        Ok(())
    }

    async fn release(&mut self) -> Result<()> {
        let unlock = Message::default().bytes(1, &self.ownership);
        self.ownership.clear();
        self.channel.unary(&self.methods.unlock, unlock.as_bytes()).await.map(drop)
    }

    /// A message is a key of its own, in the order of time.
    async fn send(&mut self) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        self.key = format!("{}/{now:020}-{}", self.queue, self.lock);
        fill_value(&mut self.value, &self.queue, self.shape.value_bytes);
        self.put().await.map(drop)
    }

    /// As etcd's own recipe: read the first, delete it if nobody else has, else try again. Two things are kinder to etcd
    /// than its recipe: the first is read by the order of the keys, for which etcd need not sort all of them, and an empty
    /// queue is asked again at once, not watched (a watch that begins in the past is up to 100 ms late).
    async fn take(&mut self) -> Result<()> {
        let (first, end) = (format!("{}/", self.queue), format!("{}0", self.queue));
        let until = Instant::now() + TAKING;
        while Instant::now() < until {
            let range = Message::default().bytes(1, first.as_bytes()).bytes(2, end.as_bytes()).number(3, 1);
            let answer = self.channel.unary(&self.methods.range, range.as_bytes()).await?;
            let entry = protobuf::bytes(&answer, 2)?;
            let (key, revision) = (protobuf::bytes(entry, 1)?, protobuf::number(entry, 3)?);
            if key.is_empty() {
                continue;
            }
            let compare = Message::default().number(2, 2).bytes(3, key).number(6, revision);
            let delete = Message::default().bytes(1, key);
            let then = Message::default().message(3, &delete);
            let txn = Message::default().message(1, &compare).message(2, &then);
            let answer = self.channel.unary(&self.methods.txn, txn.as_bytes()).await?;
            if protobuf::number(&answer, 2)? == 1 {
                return Ok(());
            }
        }
        bail!("nothing could be taken")
    }

    async fn renew(&mut self) -> Result<()> {
        let renewal = Message::default().number(1, self.lease);
        let answer = if let Some(stream) = &mut self.stream {
            stream.exchange(renewal.as_bytes()).await?
        } else {
            let pending = self.channel.stream(&self.methods.lease_keep_alive).await?;
            let (stream, answer) = pending.begin(renewal.as_bytes()).await?;
            self.stream = Some(stream);
            answer
        };
        ensure!(protobuf::number(&answer, 3)? > 0, "lease is gone");
        Ok(())
    }
}

impl Methods {
    fn on(channel: &Channel) -> Result<Self> {
        Ok(Self {
            put: channel.method("/etcdserverpb.KV/Put")?,
            range: channel.method("/etcdserverpb.KV/Range")?,
            txn: channel.method("/etcdserverpb.KV/Txn")?,
            lease_grant: channel.method("/etcdserverpb.Lease/LeaseGrant")?,
            lease_revoke: channel.method("/etcdserverpb.Lease/LeaseRevoke")?,
            lease_keep_alive: channel.method("/etcdserverpb.Lease/LeaseKeepAlive")?,
            lock: channel.method("/v3lockpb.Lock/Lock")?,
            unlock: channel.method("/v3lockpb.Lock/Unlock")?,
            watch: channel.method("/etcdserverpb.Watch/Watch")?,
        })
    }
}

fn header_revision(answer: &[u8]) -> Result<u64> {
    let revision = protobuf::number(protobuf::bytes(answer, 1)?, 3)?;
    ensure!(revision > 0, "answer without a revision");
    Ok(revision)
}
