//! ① The cluster and its members, and what operators do to them.

use std::time::{Duration, Instant};

use coracle_api::{self as api, Code, MemberState, Problem, Role};
use coracle_raft::node::{MemberStatus, Status};
use coracle_raft::types::Member;
use coracle_store::{Action, Outcome, Revision, limits};
use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::{Call, check_name, outcome, unexpected};
use super::message::Response;
use super::problem::{Answer, Refused, bad_body, bad_query};
use super::respond;
use crate::edge::Edge;

/// Where the id is in `/v1/members/{id}`.
const ID: usize = 2;
/// Membership changes wait for logs to be copied, not only for one entry.
const CHANGE: Duration = Duration::from_secs(30);

/// As text: 32 hex digits.
pub fn cluster_id(id: u128) -> String {
    format!("{id:032x}")
}

/// `GET /v1/cluster`
pub async fn show(mut call: Call) -> Answer {
    let reading = call.reading()?;
    call.query.done()?;
    // The view of this node, also without a leader: that is when people ask.
    let _ = reading;
    let status = call.edge.node.status();
    let members = call.edge.node.members();
    let me = members.iter().find(|m| m.id == status.id);
    let body = api::Cluster {
        cluster_id: cluster_id(status.cluster),
        member_id: status.id.to_string(),
        name: call.edge.config.name.clone(),
        role: me.map_or(Role::Unknown, role),
        leader: status.leader.map(|id| id.to_string()),
        term: status.term,
        revision: status.revision.0,
        compact_revision: status.compact_revision.0,
        committed_index: status.committed,
        applied_index: status.applied,
        epoch: status.epoch,
        feature_level: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state_hash: Some(format!("{:032x}", status.hash)),
    };
    Ok(respond::json(StatusCode::OK, status.revision, &body))
}

fn role(member: &MemberStatus) -> Role {
    if member.voter { Role::Voter } else { Role::Learner }
}

fn shown(member: &MemberStatus, edge: &Edge) -> api::Member {
    // Founders know the client URLs of others only if those have told; each knows its own.
    let own = member.id == edge.node.id();
    let client_url = if own { edge.client_url.clone() } else { member.member.client.clone() };
    api::Member {
        id: member.id.to_string(),
        name: member.member.name.clone(),
        peer: member.member.peer.clone(),
        client_url,
        role: role(member),
        leader: member.leader,
        state: match member.reachable {
            Some(true) => MemberState::Up,
            Some(false) => MemberState::Down,
            None => MemberState::Unknown,
        },
        matched_index: member.matched,
    }
}

/// `GET /v1/members`
pub async fn list(call: Call) -> Answer {
    call.query.done()?;
    let Status { revision, .. } = call.edge.node.status();
    let items = call.edge.node.members().iter().map(|member| shown(member, &call.edge)).collect();
    Ok(respond::json(StatusCode::OK, revision, &api::Page { items, next_cursor: None, revision: revision.0 }))
}

fn id(call: &Call) -> Answer<u64> {
    let name = call.name(ID)?;
    super::query::number(name.as_bytes(), &(1..=u64::MAX)).ok_or_else(|| no_such(&name))
}

fn no_such(id: &str) -> Refused {
    Problem::new(Code::MemberNotFound, format!("no such member id={id}")).with("id", id).into()
}

/// `GET /v1/members/{id}`
pub async fn member(call: Call) -> Answer {
    let id = id(&call)?;
    call.query.done()?;
    one(&call, id)
}

fn one(call: &Call, id: u64) -> Answer {
    let members = call.edge.node.members();
    let member = members.iter().find(|m| m.id == id).ok_or_else(|| no_such(&id.to_string()))?;
    Ok(respond::json(StatusCode::OK, call.edge.node.status().revision, &shown(member, &call.edge)))
}

/// `POST /v1/members` also takes `peer_url`, with or without a scheme.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MemberAdd")]
pub struct Add {
    #[serde(default)]
    name: String,
    #[serde(default)]
    peer: Option<String>,
    #[serde(default)]
    peer_url: Option<String>,
    #[serde(default)]
    client_url: String,
}

