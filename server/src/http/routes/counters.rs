//! The rows of counters and latches.

use coracle_api::Code::{
    AlreadyExists, LatchClosed, LatchNotFound, MemberNotFound, OutOfRange, RevisionMismatch,
};
use coracle_api::{Counted, CountedDown, Counter, Deleted, Latch, LatchConfig, Page};
use coracle_recipes::counter::{MAX, MIN};

use super::super::endpoint::{Content, Endpoint, Family, delete, get, post, put};
use super::super::params::{IF_ABSENT, IF_MATCH, KEEP, PREFIX, Param, WAIT};
use super::super::{counter, latch};

const DELTA: Param =
    Param::integer("delta", MIN, MAX).says("What to add, 1 if not given; below zero to subtract.");
const BOUND: &[Param] = &[
    Param::integer("min", MIN, MAX).says("Refused if the counter would fall below this.").example("-5"),
    Param::integer("max", MIN, MAX).says("Refused if the counter would rise above this.").example("100"),
];
const ID: Param = Param::name("id").says("Who counts down: the same id counts once.").required();

pub fn counters() -> Family {
    Family {
        name: "Counters",
        says: "Numbers that many add to, with bounds; blocks of ids.",
        rows: counter_rows(),
    }
}

pub fn latches() -> Family {
    Family {
        name: "Latches",
        says: "A count that goes down to zero once and lets all pass who wait.",
        rows: latch_rows(),
    }
}

#[rustfmt::skip]
fn counter_rows() -> Vec<Endpoint> {
    vec![
        get("/v1/counters", counter::list).says("List counters.")
            .takes(&[PREFIX]).pages().waits().watches::<Counter>().answers::<Page<Counter>>(200),
        get("/v1/counters/{name}", counter::show).says("Read a counter; one that was never written is 0.")
            .waits().formats(&["raw"]).watches::<Counter>()
            .answers::<Counter>(200).answers_with(200, Content::Text("text/plain; charset=utf-8")),
        put("/v1/counters/{name}", counter::set).says("Set a counter.").more("The body is the number, as text.")
            .takes(&[IF_MATCH, IF_ABSENT]).changes().value().sample("42").answers::<Counted>(200).problems(&[RevisionMismatch]),
        delete("/v1/counters/{name}", counter::delete).says("Forget a counter: it is 0 again.")
            .takes(&[IF_MATCH, IF_ABSENT]).changes().answers::<Counted>(200).problems(&[RevisionMismatch]),
        post("/v1/counters/{name}/add", counter::add).says("Add to a counter.")
            .more("After `delta=100` the numbers from `previous + 1` to `value` are the caller's alone.")
            .takes(&[DELTA]).takes(BOUND).changes().answers::<Counted>(200).problems(&[OutOfRange]),
    ]
}

#[rustfmt::skip]
fn latch_rows() -> Vec<Endpoint> {
    vec![
        get("/v1/latches", latch::list).says("List latches.")
            .takes(&[PREFIX]).pages().waits().watches::<Latch>().answers::<Page<Latch>>(200),
        get("/v1/latches/{name}", latch::show).says("A latch, and who has not counted down.")
            .waits().watches::<Latch>().answers::<Latch>(200).problems(&[LatchNotFound]),
        put("/v1/latches/{name}", latch::create).says("Make a latch: a count, or the members that have to count down.")
            .json_required::<LatchConfig>().sample(r#"{"count":3}"#).changes().answers::<Latch>(200).answers::<Latch>(201).problems(&[AlreadyExists]),
        delete("/v1/latches/{name}", latch::delete).says("Remove a latch.")
            .changes().answers::<Deleted>(200).problems(&[LatchNotFound]),
        post("/v1/latches/{name}/count_down", latch::count_down).says("Count down by one.")
            .takes(&[ID]).changes().answers::<CountedDown>(200).problems(&[LatchNotFound, MemberNotFound]),
        post("/v1/latches/{name}/await", latch::wait).says("Wait until a latch is open.")
            .takes(&[WAIT, KEEP.with("")]).answers::<Latch>(200).answers::<Latch>(202)
            .problems(&[LatchNotFound, LatchClosed, coracle_api::Code::TooManyWaiters]),
    ]
}
