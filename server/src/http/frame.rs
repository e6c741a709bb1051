//! ⑦ Frames of streams, as lines of JSON or as server-sent events.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{Instant, Problem};
use coracle_recipes::{Described, counter, election, group};
use coracle_store::{Cause, Change, Event, Family, Record, Revision, Session, SessionId, Timestamp, session};
use futures::Stream;
use http::{HeaderName, HeaderValue, header};

use super::message::{Body, Response};
use super::{json, wire};

/// A buffer of finished frames in one of the two forms.
pub struct Frames {
    sse: bool,
    out: Vec<u8>,
    /// The frame being written, and where its JSON begins.
    kind: &'static str,
    revision: Option<Revision>,
    body: Vec<u8>,
}

impl Frames {
    pub fn new(sse: bool) -> Self {
        let out = if sse { b"retry: 1000\n\n".to_vec() } else { Vec::new() };
        Self { sse, out, kind: "", revision: None, body: Vec::new() }
    }

    /// Begin a frame; `revision` is where a reader of it goes on, if it may.
    pub fn begin(&mut self, kind: &'static str, revision: Option<Revision>) -> &mut Vec<u8> {
        self.kind = kind;
        self.revision = revision;
        self.body.clear();
        self.body.extend_from_slice(b"{\"type\":\"");
        self.body.extend_from_slice(kind.as_bytes());
        self.body.push(b'"');
        &mut self.body
    }

    /// Finish the frame: its JSON object is closed here.
    pub fn end(&mut self) {
        self.body.push(b'}');
        if self.sse {
            self.out.extend_from_slice(b"event: ");
            self.out.extend_from_slice(self.kind.as_bytes());
            if let Some(revision) = self.revision {
                self.out.extend_from_slice(b"\nid: ");
                json::number(&mut self.out, revision.0);
            }
            self.out.extend_from_slice(b"\ndata: ");
            self.out.append(&mut self.body);
            self.out.extend_from_slice(b"\n\n");
        } else {
            self.out.append(&mut self.body);
            self.out.push(b'\n');
        }
    }

    /// A frame with a revision and nothing else: `synced`, `progress`, `lagged`.
    pub fn mark(&mut self, kind: &'static str, revision: Revision) {
        json::number_member(self.begin(kind, Some(revision)), "revision", revision.0);
        self.end();
    }

    pub fn gap(&mut self, from: Revision, to: Revision) {
        let body = self.begin("gap", None);
        json::number_member(body, "from", from.0);
        json::number_member(body, "to", to.0);
        self.end();
    }

    pub fn bye(&mut self, reason: &str, revision: Option<Revision>) {
        let body = self.begin("bye", revision);
        if let Some(revision) = revision {
            json::number_member(body, "revision", revision.0);
        }
        json::member(body, "reason");
        json::string(body, reason);
        self.end();
    }

    pub fn error(&mut self, problem: &Problem) {
        let body = self.begin("error", None);
        json::member(body, "problem");
        json::to_json(body, problem);
        self.end();
    }

    /// A frame made of a serialisable object that has its own `type`.
    pub fn object(&mut self, kind: &'static str, object: &impl serde::Serialize) {
        self.kind = kind;
        self.revision = None;
        self.body.clear();
        json::to_json(&mut self.body, object);
        // `end` closes the object.
        self.body.pop();
        self.end();
    }

    /// A `change` frame with the events that `write` accepts; no frame if it accepts none.
    pub fn change(&mut self, change: &Change, mut write: impl FnMut(&mut Vec<u8>, &Event) -> bool) -> bool {
        let body = self.begin("change", Some(change.revision));
        json::number_member(body, "revision", change.revision.0);
        json::member(body, "time");
        time(body, change.time);
        json::member(body, "events");
        body.push(b'[');
        let empty = body.len();
        for event in &change.events {
            let before = body.len();
            if before > empty {
                body.push(b',');
            }
            if !write(body, event) {
                body.truncate(before);
            }
        }
        if body.len() == empty {
            return false;
        }
        body.push(b']');
        self.end();
        true
    }

    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The finished frames so far.
    pub fn take(&mut self) -> Bytes {
        // A stream may be silent for long after a large frame.
        if self.body.capacity() > 4096 {
            self.body = Vec::new();
        }
        std::mem::take(&mut self.out).into()
    }
}

fn time(out: &mut Vec<u8>, time: Timestamp) {
    json::to_json(out, &Instant::from_unix_ms(time.0));
}

