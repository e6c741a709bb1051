//! The rows of the cluster and of its upkeep.

use coracle_api::Code::{
    AlreadyExists, Compacted, MemberNotFound, NotCaughtUp, RouteNotFound, WouldLoseQuorum,
};
use coracle_api::{Cluster, HistoryCompacted, Limits, Member, MemberAdded, Page, StateHash, Version};

use super::super::endpoint::{Content, Endpoint, Family, delete, get, post};
use super::super::params::{Kind, Param};
use super::super::{cluster, ops};

const ID: Param = Param::new("id", Kind::Pattern("^[0-9]{1,20}$")).says("The member.").in_path();
const REVISION: Param = Param::number("revision", 0).says("Forget the history up to this revision.");
const KEEP: Param = Param::number("keep", 0).says("Forget all but the last so many revisions.");
const CHECKS: &[Param] = &[
    Param::flag("verbose").says("One line for each check."),
    Param::text("exclude").says("Checks that do not count, with commas between.").example("read"),
];
const CODE: Param =
    Param::new("code", Kind::Pattern("^[a-z_]+$")).says("A problem code.").in_path().example("lock_held");
const TEXT: Content = Content::Text("text/plain; charset=utf-8");

pub fn cluster_family() -> Family {
    Family { name: "Cluster", says: "The nodes, as operators see and change them.", rows: cluster_rows() }
}

pub fn operations_family() -> Family {
    Family {
        name: "Operations",
        says: "Is it alive, is it ready, what are its limits, what has it done.",
        rows: operations_rows(),
    }
}

#[rustfmt::skip]
fn cluster_rows() -> Vec<Endpoint> {
    vec![
        get("/v1/cluster", cluster::show).says("The cluster as the node that answers sees it, also without a leader.")
            .reads().answers::<Cluster>(200),
        get("/v1/members", cluster::list).says("List members.")
            .answers::<Page<Member>>(200),
        post("/v1/members", cluster::add).says("Admit a node as a learner.")
            .json_required::<cluster::Add>().sample(r#"{"name":"n4","peer":"127.0.0.1:7081","client_url":"http://127.0.0.1:7080"}"#).answers::<MemberAdded>(201).problems(&[AlreadyExists]),
        get("/v1/members/{id}", cluster::member).says("A member.")
            .takes(&[ID]).answers::<Member>(200).problems(&[MemberNotFound]),
        delete("/v1/members/{id}", cluster::remove).says("Remove a member for ever.")
            .takes(&[ID]).answers::<cluster::Removed>(200).problems(&[MemberNotFound, WouldLoseQuorum]),
        post("/v1/members/{id}/promote", cluster::promote).says("Make a learner a voter.")
            .takes(&[ID]).answers::<Member>(200).problems(&[MemberNotFound, NotCaughtUp]),
        post("/v1/members/{id}/transfer", cluster::transfer).says("Make a voter the leader.")
            .takes(&[ID]).answers::<Member>(200).problems(&[MemberNotFound, NotCaughtUp]),
        post("/v1/maintenance/compact", cluster::compact).says("Forget history.")
            .more("One of `revision` and `keep` is required.")
            .takes(&[REVISION, KEEP]).needs("keep=1000").changes().answers::<HistoryCompacted>(200).problems(&[Compacted]),
        get("/v1/maintenance/hash", cluster::hash).says("A hash of the state: equal on all nodes at equal revisions.")
            .answers::<StateHash>(200),
    ]
}

#[rustfmt::skip]
fn operations_rows() -> Vec<Endpoint> {
    vec![
        get("/v1/limits", ops::limits).says("Every limit a client can run into.").answers::<Limits>(200),
        get("/version", ops::version).says("Version of the program and of the API.").answers::<Version>(200),
        get("/livez", ops::livez).says("Whether the process works.")
            .takes(CHECKS).answers_with(200, TEXT).answers_with(503, TEXT),
        get("/readyz", ops::readyz).says("Whether the node takes requests.")
            .takes(CHECKS).answers_with(200, TEXT).answers_with(503, TEXT),
        get("/metrics", ops::metrics).says("Metrics, as Prometheus reads them.")
            .answers_with(200, Content::Text(ops::OPENMETRICS)),
        get("/problems/{code}", ops::problem).says("What a problem means and what to do.")
            .takes(&[CODE]).answers_with(200, TEXT).problems(&[RouteNotFound]),
        get("/docs", ops::docs).says("This document, as a page for people.").answers_with(200, Content::Text(ops::HTML)),
        get("/openapi.json", ops::openapi).says("This document.").answers_with(200, Content::Text("application/json")),
    ]
}
