//! A value on the command line: as it stands there, in a file, or on standard input.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;

use coracle_client::api::Value;

use crate::bytes_arg::into_bytes;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
pub struct ValueArg {
    /// The value; standard input if absent
    value: Option<OsString>,
    /// The content of this file
    #[arg(long, short, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// What it is [default: text if it is UTF-8, else bytes]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
}

impl ValueArg {
    /// The value, all of it.
    pub fn read(self) -> Result<Value, Failure> {
        let bytes = match (self.value, self.file) {
            (Some(value), _) => into_bytes(value),
            (None, Some(file)) => {
                std::fs::read(&file).map_err(|e| Failure::Other(format!("{e} path={}", file.display())))?
            }
            (None, None) => {
                let mut bytes = Vec::new();
                std::io::stdin().lock().read_to_end(&mut bytes)?;
                bytes
            }
        };
        Ok(match self.content_type {
            Some(content_type) => Value::new(bytes, content_type),
            None => Value::from(bytes),
        })
    }
}

/// `NAME=VALUE`, as something that travels with a message.
pub fn header(text: &str) -> Result<(&str, &str), Failure> {
    text.split_once('=').ok_or_else(|| Failure::Usage(format!("--header is NAME=VALUE actual={text:?}")))
}