/// Append the event of a raw key.
pub fn kv_event(out: &mut Vec<u8>, event: &Event) {
    let op = if event.record.is_some() { "put" } else { "delete" };
    out.extend_from_slice(b"{\"family\":\"kv\",\"op\":\"");
    out.extend_from_slice(op.as_bytes());
    out.extend_from_slice(b"\",");
    json::bytes_member(out, "key", event.key.name());
    if let Some(record) = &event.record {
        json::value_members(out, record);
        json::number_member(out, "version", record.version);
    }
    if let Some(previous) = &event.previous {
        json::number_member(out, "previous_revision", previous.mod_revision.0);
    } else {
        out.extend_from_slice(b",\"create\":true");
    }
    if let Some(cause) = wire::cause(event.cause) {
        json::member(out, "cause");
        json::string(out, cause);
    }
    json::session_member(out, event.record.as_ref().and_then(|r| r.session));
    out.push(b'}');
}

/// What happened to a session, from what it was to what it is.
fn session_op(was: Option<&Session>, is: Option<&Session>, cause: Cause) -> &'static str {
    let turned = |of: fn(&Session) -> bool| match (was, is) {
        (Some(was), Some(is)) => of(is) && !of(was),
        _ => false,
    };
    match (is, was) {
        (Some(_), None) => "opened",
        (Some(_), Some(_)) if turned(|session| session.suspect.is_some()) => "suspect",
        (Some(_), Some(_)) if turned(|session| session.suspect.is_none()) => "active",
        (Some(_), Some(_)) if turned(|session| session.stalled.is_some()) => "stalled",
        (Some(_), Some(_)) if turned(|session| session.stalled.is_none()) => "resumed",
        (Some(_), Some(_)) => "updated",
        (None, _) if cause == Cause::SessionExpired => "expired",
        (None, _) => "closed",
    }
}

fn session_event(out: &mut Vec<u8>, event: &Event, id: SessionId) {
    let session = |record: &Option<Arc<Record>>| Session::decode(&record.as_ref()?.value).ok();
    let (was, is) = (session(&event.previous), session(&event.record));
    let op = session_op(was.as_ref(), is.as_ref(), event.cause);
    let (family, name) = ("sessions", id.to_string());
    named_event(out, event, &Described { family, op, name, item: None, session: Some(id), token: None });
    // Behind the members that all events have.
    out.pop();
    if let Some(session) = is.as_ref().or(was.as_ref()).filter(|session| !session.name.is_empty()) {
        json::member(out, "owner");
        json::string(out, &session.name);
    }
    if let Some(session) = is {
        json::member(out, "state");
        json::to_json(out, &wire::session_state(&session));
        if let Some(progress) = wire::progress(&session) {
            json::member(out, "progress");
            json::to_json(out, &progress);
        }
    }
    out.push(b'}');
}

/// Append the event of any family whose events mean something to people; false for the others.
pub fn any_event(out: &mut Vec<u8>, event: &Event) -> bool {
    match event.key.family() {
        Family::KV => kv_event(out, event),
        Family::SESSION => match session::id_of(&event.key) {
            Some(id) => session_event(out, event, id),
            None => return false,
        },
        _ => match coracle_recipes::describe(event) {
            Some(described) => {
                named_event(out, event, &described);
                told_value(out, event);
            }
            None => return false,
        },
    }
    true
}

/// Add the value to the event of a recipe whose objects are one: a counter's number, what a member of a group says.
fn told_value(out: &mut Vec<u8>, event: &Event) {
    let Some(record) = event.record.as_deref() else { return };
    out.pop();
    match event.key.family() {
        counter::FAMILY => {
            json::member(out, "value");
            json::to_json(out, &counter::values(event).0);
        }
        group::FAMILY => {
            if let Some(group::Member { payload, content_type, .. }) = group::said(event) {
                json::value_members(out, &Record { value: payload, content_type, ..record.clone() });
            }
        }
        election::FAMILY => super::election::tell(out, event),
        _ => {}
    }
    out.push(b'}');
}

