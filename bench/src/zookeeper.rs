//! ZooKeeper under load: its binary protocol, a session of its own for each client. A minimal client, as light as the others.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::service;
use crate::workload::{KeyChoice, Shape, Workload, fill_value, is_value_of, key_name};

pub struct ZooKeeper {
    nodes: Vec<String>,
    shape: Shape,
}

pub struct Client {
    link: Link,
    workload: Workload,
    shape: Shape,
    choice: KeyChoice,
    key: String,
    value: Vec<u8>,
    lock: String,
    /// The node that stands for the lock while it is held.
    ownership: String,
    /// Of the client's own key, in compare-and-set.
    version: i32,
}

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const SYNC: i32 = 9;
const PING: i32 = 11;
const CLOSE: i32 = -11;
/// What is sent without being asked has this number, and so has a ping.
const EVENT: i32 = -1;
const PINGED: i32 = -2;
const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;
const PERSISTENT: i32 = 0;
const EPHEMERAL_SEQUENTIAL: i32 = 3;
/// Before the version in what is said of a node: four numbers of 64 bits.
const STAT_BEFORE_VERSION: usize = 32;

impl ZooKeeper {
    /// Nodes are `host:port`.
    pub fn new(nodes: &[String], shape: Shape) -> Self {
        Self { nodes: nodes.to_vec(), shape }
    }

    pub const fn does(workload: Workload) -> bool {
        use Workload::{Cas, Get, Lock, Mixed, Put, Renew, StaleGet};
        matches!(workload, Put | Get | StaleGet | Mixed | Cas | Lock | Renew)
    }
}

impl service::Service for ZooKeeper {
    type Client = Client;

    fn connections(&self, clients: usize) -> usize {
        clients
    }

    async fn client(&self, workload: Workload, number: usize) -> Result<Client> {
        let mut client = Client {
            link: Link::dial(&self.nodes[number % self.nodes.len()]).await?,
            workload,
            shape: self.shape,
            choice: KeyChoice::new(number, self.shape.keys),
            key: String::new(),
            value: Vec::new(),
            lock: format!("/locks/{number:04}"),
            ownership: String::new(),
            version: 0,
        };
        let lock = client.lock.clone();
        for parent in ["/bench", "/bench/cas", "/locks", &lock] {
            match client.link.create(parent, b"", PERSISTENT).await? {
                Ok(_) | Err(NODE_EXISTS) => {}
                Err(code) => bail!("create {parent}: {code}"),
            }
        }
        if workload == Workload::StaleGet {
            client.read(true).await?;
        }
        if workload == Workload::Cas {
            client.key = format!("bench/cas/{number:04}");
            fill_value(&mut client.value, &client.key, client.shape.value_bytes);
            client.put(-1).await?;
        }
        Ok(client)
    }
}

impl service::Client for Client {
    async fn prepare(&mut self, number: u32) -> Result<()> {
        key_name(&mut self.key, number);
        fill_value(&mut self.value, &self.key, self.shape.value_bytes);
        self.put(-1).await
    }

    async fn step(&mut self, _: Instant) -> Result<()> {
        match self.workload {
            Workload::Put => {
                let key = self.choice.choose();
                self.prepare(key).await
            }
            Workload::Get => self.read(true).await,
            Workload::StaleGet => self.read(false).await,
            Workload::Mixed => match self.choice.choose() {
                key if key % 10 == 0 => self.prepare(key).await,
                _ => self.read(true).await,
            },
            Workload::Cas => self.put(self.version).await,
            Workload::Lock => {
                self.acquire().await?;
                self.release().await
            }
            Workload::Renew => {
                self.link.call(PING, |_| ()).await?.map(drop).map_err(|code| anyhow::anyhow!("ping: {code}"))
            }
            _ => bail!("ZooKeeper is not asked for this"),
        }
    }

    async fn recover(&mut self) -> Result<()> {
        self.link = Link::dial(&self.link.host.clone()).await?;
        if self.workload == Workload::Cas { self.put(-1).await } else { Ok(()) }
    }

    async fn leave(mut self) -> Result<()> {
        self.link.call(CLOSE, |_| ()).await.map(drop)
    }
}

impl Client {
    /// Version -1 is any, and then a node that is not there is made, unless another client is quicker.
    async fn put(&mut self, version: i32) -> Result<()> {
        let path = format!("/{}", self.key);
        loop {
            match self.link.set(&path, &self.value, version).await? {
                Ok(version) => {
                    self.version = version;
                    return Ok(());
                }
                Err(NO_NODE) if version == -1 => {}
                Err(code) => bail!("set: {code}"),
            }
            match self.link.create(&path, &self.value, PERSISTENT).await? {
                Ok(_) => {
                    self.version = 0;
                    return Ok(());
                }
                Err(NODE_EXISTS) => {}
                Err(code) => bail!("create: {code}"),
            }
        }
    }

    async fn read(&mut self, sync: bool) -> Result<()> {
        key_name(&mut self.key, self.choice.choose());
        let path = format!("/{}", self.key);
        if sync && let Err(code) = self.link.call(SYNC, |out| put_text(out, &path)).await? {
            bail!("sync: {code}");
        }
        let get = |out: &mut BytesMut| {
            put_text(out, &path);
            out.put_u8(0);
        };
        match self.link.call(GET_DATA, get).await? {
            Ok(mut answer) => {
                let value = take_text(&mut answer)?;
                ensure!(is_value_of(&value, &self.key, self.shape.value_bytes), "get answered another value");
                Ok(())
            }
            Err(code) => bail!("get: {code}"),
        }
    }

