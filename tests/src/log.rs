//! What happened, as a node tells it from the first revision on.

use std::time::Duration;

use serde_json::Value;

use crate::http::Http;

/// One change of one key or claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `kv`, `locks`, `sessions`
    pub family: String,
    pub op: String,
    /// The key, or the name of the object.
    pub name: String,
    pub value: Option<String>,
    pub version: u64,
    pub previous_revision: u64,
    pub create: bool,
    pub cause: Option<String>,
    pub session: Option<String>,
    /// The part of the object: a message, a member.
    pub item: Option<String>,
    pub token: Option<u64>,
    pub mode: Option<String>,
}

/// All that one revision changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: u64,
    pub events: Vec<Event>,
}

/// Changes in the order of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub changes: Vec<Change>,
}

impl Change {
    /// From a frame `change`.
    ///
    /// # Panics
    /// If the frame is none.
    #[must_use]
    pub fn parse(frame: &Value) -> Self {
        let events = frame["events"].as_array().unwrap_or_else(|| panic!("no events in {frame}"));
        let revision = frame["revision"].as_u64().unwrap_or_else(|| panic!("no revision in {frame}"));
        assert!(!events.is_empty(), "an empty change: {frame}");
        Self { revision, events: events.iter().map(Event::parse).collect() }
    }
}

impl Event {
    fn parse(json: &Value) -> Self {
        let text = |member: &str| json[member].as_str().map(str::to_owned);
        Self {
            family: text("family").unwrap_or_default(),
            op: text("op").unwrap_or_default(),
            name: text("key").or_else(|| text("name")).unwrap_or_default(),
            value: text("value"),
            version: json["version"].as_u64().unwrap_or(0),
            previous_revision: json["previous_revision"].as_u64().unwrap_or(0),
            create: json["create"].as_bool().unwrap_or(false),
            cause: text("cause"),
            session: text("session"),
            item: text("item"),
            token: json["token"].as_u64(),
            mode: text("mode"),
        }
    }
}

impl Log {
    /// Everything a node has, from the beginning up to now.
    ///
    /// # Panics
    /// If the stream is not whole: a gap, an error, an early end.
    pub async fn read(http: &Http) -> Self {
        let mut frames = http.watch("/v1/events?watch=true&after=0&initial=false&on_gap=error").await;
        let mut log = Self::default();
        loop {
            let frame = frames.next_within(Duration::from_secs(30)).await;
            let frame = frame.unwrap_or_else(|| panic!("the log of {} ended early", http.base()));
            match frame["type"].as_str() {
                Some("change") => log.changes.push(Change::parse(&frame)),
                Some("synced") => return log,
                Some("progress") => {}
                _ => panic!("the log of {} is not whole: {frame}", http.base()),
            }
        }
    }

    /// Newest revision in it.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.revision)
    }

    /// Events of a family with their revisions.
    pub fn events<'a>(&'a self, family: &'a str) -> impl Iterator<Item = (u64, &'a Event)> {
        let of = move |change: &'a Change| change.events.iter().map(|event| (change.revision, event));
        self.changes.iter().flat_map(of).filter(move |(_, event)| event.family == family)
    }
}
