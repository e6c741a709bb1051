//! JSON Schemas of what writes its JSON by hand.
//!
//! Everything else derives its schema. Only the server asks for them (feature `schema`), for the OpenAPI document.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{ByeReason, Code, Effect, Event, Frame, Instant, Problem, Ratio, Retry, SessionId, Span};

/// The name of a schema, and its schema.
macro_rules! schemas {
    ($($type:ty, $name:literal, $schema:expr;)*) => {
        $(impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let schema: fn(&mut SchemaGenerator) -> Schema = $schema;
                schema(generator)
            }
        })*
    };
}

schemas! {
    Span, "Duration", |generator| {
        let text = json_schema!({
            "type": "string", "pattern": DURATION, "examples": ["30s", "500ms", "1h30m"]
        });
        let what = "A duration of whole milliseconds, such as `500ms`, `30s`, `1h30m`";
        if generator.contract().is_serialize() {
            return described(text, what);
        }
        let seconds = json_schema!({ "type": "integer", "minimum": 0, "maximum": Span::MAX.as_millis() / 1000 });
        described(json_schema!({ "anyOf": [text, seconds] }), "A duration as text, or a whole number of seconds.")
    };
    Instant, "Instant", |_| json_schema!({
        "description": "A moment, RFC 3339 in UTC.",
        "type": "string", "format": "date-time", "examples": ["2026-11-22T05:40:11Z"]
    });
    SessionId, "SessionId", |_| json_schema!({
        "description": "A session: 16 hex digits, as the server has drawn them.",
        "type": "string", "pattern": SESSION, "examples": ["7587d8aa00000001"]
    });
    Ratio, "Ratio", |_| json_schema!({
        "description": "A part of the whole, with at most three decimals.",
        "type": "number", "minimum": 0, "maximum": 1, "examples": [0.25]
    });
    Code, "Code", |_| json_schema!({
        "description": "Why a request failed; the last part of the problem's `type`. The list only grows.",
        "type": "string", "enum": Code::ALL
    });
    Problem, "Problem", problem;
}

/// Text of a duration.
pub const DURATION: &str = r"^([0-9]+|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)$";
/// Text of a session id: the top bit is never set.
pub const SESSION: &str = "^[0-7][0-9a-fA-F]{15}$";

fn described(mut schema: Schema, description: &str) -> Schema {
    schema.insert("description".to_owned(), description.into());
    schema
}

fn problem(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What every failed request is answered with (RFC 9457). Values named in `detail` are members, \
                        too; each code's own members stand on its page.",
        "type": "object",
        "properties": {
            "type": { "description": "`/problems/` and the code: a page about it.", "type": "string" },
            "title": { "description": "The code as one short sentence.", "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "code": generator.subschema_for::<Code>(),
            "retry": generator.subschema_for::<Retry>(),
            "effect": generator.subschema_for::<Effect>(),
            "detail": { "description": "What exactly, for people.", "type": "string" },
            "instance": { "description": "The request, as the log of the node names it.", "type": "string" },
            "revision": { "description": "Revision at which it was judged.", "type": "integer", "minimum": 0 },
        },
        "required": ["type", "title", "status", "code", "retry", "effect", "detail"],
    })
}

impl<I: JsonSchema> JsonSchema for Frame<I> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}Frame", I::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let revision = || json_schema!({ "type": "integer", "minimum": 0 });
        let frame = |kind: &str, says: &str, members: &[(&str, Schema)], optional: &[(&str, Schema)]| {
            let mut schema = json_schema!({
                "description": says,
                "type": "object",
                "properties": { "type": { "const": kind } },
                "required": ["type"],
            });
            for (name, member) in members.iter().chain(optional) {
                schema.as_object_mut().expect("an object")["properties"][name] = member.clone().to_value();
            }
            let required = std::iter::once("type").chain(members.iter().map(|(name, _)| *name));
            schema.insert("required".to_owned(), required.collect::<Vec<_>>().into());
            schema
        };
        let flag = json_schema!({ "type": "boolean" });
        let at = [("revision", revision())];
        let items = ("items", generator.subschema_for::<Vec<I>>());
        let events = ("events", generator.subschema_for::<Vec<Event>>());
        let time = ("time", generator.subschema_for::<Instant>());
        let reason = ("reason", generator.subschema_for::<ByeReason>());
        let frames = [
            frame(
                "snapshot",
                "The state at `revision`; in chunks, all but the last with `more`.",
                &[at[0].clone(), items],
                &[("more", flag)],
            ),
            frame("synced", "All of the past was sent; what follows happens now.", &at, &[]),
            frame(
                "change",
                "All that one revision changed within what is watched, never split.",
                &[at[0].clone(), time, events],
                &[],
            ),
            frame("progress", "Nothing else happened up to `revision`.", &at, &[]),
            frame(
                "gap",
                "The changes after `from` up to and including `to` are compacted; a snapshot follows.",
                &[("from", revision()), ("to", revision())],
                &[],
            ),
            frame("lagged", "The reader was too slow: continue after `revision`.", &at, &[]),
            frame(
                "bye",
                "The server ends the stream; continue after `revision`.",
                &[at[0].clone(), reason],
                &[],
            ),
            frame(
                "error",
                "The stream ends by a problem.",
                &[("problem", generator.subschema_for::<Problem>())],
                &[],
            ),
        ];
        json_schema!({ "description": "One frame of a watch: one JSON object a line.", "oneOf": frames })
    }
}
