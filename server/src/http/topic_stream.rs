//! ⑥ ⑦ Following messages: what is kept, then what comes, one frame a revision.
//!
//! A stream holds a position and reads the topic's own keys, at its client's pace: a slow client costs no memory, and
//! what a topic keeps is delivered whatever has been compacted in the history. What retention took before it was read
//! is told as a gap. A stream that had caught up and is overtaken by retention while it still has a backlog to send is
//! ended with `lagged`: its client is too slow for what comes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_api::Span;
use coracle_raft::node::Watch;
use coracle_recipes::topic::{self, Ahead, Found, Place, Reach};
use coracle_store::Revision;

use super::call::Call;
use super::frame::{self, Frames};
use super::problem::Answer;
use super::read::{Format, Reading, quiet_up_to};
use super::topic_read::{self, Begin, From, LOOKS, TOPICS};
use super::{json, watch};
use crate::edge::{Admitted, Edge};

/// Messages, and bytes of bodies, looked for in one go.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 64 * 1024;

/// The parameters of a stream.
pub struct Asked {
    begin: Option<Begin>,
    heartbeat: Duration,
    /// Frames left to send.
    limit: Option<u64>,
    sse: bool,
    reading: Reading,
}

/// `watch=true` and what goes with it; `None` if the request is none.
pub fn asked(call: &mut Call, subject: &str) -> Answer<Option<Asked>> {
    let watches = call.query.flag("watch")?;
    let accepts = call.headers.get(http::header::ACCEPT);
    let accepts = accepts.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    if watches == Some(false) || (watches.is_none() && !accepts) {
        return Ok(None);
    }
    let range = Span::from_millis_saturating(1_000)..=Span::from_millis_saturating(600_000);
    Ok(Some(Asked {
        begin: topic_read::begin(call, subject)?,
        heartbeat: call.query.span("heartbeat", range)?.unwrap_or(watch::HEARTBEAT).as_duration(),
        limit: call.query.number("limit", 1..=u64::MAX)?,
        sse: call.format(&[("ndjson", Format::Ndjson), ("sse", Format::Sse)])? == Some(Format::Sse),
        reading: call.reading()?,
    }))
}

/// Open the stream; whether it may begin is decided before its first byte.
pub async fn open(mut call: Call, subject: String, asked: Asked) -> Answer {
    call.query.done()?;
    let edge = call.edge.clone();
    let place = edge.open_stream()?;
    let watch = edge.node.watch(topic::messages(&subject));
    call.settle(asked.reading).await?;
    call.admitted = None;
    let (at, told, revision) = edge.node.read(|store| {
        let view = store.view();
        // A table of current values is read from its beginning, unless somebody knows better.
        let table = topic::shown(view, &subject)
            .and_then(|it| it.retention)
            .is_some_and(|it| it.max_per_key.is_some());
        let fallback = if table { From::First } else { From::New };
        let begin = asked.begin.unwrap_or(Begin::From(fallback));
        let at = begin.place(view, &subject);
        // Only whoever knew a position has lost what was behind it.
        let lost = topic::lost(view, &subject, at, TOPICS);
        let told = if matches!(begin, Begin::After(_)) { None } else { lost };
        (at, told.map_or(0, |(_, to)| to), view.revision())
    });
    let feed = Feed {
        edge,
        watch,
        pattern: topic::is_pattern(&subject),
        subject,
        frames: Frames::new(asked.sse),
        stage: Stage::Catching,
        at,
        told,
        losses: None,
        backlog: false,
        heartbeat: asked.heartbeat,
        left: asked.limit,
        _place: place,
    };
    let sse = asked.sse;
    let stream =
        futures::stream::unfold(feed, |mut feed| async move { feed.next().await.map(|bytes| (bytes, feed)) });
    Ok(frame::response(sse, revision, stream))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Sending what is kept.
    Catching,
    Live,
    Ended,
}

struct Feed {
    edge: Edge,
    watch: Watch,
    subject: String,
    pattern: bool,
    frames: Frames,
    stage: Stage,
    /// Everything up to here was sent, or is not for this stream.
    at: Place,
    /// The position up to which losses were told.
    told: u64,
    /// Losses of all topics when they were last looked at.
    losses: Option<Revision>,
    /// The last look found more than it took.
    backlog: bool,
    heartbeat: Duration,
    left: Option<u64>,
    _place: Admitted,
}

/// What one look found.
struct Look {
    gap: Option<(u64, u64)>,
    losses: Revision,
    ahead: Ahead,
    revision: Revision,
}

