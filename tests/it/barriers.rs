//! Barriers in use while leaders are killed: nobody passes too early, nobody is left behind, and one too many goes to the
//! next generation. B1 and B2.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::http::{Http, Reply};
use coracle_tests::rounds::Rounds;
use coracle_tests::wait;
use tokio::task::JoinHandle;

const PARTIES: usize = 3;
/// More than pass together, and no multiple of them: there is always one too many.
const WORKERS: usize = 5;
/// For one call, through as many kills as it meets.
const PATIENCE: Duration = Duration::from_mins(1);

/// From the call to the answer.
#[derive(Debug, Clone, Copy)]
struct Interval {
    called: Instant,
    answered: Instant,
}

#[derive(Debug)]
struct Passed {
    who: String,
    index: u64,
    enter: Interval,
    /// Of a double barrier.
    leave: Option<Interval>,
}

/// What is known afterwards.
#[derive(Debug, Default)]
struct History {
    generations: BTreeMap<u64, Vec<Passed>>,
    /// When those came who then died and do not know whether they passed.
    unknown: Vec<Instant>,
    broken: usize,
}

struct Barrier {
    kind: &'static str,
    path: String,
    nodes: Vec<Http>,
    history: Mutex<History>,
    calls: AtomicUsize,
    stop: AtomicBool,
}