/// An event of a recipe's object.
pub fn named_event(out: &mut Vec<u8>, event: &Event, described: &Described) {
    let Described { family, op, name, item, session, token } = described;
    out.extend_from_slice(b"{\"family\":");
    json::string(out, family);
    json::member(out, "op");
    json::string(out, op);
    json::member(out, "name");
    json::string(out, name);
    if let Some(item) = item {
        json::member(out, "item");
        json::string(out, item);
    }
    if let Some(cause) = wire::cause(event.cause) {
        json::member(out, "cause");
        json::string(out, cause);
    }
    json::session_member(out, *session);
    if let Some(token) = token {
        json::number_member(out, "token", token.0);
    }
    out.push(b'}');
}

/// A streamed answer.
pub fn response(
    sse: bool,
    revision: Revision,
    frames: impl Stream<Item = Bytes> + Send + 'static,
) -> Response {
    let mut response = Response::new(Body::streamed(frames));
    let headers = response.headers_mut();
    let kind = if sse { "text/event-stream" } else { "application/x-ndjson" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    headers.insert(super::respond::REVISION, super::respond::number(revision.0));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coracle_store::{Cause, ContentType, Key, Record};

    use super::*;

    fn record(revision: u64, value: &str) -> Arc<Record> {
        Arc::new(Record {
            value: value.as_bytes().into(),
            content_type: ContentType::Text,
            create_revision: Revision(41),
            mod_revision: Revision(revision),
            version: revision - 40,
            session: None,
        })
    }

    fn change() -> Change {
        let event = |key: &str, record, previous, cause| Event {
            key: Key::new(Family::KV, key.as_bytes()),
            record,
            previous,
            cause,
        };
        Change {
            revision: Revision(43),
            time: Timestamp(1_795_326_011_000),
            events: Box::new([
                event("app/color", Some(record(43, "red")), Some(record(41, "blue")), Cause::Command),
                event("gone", None, Some(record(42, "x")), Cause::SessionExpired),
                event("new\n", Some(record(41, "")), None, Cause::Command),
            ]),
        }
    }

    fn text(frames: &mut Frames) -> String {
        String::from_utf8(frames.take().to_vec()).unwrap()
    }

    #[test]
    fn a_change_is_one_line_that_the_wire_type_reads() {
        let mut frames = Frames::new(false);
        assert!(frames.change(&change(), |out, event| {
            kv_event(out, event);
            true
        }));
        let line = text(&mut frames);
        assert_eq!(
            line,
            concat!(
                r#"{"type":"change","revision":43,"time":"2026-11-22T05:40:11Z","events":["#,
                r#"{"family":"kv","op":"put","key":"app/color","value":"red","content_type":"text/plain; charset=utf-8","version":3,"previous_revision":41},"#,
                r#"{"family":"kv","op":"delete","key":"gone","previous_revision":42,"cause":"session_expired"},"#,
                r#"{"family":"kv","op":"put","key":"new\n","value":"","content_type":"text/plain; charset=utf-8","version":1,"create":true}]}"#,
                "\n"
            )
        );
        let frame: coracle_api::Frame = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_string(&frame).unwrap() + "\n", line);
    }

    #[test]
    fn events_nobody_wants_leave_no_trace() {
        let mut frames = Frames::new(false);
        assert!(!frames.change(&change(), |_, _| false));
        assert!(frames.is_empty());
        frames.change(&change(), |out, event| {
            kv_event(out, event);
            event.key.name() == b"gone"
        });
        let frame: coracle_api::Frame = serde_json::from_str(&text(&mut frames)).unwrap();
        let coracle_api::Frame::Change { events, .. } = frame else { panic!("{frame:?}") };
        assert_eq!(events.len(), 1);
    }

    #[test]
    fn marks_in_both_forms() {
        let mut lines = Frames::new(false);
        lines.mark("synced", Revision(7));
        lines.gap(Revision(1), Revision(5));
        lines.bye("limit", Some(Revision(9)));
        assert_eq!(
            text(&mut lines),
            "{\"type\":\"synced\",\"revision\":7}\n{\"type\":\"gap\",\"from\":1,\"to\":5}\n{\"type\":\"bye\",\"revision\":9,\"reason\":\"limit\"}\n"
        );
        let mut events = Frames::new(true);
        events.mark("progress", Revision(7));
        events.gap(Revision(1), Revision(5));
        assert_eq!(
            text(&mut events),
            concat!(
                "retry: 1000\n\n",
                "event: progress\nid: 7\ndata: {\"type\":\"progress\",\"revision\":7}\n\n",
                "event: gap\ndata: {\"type\":\"gap\",\"from\":1,\"to\":5}\n\n",
            )
        );
    }
}
