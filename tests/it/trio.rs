//! `session=`, `ttl=` and `hold=true` mean the same on every family that takes them.

use std::collections::BTreeSet;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::http::Http;
use coracle_tests::wait;
use reqwest::Method;
use serde_json::Value;

/// Something that can be claimed for as long as a session lives.
struct Family {
    name: &'static str,
    /// What must be there before it can be claimed.
    before: &'static [(&'static str, &'static str, &'static str)],
    /// What must be there each time.
    each: &'static [(&'static str, &'static str, &'static str)],
    method: Method,
    /// Where it is claimed, with what else the claim needs.
    path: &'static str,
    query: &'static str,
    body: &'static str,
    /// Where to look, and whether the claim is there by what is seen.
    look: &'static str,
    there: fn(u16, &Value) -> bool,
    /// What a stream tells first: it is granted, or others have to come.
    first: &'static str,
    /// One of the three is required.
    required: bool,
}

const PLAIN: Family = Family {
    name: "",
    before: &[],
    each: &[],
    method: Method::POST,
    path: "",
    query: "",
    body: "",
    look: "",
    there: |status, _| status == 200,
    first: "acquired",
    required: false,
};

#[allow(clippy::too_many_lines, reason = "a table")]
fn families() -> Vec<Family> {
    vec![
        Family {
            name: "kv",
            method: Method::PUT,
            path: "/v1/kv/trio",
            body: "x",
            look: "/v1/kv/trio",
            ..PLAIN
        },
        Family {
            name: "kv in order",
            path: "/v1/kv/trios/",
            body: "x",
            look: "/v1/kv?prefix=trios/",
            there: |_, list| list["items"][0]["key"].is_string(),
            ..PLAIN
        },
        Family {
            name: "locks",
            path: "/v1/locks/trio/acquire",
            look: "/v1/locks/trio",
            there: |status, lock| status == 200 && lock["holders"][0]["session"].is_string(),
            required: true,
            ..PLAIN
        },
        Family {
            name: "several locks",
            path: "/v1/locks",
            body: r#"{"items":[{"name":"trio1"},{"name":"trio2"}]}"#,
            look: "/v1/locks/trio2",
            there: |status, lock| status == 200 && lock["holders"][0]["session"].is_string(),
            required: true,
            ..PLAIN
        },
        Family {
            name: "semaphores",
            before: &[("PUT", "/v1/semaphores/trio", r#"{"limit":1}"#)],
            path: "/v1/semaphores/trio/acquire",
            look: "/v1/semaphores/trio",
            there: |status, semaphore| status == 200 && semaphore["holders"][0]["session"].is_string(),
            required: true,
            ..PLAIN
        },
        Family {
            name: "elections",
            path: "/v1/elections/trio/campaign",
            body: "me",
            look: "/v1/elections/trio",
            there: |status, election| status == 200 && election["leader"]["session"].is_string(),
            required: true,
            ..PLAIN
        },
        Family {
            name: "services",
            method: Method::PUT,
            path: "/v1/services/trio/instances/one",
            body: r#"{"address":"10.0.0.1","port":80}"#,
            look: "/v1/services/trio?healthy=true",
            there: |status, service| status == 200 && service["items"][0]["id"] == "one",
            ..PLAIN
        },
        Family {
            name: "groups",
            method: Method::PUT,
            path: "/v1/groups/trio/members/one",
            look: "/v1/groups/trio",
            there: |status, group| status == 200 && group["members"][0]["id"] == "one",
            ..PLAIN
        },
        Family {
            name: "inside a double barrier",
            before: &[("PUT", "/v1/barriers/trio", r#"{"kind":"double","parties":1}"#)],
            path: "/v1/barriers/trio/enter",
            look: "/v1/barriers/trio",
            there: |_, barrier| barrier["inside"] == 1,
            required: true,
            ..PLAIN
        },
        Family {
            name: "waiting at a barrier",
            before: &[("PUT", "/v1/barriers/trio2", r#"{"kind":"cyclic","parties":2}"#)],
            path: "/v1/barriers/trio2/enter",
            query: "keep=true",
            look: "/v1/barriers/trio2",
            there: |_, barrier| barrier["waiting"] == 1,
            first: "waiting",
            required: true,
            ..PLAIN
        },
        Family {
            name: "queues",
            // In flight as long as the session says, or until it is given back.
            before: &[("POST", "/v1/queues/trio/messages", "x")],
            path: "/v1/queues/trio/receive",
            look: "/v1/queues/trio",
            there: |_, queue| queue["in_flight"] == 1 && queue["ready"] == 0,
            ..PLAIN
        },
        Family {
            name: "queues with one consumer",
            before: &[
                ("PUT", "/v1/queues/trio1", r#"{"single_active":true}"#),
                ("POST", "/v1/queues/trio1/messages", "x"),
            ],
            path: "/v1/queues/trio1/receive",
            look: "/v1/queues/trio1",
            there: |_, queue| queue["active"].is_string() || queue["in_flight"] == 1,
            ..PLAIN
        },
        Family {
            name: "items of a barrier queue",
            before: &[("PUT", "/v1/queues/trio2", r#"{"kind":"barrier","barrier":{"size":2}}"#)],
            path: "/v1/queues/trio2/messages",
            body: "x",
            look: "/v1/queues/trio2",
            there: |_, queue| queue["filling"]["items"] == 1,
            ..PLAIN
        },
        Family {
            name: "subscriptions",
            before: &[
                ("POST", "/v1/topics/trio/messages", "x"),
                ("PUT", "/v1/topics/trio/subscriptions/s", r#"{"from":"first","max_deliveries":0}"#),
            ],
            path: "/v1/topics/trio/subscriptions/s/receive",
            look: "/v1/topics/trio/subscriptions/s",
            there: |_, subscription| subscription["in_flight"] == 1,
            ..PLAIN
        },
        Family {
            name: "exclusive subscriptions",
            before: &[("PUT", "/v1/topics/trio/subscriptions/x", r#"{"mode":"exclusive"}"#)],
            path: "/v1/topics/trio/subscriptions/x/receive",
            look: "/v1/topics/trio/subscriptions/x",
            there: |_, subscription| subscription["consumer"].is_string(),
            ..PLAIN
        },
    ]
}

async fn until_there(http: &Http, family: &Family, wanted: bool, patience: Duration) {
    let what = format!("{}: the claim is {}", family.name, if wanted { "there" } else { "gone" });
    wait::until(&what, patience, || async {
        let seen = http.get(family.look).send().await?;
        anyhow::ensure!((family.there)(seen.status, &seen.json()) == wanted, "{seen:?}");
        anyhow::Ok(())
    })
    .await;
}

async fn make(http: &Http, family: &Family, requests: &[(&str, &str, &str)]) {
    for (method, path, body) in requests {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let made = http.call(method, path).body((*body).to_owned()).send().await.expect("an answer");
        assert!(made.status < 300, "{}: {made:?}", family.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_every_family() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (cluster.nodes[0].http(), cluster.nodes[1].http());
    let patience = Duration::from_secs(10);
    for family in families() {
        make(one, &family, family.before).await;
        let claim = |query: &str| {
            let query = [query, family.query].join("&");
            let path = format!("{}?{}", family.path, query.trim_matches('&'));
            one.call(family.method.clone(), &path).body(family.body)
        };

        // A session: the claim ends with it, at once.
        let session = two.post("/v1/sessions?ttl=1m", "").expect(201).await.member("id");
        make(one, &family, family.each).await;
        let claimed = claim(&format!("session={session}")).send().await.expect("an answer");
        assert!(claimed.status < 300, "{}: {claimed:?}", family.name);
        until_there(two, &family, true, patience).await;
        two.delete(&format!("/v1/sessions/{session}")).expect(200).await;
        until_there(one, &family, false, patience).await;
        claim(&format!("session={session}")).refused(410, "session_expired").await;

        // A ttl: a session of its own, told in the answer, that can be renewed and runs out.
        make(one, &family, family.each).await;
        let claimed = claim("ttl=2s").send().await.expect("an answer");
        assert!(claimed.status < 300, "{}: {claimed:?}", family.name);
        let own = claimed.json();
        assert!(own["valid_for"].is_string(), "{}: {own}", family.name);
        // The winner of an election is told as its leader.
        let own = own["session"].as_str().or(own["leader"].as_str()).expect("a session").to_owned();
        until_there(two, &family, true, patience).await;
        two.post(&format!("/v1/sessions/{own}/renew"), "").expect(200).await;
        until_there(two, &family, false, patience).await;
        two.get(&format!("/v1/sessions/{own}")).refused(410, "session_expired").await;

        // A connection: the claim lives while it lives, and for its ttl as grace, or not at all.
        for (at_once, ttl) in [("&on_disconnect=expire", "1m"), ("", "1s")] {
            make(one, &family, family.each).await;
            let path = format!("{}?hold=true&ttl={ttl}{at_once}", family.path);
            let held = one.stream_of(family.method.clone(), &path, family.body).await;
            let mut held = held.expect("a stream");
            assert_eq!(held.status, 200, "{}", family.name);
            let first = held.next().await.expect("a frame");
            assert_eq!(first["type"], family.first, "{}: {first}", family.name);
            if family.first == "acquired" {
                assert!(
                    first["session"].is_string() && first["valid_for"].is_string(),
                    "{}: {first}",
                    family.name
                );
                assert!(first["token"].as_u64() > Some(0), "{}: {first}", family.name);
            } else {
                assert_eq!(first["position"], 1, "{}: {first}", family.name);
            }
            until_there(two, &family, true, patience).await;
            if at_once.is_empty() {
                // Renewed by the node, again and again.
                let again = if family.first == "acquired" { "held" } else { family.first };
                for _ in 0..4 {
                    held.until(again, patience).await;
                }
            }
            drop(held);
            until_there(two, &family, false, patience).await;
        }

        // Ended from outside, the stream says so and ends.
        make(one, &family, family.each).await;
        let before = sessions(two).await;
        let path = format!("{}?hold=true&ttl=1m", family.path);
        let mut held = one.stream_of(family.method.clone(), &path, family.body).await.expect("a stream");
        held.until(family.first, patience).await;
        until_there(two, &family, true, patience).await;
        let now = sessions(two).await;
        let own = now.difference(&before).next().expect("a session of the stream");
        two.delete(&format!("/v1/sessions/{own}")).expect(200).await;
        let lost = held.until("lost", patience).await;
        let reason = if family.first == "acquired" { "session_closed" } else { "broken" };
        assert_eq!(lost["reason"], reason, "{}: {lost}", family.name);
        assert_eq!(held.next().await, None, "{}", family.name);
        until_there(two, &family, false, patience).await;

        // Only one of them, and where a claim must live with something, one of them.
        let dead = "7000000000000001";
        claim(&format!("session={dead}&ttl=5s")).refused(400, "invalid_argument").await;
        claim(&format!("session={dead}&hold=true")).refused(400, "invalid_argument").await;
        claim("ttl=5s&on_disconnect=expire").refused(400, "invalid_argument").await;
        claim("ttl=1ms").refused(400, "invalid_argument").await;
        claim("ttl=25h").refused(400, "invalid_argument").await;
        claim(&format!("session={dead}")).refused(410, "session_expired").await;
        if family.required {
            claim("").refused(400, "invalid_argument").await;
        }
        until_there(two, &family, false, patience).await;
    }
}

/// All there are.
async fn sessions(http: &Http) -> BTreeSet<String> {
    let list = http.get("/v1/sessions?limit=1000").expect(200).await.json();
    let items = list["items"].as_array().expect("items");
    items.iter().filter_map(|session| Some(session["id"].as_str()?.to_owned())).collect()
}
