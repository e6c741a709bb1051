//! ⑥ ⑦ Watches: from a revision on, one frame a revision, never silent.
//!
//! A stream holds a position and nothing else: it reads the history at its client's pace, so a slow client costs no
//! memory. A client so slow that history went past it is told so (`lagged`) and resumes where it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_api::Span;
use coracle_raft::node::Watch;
use coracle_store::{Change, Event, HistoryError, Key, Order, Range, Revision, Selection, Store, View};
use serde::Serialize;

use super::call::Call;
use super::frame::{self, Frames};
use super::json;
use super::problem::{Answer, bad_query, compacted};
use super::read::{Format, Reading, quiet_up_to};
use crate::edge::{Admitted, Edge};

/// Changes looked at under one hold of the state's lock.
const SCAN: usize = 2048;
/// Changes, and bytes, sent in one go.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 64 * 1024;
/// Items and bytes of one `snapshot` frame.
const CHUNK: usize = 256;
const CHUNK_BYTES: usize = 256 * 1024;

pub const HEARTBEAT: Span = match Span::from_secs(15) {
    Some(span) => span,
    None => panic!("fifteen seconds are a span"),
};

/// `watch=true` and what goes with it.
pub struct Watching {
    after: Option<Revision>,
    initial: bool,
    heartbeat: Duration,
    /// Frames left to send.
    limit: Option<u64>,
    /// A gap at the start is 410 instead of a frame.
    gap_is_error: bool,
    sse: bool,
    reading: Reading,
}

/// The parameters of a watch; `None` if the request is none.
pub fn asked(call: &mut Call) -> Answer<Option<Watching>> {
    let watch = call.query.flag("watch")?;
    let accepts_events = call
        .headers
        .get(http::header::ACCEPT)
        .is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream"));
    if watch == Some(true) || (watch.is_none() && accepts_events) {
        parameters(call).map(Some)
    } else {
        Ok(None)
    }
}

/// The parameters of an endpoint that always streams.
pub fn parameters(call: &mut Call) -> Answer<Watching> {
    let after = call.twin("after", &super::call::LAST_EVENT_ID)?;
    let after = after.map(|text| {
        super::query::number(text.as_bytes(), &(0..=u64::MAX)).ok_or_else(|| bad_query("after", "a revision"))
    });
    let heartbeat_range = Span::from_millis_saturating(1000)..=Span::from_millis_saturating(600_000);
    let format = call.format(&[("ndjson", Format::Ndjson), ("sse", Format::Sse)])?;
    Ok(Watching {
        after: after.transpose()?.map(Revision),
        initial: call.query.flag("initial")?.unwrap_or(true),
        heartbeat: call.query.span("heartbeat", heartbeat_range)?.unwrap_or(HEARTBEAT).as_duration(),
        limit: call.query.number("limit", 1..=u64::MAX)?,
        gap_is_error: call.query.word("on_gap", &[("snapshot", false), ("error", true)])?.unwrap_or(false),
        sse: format == Some(Format::Sse),
        reading: call.reading()?,
    })
}

/// What a watch is about.
pub struct Scope {
    selection: Selection,
    items: Items,
}

