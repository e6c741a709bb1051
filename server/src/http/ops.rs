//! ① For operators: is it alive, is it ready, what are its limits, what has it done.

use std::fmt::Write as _;

use coracle_api::{self as api, Code, Span};
use coracle_recipes::{queue, topic};
use coracle_store::{Store, limits};
use http::{HeaderValue, StatusCode, header};

use super::body::JSON_BYTES;
use super::call::{Call, WAIT_MAX};
use super::kv::TTL_DEFAULT;
use super::list::{ITEMS_DEFAULT, ITEMS_MAX};
use super::message::{Body, Response};
use super::problem::Answer;
use super::{openapi, respond};

/// Type of the metrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub const HTML: &str = "text/html; charset=utf-8";
/// A page with a style of its own and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// `GET /v1/limits`
pub async fn limits(call: Call) -> Answer {
    call.query.done()?;
    let config = &call.edge.config;
    let (quota, revision) = call.edge.node.read(|store| (store.settings().quota_bytes, store.revision()));
    let body = api::Limits {
        key_bytes_max: limits::KEY_BYTES as u64,
        value_bytes_max: config.max_value.0,
        metadata_bytes_max: limits::META_BYTES as u64,
        body_bytes_max: JSON_BYTES as u64,
        transaction_operations_max: limits::OPERATIONS as u64,
        list_items_default: ITEMS_DEFAULT,
        list_items_max: ITEMS_MAX,
        wait_max: WAIT_MAX,
        session_ttl_min: Span::from_millis_saturating(*limits::TTL_MS.start()),
        session_ttl_default: TTL_DEFAULT,
        session_ttl_max: Span::from_millis_saturating(*limits::TTL_MS.end()),
        holds_per_session_max: limits::HOLDS as u64,
        waiters_per_object_max: coracle_recipes::lock::WAITERS,
        waiting_requests_max: config.max_waiters as u64,
        instances_per_service_max: coracle_recipes::service::INSTANCES,
        pick_instances_max: super::pick::COUNT_MAX,
        send_messages_max: queue::BATCH as u64,
        receive_messages_max: queue::RECEIVE as u64,
        receive_bytes_max: queue::RECEIVE_BYTES as u64,
        message_headers_max: queue::HEADERS as u64,
        publish_messages_max: topic::BATCH as u64,
        publish_bytes_max: topic::BATCH_BYTES as u64,
        messages_per_key_max: topic::PER_KEY,
        subscriptions_per_topic_max: topic::SUBSCRIPTIONS as u64,
        deliveries_in_flight_max: topic::IN_FLIGHT_MAX,
        generation_items_max: queue::barrier::ITEMS,
        generation_ids_max: queue::barrier::DECLARED as u64,
        parties_per_barrier_max: coracle_recipes::barrier::PARTIES,
        count_per_latch_max: coracle_recipes::latch::COUNT_MAX,
        declared_members_max: coracle_recipes::MEMBERS as u64,
        members_per_group_max: coracle_recipes::group::MEMBERS,
        slots_per_group_max: coracle_recipes::group::SLOTS,
        locks_together_max: coracle_recipes::lock::TOGETHER as u64,
        lock_delay_max: Span::from_millis_saturating(coracle_recipes::lock::DELAY_MS),
        semaphore_permits_max: coracle_recipes::semaphore::PERMITS,
        election_value_bytes_max: coracle_recipes::election::VALUE_BYTES as u64,
        idempotency_key_bytes_max: limits::IDEMPOTENCY_KEY_BYTES as u64,
        idempotency_retention: Span::from_millis_saturating(limits::IDEMPOTENCY_MS),
        streams_max: config.max_streams as u64,
        quota_bytes: quota,
    };
    Ok(respond::json(StatusCode::OK, revision, &body))
}

