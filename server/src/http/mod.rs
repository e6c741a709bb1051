//! ① The routes, all of them on one screen.

pub mod call;
pub mod front;
pub mod problem;
pub mod validity;

mod body;
mod claim;
mod cluster;
mod counter;
mod cursor;
mod events;
mod frame;
mod group;
mod hold;
mod json;
mod kv;
mod kv_list;
mod latch;
mod list;
mod lock;
mod lock_list;
mod objects;
mod ops;
mod parked;
mod query;
mod queue;
mod read;
mod respond;
mod service;
mod session;
mod topic;
mod turn;
mod txn;
mod watch;
mod wire;

use axum::Router;
use axum::routing::{any, get, post};

use crate::edge::Edge;

/// Every endpoint. `{name}` is one segment, `%2F` included; a KV key may have slashes of its own.
pub fn routes(edge: Edge) -> Router {
    Router::new()
        .route("/v1/kv", any(kv::serve))
        .route("/v1/kv/{*key}", any(kv::serve))
        .route("/v1/txn", post(txn::run))
        .route("/v1/events", get(events::stream))
        .route("/v1/sessions", get(session::list).post(session::open))
        .route("/v1/sessions/{id}", get(session::show).delete(session::close))
        .route("/v1/sessions/{id}/renew", post(session::renew))
        .route("/v1/sessions/{id}/hold", post(session::hold))
        .route("/v1/locks", get(lock_list::list))
        .route("/v1/locks/{name}", get(lock_list::show).delete(lock::break_holds))
        .route("/v1/locks/{name}/acquire", post(lock::acquire))
        .route("/v1/locks/{name}/release", post(lock::release))
        .route("/v1/locks/{name}/renew", post(lock::renew))
        .route("/v1/locks/{name}/transfer", post(lock::transfer))
        .route("/v1/latches", get(latch::list))
        .route("/v1/latches/{name}", get(latch::show).put(latch::create).delete(latch::delete))
        .route("/v1/latches/{name}/count_down", post(latch::count_down))
        .route("/v1/latches/{name}/await", post(latch::wait))
        .route("/v1/counters", get(counter::list))
        .route("/v1/counters/{name}", get(counter::show).put(counter::set).delete(counter::delete))
        .route("/v1/counters/{name}/add", post(counter::add))
        .route("/v1/groups", get(group::list))
        .route("/v1/groups/{name}", get(group::show))
        .route("/v1/groups/{name}/members/{id}", get(group::member).put(group::join).delete(group::leave))
        .route("/v1/cluster", get(cluster::show))
        .route("/v1/members", get(cluster::list).post(cluster::add))
        .route("/v1/members/{id}", get(cluster::member).delete(cluster::remove))
        .route("/v1/members/{id}/promote", post(cluster::promote))
        .route("/v1/members/{id}/transfer", post(cluster::transfer))
        .route("/v1/maintenance/compact", post(cluster::compact))
        .route("/v1/maintenance/hash", get(cluster::hash))
        .route("/v1/limits", get(ops::limits))
        .route("/version", get(ops::version))
        .route("/livez", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .route("/problems/{code}", get(ops::problem))
        .fallback(front::no_route)
        .method_not_allowed_fallback(front::no_method)
        .with_state(edge)
}
