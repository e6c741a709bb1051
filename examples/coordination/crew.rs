//! The crew: the plant's programs as processes.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

pub struct Crew {
    urls: String,
    programs: BTreeMap<String, Child>,
}

impl Crew {
    pub fn new(urls: &str) -> Self {
        Self { urls: urls.to_owned(), programs: BTreeMap::new() }
    }

    pub fn start(&mut self, name: &str) -> Result<()> {
        let child = Command::new(std::env::current_exe()?)
            .args(["work", "--name", name])
            .env("CORACLE_URL", &self.urls)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        self.programs.insert(name.to_owned(), child);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let mut child = self.programs.remove(name).context("no such program")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    pub fn stop(&mut self) {
        for (_, mut child) in std::mem::take(&mut self.programs) {
            // Best effort: there is nobody left to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop();
    }
}