impl Barrier {
    async fn new(kind: &'static str, nodes: Vec<Http>) -> Arc<Self> {
        let path = format!("/v1/barriers/{kind}");
        let body = format!(r#"{{"kind":"{kind}","parties":{PARTIES}}}"#);
        nodes[0].put(&path, body).expect(201).await;
        let (history, calls, stop) = Default::default();
        Arc::new(Self { kind, path, nodes, history, calls, stop })
    }

    /// The call through one node after the other, under one key, until there is an answer that says how it stands and
    /// is not 202.
    async fn ask(&self, path: &str) -> (Reply, Interval) {
        let (called, call) = (Instant::now(), self.calls.fetch_add(1, Ordering::Relaxed));
        let key = format!("{}-{call}", self.kind);
        let mut last = String::new();
        for (n, node) in self.nodes.iter().cycle().skip(call % self.nodes.len()).enumerate() {
            assert!(called.elapsed() < PATIENCE, "left behind: {path}; last: {last}");
            let sent = node.post(&format!("{}/{path}", self.path), "").header("idempotency-key", &key);
            match sent.send().await {
                Ok(reply) if reply.status < 500 && reply.status != 202 => {
                    return (reply, Interval { called, answered: Instant::now() });
                }
                Ok(reply) => last = format!("{reply:?}"),
                Err(error) => last = format!("{error:#}"),
            }
            if n % self.nodes.len() == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        unreachable!("the nodes are asked in turn without an end")
    }

    /// Come once, and go out again if there is an inside. False: it did not come to pass.
    async fn pass(&self, who: &str, session: Option<&str>) -> bool {
        let by = session.map_or(String::new(), |session| format!("&session={session}"));
        let (reply, enter) = self.ask(&format!("enter?id={who}{by}&keep=true&wait=2s")).await;
        if reply.code() == "barrier_broken" {
            self.history().broken += 1;
            return false;
        }
        assert_eq!(reply.status, 200, "{reply:?}");
        let (generation, index) = (reply.number("generation"), reply.number("index"));
        let leave = if self.kind == "double" {
            let (reply, leave) =
                self.ask(&format!("leave?id={who}{by}&generation={generation}&wait=2s")).await;
            assert_eq!((reply.status, reply.number("inside")), (200, 0), "{reply:?}");
            Some(leave)
        } else {
            None
        };
        let passed = Passed { who: who.to_owned(), index, enter, leave };
        self.history().generations.entry(generation).or_default().push(passed);
        true
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().expect("no panic")
    }

    /// Comes again and again; every other one with a session.
    fn worker(self: &Arc<Self>, number: usize) -> JoinHandle<()> {
        let barrier = Arc::clone(self);
        tokio::spawn(async move {
            let who = format!("worker{number}");
            let session =
                if number.is_multiple_of(2) { Some(open(&barrier.nodes[number % 3]).await) } else { None };
            for n in number as u64.. {
                if barrier.stop.load(Ordering::Relaxed) {
                    return;
                }
                barrier.pass(&who, session.as_deref()).await;
                // So that somebody waits long enough to die over it.
                tokio::time::sleep(Duration::from_millis(n * 31 % 200)).await;
            }
        })
    }

    /// Comes, and dies while it waits, or a moment later.
    fn mortal(self: &Arc<Self>) -> JoinHandle<()> {
        let barrier = Arc::clone(self);
        tokio::spawn(async move {
            for n in 0.. {
                if barrier.stop.load(Ordering::Relaxed) {
                    return;
                }
                let node = &barrier.nodes[n % 3];
                let Ok(opened) = node.post("/v1/sessions?ttl=30s", "").send().await else { continue };
                if opened.status != 201 {
                    continue;
                }
                let (session, called) = (opened.member("id"), Instant::now());
                // From here on it may have come.
                barrier.history().unknown.push(called);
                let path = format!("{}/enter?session={session}&keep=true", barrier.path);
                drop(node.post(&path, "").send().await);
                tokio::time::sleep(Duration::from_millis(n as u64 % 8)).await;
                let end = || node.delete(&format!("/v1/sessions/{session}")).send();
                while !end().await.is_ok_and(|reply| matches!(reply.status, 200 | 404 | 410)) {
                    assert!(called.elapsed() < PATIENCE, "a session that cannot be closed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        })
    }

    /// Until so many more generations have come to pass.
    async fn goes_on(&self, more: usize) {
        let before = self.history().generations.len();
        wait::until(&format!("{more} more generations of {}", self.kind), PATIENCE, || async {
            let now = self.history().generations.len();
            if now >= before + more { Ok(()) } else { Err(format!("{now} of {before} + {more}")) }
        })
        .await;
    }

    /// Let everybody pass who still waits, and end.
    async fn finish(self: &Arc<Self>, workers: Vec<JoinHandle<()>>, mortal: JoinHandle<()>) {
        self.stop.store(true, Ordering::Relaxed);
        mortal.await.expect("no panic");
        let mut others = Vec::new();
        for n in 0.. {
            if workers.iter().all(JoinHandle::is_finished) {
                break;
            }
            let shown = self.nodes[0].get(&self.path).expect(200).await.json();
            if shown["waiting"].as_u64().is_some_and(|waiting| waiting > 0) {
                let barrier = Arc::clone(self);
                others.push(tokio::spawn(async move { barrier.pass(&format!("other{n}"), None).await }));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for worker in workers {
            worker.await.expect("a worker that is not left behind");
        }
        // Those who came to complete a generation that completed without them.
        let shown = async || self.nodes[0].get(&self.path).expect(200).await.json()["waiting"].as_u64();
        for n in 0.. {
            if others.iter().all(JoinHandle::is_finished) {
                break;
            }
            if shown().await.is_some_and(|waiting| waiting > 0) {
                let barrier = Arc::clone(self);
                others.push(tokio::spawn(async move { barrier.pass(&format!("last{n}"), None).await }));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for other in others {
            other.await.expect("another that is not left behind");
        }
    }
}

impl History {
    fn violations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut all_out = None;
        for (generation, passed) in &self.generations {
            let who: BTreeSet<&str> = passed.iter().map(|it| it.who.as_str()).collect();
            let indices: BTreeSet<u64> = passed.iter().map(|it| it.index).collect();
            if who.len() != passed.len() || indices.len() != passed.len() {
                wrong.push(format!("B1: somebody or a place counts twice in {generation}: {passed:?}"));
            }
            if indices.iter().any(|index| *index >= PARTIES as u64) {
                wrong.push(format!("B2: more than {PARTIES} passed in {generation}: {passed:?}"));
            }
            for it in passed {
                let came = |called: Instant| called <= it.enter.answered;
                let known = passed.iter().filter(|other| came(other.enter.called)).count();
                let perhaps = self.unknown.iter().filter(|called| came(**called)).count();
                if known + perhaps.min(PARTIES - passed.len().min(PARTIES)) < PARTIES {
                    wrong.push(format!(
                        "B1: {} passed before {PARTIES} came in {generation}: {passed:?}",
                        it.who
                    ));
                }
                let left = |other: &Passed| other.leave.is_none_or(|leave| leave.called <= it.left());
                if !passed.iter().all(left) {
                    wrong.push(format!("B2: {} was out before all left {generation}: {passed:?}", it.who));
                }
                if all_out.is_some_and(|all_out| it.enter.answered < all_out) {
                    wrong.push(format!(
                        "B2: {} was inside {generation} before all left the one before",
                        it.who
                    ));
                }
            }
            let last = passed.iter().filter_map(|it| Some(it.leave?.called)).max();
            all_out = all_out.max(last);
        }
        wrong
    }
}

impl Passed {
    fn left(&self) -> Instant {
        self.leave.map_or(self.enter.answered, |leave| leave.answered)
    }
}

async fn open(http: &Http) -> String {
    http.post("/v1/sessions?ttl=30m", "").expect(201).await.member("id")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_leader_lets_nobody_pass_too_early_and_leaves_nobody_behind() {
    let mut cluster = Cluster::start(3).await;
    let mut barriers = Vec::new();
    for kind in ["cyclic", "double"] {
        let barrier = Barrier::new(kind, cluster.https()).await;
        let workers: Vec<_> = (0..WORKERS).map(|number| barrier.worker(number)).collect();
        let mortal = barrier.mortal();
        barriers.push((barrier, workers, mortal));
    }
    let mut rounds = Rounds::of(4);
    while rounds.another() {
        let leader = cluster.leader().await;
        for (barrier, ..) in &barriers {
            barrier.goes_on(5).await;
        }
        cluster.nodes[leader].kill9();
        for (barrier, ..) in &barriers {
            barrier.goes_on(5).await;
        }
        cluster.nodes[leader].restart().await;
    }
    for (barrier, workers, mortal) in barriers {
        barrier.finish(workers, mortal).await;
        let history = barrier.history();
        let wrong = history.violations();
        assert!(wrong.is_empty(), "{}: {} violations:\n{}", barrier.kind, wrong.len(), wrong.join("\n"));
        let whole = history.generations.values().filter(|passed| passed.len() == PARTIES).count();
        assert!(whole >= 20, "{}: {whole} generations of which all is known", barrier.kind);
        assert!(history.unknown.len() >= 10, "{}: {} have died", barrier.kind, history.unknown.len());
        assert!(barrier.kind == "double" || history.broken > 0, "nobody was told of those who died");
        let generations = history.generations.len();
        println!("{}: generations={generations} whole={whole} broken={}", barrier.kind, history.broken);
    }
    cluster.converged().await;
}

/// A sound history, broken in each way.
#[test]
fn violations_are_told() {
    let start = Instant::now();
    let at = |from: u64, to: u64| {
        let (called, answered) = (start + Duration::from_millis(from), start + Duration::from_millis(to));
        Interval { called, answered }
    };
    // The third comes at 30; all leave from 50 on, the last at 60.
    let passed = |who: &str, index: u64, enter, leave| Passed { who: who.to_owned(), index, enter, leave };
    let sound = || {
        let first = vec![
            passed("a", 0, at(10, 40), Some(at(50, 70))),
            passed("b", 1, at(20, 41), Some(at(55, 71))),
            passed("c", 2, at(30, 35), Some(at(60, 70))),
        ];
        let second = vec![passed("d", 0, at(5, 80), None), passed("e", 1, at(62, 81), None)];
        History { generations: [(7, first), (8, second)].into(), unknown: vec![at(63, 63).called], broken: 0 }
    };
    assert_eq!(sound().violations(), Vec::<String>::new());
    let broken = |by: &dyn Fn(&mut History), told: &str| {
        let mut history = sound();
        by(&mut history);
        let wrong = history.violations().join("; ");
        assert!(wrong.contains(told), "{told}: {wrong}");
    };
    let first = |history: &mut History, n: usize, by: &dyn Fn(&mut Passed)| {
        by(&mut history.generations.get_mut(&7).expect("the first")[n]);
    };
    broken(&|it| first(it, 0, &|a| a.enter = at(10, 29)), "a passed before 3 came");
    broken(&|it| it.unknown.clear(), "d passed before 3 came");
    broken(&|it| first(it, 1, &|b| b.who = "a".to_owned()), "counts twice");
    broken(&|it| first(it, 1, &|b| b.index = 2), "counts twice");
    broken(&|it| first(it, 1, &|b| b.index = 3), "more than 3 passed");
    broken(&|it| first(it, 0, &|a| a.leave = Some(at(50, 59))), "a was out before all left");
    broken(&|it| first(it, 2, &|c| c.leave = Some(at(85, 90))), "d was inside 8 before all left");
}
