//! Every call that waits goes on at another node when its own is killed: with its ticket, in its place, and once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use coracle_tests::cluster::Cluster;
use coracle_tests::http::{Call, Http, Reply};
use coracle_tests::wait;
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(40);

/// A kind of call that waits. In its lines `{n}` is the object, `{who}` the caller, `{by}` what the caller lives with, `{holder}`
/// the session of whoever is in the way, `{first}` the session that was granted first, `{rev}` the revision before it all.
struct Waiting {
    name: &'static str,
    /// What must be there, or in the way.
    before: &'static [&'static str],
    call: &'static str,
    /// What callers live with, a form each.
    by: &'static [By],
    /// What happens while the caller has no node.
    between: &'static [&'static str],
    /// What ends the wait: of all callers if it is one, else of one after the other.
    free: &'static [&'static str],
    callers: Callers,
}

/// How a repeated call is known to be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Its session.
    Session,
    /// Its Idempotency-Key, as a session may have many of its kind.
    SessionAndKey,
    /// Its Idempotency-Key, which finds its private session.
    Ttl,
    /// Its Idempotency-Key.
    Key,
    /// It changes nothing, or names what it is about.
    Nothing,
}

/// Who waits, and what their answers tell.
#[derive(Clone, Copy)]
enum Callers {
    /// Two, each with a place: that of the one whose node is killed comes first.
    InLine(fn(&Value) -> Option<u64>),
    /// Two who share what comes: each thing goes to one of them.
    Sharing(fn(&Value) -> Option<u64>),
    One,
}

const TOKEN: fn(&Value) -> Option<u64> = |answer| answer["token"].as_u64();
const INDEX: fn(&Value) -> Option<u64> = |answer| answer["index"].as_u64();
const MESSAGE: fn(&Value) -> Option<u64> = |answer| {
    let items = answer["items"].as_array().filter(|items| items.len() == 1)?;
    items[0]["value"].as_str()?.parse().ok()
};

