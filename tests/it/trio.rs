//! `session=`, `ttl=` and `hold=true` mean the same on every family that takes them.

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
    method: Method,
    /// Where it is claimed.
    path: &'static str,
    body: &'static str,
    /// Where to look, and whether the claim is there by what is seen.
    look: &'static str,
    there: fn(u16, &Value) -> bool,
    /// One of the three is required.
    required: bool,
}

fn families() -> Vec<Family> {
    vec![
        Family {
            name: "kv",
            before: &[],
            method: Method::PUT,
            path: "/v1/kv/trio",
            body: "x",
            look: "/v1/kv/trio",
            there: |status, _| status == 200,
            required: false,
        },
        Family {
            name: "locks",
            before: &[],
            method: Method::POST,
            path: "/v1/locks/trio/acquire",
            body: "",
            look: "/v1/locks/trio",
            there: |status, lock| status == 200 && lock["holders"][0]["session"].is_string(),
            required: true,
        },
        Family {
            name: "semaphores",
            before: &[("PUT", "/v1/semaphores/trio", r#"{"limit":1}"#)],
            method: Method::POST,
            path: "/v1/semaphores/trio/acquire",
            body: "",
            look: "/v1/semaphores/trio",
            there: |status, semaphore| status == 200 && semaphore["holders"][0]["session"].is_string(),
            required: true,
        },
        Family {
            name: "elections",
            before: &[],
            method: Method::POST,
            path: "/v1/elections/trio/campaign",
            body: "me",
            look: "/v1/elections/trio",
            there: |status, election| status == 200 && election["leader"]["session"].is_string(),
            required: true,
        },
        Family {
            name: "services",
            before: &[],
            method: Method::PUT,
            path: "/v1/services/trio/instances/one",
            body: r#"{"address":"10.0.0.1","port":80}"#,
            look: "/v1/services/trio?healthy=true",
            there: |status, service| status == 200 && service["items"][0]["id"] == "one",
            required: false,
        },
        Family {
            name: "groups",
            before: &[],
            method: Method::PUT,
            path: "/v1/groups/trio/members/one",
            body: "",
            look: "/v1/groups/trio",
            there: |status, group| status == 200 && group["members"][0]["id"] == "one",
            // Without one it is an update of a member that is there.
            required: false,
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

#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_every_family() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (cluster.nodes[0].http(), cluster.nodes[1].http());
    let patience = Duration::from_secs(10);
    for family in families() {
        for (method, path, body) in family.before {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let made = one.call(method, path).body(*body).send().await.expect("an answer");
            assert!(made.status < 300, "{}: {made:?}", family.name);
        }
        let claim = |query: &str| {
            one.call(family.method.clone(), &format!("{}?{query}", family.path)).body(family.body)
        };

        // A session: the claim ends with it, at once.
        let session = two.post("/v1/sessions?ttl=1m", "").expect(201).await.member("id");
        let claimed = claim(&format!("session={session}")).send().await.expect("an answer");
        assert!(claimed.status < 300, "{}: {claimed:?}", family.name);
        until_there(two, &family, true, patience).await;
        two.delete(&format!("/v1/sessions/{session}")).expect(200).await;
        until_there(one, &family, false, patience).await;
        claim(&format!("session={session}")).refused(410, "session_expired").await;

        // A ttl: a session of its own, told in the answer, that can be renewed and runs out.
        let claimed = claim("ttl=2s").send().await.expect("an answer");
        assert!(claimed.status < 300, "{}: {claimed:?}", family.name);
        // The winner of an election is told as its leader.
        let own = claimed.json();
        let own = own["session"].as_str().or(own["leader"].as_str()).expect("a session").to_owned();
        until_there(two, &family, true, patience).await;
        two.post(&format!("/v1/sessions/{own}/renew"), "").expect(200).await;
        until_there(two, &family, false, patience).await;
        two.get(&format!("/v1/sessions/{own}")).refused(410, "session_expired").await;

        // A connection: the claim lives while it lives.
        let path = format!("{}?hold=true&ttl=2s&on_disconnect=expire", family.path);
        let mut held = one.stream_of(family.method.clone(), &path, family.body).await.expect("a stream");
        assert_eq!(held.status, 200, "{}", family.name);
        let first = held.next().await.expect("a frame");
        assert_eq!(first["type"], "acquired", "{}: {first}", family.name);
        assert!(first["session"].is_string() && first["valid_for"].is_string(), "{}: {first}", family.name);
        held.until("held", patience).await;
        until_there(two, &family, true, patience).await;
        drop(held);
        until_there(two, &family, false, patience).await;

        // Only one of them, and where a claim must live with something, one of them.
        let dead = "7000000000000001";
        claim(&format!("session={dead}&ttl=5s")).refused(400, "invalid_argument").await;
        claim("ttl=5s&on_disconnect=expire").refused(400, "invalid_argument").await;
        claim("ttl=1ms").refused(400, "invalid_argument").await;
        claim(&format!("session={dead}")).refused(410, "session_expired").await;
        if family.required {
            claim("").refused(400, "invalid_argument").await;
        }
        until_there(two, &family, false, patience).await;
    }
}
