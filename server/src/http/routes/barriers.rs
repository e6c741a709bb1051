//! The rows of barriers.

use coracle_api::Code::{
    AlreadyExists, BarrierBroken, BarrierNotFound, BarrierWaiting, CursorExpired, MemberNotFound, NotHolder,
    SessionExpired, TooManyWaiters,
};
use coracle_api::{Barrier, BarrierConfig, Deleted, Entered, Entering, Gate, HoldFrame, Leaving, Page};

use super::super::endpoint::{Endpoint, Family, delete, get, post, put};
use super::super::params::{KEEP, PREFIX, Param, WAIT};
use super::super::{barrier, barrier_entry};

const ID: Param = Param::name("id").says("Who it is, once a generation; the session's id if not given.");
const GENERATION: Param =
    Param::number("generation", 1).says("To ask again: the generation of the answer before.").example("1");
const AFTER: Param =
    Param::number("after", 0).says("Pass if it was open at any time after this revision.").example("0");
const SESSION: Param = Param::session("session").says("The session it entered with.");

pub fn family() -> Family {
    Family {
        name: "Barriers",
        says: "Gates that are open or closed; meetings that begin, and end, once all have come.",
        rows: rows(),
    }
}

#[rustfmt::skip]
fn rows() -> Vec<Endpoint> {
    vec![
        get("/v1/barriers", barrier::list).says("List barriers.")
            .takes(&[PREFIX]).pages().waits().watches::<Barrier>().answers::<Page<Barrier>>(200).problems(&[CursorExpired]),
        get("/v1/barriers/{name}", barrier::show).says("A barrier: who is there, and who is missing.")
            .waits().watches::<Barrier>().answers::<Barrier>(200).problems(&[BarrierNotFound]),
        put("/v1/barriers/{name}", barrier::create).says("Make a barrier, or change one that nobody is at.")
            .json_required::<BarrierConfig>().sample(r#"{"kind":"cyclic","parties":3}"#).changes()
            .answers::<Barrier>(200).answers::<Barrier>(201).problems(&[AlreadyExists]),
        delete("/v1/barriers/{name}", barrier::delete).says("Remove a barrier; it breaks for those who wait.")
            .changes().answers::<Deleted>(200).problems(&[BarrierNotFound]),
        post("/v1/barriers/{name}/enter", barrier_entry::enter).says("Come, and wait until all have.")
            .more("With none of `session`, `ttl`, `hold=true` it takes an `id`, and nobody's end takes the arrival back. 202 is an \
                   arrival that is kept: ask again with its `generation`, on any node.")
            .takes(&[ID, WAIT, KEEP.with(""), GENERATION]).trio().needs("id=a").changes()
            .answers::<Entered>(200).answers::<Entering>(202).streams::<HoldFrame>("hold=true")
            .problems(&[BarrierNotFound, BarrierWaiting, BarrierBroken, MemberNotFound, TooManyWaiters, AlreadyExists]),
        post("/v1/barriers/{name}/leave", barrier_entry::leave).says("Be out of a double barrier, and wait until all are.")
            .more("Whoever only waits to enter waits no more; that breaks a cyclic barrier for the others.")
            .takes(&[ID, SESSION, WAIT, GENERATION]).needs("id=a").changes()
            .answers::<Leaving>(200).answers::<Leaving>(202)
            .problems(&[BarrierNotFound, NotHolder, SessionExpired, AlreadyExists]),
        post("/v1/barriers/{name}/open", barrier::open).says("Open a gate; one that is not there is made.")
            .changes().answers::<Gate>(200).problems(&[AlreadyExists]),
        post("/v1/barriers/{name}/close", barrier::close).says("Close a gate; one that is not there is made.")
            .changes().answers::<Gate>(200).problems(&[AlreadyExists]),
        post("/v1/barriers/{name}/await", barrier::wait).says("Wait until a gate is open.")
            .takes(&[WAIT, KEEP.with(""), AFTER]).answers::<Gate>(200).answers::<Gate>(202)
            .problems(&[BarrierNotFound, BarrierWaiting, AlreadyExists, TooManyWaiters]),
    ]
}
