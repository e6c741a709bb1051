//! Golden conversations: `testdata/*.txt`, each against a node of its own. `REWRITE=1` writes what is answered.
//!
//! A request is a line `METHOD PATH`, then headers, then lines of a body that begin with `> `. Under `----` stands the
//! answer. `bob: METHOD PATH` leaves the request running and `bob?` takes its answer; `tail= METHOD PATH` opens a
//! stream, `tail! N` takes its next N lines, and `tail.` closes it. What differs from run to run is written as
//! `<time>`, `<span>`, `<request>`; session ids are `<s1>`, `<s2>`, in answers and in requests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use tokio::task::JoinHandle;

use crate::client::{Answer, Client, Frames};
use crate::document;
use crate::server::{Running, start};

const HEADERS: [&str; 13] = [
    "etag",
    "coracle-revision",
    "coracle-create-revision",
    "coracle-version",
    "coracle-session",
    "location",
    "idempotency-replayed",
    "retry-after",
    "allow",
    "content-type",
    "cache-control",
    "content-security-policy",
    "x-content-type-options",
];

struct Talk {
    running: Running,
    client: Client,
    sessions: Vec<String>,
    parked: BTreeMap<String, JoinHandle<Answer>>,
    streams: BTreeMap<String, Frames>,
    /// Method and path of each stream.
    asked: BTreeMap<String, (String, String)>,
}

fn run_file(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let actual = runtime.block_on(async {
        let running = start(|config| config.request_timeout = "5s".parse().unwrap()).await;
        let client = Client::connect(running.address).await;
        let mut talk = Talk {
            running,
            client,
            sessions: Vec::new(),
            parked: BTreeMap::new(),
            streams: BTreeMap::new(),
            asked: BTreeMap::new(),
        };
        let mut out = String::new();
        for block in text.split("\n\n").map(str::trim_matches_newlines).filter(|b| !b.is_empty()) {
            if !out.is_empty() {
                out.push('\n');
            }
            let input: Vec<&str> = block.lines().take_while(|l| *l != "----").collect();
            for line in &input {
                let _ = writeln!(out, "{line}");
            }
            if input.iter().any(|l| !l.starts_with('#')) {
                let answer = talk.step(&input).await;
                // A blank line would end the block.
                let answer: Vec<&str> =
                    answer.trim_end().lines().map(|l| if l.is_empty() { "(blank)" } else { l }).collect();
                let _ = writeln!(out, "----\n{}", answer.join("\n"));
            }
        }
        talk.running.server.stop().await;
        out
    });
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&path, actual).unwrap();
    } else if actual != text {
        let difference = actual.lines().zip(text.lines()).find(|(a, t)| a != t);
        panic!(
            "{name} differs, first (actual, golden): {difference:#?}\n(REWRITE=1 writes it anew)\n{actual}"
        );
    }
}

trait TrimNewlines {
    fn trim_matches_newlines(&self) -> &str;
}

impl TrimNewlines for str {
    fn trim_matches_newlines(&self) -> &str {
        self.trim_matches('\n')
    }
}

impl Talk {
    async fn step(&mut self, input: &[&str]) -> String {
        let lines: Vec<String> =
            input.iter().filter(|l| !l.starts_with('#')).map(|l| self.filled(l)).collect();
        let (first, rest) = lines.split_first().expect("a request");
        if let Some(name) = first.strip_suffix('?').filter(|name| self.parked.contains_key(*name)) {
            let answer = self.parked.remove(name).unwrap().await.unwrap();
            return self.shown(&answer);
        }
        if let Some((name, count)) = first.split_once("! ") {
            let mut out = String::new();
            for _ in 0..count.parse::<usize>().expect("a number of lines") {
                let line = self.streams.get_mut(name).expect("an open stream").line().await;
                let (method, path) = &self.asked[name];
                if let Some(frame) = line.as_ref().filter(|line| line.starts_with('{')) {
                    document::check_frame(method, path, frame);
                }
                let _ = writeln!(out, "{}", line.map_or("(end)".to_owned(), |line| self.hidden(&line)));
            }
            return out;
        }
        if let Some(name) = first.strip_suffix('.').filter(|name| self.streams.contains_key(*name)) {
            self.streams.remove(name);
            return "closed".to_owned();
        }
        let (tag, call) = match (first.split_once("= "), first.split_once(": ")) {
            (Some((name, call)), _) if !name.contains(' ') => (Some((name, '=')), call),
            (_, Some((name, call))) if !name.contains(' ') => (Some((name, ':')), call),
            _ => (None, first.as_str()),
        };
        let (method, path) = call.split_once(' ').expect("METHOD PATH");
        let headers: Vec<(&str, &str)> =
            rest.iter().filter(|l| !l.starts_with('>')).filter_map(|l| l.split_once(": ")).collect();
        let body: Vec<&str> = rest
            .iter()
            .filter_map(|l| l.strip_prefix('>'))
            .map(|l| l.strip_prefix(' ').unwrap_or(l))
            .collect();
        let body = body.join("\n");
        match tag {
            None => {
                let answer = self.client.call(method, path, &headers, body.as_bytes()).await;
                document::check(method, path, &answer);
                self.shown(&answer)
            }
            Some((name, '=')) => {
                let stream =
                    Frames::open_with(self.running.address, method, path, &headers, body.as_bytes()).await;
                self.asked.insert(name.to_owned(), (method.to_owned(), path.to_owned()));
                let head = self.shown(&stream.head.clone());
                self.streams.insert(name.to_owned(), stream);
                head
            }
            Some((name, _)) => {
                let mut client = Client::connect(self.running.address).await;
                client.send(&crate::client::request(method, path, &headers, body.as_bytes())).await;
                let (method, path) = (method.to_owned(), path.to_owned());
                let waiting = tokio::spawn(async move {
                    let answer = client.answer(false).await;
                    document::check(&method, &path, &answer);
                    answer
                });
                self.parked.insert(name.to_owned(), waiting);
                // Whoever comes next comes later.
                tokio::time::sleep(std::time::Duration::from_millis(150)).await;
                "...".to_owned()
            }
        }
    }

