//! One node: a process with its data directory, its ports and its log.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::http::{Http, Reply};
use crate::{ports, program, wait};

/// A node starts within this, or the test fails.
pub const START: Duration = Duration::from_secs(30);

/// A node that may run or not. Dropping it ends its process.
pub struct Node {
    pub name: String,
    pub listen: u16,
    pub peer: u16,
    data: PathBuf,
    log: PathBuf,
    arguments: Vec<OsString>,
    process: Option<Child>,
    http: Http,
}

impl Node {
    /// A node with ports of its own and files under `folder`; not started.
    #[must_use]
    pub fn new(name: &str, folder: &Path) -> Self {
        let (listen, peer) = (ports::reserve(), ports::reserve());
        Self {
            name: name.to_owned(),
            listen,
            peer,
            data: folder.join(name),
            log: folder.join(format!("{name}.log")),
            arguments: Vec::new(),
            process: None,
            http: Http::new(&format!("http://127.0.0.1:{listen}")),
        }
    }

    /// Further arguments of `serve`, from the next start on.
    #[must_use]
    pub fn with<S: AsRef<str>>(mut self, arguments: &[S]) -> Self {
        self.add(arguments);
        self
    }

    pub fn add<S: AsRef<str>>(&mut self, arguments: &[S]) {
        self.arguments.extend(arguments.iter().map(|argument| OsString::from(argument.as_ref())));
    }

    pub fn clear_arguments(&mut self) {
        self.arguments.clear();
    }

    /// Talk to it otherwise, such as by TLS.
    pub fn set_http(&mut self, http: Http) {
        self.http = http;
    }

    #[must_use]
    pub fn http(&self) -> &Http {
        &self.http
    }

    #[must_use]
    pub fn url(&self) -> String {
        self.http.base().to_owned()
    }

    /// `127.0.0.1:PORT` for clients.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.listen)
    }

    /// `127.0.0.1:PORT` for peers.
    #[must_use]
    pub fn peer_address(&self) -> String {
        format!("127.0.0.1:{}", self.peer)
    }

    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What it printed in all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Starts the process.
    ///
    /// # Panics
    /// If it runs already, or cannot be started.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let output = open_log(&self.log);
        let mut command = Command::new(program::path());
        command.arg("serve").arg("--data").arg(&self.data).args(["--name", &self.name]);
        command.args(["--listen", &self.address(), "--peer-listen", &self.peer_address()]);
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CORACLE_")) {
            command.env_remove(name);
        }
        let process =
            command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", program::path().display()));
        self.process = Some(process);
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// If that takes too long.
    pub async fn ready(&mut self) {
        let end = Instant::now() + START;
        loop {
            if let Some(status) = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten())
            {
                panic!("{} ended with {status}:\n{}", self.name, last_lines(&self.log(), 40));
            }
            let answer = self.http.get("/readyz").patience(Duration::from_secs(2)).send().await;
            match answer {
                Ok(reply) if reply.status == 200 => return,
                other => assert!(Instant::now() < end, "{} not ready within {START:?}: {other:?}", self.name),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it and waits until it is ready.
    pub async fn restart(&mut self) {
        self.start();
        self.ready().await;
    }

    /// Waits for the process to end by itself.
    ///
    /// # Panics
    /// If it does not in time, or does not run.
    pub async fn ended(&mut self, patience: Duration) -> ExitStatus {
        let end = Instant::now() + patience;
        let process = self.process.as_mut().expect("the process was started");
        loop {
            if let Some(status) = process.try_wait().expect("a process of ours") {
                self.process = None;
                return status;
            }
            assert!(Instant::now() < end, "{} still runs after {patience:?}", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts it, expects it to refuse, and answers what it printed by that.
    ///
    /// # Panics
    /// If it does not end, or ends well, or by a signal, or with a panic.
    pub async fn refuses_to_start(&mut self) -> String {
        let before = self.log().len();
        self.start();
        let status = self.ended(START).await;
        let said = self.log().split_off(before);
        assert!(!status.success(), "{} ended well:\n{said}", self.name);
        assert!(status.signal().is_none(), "{} ended with {status}:\n{said}", self.name);
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    #[must_use]
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Of the running process.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the process was started").id()
    }

    /// kill -9, and waits until it is gone.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Freezes the process: it neither runs nor dies.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM; it must end well in time.
    ///
    /// # Panics
    /// If it does not.
    pub async fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ended(Duration::from_secs(20)).await;
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, last_lines(&self.log(), 20));
    }

    /// # Panics
    /// If the process does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a process of ours");
    }

    /// What the node knows of its cluster.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn status(&self) -> Result<Value> {
        let reply = self.http.get("/v1/cluster").patience(Duration::from_secs(3)).send().await?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(reply.json())
    }

    /// The revision of the node and the hash of its state at it.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn state(&self) -> Result<(u64, String)> {
        let reply: Reply =
            self.http.get("/v1/maintenance/hash").patience(Duration::from_secs(3)).send().await?;
        ensure!(reply.status == 200, "{reply:?}");
        let json = reply.json();
        let hash = json["hash"].as_str().or(json["state_hash"].as_str()).unwrap_or_default().to_owned();
        ensure!(!hash.is_empty(), "{reply:?}");
        Ok((reply.number("revision"), hash))
    }

    /// Waits until the node says who leads.
    pub async fn sees_a_leader(&self) -> String {
        wait::until(&format!("{} sees a leader", self.name), START, || async {
            let status = self.status().await?;
            status["leader"].as_str().map(str::to_owned).ok_or_else(|| anyhow::anyhow!("{status}"))
        })
        .await
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// If the process does not run.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a VmRSS line");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("---- log of {} ----\n{}", self.name, last_lines(&self.log(), 25));
        }
    }
}

fn open_log(path: &Path) -> File {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).expect("a folder for the log");
    }
    OpenOptions::new().create(true).append(true).open(path).expect("a log file")
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<String> = text.lines().map(|line| line.chars().take(240).collect()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