impl Feed {
    /// The next bytes to send; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        while self.frames.is_empty() {
            if self.left == Some(0) && self.stage != Stage::Ended {
                self.bye("limit");
                break;
            }
            if self.stage == Stage::Ended {
                return None;
            }
            self.follow().await;
        }
        self.edge.metrics.frames_sent(1);
        Some(self.frames.take())
    }

    /// Send what is there, else wait for something to send.
    async fn follow(&mut self) {
        loop {
            let look = self.look();
            if let Some(gap) = look.gap {
                if self.stage == Stage::Live && self.backlog {
                    self.edge.metrics.lagged.inc();
                    return self.end("lagged", None);
                }
                self.gap(gap);
            }
            self.losses = Some(look.losses);
            self.backlog = !look.ahead.end;
            if !self.write(&look) {
                return;
            }
            self.at = match (self.pattern, look.ahead.end) {
                (true, true) => Place::after(look.revision),
                (true, false) => Place::after(look.ahead.upto.revision),
                (false, _) => look.ahead.upto,
            };
            if !self.frames.is_empty() {
                return;
            }
            if self.backlog {
                tokio::task::yield_now().await;
                continue;
            }
            if self.stage == Stage::Catching {
                self.stage = Stage::Live;
                self.mark("synced", look.revision);
                return;
            }
            if self.wait().await {
                return;
            }
        }
    }

    fn look(&self) -> Look {
        let (subject, at) = (&*self.subject, self.at);
        let reach = Reach { messages: BATCH, bytes: BATCH_BYTES, looks: LOOKS, whole: true };
        self.edge.node.read(|store| {
            let view = store.view();
            let losses = topic::losses(view);
            let changed = !self.pattern || self.losses != Some(losses);
            let gap = if changed { topic::lost(view, subject, at, TOPICS) } else { None };
            let gap = gap.filter(|(_, to)| *to > self.told).map(|(from, to)| (from.max(self.told), to));
            Look { gap, losses, ahead: topic::ahead(view, subject, at, reach), revision: view.revision() }
        })
    }

    /// Write a frame for each revision; false if no more may be sent.
    fn write(&mut self, look: &Look) -> bool {
        for found in look.ahead.found.chunk_by(|one, next| one.place.revision == next.place.revision) {
            if self.left == Some(0) {
                return false;
            }
            let Some(last) = found.last() else { continue };
            let revision = last.place.revision;
            self.at = if self.pattern { Place::after(revision) } else { last.place };
            let after = self.after();
            let body = self.frames.begin("change", Some(Revision(after)));
            json::number_member(body, "revision", revision.0);
            json::number_member(body, "after", after);
            json::member(body, "events");
            messages(body, found);
            self.frames.end();
            self.count();
        }
        true
    }

    /// Wait for a message, the heartbeat or the end. True if there is a frame to send.
    async fn wait(&mut self) -> bool {
        let heartbeat = Instant::now() + self.heartbeat;
        tokio::select! {
            biased;
            () = self.edge.drained() => {
                self.bye("shutdown");
                return true;
            }
            _ = self.watch.changed() => return false,
            () = tokio::time::sleep_until(heartbeat.into()) => {}
        }
        let deadline = self.edge.deadline();
        if let Ok((true, revision)) = quiet_up_to(&self.edge.node, &mut self.watch, deadline).await {
            if self.pattern {
                self.at = Place::after(revision.max(self.at.revision));
            }
            self.mark("progress", revision);
            return true;
        }
        false
    }

    /// Where a reader continues. Event ids are positions, too.
    fn after(&self) -> u64 {
        topic_read::position(&self.subject, self.at)
    }

    fn mark(&mut self, kind: &'static str, revision: Revision) {
        let after = self.after();
        let body = self.frames.begin(kind, Some(Revision(after)));
        json::number_member(body, "revision", revision.0);
        json::number_member(body, "after", after);
        self.frames.end();
        self.count();
    }

    fn gap(&mut self, (from, to): (u64, u64)) {
        self.told = to;
        self.frames.gap(Revision(from), Revision(to));
        self.count();
    }

    fn bye(&mut self, reason: &str) {
        self.end("bye", Some(reason));
    }

    fn end(&mut self, kind: &'static str, reason: Option<&str>) {
        let after = self.after();
        let body = self.frames.begin(kind, Some(Revision(after)));
        if let Some(reason) = reason {
            json::member(body, "reason");
            json::string(body, reason);
        }
        json::number_member(body, "after", after);
        self.frames.end();
        self.stage = Stage::Ended;
    }

    fn count(&mut self) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
    }
}

fn messages(out: &mut Vec<u8>, found: &[Found]) {
    for (i, found) in found.iter().enumerate() {
        out.push(if i == 0 { b'[' } else { b',' });
        json::to_json(out, &topic_read::message(found));
    }
    out.push(b']');
}
