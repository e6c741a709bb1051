//! ① The route tables, one file a family: what is served, with which parameters, answers and problems.
//!
//! A row is the route and its documentation in one; see [`super::endpoint`].

mod barriers;
mod claims;
mod cluster;
mod counters;
mod fences;
mod groups;
mod kv;
mod locks;
mod queues;
mod services;
mod sessions;
mod topics;

use super::endpoint::Family;

/// Every family, in the order in which the document tells of them.
pub fn families() -> Vec<Family> {
    vec![
        kv::family(),
        sessions::family(),
        services::family(),
        locks::family(),
        queues::family(),
        barriers::family(),
        topics::family(),
        claims::semaphores(),
        claims::elections(),
        counters::latches(),
        counters::counters(),
        groups::family(),
        fences::family(),
        cluster::cluster_family(),
        cluster::operations_family(),
    ]
}