    /// As its own recipe: a node in a line; whoever is first holds. Nobody else wants these.
    async fn acquire(&mut self) -> Result<()> {
        let place = format!("{}/place-", self.lock);
        match self.link.create(&place, b"", EPHEMERAL_SEQUENTIAL).await? {
            Ok(path) => self.ownership = path,
            Err(code) => bail!("create: {code}"),
        }
        let lock = self.lock.clone();
        let list = |out: &mut BytesMut| {
            put_text(out, &lock);
            out.put_u8(0);
        };
        match self.link.call(GET_CHILDREN, list).await? {
            Ok(mut answer) => ensure!(answer.get_i32() == 1, "somebody else is in line"),
            Err(code) => bail!("list: {code}"),
        }
        Ok(())
    }

    async fn release(&mut self) -> Result<()> {
        let path = std::mem::take(&mut self.ownership);
        let delete = |out: &mut BytesMut| {
            put_text(out, &path);
            out.put_i32(-1);
        };
        self.link.call(DELETE, delete).await?.map(drop).map_err(|code| anyhow::anyhow!("delete: {code}"))
    }
}

struct Link {
    stream: TcpStream,
    host: String,
    incoming: BytesMut,
    outgoing: BytesMut,
    number: i32,
}

/// What was answered, or the code of the error.
type Answer = std::result::Result<BytesMut, i32>;

impl Link {
    /// Connects, and opens a session.
    async fn dial(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await.with_context(|| format!("connect to {host}"))?;
        stream.set_nodelay(true)?;
        let (incoming, outgoing) = (BytesMut::with_capacity(8 * 1024), BytesMut::new());
        let mut link = Self { stream, host: host.to_owned(), incoming, outgoing, number: 0 };
        // Version, newest transaction seen, timeout, session and password of none.
        link.send(|out| {
            out.put_i32(0);
            out.put_i64(0);
            out.put_i32(30_000);
            out.put_i64(0);
            out.put_i32(16);
            out.put_bytes(0, 16);
        })
        .await?;
        let mut opened = link.receive().await?;
        ensure!(opened.remaining() >= 16, "no session");
        opened.advance(8);
        ensure!(opened.get_i64() != 0, "no session");
        Ok(link)
    }

    async fn call(&mut self, what: i32, body: impl FnOnce(&mut BytesMut)) -> Result<Answer> {
        self.number = if self.number == i32::MAX { 1 } else { self.number + 1 };
        let number = if what == PING { PINGED } else { self.number };
        self.send(|out| {
            out.put_i32(number);
            out.put_i32(what);
            body(out);
        })
        .await?;
        loop {
            let mut answer = self.receive().await?;
            ensure!(answer.remaining() >= 16, "an answer without a head");
            let (answered, _, code) = (answer.get_i32(), answer.get_i64(), answer.get_i32());
            if answered == EVENT {
                continue;
            }
            ensure!(answered == number, "an answer to something else");
            return Ok(if code == 0 { Ok(answer) } else { Err(code) });
        }
    }

    async fn create(
        &mut self,
        path: &str,
        value: &[u8],
        flags: i32,
    ) -> Result<std::result::Result<String, i32>> {
        let create = |out: &mut BytesMut| {
            put_text(out, path);
            put_bytes(out, value);
            // Everybody may do everything.
            out.put_i32(1);
            out.put_i32(31);
            put_text(out, "world");
            put_text(out, "anyone");
            out.put_i32(flags);
        };
        match self.call(CREATE, create).await? {
            Ok(mut answer) => Ok(Ok(String::from_utf8(take_text(&mut answer)?.to_vec())?)),
            Err(code) => Ok(Err(code)),
        }
    }

    async fn set(&mut self, path: &str, value: &[u8], version: i32) -> Result<std::result::Result<i32, i32>> {
        let set = |out: &mut BytesMut| {
            put_text(out, path);
            put_bytes(out, value);
            out.put_i32(version);
        };
        Ok(match self.call(SET_DATA, set).await? {
            Ok(mut answer) => {
                ensure!(answer.remaining() >= STAT_BEFORE_VERSION + 4, "set answered too little");
                answer.advance(STAT_BEFORE_VERSION);
                Ok(answer.get_i32())
            }
            Err(code) => Err(code),
        })
    }

    async fn send(&mut self, body: impl FnOnce(&mut BytesMut)) -> Result<()> {
        self.outgoing.clear();
        self.outgoing.put_i32(0);
        body(&mut self.outgoing);
        let length = u32::try_from(self.outgoing.len() - 4)?;
        self.outgoing[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&self.outgoing).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<BytesMut> {
        loop {
            if let Some(length) = self.incoming.first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*length))?;
                if self.incoming.len() >= 4 + length {
                    self.incoming.advance(4);
                    return Ok(self.incoming.split_to(length));
                }
            }
            ensure!(self.stream.read_buf(&mut self.incoming).await? > 0, "connection closed");
        }
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("less than 4 GiB"));
    out.put_slice(bytes);
}

fn take_text(answer: &mut BytesMut) -> Result<BytesMut> {
    ensure!(answer.remaining() >= 4, "answer is cut");
    let length = usize::try_from(answer.get_u32())?;
    ensure!(answer.remaining() >= length, "answer is cut");
    Ok(answer.split_to(length))
}