/// Objects as JSON, each by itself.
pub type Snapshot = Box<dyn Fn(&Store) -> Vec<Vec<u8>> + Send + Sync>;
/// Names behind a name, at most so many, each with its object as JSON if there is one; all as of the view.
pub type Pages = Box<dyn Fn(View<'_>, Option<&str>, usize) -> Vec<(String, Option<Vec<u8>>)> + Send + Sync>;
/// Appends an event as JSON if it is within the scope.
pub type Told = Box<dyn Fn(&mut Vec<u8>, &Event) -> bool + Send + Sync>;

/// How its snapshot and its events look.
enum Items {
    Kv,
    Objects(Shown, Told),
}

/// What a snapshot is made of.
enum Shown {
    /// Events only.
    Nothing,
    /// Made at once: for a few.
    Whole(Snapshot),
    /// Read as the client reads it.
    Pages(Pages),
}

impl Scope {
    pub fn kv(selection: Selection) -> Self {
        Self { selection, items: Items::Kv }
    }

    /// Anything else: what the snapshot shows, if there is one, and what is told of an event in the selection.
    pub fn objects(selection: Selection, snapshot: Option<Snapshot>, told: Told) -> Self {
        Self { selection, items: Items::Objects(snapshot.map_or(Shown::Nothing, Shown::Whole), told) }
    }

    /// The objects of a family, however many: `names` and `show` as of a list ([`super::list::Listing::page`]).
    pub fn family<T: Serialize>(
        selection: Selection,
        names: impl Fn(View<'_>, Option<&str>, usize) -> Vec<String> + Send + Sync + 'static,
        show: impl Fn(View<'_>, &str) -> Option<T> + Send + Sync + 'static,
        told: Told,
    ) -> Self {
        let pages: Pages = Box::new(move |view, after, limit| {
            let json = |name: String| {
                let shown = show(view, &name).map(|shown| {
                    let mut out = Vec::new();
                    json::to_json(&mut out, &shown);
                    out
                });
                (name, shown)
            };
            names(view, after, limit).into_iter().map(json).collect()
        });
        Self { selection, items: Items::Objects(Shown::Pages(pages), told) }
    }

    /// The objects of a recipe: one, or those whose names start with `prefix`. `shown` makes them JSON, by the one name
    /// or the prefix.
    pub fn recipe(
        selection: Selection,
        name: Option<String>,
        prefix: String,
        shown: impl Fn(&Store, Option<&str>, &str) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (one, start) = (name.clone(), prefix.clone());
        let snapshot: Snapshot = Box::new(move |store| shown(store, one.as_deref(), &start));
        Self::objects(selection, Some(snapshot), named(name, prefix))
    }

    fn has_snapshot(&self) -> bool {
        !matches!(self.items, Items::Objects(Shown::Nothing, _))
    }

    /// Append an event if it is within the scope.
    fn write(&self, out: &mut Vec<u8>, event: &Event) -> bool {
        if !self.selection.concerns(event) {
            return false;
        }
        match &self.items {
            Items::Kv => {
                frame::kv_event(out, event);
                true
            }
            Items::Objects(_, told) => told(out, event),
        }
    }
}

/// What is told of the objects of a recipe: of one, or of those whose names start with `prefix`.
pub fn named(name: Option<String>, prefix: String) -> Told {
    Box::new(move |out, event| {
        let within = coracle_recipes::describe(event)
            .is_some_and(|it| name.as_ref().is_none_or(|n| *n == it.name) && it.name.starts_with(&prefix));
        within && frame::any_event(out, event)
    })
}

/// Open the stream; whether it may begin is decided before its first byte.
pub async fn open(mut call: Call, watching: Watching, scope: Scope) -> Answer {
    call.query.done()?;
    let edge = call.edge.clone();
    let place = edge.open_stream()?;
    let watch = edge.node.watch(scope.selection.clone());
    call.settle(watching.reading).await?;
    call.admitted = None;
    let (revision, oldest) = edge.node.read(|store| (store.revision(), gone_after(store, watching.after)));
    let mut frames = Frames::new(watching.sse);
    let (stage, cursor) = match (watching.after, oldest) {
        (Some(_), Some(oldest)) if watching.gap_is_error => return Err(compacted(oldest.0)),
        (Some(after), Some(oldest)) => {
            frames.gap(after, oldest);
            (if scope.has_snapshot() { Stage::Snapshot(None) } else { Stage::Catching }, oldest)
        }
        (Some(after), None) => (Stage::Catching, after),
        (None, _) if watching.initial && scope.has_snapshot() => (Stage::Snapshot(None), revision),
        (None, _) => (Stage::Catching, revision),
    };
    let sse = watching.sse;
    let sent = u64::from(!frames.is_empty() && matches!((watching.after, oldest), (Some(_), Some(_))));
    let left = watching.limit.map(|limit| limit.saturating_sub(sent));
    let heartbeat = watching.heartbeat;
    let feed = Feed { edge, watch, scope, frames, stage, cursor, heartbeat, left, _place: place };
    let stream =
        futures::stream::unfold(feed, |mut feed| async move { feed.next().await.map(|bytes| (bytes, feed)) });
    Ok(frame::response(sse, revision, stream))
}

/// The oldest revision a watch can begin after, if what came after `after` is gone.
fn gone_after(store: &Store, after: Option<Revision>) -> Option<Revision> {
    match store.changes_after(after?) {
        Err(HistoryError::Compacted(oldest)) => Some(oldest),
        Err(HistoryError::Future(_)) | Ok(_) => None,
    }
}

enum Stage {
    /// Sending the state at a revision, from behind a key on (chunks of a list made beforehand for small families).
    Snapshot(Option<Chunks>),
    /// Sending the past.
    Catching,
    Live,
    Ended,
}

enum Chunks {
    /// Behind this key.
    Kv(Option<Key>),
    /// Behind this name.
    Pages(Option<String>),
    /// What is left of the items.
    Made(std::vec::IntoIter<Vec<u8>>),
}

struct Feed {
    edge: Edge,
    watch: Watch,
    scope: Scope,
    frames: Frames,
    stage: Stage,
    /// Everything up to here was sent, or does not concern this stream.
    cursor: Revision,
    heartbeat: Duration,
    left: Option<u64>,
    _place: Admitted,
}

/// What one look at the history found.
struct Look {
    changes: Vec<Arc<Change>>,
    upto: Revision,
    /// Nothing newer is there.
    end: bool,
}

impl Feed {
    /// The next bytes to send; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        while self.frames.is_empty() {
            if self.left == Some(0) && !matches!(self.stage, Stage::Ended) {
                self.frames.bye("limit", Some(self.cursor));
                self.stage = Stage::Ended;
                break;
            }
            match self.stage {
                Stage::Ended => return None,
                Stage::Snapshot(_) => self.snapshot(),
                Stage::Catching | Stage::Live => self.follow().await,
            }
        }
        self.edge.metrics.frames_sent(1);
        Some(self.frames.take())
    }

    fn count(&mut self) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
    }

    /// Send what is there, else wait for something to send.
    async fn follow(&mut self) {
        loop {
            let cursor = self.cursor;
            let look = self.edge.node.read(|store| look(store, &self.scope.selection, cursor));
            let Ok(look) = look else {
                self.edge.metrics.lagged.inc();
                self.frames.mark("lagged", self.cursor);
                self.stage = Stage::Ended;
                return;
            };
            for change in &look.changes {
                let scope = &self.scope;
                if self.left == Some(0) {
                    return;
                }
                self.cursor = change.revision;
                if self.frames.change(change, |out, event| scope.write(out, event)) {
                    self.count();
                }
                if self.frames.len() > BATCH_BYTES {
                    return;
                }
            }
            self.cursor = self.cursor.max(look.upto);
            if !self.frames.is_empty() {
                return;
            }
            if !look.end {
                tokio::task::yield_now().await;
                continue;
            }
            if matches!(self.stage, Stage::Catching) {
                self.stage = Stage::Live;
                self.frames.mark("synced", self.cursor);
                self.count();
                return;
            }
            if self.wait().await {
                return;
            }
        }
    }

    /// Wait for a change, the heartbeat or the end. True if there is a frame to send.
    async fn wait(&mut self) -> bool {
        let heartbeat = Instant::now() + self.heartbeat;
        tokio::select! {
            biased;
            () = self.edge.drained() => {
                self.frames.bye("shutdown", Some(self.cursor));
                self.stage = Stage::Ended;
                return true;
            }
            _ = self.watch.changed() => return false,
            () = tokio::time::sleep_until(heartbeat.into()) => {}
        }
        let deadline = self.edge.deadline();
        if let Ok((true, revision)) = quiet_up_to(&self.edge.node, &mut self.watch, deadline).await {
            self.cursor = self.cursor.max(revision);
            self.frames.mark("progress", self.cursor);
            self.count();
            return true;
        }
        false
    }

    /// Write the next chunk of the snapshot.
    fn snapshot(&mut self) {
        let Stage::Snapshot(chunks) = std::mem::replace(&mut self.stage, Stage::Catching) else { return };
        let node = self.edge.node.clone();
        let chunks = match chunks {
            Some(chunks) => chunks,
            None => node.read(|store| {
                // The snapshot shows one revision, and the changes go on behind it.
                self.cursor = store.revision();
                match &self.scope.items {
                    Items::Kv => Chunks::Kv(None),
                    Items::Objects(Shown::Nothing, _) => Chunks::Made(Vec::new().into_iter()),
                    Items::Objects(Shown::Whole(snapshot), _) => Chunks::Made(snapshot(store).into_iter()),
                    Items::Objects(Shown::Pages(_), _) => Chunks::Pages(None),
                }
            }),
        };
        let mut items = Vec::new();
        let rest = match chunks {
            Chunks::Made(mut made) => {
                while items.len() < CHUNK_BYTES
                    && let Some(item) = made.next()
                {
                    comma(&mut items);
                    items.extend_from_slice(&item);
                }
                (made.len() > 0).then_some(Chunks::Made(made))
            }
            Chunks::Kv(behind) => {
                let at = self.cursor;
                let chunk = node.read(|store| kv_chunk(store, &self.scope.selection, behind, at, &mut items));
                let Ok(last) = chunk else { return self.too_slow() };
                last.map(|key| Chunks::Kv(Some(key)))
            }
            Chunks::Pages(behind) => {
                let at = self.cursor;
                let Items::Objects(Shown::Pages(pages), _) = &self.scope.items else { return };
                let page = node.read(|store| Ok(pages(store.view_at(at)?, behind.as_deref(), CHUNK)));
                let page: Result<_, HistoryError> = page;
                let Ok(page) = page else { return self.too_slow() };
                let (whole, mut last) = (page.len() == CHUNK, None);
                let mut cut = false;
                for (name, item) in page {
                    cut = items.len() > CHUNK_BYTES;
                    if cut {
                        break;
                    }
                    last = Some(name);
                    if let Some(item) = item {
                        comma(&mut items);
                        items.extend_from_slice(&item);
                    }
                }
                last.filter(|_| whole || cut).map(|name| Chunks::Pages(Some(name)))
            }
        };
        let more = rest.is_some();
        let body = self.frames.begin("snapshot", (!more).then_some(self.cursor));
        json::number_member(body, "revision", self.cursor.0);
        json::member(body, "items");
        body.push(b'[');
        body.append(&mut items);
        body.push(b']');
        if more {
            body.extend_from_slice(b",\"more\":true");
        }
        self.frames.end();
        self.count();
        if more {
            self.stage = Stage::Snapshot(rest);
        }
    }

    /// The client took longer for the snapshot than history is kept: it has to begin again.
    fn too_slow(&mut self) {
        self.edge.metrics.lagged.inc();
        self.frames.mark("lagged", Revision(0));
        self.stage = Stage::Ended;
    }
}