const KINDS: &[Waiting] = &[
    Waiting {
        name: "locks",
        before: &["POST /v1/locks/{n}/acquire?session={holder}"],
        call: "POST /v1/locks/{n}/acquire?{by}&wait=1m",
        by: &[By::Session, By::Ttl],
        between: &[],
        free: &["POST /v1/locks/{n}/release?session={holder}", "POST /v1/locks/{n}/release?session={first}"],
        callers: Callers::InLine(TOKEN),
    },
    Waiting {
        name: "several locks",
        before: &["POST /v1/locks/{n}-b/acquire?session={holder}"],
        call: r#"POST /v1/locks?{by}&wait=1m {"items":[{"name":"{n}-a"},{"name":"{n}-b"}]}"#,
        by: &[By::Session, By::Ttl],
        between: &[],
        free: &["POST /v1/locks/{n}-b/release?session={holder}", "DELETE /v1/sessions/{first}"],
        callers: Callers::InLine(|answer| answer["items"][0]["token"].as_u64()),
    },
    Waiting {
        name: "semaphores",
        before: &["POST /v1/semaphores/{n}/acquire?limit=2&permits=2&session={holder}"],
        call: "POST /v1/semaphores/{n}/acquire?{by}&permits=2&wait=1m",
        by: &[By::Session, By::Ttl],
        between: &[],
        free: &[
            "POST /v1/semaphores/{n}/release?session={holder}",
            "POST /v1/semaphores/{n}/release?session={first}",
        ],
        callers: Callers::InLine(TOKEN),
    },
    Waiting {
        name: "elections",
        before: &["POST /v1/elections/{n}/campaign?session={holder} me"],
        call: "POST /v1/elections/{n}/campaign?{by}&wait=1m {who}",
        by: &[By::Session, By::Ttl],
        between: &[],
        free: &[
            "POST /v1/elections/{n}/resign?session={holder}",
            "POST /v1/elections/{n}/resign?session={first}",
        ],
        callers: Callers::InLine(TOKEN),
    },
    Waiting {
        name: "cyclic barriers",
        before: &[r#"PUT /v1/barriers/{n} {"kind":"cyclic","parties":3}"#],
        call: "POST /v1/barriers/{n}/enter?id={who}&{by}&wait=1m",
        by: &[By::Session, By::Ttl, By::Nothing],
        between: &[],
        free: &["POST /v1/barriers/{n}/enter?id=last"],
        callers: Callers::InLine(INDEX),
    },
    Waiting {
        name: "double barriers",
        before: &[r#"PUT /v1/barriers/{n} {"kind":"double","parties":3}"#],
        call: "POST /v1/barriers/{n}/enter?id={who}&{by}&wait=1m",
        by: &[By::Session, By::Ttl, By::Nothing],
        between: &[],
        free: &["POST /v1/barriers/{n}/enter?id=last"],
        callers: Callers::InLine(INDEX),
    },
    Waiting {
        name: "leaving a double barrier",
        before: &[
            r#"PUT /v1/barriers/{n} {"kind":"double","parties":2}"#,
            "POST /v1/barriers/{n}/enter?id=last&keep=true",
            "POST /v1/barriers/{n}/enter?id={who}",
        ],
        call: "POST /v1/barriers/{n}/leave?id={who}&wait=1m",
        by: &[By::Nothing],
        between: &[],
        free: &["POST /v1/barriers/{n}/leave?id=last"],
        callers: Callers::One,
    },
    Waiting {
        name: "queues",
        before: &[],
        call: "POST /v1/queues/{n}/receive?{by}&wait=1m",
        by: &[By::SessionAndKey, By::Ttl, By::Key],
        between: &[],
        free: &["POST /v1/queues/{n}/messages 1", "POST /v1/queues/{n}/messages 2"],
        callers: Callers::InLine(MESSAGE),
    },
    Waiting {
        name: "items of a barrier queue",
        before: &[r#"PUT /v1/queues/{n} {"kind":"barrier","barrier":{"size":3,"delivery":"self"}}"#],
        call: "POST /v1/queues/{n}/messages?id={who}&{by}&wait=1m item",
        by: &[By::Session, By::Key],
        between: &[],
        free: &["POST /v1/queues/{n}/messages?id=last item"],
        callers: Callers::InLine(|answer| answer["ordinal"].as_u64()),
    },
    Waiting {
        name: "subscriptions",
        before: &["PUT /v1/topics/{n}/subscriptions/s {}"],
        call: "POST /v1/topics/{n}/subscriptions/s/receive?{by}&wait=1m",
        by: &[By::SessionAndKey, By::Ttl, By::Key],
        between: &[],
        free: &["POST /v1/topics/{n}/messages 1", "POST /v1/topics/{n}/messages 2"],
        callers: Callers::Sharing(MESSAGE),
    },
    Waiting {
        name: "an exclusive subscription",
        before: &[r#"PUT /v1/topics/{n}/subscriptions/s {"mode":"exclusive"}"#],
        call: "POST /v1/topics/{n}/subscriptions/s/receive?{by}&wait=1m",
        by: &[By::Session, By::Ttl],
        between: &[],
        free: &["POST /v1/topics/{n}/messages 1"],
        callers: Callers::One,
    },
    Waiting {
        name: "gates",
        before: &["POST /v1/barriers/{n}/close"],
        call: "POST /v1/barriers/{n}/await?wait=1m",
        by: &[By::Nothing],
        between: &[],
        free: &["POST /v1/barriers/{n}/open"],
        callers: Callers::One,
    },
    Waiting {
        name: "a gate that was open for a moment",
        before: &["POST /v1/barriers/{n}/close"],
        call: "POST /v1/barriers/{n}/await?wait=1m&after={rev}",
        by: &[By::Nothing],
        between: &["POST /v1/barriers/{n}/open", "POST /v1/barriers/{n}/close"],
        free: &[],
        callers: Callers::One,
    },
    Waiting {
        name: "latches",
        before: &[r#"PUT /v1/latches/{n} {"count":2}"#],
        call: "POST /v1/latches/{n}/await?wait=1m",
        by: &[By::Nothing],
        between: &["POST /v1/latches/{n}/count_down?id=one"],
        free: &["POST /v1/latches/{n}/count_down?id=two"],
        callers: Callers::One,
    },
    Waiting {
        name: "a key",
        before: &[],
        call: "GET /v1/kv/{n}?format=json&wait=1m&after={rev}",
        by: &[By::Nothing],
        between: &[],
        free: &["PUT /v1/kv/{n} x"],
        callers: Callers::One,
    },
    Waiting {
        name: "a key that was written meanwhile",
        before: &[],
        call: "GET /v1/kv/{n}?format=json&wait=1m&after={rev}",
        by: &[By::Nothing],
        between: &["PUT /v1/kv/{n} x"],
        free: &[],
        callers: Callers::One,
    },
    Waiting {
        name: "keys of a prefix",
        before: &[],
        call: "GET /v1/kv?prefix={n}/&wait=1m&after={rev}",
        by: &[By::Nothing],
        between: &[],
        free: &["PUT /v1/kv/{n}/x x"],
        callers: Callers::One,
    },
    Waiting {
        name: "instances, until two are up",
        before: &[],
        call: "GET /v1/services/{n}?wait=1m&min=2",
        by: &[By::Nothing],
        between: &[r#"PUT /v1/services/{n}/instances/a?permanent=true {"address":"10.0.0.1","port":80}"#],
        free: &[r#"PUT /v1/services/{n}/instances/b?permanent=true {"address":"10.0.0.2","port":80}"#],
        callers: Callers::One,
    },
    Waiting {
        name: "a pick",
        before: &[],
        call: "GET /v1/services/{n}/pick?wait=1m",
        by: &[By::Nothing],
        between: &[],
        free: &[r#"PUT /v1/services/{n}/instances/a?permanent=true {"address":"10.0.0.1","port":80}"#],
        callers: Callers::One,
    },
    Waiting {
        name: "members, until two are there",
        before: &[],
        call: "GET /v1/groups/{n}?wait=1m&min=2",
        by: &[By::Nothing],
        between: &["PUT /v1/groups/{n}/members/a?session={holder} a"],
        free: &["PUT /v1/groups/{n}/members/b?session={holder} b"],
        callers: Callers::One,
    },
    Waiting {
        name: "messages of a topic",
        before: &[],
        call: "GET /v1/topics/{n}/messages?after=0&wait=1m",
        by: &[By::Nothing],
        between: &[],
        free: &["POST /v1/topics/{n}/messages 1"],
        callers: Callers::One,
    },
];

/// One kind in one form, on its way.
struct Case {
    kind: &'static Waiting,
    by: By,
    name: String,
    /// What its lines say.
    words: Vec<(&'static str, String)>,
}

/// A call under way.
type Waiter = JoinHandle<anyhow::Result<Reply>>;

impl Case {
    fn line(&self, line: &str) -> (Method, String, String) {
        let (method, rest) = line.split_once(' ').expect("a method and a path");
        let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let say = |text: &str| {
            self.words
                .iter()
                .fold(text.to_owned(), |text, (word, is)| text.replace(&format!("{{{word}}}"), is))
        };
        (Method::from_bytes(method.as_bytes()).expect("a method"), say(path), say(body))
    }

    async fn run(&self, http: &Http, line: &str) {
        let (method, path, body) = self.line(line);
        let reply = http.call(method, &path).body(body).send().await.expect("an answer");
        assert!(reply.status < 300, "{}: {reply:?}", self.name);
    }

    /// The call of one of the callers; as that of the other it differs in who it is.
    fn call(&self, http: &Http, caller: usize, session: &str) -> Call {
        let by = match self.by {
            By::Session | By::SessionAndKey => format!("session={session}"),
            By::Ttl => "ttl=1m".to_owned(),
            By::Key | By::Nothing => String::new(),
        };
        let line = self.kind.call.replace("{by}", &by).replace("?&", "?").replace("&&", "&");
        let line = line.replace("{who}", &format!("caller{caller}"));
        let (method, path, body) = self.line(&line);
        let call = http.call(method, &path).body(body).patience(PATIENCE);
        match self.by {
            By::Ttl | By::Key | By::SessionAndKey => {
                call.header("idempotency-key", &format!("{}-{caller}", self.name))
            }
            By::Session | By::Nothing => call,
        }
    }

    fn has_rival(&self) -> bool {
        !matches!(self.kind.callers, Callers::One)
    }
}

/// Requests that wait at a node.
async fn parked(http: &Http) -> anyhow::Result<u64> {
    let metrics = http.get("/metrics").send().await?.text();
    let line = metrics.lines().find(|line| line.starts_with("coracle_parked_requests"));
    let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    number.ok_or_else(|| anyhow::anyhow!("no parked_requests in {metrics}"))
}

async fn until_parked(http: &Http, count: u64, calls: &[Waiter], what: &str) {
    wait::until(&format!("{what}: {count} wait"), PATIENCE, || async {
        let found = parked(http).await?;
        ensure!(found == count, "{found} wait");
        Ok(())
    })
    .await;
    assert!(calls.iter().all(|call| !call.is_finished()), "{what}: answered");
}

/// The call at another node, again until there is a leader to say something.
async fn again(case: Arc<Case>, http: Http, session: String) -> anyhow::Result<Reply> {
    let end = Instant::now() + PATIENCE;
    loop {
        let reply = case.call(&http, 0, &session).send().await;
        match reply {
            Ok(reply) if reply.status < 500 => return Ok(reply),
            other if Instant::now() >= end => return other,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn open(http: &Http) -> String {
    http.post("/v1/sessions?ttl=5m", "").expect(201).await.member("id")
}

/// All that waits, waiting at one node and with a rival at another; the first is killed; all go on at the third.
async fn killed(cluster: &mut Cluster, victim: usize, round: &str) {
    let nodes = cluster.https();
    let (a, b, c) = (&nodes[victim], &nodes[(victim + 1) % 3], &nodes[(victim + 2) % 3]);
    for http in &nodes {
        until_parked(http, 0, &[], "before").await;
    }
    let mut cases = Vec::new();
    for kind in KINDS {
        for by in kind.by {
            let (name, holder) = (format!("{round} {} {by:?}", kind.name), open(c).await);
            let name = name.replace([' ', ','], "-");
            let revision = c.get("/v1/kv/none").send().await.expect("an answer").revision();
            let words = vec![
                ("n", name.clone()),
                ("who", "caller0".to_owned()),
                ("holder", holder),
                ("rev", revision.to_string()),
            ];
            let case = Case { kind, by: *by, name, words };
            for line in kind.before {
                case.run(c, line).await;
            }
            let sessions = if matches!(by, By::Session | By::SessionAndKey) {
                [open(c).await, open(c).await]
            } else {
                Default::default()
            };
            cases.push((Arc::new(case), sessions));
        }
    }
    // One after the other, so that it is known who came first.
    let mut lost: Vec<Waiter> = Vec::new();
    for (n, (case, sessions)) in (1..).zip(&cases) {
        lost.push(tokio::spawn(case.call(a, 0, &sessions[0]).send()));
        until_parked(a, n, &lost, &case.name).await;
    }
    let mut rivals: Vec<Waiter> = Vec::new();
    for (case, sessions) in cases.iter().filter(|(case, _)| case.has_rival()) {
        rivals.push(tokio::spawn(case.call(c, 1, &sessions[1]).send()));
        until_parked(c, rivals.len() as u64, &rivals, &case.name).await;
    }

    cluster.nodes[victim].kill9();
    for call in lost {
        assert!(call.await.expect("no panic").is_err(), "answered by a node that was killed");
    }
    cluster.leader().await;
    for (case, _) in &cases {
        for line in case.kind.between {
            case.run(c, line).await;
        }
    }
    let mut resumed: Vec<Waiter> = Vec::new();
    for (case, sessions) in &cases {
        resumed.push(tokio::spawn(again(Arc::clone(case), b.clone(), sessions[0].clone())));
    }
    let waiting = cases.iter().filter(|(case, _)| !case.kind.free.is_empty()).count() as u64;
    until_parked(b, waiting, &[], "resumed").await;
    until_parked(c, rivals.len() as u64, &rivals, "the rivals").await;

    let mut rivals = rivals.into_iter();
    for ((case, _), resumed) in cases.into_iter().zip(resumed) {
        case.let_pass(c, resumed, || rivals.next().expect("a rival")).await;
    }
    cluster.nodes[victim].restart().await;
}

impl Case {
    /// End the wait, and see who is answered what.
    async fn let_pass(&self, http: &Http, resumed: Waiter, rival: impl FnOnce() -> Waiter) {
        let (first, rest) =
            self.kind.free.split_first().map_or((None, &[][..]), |(one, rest)| (Some(one), rest));
        if let Some(line) = first {
            self.run(http, line).await;
        }
        let place = match self.kind.callers {
            Callers::One => return drop(self.answered(resumed).await),
            Callers::InLine(place) => place,
            Callers::Sharing(place) => {
                self.run(http, rest[0]).await;
                let got = [self.answered(resumed).await, self.answered(rival()).await].map(|it| place(&it));
                assert!(got == [Some(1), Some(2)] || got == [Some(2), Some(1)], "{}: {got:?}", self.name);
                return;
            }
        };
        let first = self.answered(resumed).await;
        let rival = rival();
        if let [line] = rest {
            assert!(!rival.is_finished(), "{}: both at once", self.name);
            let session = first["session"].as_str().or(first["leader"].as_str()).unwrap_or_default();
            self.run(http, &line.replace("{first}", session)).await;
        }
        let second = self.answered(rival).await;
        let places = (place(&first), place(&second));
        let in_order = matches!(places, (Some(first), Some(second)) if first < second);
        assert!(in_order, "{}: {places:?} of {first} and {second}", self.name);
    }

    async fn answered(&self, call: Waiter) -> Value {
        let reply = call.await.expect("no panic").unwrap_or_else(|error| panic!("{}: {error:#}", self.name));
        assert!(matches!(reply.status, 200 | 201), "{}: {reply:?}", self.name);
        reply.json()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_waiting_call_keeps_its_place_through_the_death_of_its_node() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    killed(&mut cluster, leader, "leader").await;
    cluster.ready().await;
    let follower = cluster.follower().await;
    killed(&mut cluster, follower, "follower").await;
}
