//! A worker: takes the lock, writes a section, releases. It never asks whether it still holds the lock.
//!
//! That is on purpose: a process can be paused between any question and the write that follows it. Only the token
//! that travels with the write protects the file. (Code with more to do would use [`ClaimGuard::run`], which also stops
//! the work.)

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use coracle_client::{ClaimGuard, Coracle, Error};
use coracle_examples::option;

use crate::append::Appender;
use crate::{LAST_TOKEN, LOCK, TTL};

const LINES: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);

pub async fn run() -> Result<()> {
    let urls = std::env::var("CORACLE_URL").context("CORACLE_URL is missing")?;
    let (name, file) = (option("--name")?, option("--file")?);
    let client = Coracle::connect([urls]).await?;
    let mut file = Appender::connect(&file)?;
    loop {
        let wait = Duration::from_mins(1);
        let lock = client.lock(LOCK).ttl(TTL).owner(&name).wait(wait).acquire().await?;
        let token = lock.token();
        if section(&client, &mut file, &lock, &name).await? {
            match lock.release().await {
                Ok(()) | Err(Error::ClaimLost { .. }) => {}
                Err(error) => return Err(error).context("cannot release"),
            }
            say(&format!("finished {token}"))?;
        }
    }
}

/// Write a section; false if the lock had passed to another meanwhile.
async fn section(client: &Coracle, file: &mut Appender, lock: &ClaimGuard, name: &str) -> Result<bool> {
    let token = lock.token();
    say(&format!("holds {token}"))?;
    let lines = (1..=LINES).map(|line| format!("{name} line {line} of {LINES}"));
    let texts = [format!("{name} begin")].into_iter().chain(lines).chain([format!("{name} end")]);
    for (number, text) in texts.enumerate() {
        if let Some(highest) = file.append(token, &text)? {
            say(&format!("refused-by-file {token} {highest}"))?;
            return late_put(client, lock).await.map(|()| false);
        }
        if number == 0 {
            say(&format!("began {token}"))?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    match guarded_put(client, lock).await {
        Ok(()) => Ok(true),
        // The pause came after the last line: the section is whole, the key is not ours to change.
        Err(error) => say(&format!("refused-by-store {token} {error}")).map(|()| false),
    }
}

/// After the file refused: the store must refuse as well.
async fn late_put(client: &Coracle, lock: &ClaimGuard) -> Result<()> {
    match guarded_put(client, lock).await {
        Ok(()) => bail!("the store took a write with the stale token {}", lock.token()),
        Err(error) => say(&format!("refused-by-store {} {error}", lock.token())),
    }
}

async fn guarded_put(client: &Coracle, lock: &ClaimGuard) -> Result<(), Error> {
    client.kv().put(LAST_TOKEN, lock.token().to_string()).fence(lock.fence()).await.map(drop)
}

/// Tell the driver.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
