//! The console: pushes orders, and knows of the plant only what the streams tell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use coracle_client::api::{Event, PublishItem, Value};
use coracle_client::{Coracle, Error, MessageUpdate, Messages, Update, Watch};
use futures::StreamExt;

use crate::{GOODS, NOTES, ORDERS, PARTS, PLANT, PROGRAMS};

/// Nothing told for this long means that something hangs: far more than a ttl and an election.
const SILENCE_MAX: Duration = Duration::from_mins(1);

pub struct Console {
    client: Coracle,
    events: Watch<serde_json::Value>,
    goods: Messages,
    notes: Messages,
    ordered: usize,
    pub seen: Seen,
}

/// What the console has been told.
#[derive(Debug, Default)]
pub struct Seen {
    synced: bool,
    /// Names of the programs that are there.
    pub present: BTreeSet<String>,
    /// And of those that are gone without having said so.
    pub gone: BTreeSet<String>,
    /// How far each was when it said so last, and with what; and how often it said something.
    progress: BTreeMap<String, (u8, String)>,
    told: BTreeMap<String, usize>,
    /// Deliveries that came back.
    pub returned: usize,
    /// Who made each good.
    pub goods: BTreeMap<String, String>,
    notes: BTreeMap<String, String>,
}

impl Seen {
    pub fn percent(&self, name: &str) -> Option<u8> {
        self.progress.get(name).map(|(percent, _)| *percent)
    }

    pub fn note(&self, name: &str) -> Option<String> {
        self.progress.get(name).map(|(_, note)| note.clone())
    }

    pub fn works_by(&self, name: &str, setting: &str) -> bool {
        self.notes.get(name).is_some_and(|noted| noted == setting)
    }

    fn event(&mut self, event: &Event) {
        if event.family == "topics" && event.op == "returned" {
            self.returned += 1;
        }
        let name = event.owner.as_deref().and_then(|name| name.strip_prefix(PLANT));
        let (Some(name), true) = (name.map(str::to_owned), event.family == "sessions") else { return };
        match event.op.as_str() {
            "opened" => drop(self.present.insert(name)),
            "updated" => {
                if let Some(progress) = &event.progress {
                    *self.told.entry(name.clone()).or_default() += 1;
                    let note = progress.note.clone().unwrap_or_default();
                    self.progress.insert(name, (progress.percent, note));
                }
            }
            "expired" => {
                self.present.remove(&name);
                self.gone.insert(name);
            }
            _ => {}
        }
    }
}

impl Console {
    pub fn open(client: &Coracle) -> Self {
        Self {
            client: client.clone(),
            events: client.events(None).filter("prefix", PLANT).from_now(),
            goods: client.topic(GOODS).subscribe().from_first(),
            notes: client.topic(NOTES).subscribe().from_first(),
            ordered: 0,
            seen: Seen::default(),
        }
    }

    /// Wait until the stream of events has begun.
    pub async fn synced(&mut self) -> Result<()> {
        self.until("the stream of events has begun", |seen| seen.synced).await
    }

    /// Push so many orders, as one batch.
    pub async fn order(&mut self, count: usize) -> Result<()> {
        let item = |number: usize| PublishItem {
            key: Some(format!("order-{number}")),
            ttl: None,
            headers: BTreeMap::new(),
            value: Value::from(""),
        };
        let items = (self.ordered..self.ordered + count).map(item).collect();
        self.ordered += count;
        let published = self.client.topic(ORDERS).publish_all(items).await?;
        println!("ordered   {count}, up to seq {} of {ORDERS}", published.seq);
        Ok(())
    }

    /// Listen until something is so.
    pub async fn until(&mut self, what: &str, so: impl Fn(&Seen) -> bool) -> Result<()> {
        let wait = async {
            while !so(&self.seen) {
                tokio::select! {
                    update = self.events.next() => self.seen.events(update)?,
                    update = self.goods.next() => table(&mut self.seen.goods, update)?,
                    update = self.notes.next() => table(&mut self.seen.notes, update)?,
                }
            }
            anyhow::Ok(())
        };
        let waited = tokio::time::timeout(SILENCE_MAX, wait).await;
        match waited {
            Ok(done) => done,
            Err(_) => bail!("not within {SILENCE_MAX:?}: {what}; the console knows {:?}", self.seen),
        }
    }

    /// What must hold at the end.
    pub async fn check(&mut self, orders: usize, living: &[&str]) -> Result<()> {
        let expected: BTreeSet<String> = (0..orders).map(|number| format!("order-{number}")).collect();
        let made: BTreeSet<String> = self.seen.goods.keys().cloned().collect();
        ensure!(
            made == expected,
            "goods are not what was ordered: {:?}",
            made.symmetric_difference(&expected)
        );
        let kept = self.client.topic(GOODS).show().await?.messages;
        ensure!(kept == orders as u64, "the table of goods has {kept} entries");
        for name in living {
            let told = self.seen.told.get(*name).copied().unwrap_or(0);
            ensure!(told > 0, "{name} never said how far it was");
        }
        let registered = self.client.kv().list(PROGRAMS).all().await?;
        let registered: Vec<_> = registered.items.iter().filter_map(|entry| entry.key.as_str()).collect();
        let expected: Vec<String> = living.iter().map(|name| format!("{PROGRAMS}{name}")).collect();
        ensure!(registered == expected, "registered are {registered:?}");
        ensure!(self.seen.returned > 0, "nothing that the dead had in hand came back");
        let told: usize = self.seen.told.values().sum();
        println!("heard     {told} reports of progress, {} deliveries that came back", self.seen.returned);
        self.drained().await
    }

    /// Programs acknowledge with their next receive: soon nothing is in flight.
    async fn drained(&self) -> Result<()> {
        for (topic, name) in [(ORDERS, "fetch"), (PARTS, "press")] {
            let end = tokio::time::Instant::now() + SILENCE_MAX;
            loop {
                let it = self.client.topic(topic).subscription(name).show().await?;
                if it.lag + it.in_flight + it.returned == 0 {
                    ensure!(it.dead == 0 && it.gaps == 0, "{name}: {} dead, {} gaps", it.dead, it.gaps);
                    println!("drained   {name}: {} deliveries for {} acknowledged", it.delivered, it.acked);
                    break;
                }
                ensure!(tokio::time::Instant::now() < end, "{name} still has {} in flight", it.in_flight);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

impl Seen {
    fn events(&mut self, update: Option<Result<Update<serde_json::Value>, Error>>) -> Result<()> {
        match update.context("the stream of events ended")?? {
            Update::Synced { .. } => self.synced = true,
            Update::Change { events, .. } => events.iter().for_each(|event| self.event(event)),
            Update::Gap { from, to } => bail!("events after {from} up to {to} are missing"),
            _ => {}
        }
        Ok(())
    }
}

/// A table of current values, as its stream tells it.
fn table(values: &mut BTreeMap<String, String>, update: Option<Result<MessageUpdate, Error>>) -> Result<()> {
    if let MessageUpdate::Messages { messages, .. } = update.context("a stream of messages ended")?? {
        for message in messages {
            let value = String::from_utf8_lossy(&message.value.bytes).into_owned();
            values.insert(message.key.context("a value without a key")?, value);
        }
    }
    Ok(())
}
