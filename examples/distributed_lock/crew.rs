//! The crew: worker processes, what they say, and what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use coracle_examples::{Signal, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Nothing said for this long means that something hangs: far more than a ttl and an election.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A line of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The lock is granted with this token.
    Holds(u64),
    /// The first line is in the file.
    Began(u64),
    /// The section is whole and the lock released.
    Finished(u64),
    RefusedByFile {
        late: u64,
        seen: u64,
    },
    RefusedByStore {
        late: u64,
        reason: String,
    },
    /// The process is gone.
    Gone,
}

impl Said {
    fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        Some(match word {
            "holds" => Self::Holds(rest.parse().ok()?),
            "began" => Self::Began(rest.parse().ok()?),
            "finished" => Self::Finished(rest.parse().ok()?),
            "refused-by-file" => {
                let (late, seen) = rest.split_once(' ')?;
                Self::RefusedByFile { late: late.parse().ok()?, seen: seen.parse().ok()? }
            }
            "refused-by-store" => {
                let (late, reason) = rest.split_once(' ')?;
                Self::RefusedByStore { late: late.parse().ok()?, reason: reason.to_owned() }
            }
            _ => return None,
        })
    }
}

pub struct Crew {
    urls: String,
    file: SocketAddr,
    /// By number; a killed worker's place is empty until it is replaced.
    workers: Vec<Option<Child>>,
    heard: UnboundedReceiver<(usize, Said)>,
    tell: UnboundedSender<(usize, Said)>,
    /// Who says to hold the lock, with what token.
    holding: BTreeMap<usize, u64>,
    finished: BTreeSet<u64>,
    /// Tokens whose holder was killed or paused: their sections may lack an end.
    pub interrupted: BTreeSet<u64>,
}

impl Crew {
    pub fn start(count: usize, urls: &str, file: SocketAddr) -> Result<Self> {
        let (tell, heard) = unbounded_channel();
        let mut crew = Self {
            urls: urls.to_owned(),
            file,
            workers: (0..count).map(|_| None).collect(),
            heard,
            tell,
            holding: BTreeMap::new(),
            finished: BTreeSet::new(),
            interrupted: BTreeSet::new(),
        };
        for number in 0..count {
            crew.replace(number)?;
        }
        Ok(crew)
    }

    /// Start a worker in an empty place.
    pub fn replace(&mut self, number: usize) -> Result<()> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["worker", "--name", &format!("worker-{number}"), "--file", &self.file.to_string()])
            .env("CORACLE_URL", &self.urls)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a worker")?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let tell = self.tell.clone();
        std::thread::spawn(move || {
            for said in lines.map_while(Result::ok).filter_map(|line| Said::parse(&line)) {
                let _ = tell.send((number, said));
            }
            let _ = tell.send((number, Said::Gone));
        });
        self.workers[number] = Some(child);
        Ok(())
    }

    /// The next line of any worker.
    pub async fn next(&mut self) -> Result<(usize, Said)> {
        let heard = tokio::time::timeout(SILENCE_MAX, self.heard.recv()).await;
        let (number, said) = heard.context("no worker said anything for 30 s")?.context("no workers")?;
        match said {
            Said::Holds(token) | Said::Began(token) => drop(self.holding.insert(number, token)),
            Said::Finished(token) => {
                self.holding.remove(&number);
                self.finished.insert(token);
            }
            Said::RefusedByFile { .. } => {}
            Said::RefusedByStore { .. } => drop(self.holding.remove(&number)),
            Said::Gone if self.workers[number].is_some() => bail!("worker {number} ended by itself"),
            Said::Gone => self.interrupted.extend(self.holding.remove(&number)),
        }
        Ok((number, said))
    }

    /// Wait for somebody to begin a section: who, and with what token.
    pub async fn next_holder(&mut self) -> Result<(usize, u64)> {
        self.next_holder_above(0).await
    }

    /// Wait for somebody to begin a section with a token above `token`.
    pub async fn next_holder_above(&mut self, token: u64) -> Result<(usize, u64)> {
        // Old news are no use: whoever began before may be done by now.
        loop {
            if let (number, Said::Began(newer)) = self.next().await?
                && newer > token
                && self.heard.is_empty()
            {
                return Ok((number, newer));
            }
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        let mut child = self.workers[number].take().context("no such worker")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGSTOP.
    pub fn pause(&mut self, number: usize, token: u64) -> Result<()> {
        self.interrupted.insert(token);
        self.send(number, Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self, number: usize) -> Result<()> {
        self.send(number, Signal::CONT)
    }

    fn send(&self, number: usize, what: Signal) -> Result<()> {
        signal(self.workers[number].as_ref().context("no such worker")?, what)
    }

    /// Whether the hold with this token came to its end undisturbed.
    pub fn has_finished(&self, token: u64) -> bool {
        self.finished.contains(&token)
    }

    pub fn finished(&self) -> usize {
        self.finished.len()
    }

    pub fn last_finished(&self) -> u64 {
        self.finished.last().copied().unwrap_or(0)
    }

    /// Kill all workers and hear what they said last.
    pub async fn stop(&mut self) -> Result<()> {
        let running: Vec<usize> = (0..self.workers.len()).filter(|n| self.workers[*n].is_some()).collect();
        for number in &running {
            self.kill(*number)?;
        }
        let mut gone = 0;
        while gone < running.len() {
            gone += usize::from(self.next().await?.1 == Said::Gone);
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for child in self.workers.iter_mut().flatten() {
            // Best effort: there is nobody left to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
