//! The rows of fences.

use coracle_api::Code::{CursorExpired, FenceStale};
use coracle_api::{Deleted, Fence, FencePassed, Page};

use super::super::endpoint::{Endpoint, Family, delete, get, post};
use super::super::fence;
use super::super::fence::TOKEN_MAX;
use super::super::params::{Kind, PREFIX, Param};

const TOKEN: Param = Param::new("token", Kind::Number(1, TOKEN_MAX))
    .says("The fencing token of the one who wants to write.")
    .required();

pub fn family() -> Family {
    Family { name: "Fences", says: "The newest token that a store of yours has seen.", rows: rows() }
}

#[rustfmt::skip]
fn rows() -> Vec<Endpoint> {
    vec![
        get("/v1/fences", fence::list).says("List resources that were checked.")
            .takes(&[PREFIX]).pages().waits().watches::<Fence>().answers::<Page<Fence>>(200).problems(&[CursorExpired]),
        get("/v1/fences/{name}", fence::show).says("The greatest token that a resource has seen; 0 if none.")
            .waits().watches::<Fence>().answers::<Fence>(200),
        delete("/v1/fences/{name}", fence::delete).says("Forget what a resource has seen.")
            .changes().answers::<Deleted>(200),
        post("/v1/fences/{name}/check", fence::check).says("Let a token pass, unless a newer one was seen.")
            .takes(&[TOKEN]).changes().answers::<FencePassed>(200).problems(&[FenceStale]),
    ]
}