fn comma(items: &mut Vec<u8>) {
    if !items.is_empty() {
        items.push(b',');
    }
}

/// Append entries behind a key as they were at a revision; the last key if more follow.
fn kv_chunk(
    store: &Store,
    selection: &Selection,
    behind: Option<Key>,
    at: Revision,
    items: &mut Vec<u8>,
) -> Result<Option<Key>, HistoryError> {
    let (start, end) = match selection {
        Selection::All | Selection::Session(_) => return Ok(None),
        Selection::Key(key) => {
            if let Some(record) = store.get_at(key, at)? {
                json::entry(items, key, &record, true);
            }
            return Ok(None);
        }
        Selection::Prefix(prefix) => {
            let end = super::kv_list::successor(prefix).and_then(|end| Key::from_bytes(&end));
            (Key::from_bytes(prefix), end)
        }
        Selection::Range(start, end) => (Some(start.clone()), Some(end.clone())),
    };
    let start = match behind {
        Some(key) => Key::from_bytes(&[key.as_bytes(), b"\0"].concat()),
        None => start,
    };
    let Some(start) = start else { return Ok(None) };
    // An end in the next family is the end of this one.
    let end = end.filter(|end| end.family() == start.family());
    let page = store.range(&Range { start, end, order: Order::Ascending, limit: CHUNK, at: Some(at) })?;
    let mut last = None;
    for (i, (key, record)) in page.items.iter().enumerate() {
        comma(items);
        json::entry(items, key, record, true);
        if items.len() > CHUNK_BYTES && (page.more || i + 1 < page.items.len()) {
            return Ok(Some(key.clone()));
        }
        last = Some(key);
    }
    Ok(if page.more { last.cloned() } else { None })
}

/// The next changes of a selection after a revision.
fn look(store: &Store, selection: &Selection, after: Revision) -> Result<Look, HistoryError> {
    let newest = store.revision();
    if after >= newest {
        return Ok(Look { changes: Vec::new(), upto: after, end: true });
    }
    let mut found = Look { changes: Vec::new(), upto: after, end: true };
    for (seen, change) in store.changes_after(after)?.enumerate() {
        if seen == SCAN || found.changes.len() == BATCH {
            found.end = false;
            return Ok(found);
        }
        found.upto = change.revision;
        if change.events.iter().any(|event| selection.concerns(event)) {
            found.changes.push(change.clone());
        }
    }
    found.upto = newest;
    Ok(found)
}