/// `GET /version`
pub async fn version(call: Call) -> Answer {
    call.query.done()?;
    let body = api::Version { version: env!("CARGO_PKG_VERSION").to_owned(), api: "v1".to_owned() };
    Ok(respond::json(StatusCode::OK, call.edge.node.read(Store::revision), &body))
}

/// `GET /livez`: the process answers and the node has not stopped.
pub async fn livez(call: Call) -> Answer {
    let stopped = call.edge.node.status().stopped;
    checks(call, &[("stopped", stopped.map(|reason| reason.to_string()))])
}

/// `GET /readyz`: a linearizable read works now, there is space, and nobody has asked the node to go.
pub async fn readyz(mut call: Call) -> Answer {
    let status = call.edge.node.status();
    let read = if status.stopped.is_some() || call.edge.is_draining() {
        None
    } else {
        call.deadline = call.deadline.min(std::time::Instant::now() + std::time::Duration::from_secs(2));
        call.edge.node.read_barrier(call.deadline).await.err().map(|circumstance| circumstance.to_string())
    };
    let draining = call.edge.is_draining().then(|| "shutting down".to_owned());
    let space = status.full.then(|| "no space for the log".to_owned());
    let diverged = status.diverged.then(|| "another replica has another state hash".to_owned());
    let stopped = status.stopped.map(|reason| reason.to_string());
    checks(
        call,
        &[("draining", draining), ("stopped", stopped), ("space", space), ("hash", diverged), ("read", read)],
    )
}

/// Lines of checks, `[+]name ok` or `[-]name failed: why`; 503 if one that is not excluded fails.
fn checks(mut call: Call, checks: &[(&str, Option<String>)]) -> Answer {
    let verbose = call.query.flag("verbose")?.unwrap_or(false);
    let excluded = call.query.text("exclude")?.unwrap_or_default();
    call.query.done()?;
    let excluded: Vec<_> = excluded.split(',').collect();
    let (mut text, mut failed) = (String::new(), false);
    for (name, problem) in checks {
        match problem {
            _ if excluded.contains(name) => {
                let _ = writeln!(text, "[+]{name} excluded: ok");
            }
            None => {
                let _ = writeln!(text, "[+]{name} ok");
            }
            Some(why) => {
                failed = true;
                let _ = writeln!(text, "[-]{name} failed: {why}");
            }
        }
    }
    let status = if failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    if !failed && !verbose {
        "ok\n".clone_into(&mut text);
    }
    Ok(plain(status, "text/plain; charset=utf-8", text))
}

fn plain(status: StatusCode, content_type: &'static str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// `GET /docs`: the same for people.
pub async fn docs(call: Call) -> Answer {
    call.query.done()?;
    let mut response = Response::new(Body::from(openapi::page::html()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(HTML));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    Ok(response)
}

/// `GET /metrics`
pub async fn metrics(call: Call) -> Answer {
    call.query.done()?;
    let text = call.edge.metrics.render(&call.edge);
    Ok(plain(StatusCode::OK, OPENMETRICS, text))
}

/// `GET /openapi.json`
pub async fn openapi(call: Call) -> Answer {
    call.query.done()?;
    let mut response = Response::new(Body::from(openapi::text()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// `GET /problems/{code}`: what the `type` of a problem leads to.
pub async fn problem(call: Call) -> Answer {
    let name = call.name(1)?;
    call.query.done()?;
    let Ok(code) = name.parse::<Code>() else {
        return Err(api::Problem::new(Code::RouteNotFound, format!("no such problem code={name}")).into());
    };
    let word = |value: serde_json::Result<String>| value.unwrap_or_default().replace('"', "");
    let retry = word(serde_json::to_string(&code.retry()));
    let effect = word(serde_json::to_string(&code.effect()));
    let text = format!(
        "{code}\n\n{}.\n\nstatus: {}\nretry: {retry}\neffect: {effect}\n",
        code.title(),
        code.status()
    );
    Ok(plain(StatusCode::OK, "text/plain; charset=utf-8", text))
}