/// `POST /v1/members`: admit a learner.
pub async fn add(mut call: Call) -> Answer {
    let (body, _) = call.json::<Add>().await?;
    call.query.done()?;
    check_name(&body.name).map_err(|detail| bad_body(format!("name: {detail}")))?;
    let peer = match (body.peer, body.peer_url) {
        (Some(peer), None) => peer,
        (None, Some(url)) => url.split("://").last().unwrap_or_default().trim_end_matches('/').to_owned(),
        _ => return Err(bad_body("one of peer and peer_url is required")),
    };
    let port = peer
        .rsplit_once(':')
        .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok())?);
    if port.is_none() || peer.len() > limits::NAME_BYTES || peer.chars().any(|c| c.is_control() || c == '/') {
        return Err(bad_body("peer is HOST:PORT"));
    }
    if body.client_url.len() > limits::NAME_BYTES || body.client_url.chars().any(char::is_control) {
        return Err(bad_body("client_url is too long or has control characters"));
    }
    let member = Member { name: body.name, peer, client: body.client_url };
    let id = call.edge.node.admit(member, Instant::now() + CHANGE).await?;
    // The leader has admitted it; this node may learn of it a moment later.
    let mut members = call.edge.node.members();
    while !members.iter().any(|member| member.id == id) && Instant::now() < call.deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
        members = call.edge.node.members();
    }
    let status = call.edge.node.status();
    let answer = api::MemberAdded {
        id: id.to_string(),
        cluster_id: cluster_id(status.cluster),
        members: members.iter().map(|member| shown(member, &call.edge)).collect(),
    };
    let mut response = respond::json(StatusCode::CREATED, status.revision, &answer);
    if let Ok(location) = format!("/v1/members/{id}").try_into() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `POST /v1/members/{id}/promote`
pub async fn promote(mut call: Call) -> Answer {
    let id = changing(&mut call).await?;
    call.edge.node.promote(id, Instant::now() + CHANGE).await?;
    one(&call, id)
}

/// `POST /v1/members/{id}/transfer`: make it the leader.
pub async fn transfer(mut call: Call) -> Answer {
    let id = changing(&mut call).await?;
    call.edge.node.transfer(id, Instant::now() + CHANGE).await?;
    one(&call, id)
}

/// `DELETE /v1/members/{id}`
pub async fn remove(mut call: Call) -> Answer {
    let id = changing(&mut call).await?;
    call.edge.node.remove(id, Instant::now() + CHANGE).await?;
    let Status { revision, .. } = call.edge.node.status();
    Ok(respond::json(StatusCode::OK, revision, &Removed { removed: id.to_string() }))
}

/// Answer of a removal.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MemberRemoved")]
pub struct Removed {
    /// Its id, which is never used again.
    removed: String,
}

async fn changing(call: &mut Call) -> Answer<u64> {
    let id = id(call)?;
    call.no_body().await?;
    call.query.done()?;
    Ok(id)
}

/// `GET /v1/maintenance/hash`: equal on all nodes at equal revisions.
pub async fn hash(call: Call) -> Answer {
    call.query.done()?;
    let status = call.edge.node.status();
    let body = api::StateHash {
        revision: status.revision.0,
        hash: format!("{:032x}", status.hash),
        member_id: status.id.to_string(),
        diverged: status.diverged,
    };
    Ok(respond::json(StatusCode::OK, status.revision, &body))
}

/// `POST /v1/maintenance/compact`: forget history up to `revision=`, or all but the last `keep=` revisions.
pub async fn compact(mut call: Call) -> Answer {
    let revision = call.query.number("revision", 0..=u64::MAX)?.map(Revision);
    let keep = call.query.number("keep", 0..=u64::MAX)?;
    call.no_body().await?;
    let mutation = call.mutation(&[])?;
    call.barrier().await?;
    let newest = call.edge.node.read(coracle_store::Store::revision);
    let target = match (revision, keep) {
        (Some(revision), None) => revision,
        (None, Some(keep)) => Revision(newest.0.saturating_sub(keep)),
        _ => return Err(bad_query("revision", "one of revision and keep is required")),
    };
    if target > newest {
        return Err(coracle_store::HistoryError::Future(newest).into());
    }
    let (mut part, mut reached) = (0, Revision(0));
    loop {
        call.deadline = call.fresh_deadline();
        let reply = call.submit(&mutation.part(part).command(Action::Compact(target))).await?;
        let (revision, _, outcome) = outcome(reply)?;
        let Outcome::Compacted(compacted) = outcome else { return Err(unexpected(&outcome)) };
        // One entry forgets a bounded slice; when it no longer moves it is done.
        if compacted >= target || (part > 0 && compacted <= reached) {
            return Ok(compacted_answer(revision, compacted));
        }
        (reached, part) = (compacted, part + 1);
    }
}

fn compacted_answer(revision: Revision, compacted: Revision) -> Response {
    respond::json(
        StatusCode::OK,
        revision,
        &api::HistoryCompacted { compact_revision: compacted.0, revision: revision.0 },
    )
}
