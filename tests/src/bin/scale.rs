//! `scale keys --count 1000000 --size 256`: how fast and how large a node comes back with so many keys.

use anyhow::{Result, bail};
use coracle_tests::volume::Volume;

const USAGE: &str = "usage: scale keys [--count N] [--size BYTES]   (the node is CORACLE_BIN, or the one beside this program)";

#[tokio::main]
async fn main() -> Result<()> {
    let mut volume = Volume { keys: 1_000_000, bytes: 256 };
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("keys") {
        bail!(USAGE);
    }
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (name.as_str(), value) {
            ("--count", Some(count)) => volume.keys = count,
            ("--size", Some(size)) => volume.bytes = size,
            _ => bail!(USAGE),
        }
    }
    println!("{} keys of {} bytes: {}", volume.keys, volume.bytes, volume.measure().await?);
    Ok(())
}