    fn filled(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (i, session) in self.sessions.iter().enumerate() {
            line = line.replace(&format!("<s{}>", i + 1), session);
        }
        line
    }

    fn shown(&mut self, answer: &Answer) -> String {
        let mut out = answer.status.to_string();
        for name in HEADERS {
            let Some(value) = answer.header(name) else { continue };
            let dull = name == "content-type" && value.ends_with("json") && !value.contains("ndjson");
            if !dull {
                let _ = write!(out, "\n{name}: {value}");
            }
        }
        if !answer.body.is_empty() {
            let _ = write!(out, "\n{}", answer.text());
        }
        self.hidden(&out)
    }

    /// The text without what differs from run to run.
    fn hidden(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        // Every parameter of the request: document.rs compares them with what is documented.
        if let Some(at) = text.find(",\"known\":[") {
            let end = at + text[at..].find(']').expect("a closing bracket");
            text.replace_range(at..=end, "");
        }
        for (member, word) in [
            ("instance", "<request>"),
            ("valid_for", "<span>"),
            ("time", "<time>"),
            ("since", "<time>"),
            ("stalled_since", "<time>"),
            ("closed_until", "<time>"),
            ("created", "<time>"),
            ("registered", "<time>"),
            ("up_since", "<time>"),
            ("ejected_until", "<time>"),
            ("lost", "<time>"),
            ("leaves", "<time>"),
            ("breaks", "<time>"),
            ("first_time", "<time>"),
            ("oldest", "<time>"),
            ("until", "<time>"),
            ("sent", "<time>"),
            ("until", "<time>"),
            ("expires", "<time>"),
            ("oldest_age", "<span>"),
            ("age", "<span>"),
            ("deadline", "<time>"),
            ("released", "<time>"),
            ("next_cursor", "<cursor>"),
        ] {
            let before = format!("\"{member}\":\"");
            let mut from = 0;
            while let Some(at) = text[from..].find(&before).map(|at| from + at + before.len()) {
                let end = at + text[at..].find('"').expect("a closing quote");
                text.replace_range(at..end, word);
                from = at;
            }
        }
        let bytes = text.as_bytes().to_vec();
        let mut at = 0;
        while at + 16 <= bytes.len() {
            let run = &bytes[at..at + 16];
            let alone = (at == 0 || !bytes[at - 1].is_ascii_alphanumeric())
                && bytes.get(at + 16).is_none_or(|b| !b.is_ascii_alphanumeric());
            let hex = run.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
                && run.iter().any(|b| *b != b'0');
            // The greatest number that JSON carries exactly has as many digits as a session id.
            let number = run == b"9007199254740991" || run == b"9007199254740992";
            if alone && hex && !number {
                let id = String::from_utf8(run.to_vec()).unwrap();
                if !self.sessions.contains(&id) && !id.starts_with("00000000") {
                    self.sessions.push(id);
                }
                at += 16;
            } else {
                at += 1;
            }
        }
        for (i, session) in self.sessions.iter().enumerate() {
            text = text.replace(session, &format!("<s{}>", i + 1));
        }
        text
    }
}

macro_rules! conversations {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run_file(concat!(stringify!($name), ".txt"));
        })*

        #[test]
        fn every_conversation_is_run() {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
            let mut found: Vec<_> = std::fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            let mut listed = vec![$(concat!(stringify!($name), ".txt").to_owned()),*];
            listed.sort();
            assert_eq!(found, listed);
        }
    };
}

conversations! {
    kv
    kv_lists
    kv_history
    txn
    sessions
    session_deliveries
    session_losses
    session_liveness
    locks
    lock_line
    lock_claims
    semaphores
    elections
    watch
    events
    events_families
    idempotency
    browser
    bad_input
    operations
    counters
    latches
    groups
    services
    barriers
    topics
    topic_streams
    subscriptions
    fences
    queues
    barrier_queues
}
