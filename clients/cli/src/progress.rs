//! Progress of long work on stderr: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const PLAIN_EVERY: Duration = Duration::from_secs(2);

pub struct Progress {
    verb: &'static str,
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    bytes: u64,
    next_line: Instant,
}

impl Progress {
    pub fn new(verb: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg} {per_sec} eta {eta}");
            let bar = ProgressBar::new(total).with_prefix(verb);
            style.map_or(bar.clone(), |style| bar.with_style(style.progress_chars("=> ")))
        });
        Self { verb, bar, total, done: 0, bytes: 0, next_line: Instant::now() + PLAIN_EVERY }
    }

    /// One more thing of `bytes` is done.
    pub fn step(&mut self, bytes: u64) {
        self.done += 1;
        self.bytes += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.set_message(size(self.bytes));
        } else if Instant::now() >= self.next_line {
            self.next_line = Instant::now() + PLAIN_EVERY;
            self.line();
        }
    }

    pub fn finish(self) {
        match &self.bar {
            Some(bar) => bar.finish(),
            None => self.line(),
        }
    }

    fn line(&self) {
        eprintln!("{} {}/{} {}", self.verb, self.done, self.total, size(self.bytes));
    }
}

pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
