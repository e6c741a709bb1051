//! etcd's gateway under load: its gRPC calls as JSON over HTTP/1.1, as a program without a client library makes them.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::http1::{Connection, Request};
use crate::service;
use crate::workload::{KeyChoice, Shape, Workload, fill_value, is_value_of, key_name};

pub struct Gateway {
    nodes: Vec<String>,
    shape: Shape,
}

pub struct Client {
    connection: Connection,
    workload: Workload,
    shape: Shape,
    choice: KeyChoice,
    key: String,
    value: Vec<u8>,
    /// Of the client's own key, in compare-and-set.
    revision: String,
}

impl Gateway {
    /// Nodes are `host:port`.
    pub fn new(nodes: &[String], shape: Shape) -> Self {
        Self { nodes: nodes.to_vec(), shape }
    }

    pub const fn does(workload: Workload) -> bool {
        use Workload::{Cas, Get, Mixed, Put, StaleGet};
        matches!(workload, Put | Get | StaleGet | Mixed | Cas)
    }
}

impl service::Service for Gateway {
    type Client = Client;

    fn connections(&self, clients: usize) -> usize {
        clients
    }

    async fn client(&self, workload: Workload, number: usize) -> Result<Client> {
        let mut client = Client {
            connection: Connection::dial(&self.nodes[number % self.nodes.len()]).await?,
            workload,
            shape: self.shape,
            choice: KeyChoice::new(number, self.shape.keys),
            key: String::new(),
            value: Vec::new(),
            revision: String::new(),
        };
        if workload == Workload::StaleGet {
            client.read(false).await?;
        }
        if workload == Workload::Cas {
            client.key = format!("bench/cas/{number:04}");
            fill_value(&mut client.value, &client.key, client.shape.value_bytes);
            client.put().await?;
        }
        Ok(client)
    }
}

impl service::Client for Client {
    async fn prepare(&mut self, number: u32) -> Result<()> {
        key_name(&mut self.key, number);
        fill_value(&mut self.value, &self.key, self.shape.value_bytes);
        self.put().await
    }

    async fn step(&mut self, _: Instant) -> Result<()> {
        match self.workload {
            Workload::Put => {
                let key = self.choice.choose();
                self.prepare(key).await
            }
            Workload::Get => self.read(false).await,
            Workload::StaleGet => self.read(true).await,
            Workload::Mixed => match self.choice.choose() {
                key if key % 10 == 0 => self.prepare(key).await,
                _ => self.read(false).await,
            },
            Workload::Cas => self.compare_and_set().await,
            _ => bail!("the gateway is not asked for this"),
        }
    }

    async fn recover(&mut self) -> Result<()> {
        self.connection.redial().await?;
        if self.workload == Workload::Cas { self.put().await } else { Ok(()) }
    }

    async fn leave(self) -> Result<()> {
        Ok(())
    }
}

impl Client {
    async fn put(&mut self) -> Result<()> {
        let put = json!({ "key": encoded(self.key.as_bytes()), "value": encoded(&self.value) });
        let answer = self.call("put", &put).await?;
        self.note_revision(&answer)
    }

    async fn read(&mut self, serializable: bool) -> Result<()> {
        key_name(&mut self.key, self.choice.choose());
        let range = json!({ "key": encoded(self.key.as_bytes()), "serializable": serializable });
        let answer = self.call("range", &range).await?;
        let value = answer["kvs"][0]["value"].as_str().context("range found no key")?;
        let value = BASE64_STANDARD.decode(value)?;
        ensure!(is_value_of(&value, &self.key, self.shape.value_bytes), "range answered another value");
        Ok(())
    }

    async fn compare_and_set(&mut self) -> Result<()> {
        let key = encoded(self.key.as_bytes());
        let compare =
            json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": self.revision });
        let put = json!({ "requestPut": { "key": key, "value": encoded(&self.value) } });
        let answer = self.call("txn", &json!({ "compare": [compare], "success": [put] })).await?;
        ensure!(answer["succeeded"] == true, "compare-and-set was refused");
        self.note_revision(&answer)
    }

    /// Numbers of 64 bits are texts in its JSON.
    fn note_revision(&mut self, answer: &Value) -> Result<()> {
        let revision = answer["header"]["revision"].as_str().context("answer without a revision")?;
        revision.clone_into(&mut self.revision);
        Ok(())
    }

    async fn call(&mut self, what: &str, body: &Value) -> Result<Value> {
        let body = serde_json::to_vec(body)?;
        let path = format_args!("/v3/kv/{what}");
        let headers = format_args!("content-type: application/json\r\n");
        let response = self.connection.call(Request { method: "POST", path, headers, body: &body }).await?;
        ensure!(response.status == 200, "POST {path}: {}", response.status);
        Ok(serde_json::from_slice(response.body)?)
    }
}

fn encoded(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}
