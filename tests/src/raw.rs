//! Bytes on a socket as they are, for requests that no library would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back: the bytes, and whether the other side closed.
#[derive(Debug)]
pub struct Exchange {
    pub bytes: Vec<u8>,
    pub closed: bool,
}

impl Exchange {
    /// Status of each response in the bytes, in order, as far as they can be told by their first lines.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.bytes);
        let status = |(at, _): (usize, &str)| text.get(at + 9..at + 12)?.parse().ok();
        text.match_indices("HTTP/1.1 ").filter_map(status).collect()
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Sends the bytes and reads until the other side closes or says nothing for `quiet`.
///
/// # Panics
/// If nobody listens.
pub async fn exchange(address: &str, bytes: &[u8], quiet: Duration) -> Exchange {
    let mut stream = TcpStream::connect(address).await.unwrap_or_else(|e| panic!("connect {address}: {e}"));
    // The other side may close before it has read all: that is an answer too.
    let _ = stream.write_all(bytes).await;
    read(&mut stream, quiet).await
}

/// Reads until the other side closes or says nothing for `quiet`.
pub async fn read(stream: &mut TcpStream, quiet: Duration) -> Exchange {
    let mut exchange = Exchange { bytes: Vec::new(), closed: false };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match tokio::time::timeout(quiet, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => {
                exchange.closed = true;
                return exchange;
            }
            Ok(Ok(read)) => exchange.bytes.extend_from_slice(&buffer[..read]),
            Err(_) => return exchange,
        }
    }
}
