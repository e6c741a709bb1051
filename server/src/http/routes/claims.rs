//! The rows of semaphores and elections.

use coracle_api::Code::{
    ElectionVacant, LimitMismatch, NotElected, NotHolder, NotLeader, PermitsExhausted, SemaphoreNotFound,
    SessionExpired, TooManyWaiters, WouldDeadlock,
};
use coracle_api::{
    Elected, Election, HoldFrame, Page, PermitsAcquired, PermitsBroken, Released, Renewed, Resigned,
    Semaphore, SemaphoreConfig, Waiting,
};
use coracle_recipes::semaphore::PERMITS;

use super::super::endpoint::{Content, Endpoint, Family, delete, get, post, put};
use super::super::params::{CLAIM, KEEP, Kind, OWNER, PREFIX, Param, REASON, SESSION, TO, WAIT};
use super::super::{election, semaphore};

const PERMIT: &[Param] = &[
    Param::new("permits", Kind::Number(1, PERMITS))
        .says("How many, all or none; 1 if not given.")
        .example("1"),
    Param::new("limit", Kind::Number(1, PERMITS))
        .says("Makes the semaphore with so many permits; must be its limit if it is there.")
        .example("5"),
];
const PRIORITY: Param = Param::new("priority", Kind::Number(0, 255)).says("Higher is elected first.");
const REJOIN: Param = Param::flag("rejoin").says("Stand again, behind all others of the same priority.");
const TOKEN: Param = Param::number("token", 1).says("The token of the term.").required();

pub fn semaphores() -> Family {
    Family {
        name: "Semaphores",
        says: "So many permits, taken several at once; a line in order of arrival; a token for each holder.",
        rows: semaphore_rows(),
    }
}

pub fn elections() -> Family {
    Family {
        name: "Elections",
        says: "One leader at a time and what it says, candidates in line behind it, a token for each term.",
        rows: election_rows(),
    }
}

#[rustfmt::skip]
fn semaphore_rows() -> Vec<Endpoint> {
    vec![
        get("/v1/semaphores", semaphore::list).says("List semaphores.")
            .takes(&[PREFIX]).pages().waits().watches::<Semaphore>().answers::<Page<Semaphore>>(200),
        get("/v1/semaphores/{name}", semaphore::show).says("The limit, who holds permits, and who waits, in order.")
            .waits().watches::<Semaphore>().answers::<Semaphore>(200).problems(&[SemaphoreNotFound]),
        put("/v1/semaphores/{name}", semaphore::configure).says("Set the limit, for good.")
            .more("A lower one takes nothing away: nothing is granted until those who hold fit under it.")
            .json_required::<SemaphoreConfig>().sample(r#"{"limit":5}"#).changes().answers::<Semaphore>(200).answers::<Semaphore>(201),
        delete("/v1/semaphores/{name}", semaphore::break_holds).says("End every hold, and forget the limit once nobody waits.")
            .takes(&[REASON]).changes().answers::<PermitsBroken>(200).problems(&[SemaphoreNotFound]),
        post("/v1/semaphores/{name}/acquire", semaphore::acquire).says("Take permits, or wait in line.")
            .more("202 is a place in the line, kept by its session: repeat the request on any node.")
            .takes(PERMIT).takes(&[WAIT, KEEP, OWNER]).trio().needs("ttl=1m").changes()
            .answers::<PermitsAcquired>(200).answers::<Waiting>(202).streams::<HoldFrame>("hold=true")
            .problems(&[PermitsExhausted, LimitMismatch, SemaphoreNotFound, WouldDeadlock, TooManyWaiters]),
        post("/v1/semaphores/{name}/release", semaphore::release).says("Give the permits back, or leave the line.")
            .takes(CLAIM).changes().answers::<Released>(200).problems(&[NotHolder, SessionExpired]),
        post("/v1/semaphores/{name}/renew", semaphore::renew).says("Renew the session, if it holds permits.")
            .takes(CLAIM).answers::<Renewed>(200).problems(&[NotHolder, SessionExpired]),
        post("/v1/semaphores/{name}/transfer", semaphore::transfer).says("Hand the permits over to another session.")
            .takes(CLAIM).takes(&[TO]).changes().answers::<Renewed>(200).problems(&[NotHolder, SessionExpired, WouldDeadlock]),
    ]
}

#[rustfmt::skip]
fn election_rows() -> Vec<Endpoint> {
    vec![
        get("/v1/elections", election::list).says("List elections in which somebody leads.")
            .takes(&[PREFIX]).pages().waits().watches::<Election>().answers::<Page<Election>>(200),
        get("/v1/elections/{name}", election::show).says("Who leads, what it says, and who would follow, in order.")
            .more("`leader` is null when nobody leads; with `format=raw` the answer is what the leader says.")
            .waits().formats(&["raw"]).watches::<Election>()
            .answers::<Election>(200).answers_with(200, Content::Value).problems(&[ElectionVacant]),
        post("/v1/elections/{name}/campaign", election::campaign).says("Lead, or stand in line.")
            .more("The body is what the candidate says as the leader. 202 is a place in the line, kept by its session.")
            .takes(&[PRIORITY, WAIT, KEEP, OWNER]).trio().needs("ttl=1m").value().sample("10.0.0.7:80").changes()
            .answers::<Elected>(200).answers::<Waiting>(202).streams::<HoldFrame>("hold=true")
            .problems(&[NotElected, WouldDeadlock, TooManyWaiters]),
        post("/v1/elections/{name}/proclaim", election::proclaim).says("Say something else as the leader.")
            .takes(&[SESSION, TOKEN]).value().sample("10.0.0.7:81").changes().answers::<Renewed>(200).problems(&[NotLeader, SessionExpired]),
        post("/v1/elections/{name}/resign", election::resign).says("Stop leading, or leave the line.")
            .takes(CLAIM).takes(&[REJOIN]).changes().answers::<Resigned>(200).problems(&[NotLeader, SessionExpired]),
        post("/v1/elections/{name}/renew", election::renew).says("Renew the session, if it leads.")
            .takes(CLAIM).answers::<Renewed>(200).problems(&[NotLeader, SessionExpired]),
        post("/v1/elections/{name}/transfer", election::transfer).says("Make another session the leader.")
            .takes(CLAIM).takes(&[TO]).changes().answers::<Renewed>(200).problems(&[NotLeader, SessionExpired]),
    ]
}
