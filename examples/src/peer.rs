//! Programs of others that an example talks to, and the simplest HTTP.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Signal;

/// A process that ends with its owner.
pub struct Process {
    pub name: String,
    child: Child,
}

impl Process {
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// The operating system refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        crate::signal(&self.child, signal)
    }

    /// Wait for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn ended(&mut self, patience: Duration) -> Result<std::process::ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{} has not ended after {patience:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: there is nobody left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of the system, by its name.
///
/// # Errors
/// It is not installed; says how to change that.
pub fn installed(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .with_context(|| {
            format!("{program} is not installed: apt-get install --no-install-recommends {program}")
        })
}

/// `GET` over a connection of its own: the status and the body.
///
/// # Errors
/// Nobody answers within two seconds, or it is no HTTP.
pub async fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let asking = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer =
        tokio::time::timeout(Duration::from_secs(2), asking).await.context("no answer in time")??;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no HTTP status")?;
    Ok((status, body.to_owned()))
}

/// Answer every request on the port with `body`, for ever.
///
/// # Errors
/// The port is taken.
pub async fn serve(port: u16, body: impl Fn() -> String) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let body = body();
        tokio::spawn(async move {
            let mut request = Vec::new();
            let mut chunk = [0; 1024];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut chunk).await {
                    Ok(read) if read > 0 => request.extend_from_slice(&chunk[..read]),
                    _ => return,
                }
            }
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            );
            // A caller that went away is none any more.
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}
