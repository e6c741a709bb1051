//! The append service: the one writer of the file. It takes lines with a fencing token and refuses old tokens.
//!
//! This is what a fence looks like in a store that knows nothing of locks: one number, the highest token seen.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};

pub struct AppendService {
    address: SocketAddr,
}

struct Fenced {
    file: File,
    highest: u64,
}

impl AppendService {
    /// Serve on a port of its own for as long as the process lives.
    pub fn start(path: &Path) -> Result<Self> {
        let file = File::options().create_new(true).append(true).open(path)?;
        let fenced = Arc::new(Mutex::new(Fenced { file, highest: 0 }));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fenced = Arc::clone(&fenced);
                // A worker that dies ends its connection; nobody else cares.
                thread::spawn(move || serve(&stream, &fenced).ok());
            }
        });
        Ok(Self { address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// `TOKEN text` in, `ok` or `refused HIGHEST` out.
fn serve(stream: &TcpStream, fenced: &Mutex<Fenced>) -> Result<()> {
    let mut answers = stream;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let (token, text) = line.split_once(' ').context("no token")?;
        let answer = fenced.lock().unwrap_or_else(PoisonError::into_inner).append(token.parse()?, text)?;
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}

impl Fenced {
    fn append(&mut self, token: u64, text: &str) -> Result<String> {
        if token < self.highest {
            return Ok(format!("refused {}", self.highest));
        }
        self.highest = token;
        self.file.write_all(format!("{token} {text}\n").as_bytes())?;
        Ok("ok".to_owned())
    }
}

/// A worker's end of the connection.
pub struct Appender {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Appender {
    pub fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { answers: BufReader::new(stream.try_clone()?), stream })
    }

    /// Append a line; `Some(highest)` if a higher token has been seen.
    pub fn append(&mut self, token: u64, text: &str) -> Result<Option<u64>> {
        self.stream.write_all(format!("{token} {text}\n").as_bytes())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match answer.trim_end().split_once(' ') {
            None if answer == "ok\n" => Ok(None),
            Some(("refused", highest)) => Ok(Some(highest.parse()?)),
            _ => bail!("the append service answered {answer:?}"),
        }
    }
}
