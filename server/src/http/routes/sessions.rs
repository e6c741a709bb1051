//! The rows of sessions.

use coracle_api::Code::{SessionExpired, SessionNotFound};
use coracle_api::{
    HoldFrame, Page, Session, SessionClosed, SessionCreate, SessionCreated, SessionRenew, SessionRenewed,
};

use super::super::endpoint::{Endpoint, Family, delete, get, post};
use super::super::params::{HOLD, Kind, ON_DISCONNECT, PREFIX, Param, SESSION_ID, TTL};
use super::super::{session, session_list};

const TTL_HERE: Param =
    TTL.says("Lifetime without a renewal, 15 s if not given; may be in the body instead.");
const NAME: Param =
    Param::new("name", Kind::Text(0, 512)).says("Who it is, for people; may be in the body instead.");

const AFTER: Param = Param::number("after", 0)
    .says("The last revision seen: only what was taken from the session later is told.");

pub fn family() -> Family {
    Family {
        name: "Sessions",
        says: "A lifetime for keys and claims: renewed, or all that hangs on it ends at once.",
        rows: rows(),
    }
}

#[rustfmt::skip]
fn rows() -> Vec<Endpoint> {
    vec![
        get("/v1/sessions", session_list::list).says("List sessions.")
            .takes(&[PREFIX.says("Only ids that begin with this.").example("75")]).pages().waits().watches::<Session>().answers::<Page<Session>>(200),
        post("/v1/sessions", session::open).says("Open a session.")
            .more("With `hold=true` the answer is a stream, and the session lives as long as the connection.")
            .takes(&[TTL_HERE, NAME, HOLD, ON_DISCONNECT]).changes().json::<SessionCreate>()
            .answers::<SessionCreated>(201).streams::<HoldFrame>("hold=true"),
        get("/v1/sessions/{id}", session_list::show).says("A session and all that hangs on it.")
            .takes(&[SESSION_ID]).waits().watches::<Session>().answers::<Session>(200).problems(&[SessionNotFound, SessionExpired]),
        delete("/v1/sessions/{id}", session::close).says("End a session and all that hangs on it.")
            .takes(&[SESSION_ID]).changes().answers::<SessionClosed>(200).problems(&[SessionNotFound]),
        post("/v1/sessions/{id}/renew", session::renew).says("Renew a session.")
            .more("Answers what was taken from it, too: feed back the `revision` of the answer as the next `after`.")
            .takes(&[SESSION_ID, AFTER]).changes().json::<SessionRenew>()
            .answers::<SessionRenewed>(200).problems(&[SessionNotFound, SessionExpired]),
        post("/v1/sessions/{id}/hold", session::hold).says("Keep a session alive by a connection.")
            .takes(&[SESSION_ID, AFTER, ON_DISCONNECT.with("")]).streams::<HoldFrame>("").problems(&[SessionNotFound, SessionExpired]),
    ]
}
