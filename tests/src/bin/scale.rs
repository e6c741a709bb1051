//! Runs that are too long for every day.
//!
//! `scale keys --count 1000000 --size 256`: how fast and how large a node comes back with so many keys.
//! `scale sessions --count 100000 --within 120`: so many sessions expire in one moment, so many seconds from now.

use std::time::Duration;

use anyhow::{Result, bail};
use coracle_tests::mass::Mass;
use coracle_tests::volume::Volume;

const USAGE: &str = "usage: scale keys [--count N] [--size BYTES]\n       scale sessions [--count N] [--within SECONDS]\n\
                     The node is CORACLE_BIN, or the one beside this program.";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let mut volume = Volume { keys: 1_000_000, bytes: 256 };
    let mut mass = Mass { sessions: 100_000, within: Duration::from_mins(2) };
    while let Some(name) = arguments.next() {
        let Some(value) = arguments.next().and_then(|value| value.parse().ok()) else { bail!(USAGE) };
        match (what.as_str(), name.as_str()) {
            ("keys", "--count") => volume.keys = value,
            ("keys", "--size") => volume.bytes = value,
            ("sessions", "--count") => mass.sessions = value,
            ("sessions", "--within") => mass.within = Duration::from_secs(value as u64),
            _ => bail!(USAGE),
        }
    }
    match what.as_str() {
        "keys" => println!("{} keys of {} bytes: {}", volume.keys, volume.bytes, volume.measure().await?),
        "sessions" => println!("{} sessions: {}", mass.sessions, mass.measure().await?),
        _ => bail!(USAGE),
    }
    Ok(())
}
