//! Bad requests to barriers, latches, counters, groups and fences, and what is just within their limits.

use coracle_tests::cluster::Cluster;
use coracle_tests::refusals::{Bad, all_are_refused, bad};

/// A node with one of each.
async fn furnished() -> Cluster {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    http.put("/v1/barriers/step", r#"{"parties":3}"#).expect(201).await;
    http.post("/v1/barriers/step/enter?id=a&keep=true", "").expect(202).await;
    http.post("/v1/barriers/gate/open", "").expect(200).await;
    http.put("/v1/latches/l", r#"{"members":["a","b"]}"#).expect(201).await;
    http.put("/v1/counters/c", "5").expect(200).await;
    http.put("/v1/groups/g/members/m?ttl=1h", "x").expect(201).await;
    http.post("/v1/fences/f/check?token=9", "").expect(200).await;
    cluster
}

/// What is wrong with the name of any object.
fn names(method: &'static str, before: &str, after: &str) -> Vec<Bad> {
    let long = "n".repeat(513);
    ["", "%00", "%FF", "%1B%5B31m", &long]
        .map(|name| {
            // A path without a name is that of the list, or of nothing.
            let code = if name.is_empty() && !after.starts_with('/') {
                "route_not_found"
            } else {
                "invalid_argument"
            };
            let status = if code == "route_not_found" { 404 } else { 400 };
            bad(method, format!("{before}{name}{after}"), "", status, code)
        })
        .into_iter()
        .collect()
}

/// What is wrong with a whole number, beside its bounds.
fn numbers(method: &'static str, before: &str) -> Vec<Bad> {
    ["", "x", "1.5", "1e3", "0x1", "%2B1", "--1", "99999999999999999999", "%00"]
        .map(|number| bad(method, format!("{before}{number}"), "", 400, "invalid_argument"))
        .into_iter()
        .collect()
}

/// So many declared members.
fn members(count: usize) -> String {
    let names: Vec<String> = (0..count).map(|n| format!("\"m{n}\"")).collect();
    format!("{{\"members\":[{}]}}", names.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_counters_and_fences() {
    let cluster = furnished().await;
    let mut table = vec![
        bad("PUT", "/v1/counters/c", "", 400, "invalid_argument"),
        bad("PUT", "/v1/counters/c", "five", 400, "invalid_argument"),
        bad("PUT", "/v1/counters/c", "1.0", 400, "invalid_argument"),
        bad("PUT", "/v1/counters/c", "+1", 400, "invalid_argument"),
        bad("PUT", "/v1/counters/c", "9007199254740992", 400, "invalid_argument"),
        bad("PUT", "/v1/counters/c", "-9007199254740992", 400, "invalid_argument"),
        bad("PUT", "/v1/counters/c", vec![0xFF], 400, "invalid_argument"),
        bad("PUT", "/v1/counters/c?if_match=1&if_none_match=*", "1", 400, "invalid_argument"),
        bad("PUT", "/v1/counters/c?if_match=999", "1", 412, "revision_mismatch"),
        bad("PUT", "/v1/counters/c?if_none_match=*", "1", 412, "revision_mismatch"),
        bad("PUT", "/v1/counters/c?ttl=5s", "1", 400, "unknown_parameter"),
        bad("DELETE", "/v1/counters/c?if_match=999", "", 412, "revision_mismatch"),
        bad("DELETE", "/v1/counters/nobody?if_match=*", "", 412, "revision_mismatch"),
        bad("POST", "/v1/counters/c/add?delta=9007199254740992", "", 400, "invalid_argument"),
        bad("POST", "/v1/counters/c/add?delta=9007199254740991", "", 409, "out_of_range"),
        bad("POST", "/v1/counters/c/add?max=5", "", 409, "out_of_range"),
        bad("POST", "/v1/counters/c/add?delta=-6&min=0", "", 409, "out_of_range"),
        bad("POST", "/v1/counters/c/add?min=9&max=1", "", 409, "out_of_range"),
        bad("POST", "/v1/counters/c/subtract", "", 404, "route_not_found"),
        bad("POST", "/v1/counters/c", "1", 405, "method_not_allowed"),
        bad("GET", "/v1/counters?limit=0", "", 400, "invalid_argument"),
        bad("GET", "/v1/counters?cursor=nonsense", "", 400, "invalid_argument"),
        bad("POST", "/v1/fences/f/check?token=8", "", 412, "fence_stale"),
        bad("POST", "/v1/fences/f/check?token=0", "", 400, "invalid_argument"),
        bad("POST", "/v1/fences/f/check?token=9007199254740992", "", 400, "invalid_argument"),
        bad("POST", "/v1/fences/f/check", "", 400, "invalid_argument"),
        bad("POST", "/v1/fences/f", "", 405, "method_not_allowed"),
        bad("GET", "/v1/fences/f?token=9", "", 400, "unknown_parameter"),
    ];
    for parameter in ["delta", "min", "max"] {
        table.extend(numbers("POST", &format!("/v1/counters/c/add?{parameter}=")));
    }
    table.extend(numbers("POST", "/v1/fences/f/check?token="));
    table.extend(names("POST", "/v1/counters/", "/add"));
    table.extend(names("POST", "/v1/fences/", "/check?token=1"));
    all_are_refused(&cluster.nodes[0], table).await;
    let http = cluster.nodes[0].http();
    for number in ["9007199254740991", "-9007199254740991", " 7\n"] {
        http.put("/v1/counters/c", number).expect(200).await;
    }
    http.post("/v1/fences/f/check?token=9007199254740991", "").expect(200).await;
    let long = "n".repeat(512);
    http.post(&format!("/v1/counters/{long}/add"), "").expect(200).await;
    http.post(&format!("/v1/fences/{long}/check?token=1"), "").expect(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_barriers() {
    let cluster = furnished().await;
    let long = "n".repeat(513);
    let none = "7000000000000001";
    let mut table = Vec::new();
    for body in [
        "",
        "{}",
        "[]",
        "{\"parties\":0}",
        "{\"parties\":10001}",
        "{\"parties\":-1}",
        "{\"parties\":1.5}",
        "{\"parties\":\"3\"}",
        "{\"parties\":3,\"colour\":1}",
        "{\"kind\":\"turnstile\",\"parties\":3}",
        "{\"kind\":\"gate\",\"parties\":3}",
        "{\"kind\":\"gate\",\"members\":[\"a\"]}",
        "{\"kind\":\"cyclic\",\"parties\":3,\"exact\":false}",
        "{\"kind\":\"double\",\"parties\":3,\"timeout\":\"1m\"}",
        "{\"parties\":3,\"timeout\":\"0\"}",
        "{\"parties\":3,\"timeout\":\"25h\"}",
        "{\"parties\":3,\"members\":[\"a\"]}",
        "{\"members\":[\"a\",\"a\"]}",
        "{\"members\":[\"\"]}",
        "{\"members\":[\"\\u0000\"]}",
    ] {
        table.push(bad("PUT", "/v1/barriers/new", body, 400, "invalid_argument"));
    }
    table.push(bad("PUT", "/v1/barriers/new", members(1_001), 400, "invalid_argument"));
    table.push(bad("PUT", "/v1/barriers/step", "{\"parties\":4}", 409, "already_exists"));
    table.extend([
        bad("POST", "/v1/barriers/step/enter", "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/step/enter?id=", "", 400, "invalid_argument"),
        bad("POST", format!("/v1/barriers/step/enter?id={long}"), "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/step/enter?id=%00", "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/step/enter?id=b", "", 409, "barrier_waiting"),
        bad("POST", "/v1/barriers/step/enter?id=a", "", 409, "barrier_waiting"),
        bad("POST", format!("/v1/barriers/step/enter?id=b&session={none}"), "", 410, "session_expired"),
        bad("POST", "/v1/barriers/step/enter?id=b&session=x", "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/step/enter?id=b&ttl=1ms", "", 400, "invalid_argument"),
        bad("POST", format!("/v1/barriers/step/enter?session={none}&ttl=5s"), "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/step/enter?id=b&hold=true&keep=true", "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/step/enter?id=b&on_disconnect=expire", "", 400, "unknown_parameter"),
        bad("POST", "/v1/barriers/step/enter?id=b&keep=perhaps", "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/step/enter?id=b&wait=11m", "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/step/enter?id=b&parties=1", "", 400, "unknown_parameter"),
        bad("POST", "/v1/barriers/step/enter?id=b&generation=0", "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/step/enter?id=b&generation=99999", "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/gate/enter?id=b", "", 409, "already_exists"),
        bad("POST", "/v1/barriers/nobody/enter?id=b", "", 404, "barrier_not_found"),
        bad("POST", "/v1/barriers/step/leave", "", 400, "invalid_argument"),
        bad("POST", "/v1/barriers/step/leave?id=b", "", 409, "not_holder"),
        bad("POST", format!("/v1/barriers/step/leave?id=a&session={none}"), "", 409, "not_holder"),
        bad("POST", "/v1/barriers/nobody/leave?id=a", "", 404, "barrier_not_found"),
        bad("POST", "/v1/barriers/gate/leave?id=a", "", 409, "already_exists"),
        bad("POST", "/v1/barriers/step/open", "", 409, "already_exists"),
        bad("POST", "/v1/barriers/step/await", "", 409, "already_exists"),
        bad("POST", "/v1/barriers/nobody/await", "", 404, "barrier_not_found"),
        bad("POST", "/v1/barriers/gate/await?wait=-1s", "", 400, "invalid_argument"),
        bad("DELETE", "/v1/barriers/nobody", "", 404, "barrier_not_found"),
        bad("GET", "/v1/barriers/nobody", "", 404, "barrier_not_found"),
    ]);
    table.extend(numbers("POST", "/v1/barriers/step/enter?id=b&generation="));
    table.extend(names("PUT", "/v1/barriers/", ""));
    all_are_refused(&cluster.nodes[0], table).await;
    let http = cluster.nodes[0].http();
    http.put("/v1/barriers/large", "{\"parties\":10000,\"timeout\":\"24h\"}").expect(201).await;
    http.put("/v1/barriers/named", members(1_000)).expect(201).await;
    let id = "i".repeat(512);
    http.post(&format!("/v1/barriers/large/enter?id={id}&keep=true"), "").expect(202).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_latches() {
    let cluster = furnished().await;
    let long = "n".repeat(513);
    let mut table = vec![
        bad("PUT", "/v1/latches/l", "{\"count\":2}", 409, "already_exists"),
        bad("POST", "/v1/latches/l/count_down", "", 400, "invalid_argument"),
        bad("POST", "/v1/latches/l/count_down?id=", "", 400, "invalid_argument"),
        bad("POST", format!("/v1/latches/l/count_down?id={long}"), "", 400, "invalid_argument"),
        bad("POST", "/v1/latches/l/count_down?id=stranger", "", 404, "member_not_found"),
        bad("POST", "/v1/latches/nobody/count_down?id=a", "", 404, "latch_not_found"),
        bad("POST", "/v1/latches/l/await", "", 409, "latch_closed"),
        bad("POST", "/v1/latches/l/await?wait=1y", "", 400, "invalid_argument"),
        bad("POST", "/v1/latches/l/await?session=x", "", 400, "unknown_parameter"),
        bad("POST", "/v1/latches/nobody/await", "", 404, "latch_not_found"),
        bad("DELETE", "/v1/latches/nobody", "", 404, "latch_not_found"),
    ];
    for body in
        ["", "{}", "[1]", "{\"count\":0}", "{\"count\":10001}", "{\"count\":-1}", "{\"count\":3,\"x\":1}"]
    {
        table.push(bad("PUT", "/v1/latches/new", body, 400, "invalid_argument"));
    }
    table.push(bad("PUT", "/v1/latches/new", members(1_001), 400, "invalid_argument"));
    table.extend(names("POST", "/v1/latches/", "/count_down?id=a"));
    all_are_refused(&cluster.nodes[0], table).await;
    let http = cluster.nodes[0].http();
    http.put("/v1/latches/large", "{\"count\":10000}").expect(201).await;
    let id = "i".repeat(512);
    http.post(&format!("/v1/latches/large/count_down?id={id}"), "").expect(200).await;
    let limits = http.get("/v1/limits").expect(200).await.json();
    for (limit, most) in [
        ("parties_per_barrier_max", 10_000),
        ("count_per_latch_max", 10_000),
        ("declared_members_max", 1_000),
        ("members_per_group_max", 10_000),
        ("slots_per_group_max", 4_096),
    ] {
        assert_eq!(limits[limit].as_u64(), Some(most), "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_groups() {
    let cluster = furnished().await;
    let none = "7000000000000001";
    let member = "/v1/groups/g/members/m";
    let mut table = vec![
        bad("PUT", format!("{member}?ttl=5s"), vec![b'x'; 4_097], 413, "too_large"),
        bad("PUT", format!("{member}?session={none}"), "x", 410, "session_expired"),
        bad("PUT", format!("{member}?session={none}&hold=true"), "x", 400, "invalid_argument"),
        bad("PUT", format!("{member}?ttl=1ms"), "x", 400, "invalid_argument"),
        bad("PUT", format!("{member}?progress=101"), "x", 400, "invalid_argument"),
        bad("PUT", format!("{member}?weight=1"), "x", 400, "unknown_parameter"),
        bad("PUT", member, "x", 400, "invalid_argument").with("content-type", "nonsense"),
        bad("PUT", "/v1/groups/g/members/new", "x", 404, "member_not_found"),
        bad("POST", member, "x", 405, "method_not_allowed"),
        bad("DELETE", format!("{member}?session={none}"), "", 404, "member_not_found"),
        bad("DELETE", format!("{member}?session=x"), "", 400, "invalid_argument"),
        bad("GET", "/v1/groups/g/members/nobody", "", 404, "member_not_found"),
        bad("GET", "/v1/groups/g?slots=0", "", 400, "invalid_argument"),
        bad("GET", "/v1/groups/g?slots=4097", "", 400, "invalid_argument"),
        bad("GET", "/v1/groups/g?min=0", "", 400, "invalid_argument"),
        bad("GET", "/v1/groups/g?min=10001&wait=1s", "", 400, "invalid_argument"),
        bad("GET", "/v1/groups/g?min=1&after=1", "", 400, "unknown_parameter"),
        bad("GET", "/v1/groups/g?watch=true&min=1", "", 400, "unknown_parameter"),
        bad("DELETE", "/v1/groups/g", "", 405, "method_not_allowed"),
    ];
    table.extend(numbers("PUT", &format!("{member}?progress=")));
    table.extend(numbers("GET", "/v1/groups/g?slots="));
    table.extend(numbers("GET", "/v1/groups/g?wait=1s&min="));
    table.extend(names("PUT", "/v1/groups/", "/members/m?ttl=5s"));
    table.extend(names("DELETE", "/v1/groups/g/members/", "?session=7000000000000001"));
    all_are_refused(&cluster.nodes[0], table).await;
    let http = cluster.nodes[0].http();
    http.put(&format!("{member}?progress=100"), vec![b'x'; 4_096]).expect(200).await;
    http.get("/v1/groups/g?slots=4096").expect(200).await;
}
