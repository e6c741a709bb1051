//! ① The edge over HTTP. What is routed stands in the tables of [`routes`].

pub mod call;
pub mod front;
pub mod openapi;
pub mod problem;
pub mod validity;

mod attached;
mod barrier;
mod barrier_entry;
mod body;
mod claim;
mod cluster;
mod counter;
mod cursor;
mod election;
mod endpoint;
mod events;
mod fence;
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
mod lock_many;
mod objects;
mod ops;
mod params;
mod parked;
mod pick;
mod query;
mod queue;
mod read;
mod respond;
mod routes;
mod semaphore;
mod service;
mod service_form;
mod service_read;
mod session;
mod session_list;

mod subscription;
mod topic;
mod topic_read;
mod topic_receive;
mod topic_stream;
mod turn;
mod txn;
mod watch;
mod wire;

use std::sync::OnceLock;

use axum::Router;

use crate::edge::Edge;

/// The router of all endpoints, made of the same rows as the document.
pub fn routes(edge: Edge) -> Router {
    let mut router = Router::new();
    for row in routes::families().into_iter().flat_map(|family| family.rows) {
        router = router.route(row.path, row.handler);
    }
    router.fallback(front::no_route).method_not_allowed_fallback(front::no_method).with_state(edge)
}

/// The route a path belongs to, for metrics: never a name that a client chose.
fn route_of(path: &str) -> &'static str {
    static ROUTES: OnceLock<Vec<&'static str>> = OnceLock::new();
    let routes = ROUTES.get_or_init(|| {
        let rows = routes::families().into_iter().flat_map(|family| family.rows);
        rows.map(|row| row.path).filter(|path| !path.contains('*')).collect()
    });
    let fits = |route: &str| {
        let (mut given, mut known) = (path.split('/'), route.split('/'));
        loop {
            match (given.next(), known.next()) {
                (None, None) => return true,
                (Some(part), Some(word)) if part == word || (word.starts_with('{') && !part.is_empty()) => {}
                _ => return false,
            }
        }
    };
    routes.iter().find(|route| fits(route)).copied().unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::route_of;

    #[test]
    fn the_route_of_a_path_never_names_a_name() {
        for (path, route) in [
            ("/v1/locks/secret/acquire", "/v1/locks/{name}/acquire"),
            ("/v1/locks/secret%2Fx", "/v1/locks/{name}"),
            ("/v1/sessions/7587d8aa00000001/renew", "/v1/sessions/{id}/renew"),
            ("/v1/txn", "/v1/txn"),
            ("/v1/locks/", "other"),
            ("/v1/locks/secret/acquire/more", "other"),
            ("/v1/nothing/secret", "other"),
            ("/livez", "/livez"),
        ] {
            assert_eq!(route_of(path), route);
        }
    }
}
