//! Services: a registration that heals, and when it does not; picks; keeping count of a watch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_client::api::{self, Frame};
use coracle_client::{Coracle, Instance, RegistrationEnd, RegistrationState, Seen, Update};
use futures::StreamExt;

use crate::fake::{Fake, Reply, Request};

fn client(server: &Fake) -> Coracle {
    Coracle::builder()
        .endpoints([server.url.as_str()])
        .deadline(Duration::from_secs(2))
        .attempt_timeout(Duration::from_millis(300))
        .build()
        .unwrap()
}

fn instance(generation: u64) -> String {
    format!(
        r#"{{"id":"a","generation":{generation},"address":"10.0.0.7","port":80,"weight":100,"status":"passing","liveness":"ttl","registered":"2026-11-22T05:40:11Z"}}"#
    )
}

fn problem(status: u16, code: &str, more: &str) -> Reply {
    Reply::json(
        status,
        format!(
            r#"{{"type":"/problems/{code}","title":"x","status":{status},"code":"{code}","retry":"never","effect":"none","detail":"x"{more}}}"#
        ),
    )
}

fn renewed(status: &str, more: &str) -> Reply {
    Reply::json(200, format!(r#"{{"valid_for":"600ms","generation":1,"status":"{status}"{more}}}"#))
}

/// Registrations answered with rising generations, renewals as `renew` says for the n-th of them.
fn service(mut renew: impl FnMut(usize) -> Reply + Send + 'static) -> impl FnMut(&Request) -> Reply + Send {
    let (registered, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    move |request| {
        if request.target.contains("/renew") {
            renew(asked.fetch_add(1, Ordering::Relaxed))
        } else if request.target.contains("ttl=") {
            Reply::json(200, instance(registered.fetch_add(1, Ordering::Relaxed) as u64 + 1))
        } else {
            Reply::json(200, r#"{"deleted":1,"revision":9}"#)
        }
    }
}

fn quick() -> Instance {
    Instance::new("10.0.0.7", 80).id("a").tag("blue").ttl(Duration::from_millis(600))
}

#[tokio::test]
async fn a_registration_is_renewed_and_taken_back() {
    let server = Fake::start(service(|_| renewed("passing", ""))).await;
    let registration = client(&server).service("we/b").register(quick()).await.unwrap();
    registration.set_load(0.254_9);
    tokio::time::sleep(Duration::from_millis(500)).await;
    registration.set_status(api::Status::Warning);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((registration.id(), registration.generation()), ("a", 1));
    registration.deregister().await.unwrap();
    let lines = server.lines();
    assert_eq!(lines[0], "PUT /v1/services/we%2Fb/instances/a?ttl=600ms");
    assert_eq!(lines[1], "POST /v1/services/we%2Fb/instances/a/renew?generation=1&load=0.255");
    assert_eq!(lines[2], "POST /v1/services/we%2Fb/instances/a/renew?generation=1");
    assert_eq!(lines[3], "POST /v1/services/we%2Fb/instances/a/renew?generation=1&status=warning");
    assert_eq!(lines.last().unwrap(), "DELETE /v1/services/we%2Fb/instances/a?generation=1");
}

#[tokio::test]
async fn a_lost_answer_to_a_registration_is_asked_for_again_under_the_same_key() {
    let mut first = true;
    let mut script = service(|_| renewed("passing", ""));
    let server =
        Fake::start(move |request| if std::mem::take(&mut first) { Reply::Cut } else { script(request) })
            .await;
    let registration = client(&server).service("web").register(quick()).await.unwrap();
    assert_eq!(registration.generation(), 1, "registered once");
    let seen = server.seen();
    assert_eq!(seen[0].target, seen[1].target);
    let key = |at: usize| seen[at].header("idempotency-key").unwrap();
    assert_eq!(key(0), key(1));
}

#[tokio::test]
async fn renewals_that_find_nobody_are_tried_again_before_the_end() {
    // Cut, refused, unanswered: none of them says that the registration is gone.
    let server = Fake::start(service(|n| match n {
        0 => Reply::Cut,
        1 => Reply::problem(api::Code::NoLeader),
        _ => renewed("passing", ""),
    }))
    .await;
    let instance = Instance::new("10.0.0.7", 80).id("a").ttl(Duration::from_secs(3));
    let registration = client(&server).service("web").register(instance).await.unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while server.lines().iter().filter(|line| line.contains("/renew")).count() < 4 {
        assert!(std::time::Instant::now() < end, "{:?}", server.lines());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((registration.state(), registration.generation()), (RegistrationState::Registered, 1));
    assert_eq!(server.lines().iter().filter(|line| line.starts_with("PUT")).count(), 1);
}

#[tokio::test]
async fn what_is_lost_is_registered_again_with_what_was_said_since() {
    for (status, code) in [(410, "session_expired"), (404, "instance_not_found")] {
        let server = Fake::start(service(move |n| match n {
            1 => problem(status, code, ""),
            _ => renewed("warning", ""),
        }))
        .await;
        let registration = client(&server).service("web").register(quick()).await.unwrap();
        registration.set_status(api::Status::Warning);
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!((registration.state(), registration.generation()), (RegistrationState::Registered, 2));
        let requests = server.seen();
        let again = requests.iter().filter(|request| request.target.contains("ttl=")).nth(1).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&again.body).unwrap();
        assert_eq!(body["status"], "warning");
        assert!(server.lines().last().unwrap().contains("generation=2"), "{:?}", server.lines());
    }
}

#[tokio::test]
async fn what_somebody_wanted_gone_stays_gone() {
    for (first, then, end) in [
        ("passing", problem(404, "instance_not_found", r#","ended":"drained""#), RegistrationEnd::Drained),
        (
            "passing",
            problem(404, "instance_not_found", r#","ended":"deregistered""#),
            RegistrationEnd::Deregistered,
        ),
        ("draining", problem(404, "instance_not_found", ""), RegistrationEnd::Drained),
        ("passing", problem(409, "instance_replaced", r#","generation":7"#), RegistrationEnd::Replaced),
    ] {
        let mut then = Some(then);
        let server = Fake::start(service(move |n| match n {
            0 if first == "draining" => renewed(first, r#","leaves":"2026-11-22T05:40:11Z""#),
            0 => renewed(first, ""),
            _ => then.take().unwrap_or_else(|| renewed("passing", "")),
        }))
        .await;
        let registration = client(&server).service("web").register(quick()).await.unwrap();
        let states: Vec<_> =
            tokio::time::timeout(Duration::from_secs(5), registration.states().collect()).await.unwrap();
        assert_eq!(states.last(), Some(&RegistrationState::Ended(end)));
        assert_eq!(states.contains(&RegistrationState::Draining), first == "draining");
        assert_eq!(registration.ended().await, end);
        drop(registration);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let lines = server.lines();
        assert_eq!(lines.iter().filter(|line| line.starts_with("PUT")).count(), 1, "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("DELETE")), "a successor is left alone: {lines:?}");
    }
}

#[tokio::test]
async fn picks_say_how() {
    let server = Fake::start(|_: &Request| {
        Reply::json(200, format!(r#"{{"items":[{}],"degraded":false,"revision":3}}"#, instance(1)))
    })
    .await;
    let service = client(&server).service("web");
    assert_eq!(service.pick().await.unwrap().authority(), "10.0.0.7:80");
    service.pick().sticky("a b").zone("east").exclude("x").exclude("y").several(2).await.unwrap();
    assert_eq!(
        server.lines(),
        [
            "GET /v1/services/web/pick",
            "GET /v1/services/web/pick?strategy=sticky&key=a%20b&zone=east&exclude=x&exclude=y&n=2"
        ]
    );
}

#[test]
fn a_watch_adds_up() {
    let mut seen = Seen::default();
    let mut take = |json: &str| {
        let frame: Frame<api::Instance> = serde_json::from_str(json).unwrap();
        let update = match frame {
            Frame::Snapshot { revision, items, more } => {
                Update::Snapshot { revision, items, first: revision == 1, more }
            }
            Frame::Change { revision, time, events } => Update::Change { revision, time, events },
            other => panic!("{other:?}"),
        };
        let changed = seen.update(&update).unwrap();
        (changed, seen.instances().map(|instance| instance.id.as_str()).collect::<String>())
    };
    let at = |id: &str| instance(1).replace(r#""id":"a""#, &format!(r#""id":"{id}""#));
    let event = |id: &str, value: Option<String>| {
        let value =
            value.map(|v| format!(r#","value":{v},"content_type":"application/json""#)).unwrap_or_default();
        format!(
            r#"{{"type":"change","revision":3,"time":"2026-11-22T05:40:11Z","events":[{{"family":"services","op":"x","name":"web","item":"{id}"{value}}}]}}"#
        )
    };
    let snapshot = |revision: u64, items: &[&str], more: bool| {
        let items = items.iter().map(|id| at(id)).collect::<Vec<_>>().join(",");
        format!(r#"{{"type":"snapshot","revision":{revision},"items":[{items}],"more":{more}}}"#)
    };
    // Nothing is shown before the snapshot is whole.
    assert_eq!(take(&snapshot(1, &["a"], true)), (false, String::new()));
    assert_eq!(take(&snapshot(2, &["b"], false)), (true, "ab".into()));
    assert_eq!(take(&event("c", Some(at("c")))), (true, "abc".into()));
    assert_eq!(take(&event("c", Some(at("c")))), (false, "abc".into()));
    assert_eq!(take(&event("a", None)), (true, "bc".into()));
    assert_eq!(take(&event("a", None)), (false, "bc".into()));
    // A new snapshot replaces all.
    assert_eq!(take(&snapshot(1, &["d"], false)), (true, "d".into()));
}
