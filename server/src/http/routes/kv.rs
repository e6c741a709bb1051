//! The rows of keys, transactions and events.

use coracle_api::Code::{
    Compacted, DuplicateKey, KeyNotFound, MethodNotAllowed, NotHolder, NotLeader, OutOfRange, QueueFull,
    ReceiptStale, RevisionMismatch, SessionExpired, TopicFull,
};
use coracle_api::{Deleted, Entry, Event, HoldFrame, KvHistory, KvList, Put, Txn, TxnResult};
use schemars::JsonSchema;

use super::super::endpoint::{Content, Endpoint, Family, delete, get, head, post, put};
use super::super::params::{IF_ABSENT, IF_MATCH, IF_NONE_MATCH, Kind, LIMIT, Param, REVISION};
use super::super::{events, kv, txn};

const KEY: Param = Param::new("key", Kind::Text(1, 512))
    .says("The key. It may have slashes of its own; what a path cannot carry goes into `/v1/kv?key=`.")
    .in_path();
const EXACT: Param =
    Param::new("key", Kind::Text(1, 512)).says("Of one key: the exact form for keys a path cannot carry.");
const RETURN: Param = Param::word("return", &["previous", "none"]).says("Answer with what was there before.");
const PREFIX: Param = Param::text("prefix").says("Keys that begin with this.").example("app/");
const RANGE: &[Param] = &[
    Param::text("start").says("Keys from this one on.").example("a"),
    Param::text("end").says("Keys before this one.").example("b"),
];

/// What `GET /v1/kv` answers: a page of keys; with `key=` one entry, with `history=true` its versions.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[allow(dead_code, reason = "for its schema only")]
enum Listed {
    List(KvList),
    History(KvHistory),
    Entry(Entry),
}

/// What `GET /v1/kv/{key}` answers in JSON.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[allow(dead_code, reason = "for its schema only")]
enum One {
    Entry(Entry),
    History(KvHistory),
}

pub fn family() -> Family {
    Family {
        name: "Keys",
        says: "Values under keys: read, write, list, watch; transactions; all changes on one stream.",
        rows: rows(),
    }
}

#[rustfmt::skip]
fn rows() -> Vec<Endpoint> {
    vec![
        get("/v1/kv/{*key}", kv::serve).says("Read a key.")
            .more("Answers the value as it was stored; `format=json` an entry around it.")
            .takes(&[KEY, REVISION, IF_MATCH, IF_NONE_MATCH, HISTORY]).formats(&["raw"]).waits().takes(&[HISTORY_LIMIT]).watches::<Entry>()
            .answers_with(200, Content::Value).answers::<One>(200).problems(&[KeyNotFound, Compacted, RevisionMismatch]),
        head("/v1/kv/{*key}", kv::serve).says("The headers of a key.")
            .takes(&[KEY, REVISION, IF_MATCH, IF_NONE_MATCH]).formats(&["raw"]).waits()
            .answers_with(200, Content::None).problems(&[KeyNotFound, Compacted, RevisionMismatch]),
        put("/v1/kv/{*key}", kv::serve).says("Write a key.")
            .more("The body is the value, its content type is kept. With `hold=true` the key lives with the connection.")
            .takes(&[KEY, IF_MATCH, IF_ABSENT, RETURN, KEEP_SESSION]).trio().changes().value()
            .answers::<Put>(200).answers::<Put>(201).streams::<HoldFrame>("hold=true").problems(&[RevisionMismatch]),
        delete("/v1/kv/{*key}", kv::serve).says("Delete a key.")
            .takes(&[KEY, IF_MATCH, IF_ABSENT, RETURN]).changes()
            .answers::<Deleted>(200).problems(&[RevisionMismatch]),
        post("/v1/kv/{*key}", kv::serve).named("kv.append").says("Write a value under a key in order: a queue's poor cousin.")
            .more("The path ends with a slash and the server appends twenty digits.")
            .takes(&[FOLDER]).trio().changes().value()
            .answers::<Put>(201).streams::<HoldFrame>("hold=true").problems(&[MethodNotAllowed]),
        get("/v1/kv", kv::serve).says("List keys, or read one that a path cannot carry.")
            .more("With `key` this is `GET /v1/kv/{key}`: parameters of a list do not go with it.")
            .takes(&[PREFIX]).takes(RANGE).takes(LISTING).pages().waits().watches::<Entry>()
            .answers::<Listed>(200).answers_with(200, Content::Value).problems(&[KeyNotFound, RevisionMismatch]),
        put("/v1/kv", kv::serve).named("kv.put_exact").says("Write a key that a path cannot carry.")
            .takes(&[EXACT.required(), IF_MATCH, IF_ABSENT, RETURN, KEEP_SESSION]).trio().changes().value()
            .answers::<Put>(200).answers::<Put>(201).streams::<HoldFrame>("hold=true").problems(&[RevisionMismatch, MethodNotAllowed]),
        delete("/v1/kv", kv::serve).named("kv.delete_range").says("Delete a range of keys, or one that a path cannot carry.")
            .takes(&[PREFIX]).takes(RANGE).takes(&[ALL, EXACT, IF_MATCH.with("key=a"), IF_ABSENT.with("key=a"), RETURN.with("key=a")]).needs("prefix=app/").changes()
            .answers::<Deleted>(200).problems(&[RevisionMismatch]),
        post("/v1/kv", kv::serve).named("kv.append_exact").says("Append to a folder that a path cannot carry.")
            .takes(&[EXACT.required().example("jobs/")]).trio().changes().value()
            .answers::<Put>(201).streams::<HoldFrame>("hold=true").problems(&[MethodNotAllowed]),
        post("/v1/txn", txn::run).says("Change several keys at once, if all compares hold.")
            .more("A compare that does not hold is no error: `succeeded` is false and `else` has happened.")
            .json::<Txn>().changes().answers::<TxnResult>(200)
            .problems(&[DuplicateKey, SessionExpired, NotHolder, NotLeader, OutOfRange, QueueFull, ReceiptStale, TopicFull]),
        get("/v1/events", events::stream).says("All changes of all families on one stream.")
            .takes(&[FAMILY, NAME_PREFIX]).always_watches::<Event>(),
    ]
}

const FOLDER: Param = Param::new("key", Kind::Text(1, 512))
    .says("A folder, with a slash at its end.")
    .in_path()
    .example("jobs/");
const KEEP_SESSION: Param = Param::flag("keep_session").says("The key stays with the session it lives with.");
const HISTORY: Param = Param::flag("history").says("Answer the versions of the key that are still kept.");
const HISTORY_LIMIT: Param = LIMIT.says("The last so many versions.").with("history=true");
const ALL: Param = Param::flag("all").says("An empty prefix means every key, and needs this.");
const LISTING: &[Param] = &[
    Param::flag("keys_only").says("No values."),
    Param::flag("count_only").says("Only how many there are."),
    Param::text("delimiter")
        .says("Keys that share all up to the next delimiter are one folder in `prefixes`.")
        .example("/"),
    Param::word("order", &["asc", "desc"]).says("By key."),
    EXACT,
    HISTORY.with("key=a"),
    IF_MATCH.with("key=a"),
    IF_NONE_MATCH.with("key=a"),
];
const FAMILY: Param = Param::new("family", Kind::Family).says("Only of this family.");
const NAME_PREFIX: Param = Param::text("prefix").says("Only names that begin with this.").example("app/");
