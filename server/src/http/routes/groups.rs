//! The rows of groups.

use coracle_api::Code::MemberNotFound;
use coracle_api::{Group, GroupMember, HoldFrame, Joined, Left, Page};
use coracle_recipes::group::{MEMBERS, SLOTS};

use super::super::endpoint::{Endpoint, Family, delete, get, put};
use super::super::group;
use super::super::params::{Kind, PREFIX, Param};

const ID: Param = Param::name("id").says("The member.").in_path();
const MIN: Param = Param::new("min", Kind::Number(1, MEMBERS))
    .says("Wait until so many are there; 304 if they are not in time.")
    .example("1")
    .with("wait=0");
const SLOTS_OF: Param =
    Param::new("slots", Kind::Number(1, SLOTS)).says("Say whose each of so many slots is.").example("16");
const PROGRESS: Param =
    Param::new("progress", Kind::Number(0, 100)).says("How far its work has come, in percent.");
const SESSION: Param = Param::session("session").says("Only if it is there with this session.");

pub fn family() -> Family {
    Family { name: "Groups", says: "Who is there, and whose share of the work is what.", rows: rows() }
}

#[rustfmt::skip]
fn rows() -> Vec<Endpoint> {
    vec![
        get("/v1/groups", group::list).says("List groups where somebody is.")
            .takes(&[PREFIX]).pages().waits().watches::<Group>().answers::<Page<Group>>(200),
        get("/v1/groups/{name}", group::show).says("Who is in a group; also one where nobody is.")
            .takes(&[MIN, SLOTS_OF]).waits().watches::<Group>().answers::<Group>(200),
        get("/v1/groups/{name}/members/{id}", group::member).says("A member, and its share.")
            .takes(&[ID, SLOTS_OF]).waits().answers::<GroupMember>(200).problems(&[MemberNotFound]),
        put("/v1/groups/{name}/members/{id}", group::join).says("Come, or say something new.")
            .more("The body is what the member says of itself. Who is there already needs none of `session`, `ttl`, `hold=true`.")
            .takes(&[ID, PROGRESS]).trio().changes().value()
            .answers::<Joined>(200).answers::<Joined>(201).streams::<HoldFrame>("hold=true").problems(&[MemberNotFound]),
        delete("/v1/groups/{name}/members/{id}", group::leave).says("Go.")
            .takes(&[ID, SESSION]).changes().answers::<Left>(200).problems(&[MemberNotFound]),
    ]
}
