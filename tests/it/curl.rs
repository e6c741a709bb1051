//! The curl lines of docs/HTTP.md, run by the real curl.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use coracle_tests::cluster::Cluster;
use serde_json::{Value, json};

/// Runs `curl -sS` with these arguments of a shell, `$C` being the node; answers body and status.
fn curl(base: &str, line: &str) -> (String, u16) {
    let script = format!("curl -sS --max-time 20 -w '\\n%{{http_code}}' {line}");
    let output = Command::new("sh").args(["-c", &script]).env("C", base).output().expect("a shell");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let (body, status) = said.rsplit_once('\n').expect("a status");
    (body.to_owned(), status.parse().expect("a status"))
}

fn json_of(base: &str, line: &str, expected: u16) -> Value {
    let (body, status) = curl(base, line);
    assert_eq!(status, expected, "{line}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{line}: {error} in {body}"))
}

/// A curl that goes on until it is dropped.
struct Running(Child, BufReader<std::process::ChildStdout>);

impl Running {
    fn start(base: &str, line: &str) -> Self {
        let script = format!("exec curl -sSN --max-time 60 {line}");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .env("C", base)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self(child, output)
    }

    /// Lines up to one of this type.
    fn until(&mut self, kind: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.1.read_line(&mut line).expect("text") > 0, "it ended before {kind}");
            let frame: Value = serde_json::from_str(&line).expect("JSON");
            if frame["type"] == kind {
                return frame;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys() {
    let cluster = Cluster::start(1).await;
    let base = &cluster.nodes[0].url();
    let put = json_of(base, "$C/v1/kv/app/color -X PUT -d blue", 201);
    let first = put["revision"].as_u64().expect("a number");
    assert_eq!((&put["key"], &put["version"]), (&json!("app/color"), &json!(1)));
    assert_eq!(curl(base, "$C/v1/kv/app/color"), ("blue".to_owned(), 200));
    let mut watch = Running::start(base, r#""$C/v1/kv?prefix=app/&watch=true""#);
    watch.until("synced");
    let put = json_of(base, &format!("$C/v1/kv/app/color -X PUT -d red -H 'If-Match: {first}'"), 200);
    let second = put["revision"].as_u64().expect("a number");
    assert_eq!(put["version"], 2);
    let refused = json_of(base, &format!("$C/v1/kv/app/color -X PUT -d green -H 'If-Match: {first}'"), 412);
    assert_eq!(
        (&refused["code"], &refused["current_revision"]),
        (&json!("revision_mismatch"), &json!(second))
    );
    let change = watch.until("change");
    assert_eq!(change["revision"], second);
    let event = &change["events"][0];
    for (member, value) in [
        ("family", json!("kv")),
        ("op", json!("put")),
        ("key", json!("app/color")),
        ("value", json!("red")),
        ("version", json!(2)),
        ("previous_revision", json!(first)),
    ] {
        assert_eq!(event[member], value, "{change}");
    }
    let shown = json_of(base, r#""$C/v1/kv/app/color?format=json""#, 200);
    assert_eq!((&shown["value"], &shown["mod_revision"]), (&json!("red"), &json!(second)));
    // A file, a form, a type of one's own.
    json_of(base, "-T /etc/hostname $C/v1/kv/file", 201);
    assert_eq!(
        curl(base, "$C/v1/kv/file").0.trim(),
        std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim()
    );
    json_of(base, r#"$C/v1/kv/json -X PUT -H 'Content-Type: application/json' -d '{"a": 1}'"#, 201);
    let shown = json_of(base, r#""$C/v1/kv/json?format=json""#, 200);
    assert_eq!(shown["value"], json!({"a": 1}));
    let (headers, _) = curl(base, "-D - -o /dev/null $C/v1/kv/json");
    let headers = headers.to_lowercase();
    for header in [
        "etag: \"",
        "coracle-revision: ",
        "coracle-member: ",
        "coracle-version: 1",
        "coracle-create-revision: ",
        "x-content-type-options: nosniff",
        "content-security-policy: ",
        "content-type: application/json",
    ] {
        assert!(headers.contains(header), "no {header} in {headers}");
    }
    let (_, status) = curl(base, "-I $C/v1/kv/json");
    assert_eq!(status, 200);
    let made = json_of(base, "$C/v1/kv/jobs/ -d work", 201);
    let key = made["key"].as_str().expect("a key");
    assert_eq!(key, format!("jobs/{:020}", made["revision"].as_u64().expect("a number")));
    let list = json_of(base, r#""$C/v1/kv?prefix=app/&keys_only=true""#, 200);
    assert_eq!(list["items"][0]["key"], "app/color");
    let folders = json_of(base, r#""$C/v1/kv?delimiter=/""#, 200);
    assert_eq!(folders["prefixes"], json!([{"prefix": "app/"}, {"prefix": "jobs/"}]), "{folders}");
    let deleted = json_of(base, "$C/v1/kv/app/color -X DELETE", 200);
    assert_eq!(deleted["deleted"], 1);
    assert_eq!(json_of(base, "$C/v1/kv/app/color", 404)["code"], "key_not_found");
    let typo = json_of(base, r#""$C/v1/kv/app/color?whatch=true""#, 400);
    assert_eq!(typo["code"], "unknown_parameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction() {
    let cluster = Cluster::start(1).await;
    let base = &cluster.nodes[0].url();
    json_of(base, "$C/v1/kv/stock/7 -X PUT -d 3", 201);
    let held = json_of(base, r#""$C/v1/locks/deploy/acquire?ttl=30s&wait=1m" -X POST"#, 200);
    assert_eq!(held["valid_for"], "30s");
    let token = held["token"].as_u64().expect("a token");
    let txn = format!(
        r#"$C/v1/txn -d '{{"if": [{{"key":"stock/7","value":"3"}}, {{"key":"order/1","exists":false}}, {{"held":"locks/deploy","token":{token}}}],
            "then": [{{"op":"put","key":"order/1","value":"paid"}}], "else": [{{"op":"get","key":"stock/7"}}]}}'"#
    );
    let done = json_of(base, &txn, 200);
    assert_eq!(done["succeeded"], true, "{done}");
    assert_eq!(curl(base, "$C/v1/kv/order/1").0, "paid");
    let again = json_of(base, &txn, 200);
    assert_eq!(
        (&again["succeeded"], &again["results"][0]["entry"]["value"]),
        (&json!(false), &json!("3")),
        "{again}"
    );
}

/// `curl -N` and Ctrl-C is a complete lock client.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_for_as_long_as_curl_lives() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (cluster.nodes[0].url(), cluster.nodes[1].url());
    let line = r#"-X POST "$C/v1/locks/build/acquire?hold=true&ttl=2s&on_disconnect=expire""#;
    let mut first = Running::start(&one, line);
    let token = first.until("acquired")["token"].as_u64().expect("a token");
    let mut second = Running::start(&two, line);
    second.until("waiting");
    let refused = json_of(&one, r#"-X POST "$C/v1/locks/build/acquire?ttl=5s""#, 409);
    assert_eq!(
        (&refused["code"], &refused["blockers"][0]["token"]),
        (&json!("lock_held"), &json!(token)),
        "{refused}"
    );
    drop(first);
    let next = second.until("acquired")["token"].as_u64().expect("a token");
    assert!(next > token);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_operations() {
    let cluster = Cluster::start(1).await;
    let base = &cluster.nodes[0].url();
    let session = json_of(base, r#"$C/v1/sessions -d '{"ttl":"30s","name":"worker-3"}'"#, 201);
    let id = session["id"].as_str().expect("an id");
    assert_eq!(id.len(), 16);
    json_of(base, &format!(r#""$C/v1/kv/workers/3?session={id}" -X PUT -d ready"#), 201);
    let renewed =
        json_of(base, &format!(r#"$C/v1/sessions/{id}/renew -d '{{"progress":{{"percent":40}}}}'"#), 200);
    assert_eq!(renewed["valid_for"], "30s");
    let shown = json_of(base, &format!("$C/v1/sessions/{id}"), 200);
    assert_eq!(
        (&shown["name"], &shown["keys"], &shown["progress"]["percent"]),
        (&json!("worker-3"), &json!(["workers/3"]), &json!(40))
    );
    json_of(base, &format!("-X DELETE $C/v1/sessions/{id}"), 200);
    assert_eq!(curl(base, "$C/v1/kv/workers/3").1, 404);
    assert_eq!(json_of(base, "$C/v1/cluster", 200)["role"], "voter");
    assert_eq!(json_of(base, "$C/v1/members", 200)["items"][0]["name"], "n1");
    assert_eq!(json_of(base, "$C/version", 200)["api"], "v1");
    assert!(json_of(base, "$C/v1/limits", 200)["value_bytes_max"].is_u64());
    assert_eq!(curl(base, "$C/livez"), ("ok\n".to_owned(), 200));
    assert!(curl(base, "'$C/readyz?verbose'".replace('\'', "\"").as_str()).0.contains("[+]read ok"));
    assert!(curl(base, "$C/metrics").0.contains("coracle_"));
    assert_eq!(curl(base, "$C/problems/lock_held").1, 200);
    // Over HTTP/2 without TLS, as gRPC and some libraries do.
    assert_eq!(curl(base, "--http2-prior-knowledge $C/livez"), ("ok\n".to_owned(), 200));
}

/// Every curl of the README's table of recipes, in its order, against one node. What streams goes on until the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_curl_for_each_recipe_as_the_readme_has_it() {
    let cluster = Cluster::start(1).await;
    let base = &cluster.nodes[0].url();
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).expect("the README");
    let table = readme.split("## A curl for each recipe").nth(1).expect("the table");
    let table = table.split("\n\n").nth(1).expect("rows");
    let lines: Vec<&str> =
        table.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("curl ")).collect();
    assert!(lines.len() > 15, "{lines:?}");
    let mut streams = Vec::new();
    for line in lines {
        // The same node, without a variable of the reader's shell.
        if line.contains(" -N") {
            let mut stream = Running::start(base, line);
            let mut first = String::new();
            stream.1.read_line(&mut first).expect("text");
            let frame: Value =
                serde_json::from_str(&first).unwrap_or_else(|error| panic!("{line}: {error} in {first}"));
            assert!(frame["type"].is_string() && frame["type"] != "error", "{line}: {frame}");
            streams.push(stream);
            continue;
        }
        let line = line.replace("wait=1m", "wait=1s");
        let (body, status) = curl(base, &line);
        // Nobody else comes to the barrier.
        let expected = if line.contains("/enter") { 409..410 } else { 200..300 };
        assert!(expected.contains(&status), "{line}: {status} {body}");
    }
}
