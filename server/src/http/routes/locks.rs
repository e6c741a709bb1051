//! The rows of locks.

use coracle_api::Code::{LockHeld, LockNotFound, NotHolder, SessionExpired, TooManyWaiters, WouldDeadlock};
use coracle_api::{
    AcquireMany, Acquired, AcquiredMany, Broken, HoldFrame, Lock, LockConfig, Page, Released, Renewed,
    Waiting,
};

use super::super::endpoint::{Endpoint, Family, delete, get, post, put};
use super::super::params::{CLAIM, KEEP, OWNER, PREFIX, Param, REASON, TO, WAIT};
use super::super::{lock, lock_list, lock_many};

const MODE: Param =
    Param::word("mode", &["exclusive", "shared"]).says("Alone, or together with others that share.");

const REENTRANT: Param = Param::flag("reentrant")
    .says("If the session and owner hold it already, count one more: so many releases end the hold.");
const CONVERT: Param = Param::flag("convert").says(
    "Change the mode of the hold that the session has: to shared at once, to exclusive once nobody else holds.",
);

pub fn family() -> Family {
    Family {
        name: "Locks",
        says: "One holder at a time, or several that share; a line in order of arrival; fencing tokens.",
        rows: rows(),
    }
}

#[rustfmt::skip]
fn rows() -> Vec<Endpoint> {
    vec![
        get("/v1/locks", lock_list::list).says("List locks that are held or waited for.")
            .takes(&[PREFIX]).pages().waits().watches::<Lock>().answers::<Page<Lock>>(200),
        post("/v1/locks", lock_many::acquire).says("Take several locks at once, or none of them.")
            .more("It stands in the lines of all of them and is granted when it is at the head of each.")
            .takes(&[WAIT, KEEP, OWNER]).trio().needs("ttl=1m").json_required::<AcquireMany>().sample(r#"{"items":[{"name":"a"},{"name":"b","mode":"shared"}]}"#).changes()
            .answers::<AcquiredMany>(200).answers::<Waiting>(202).streams::<HoldFrame>("hold=true")
            .problems(&[LockHeld, WouldDeadlock, TooManyWaiters]),
        get("/v1/locks/{name}", lock_list::show).says("Who holds a lock and who waits, in order.")
            .waits().watches::<Lock>().answers::<Lock>(200).problems(&[LockNotFound]),
        put("/v1/locks/{name}", lock_many::configure).says("Say how long a lock is closed and held; `{}` forgets it.")
            .json::<LockConfig>().sample(r#"{"lock_delay":"5s","min_hold":"1s","max_hold":"1h"}"#).changes().answers::<Lock>(200).answers::<Lock>(201),
        delete("/v1/locks/{name}", lock::break_holds).says("End every hold of a lock.")
            .takes(&[REASON]).changes().answers::<Broken>(200).problems(&[LockNotFound]),
        post("/v1/locks/{name}/acquire", lock::acquire).says("Take the lock, or wait in line.")
            .more("202 is a place in the line, kept by its session: repeat the request on any node.")
            .takes(&[MODE, REENTRANT, CONVERT, WAIT, KEEP, OWNER]).trio().needs("ttl=1m").changes()
            .answers::<Acquired>(200).answers::<Waiting>(202).streams::<HoldFrame>("hold=true")
            .problems(&[LockHeld, NotHolder, WouldDeadlock, TooManyWaiters]),
        post("/v1/locks/{name}/release", lock::release).says("Give the lock back, or leave the line.")
            .takes(CLAIM).changes().answers::<Released>(200).problems(&[NotHolder, SessionExpired]),
        post("/v1/locks/{name}/renew", lock::renew).says("Renew the session, if it holds the lock.")
            .takes(CLAIM).answers::<Renewed>(200).problems(&[NotHolder, SessionExpired]),
        post("/v1/locks/{name}/transfer", lock::transfer).says("Hand the lock over to another session.")
            .takes(CLAIM).takes(&[TO]).changes().answers::<Renewed>(200).problems(&[NotHolder, SessionExpired, WouldDeadlock]),
    ]
}
