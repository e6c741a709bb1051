//! Ports nobody else takes.
//!
//! They lie below the range from which the system takes ports for outgoing connections, so that no connection of a
//! running test can sit on one while a node is down. Each belongs to one test process at a time: to the one that
//! has locked its file. The lock ends with the process.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::sync::Mutex;

const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// Files of the ports this process owns.
static OWNED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port on 127.0.0.1 that is this process's until it ends.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn reserve() -> u16 {
    let folder = std::env::temp_dir().join("coracle-test-ports");
    std::fs::create_dir_all(&folder).expect("the folder for the locks of ports");
    let start = rand::random::<u16>() % COUNT;
    for step in 0..COUNT {
        let port = FIRST + (start + step) % COUNT;
        let path = folder.join(port.to_string());
        let Ok(file) = OpenOptions::new().create(true).append(true).open(path) else { continue };
        if file.try_lock().is_err() || TcpListener::bind(("127.0.0.1", port)).is_err() {
            continue;
        }
        OWNED.lock().expect("no test panics here").push(file);
        return port;
    }
    panic!("no free port from {FIRST} on");
}
