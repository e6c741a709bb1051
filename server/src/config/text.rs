//! Values of settings as text, both ways.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use coracle_api::{ByteSize, Span};

/// One setting's type: read from text, written as text.
pub(super) trait Text: Sized {
    fn parse(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

/// Client certificates on the client port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuth {
    #[default]
    None,
    /// Verified if sent.
    Optional,
    Required,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Pretty,
    Json,
}

/// One founding member: its name and `host:port` for peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    pub name: String,
    pub peer: String,
}

/// The founding members of a cluster; empty for a cluster of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Founders(pub Vec<Founder>);

macro_rules! by_display {
    ($($type:ty),*) => {$(
        impl Text for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|e| format!("{e}"))
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

by_display!(String, SocketAddr, ByteSize, Span, u64, usize);

impl Text for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("empty".to_owned()) } else { Ok(text.into()) }
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl<T: Text> Text for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

impl Text for Vec<String> {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect())
    }
    fn show(&self) -> String {
        self.join(",")
    }
}

impl Text for Founders {
    fn parse(text: &str) -> Result<Self, String> {
        let mut founders: Vec<Founder> = Vec::new();
        for item in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            let (name, peer) = item.split_once('=').ok_or_else(|| format!("not NAME=HOST:PORT: {item}"))?;
            let port = peer.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if name.is_empty() || port.is_none_or(|p| p.parse::<u16>().is_err()) {
                return Err(format!("not NAME=HOST:PORT: {item}"));
            }
            if founders.iter().any(|f| f.name == name || f.peer == peer) {
                return Err(format!("listed twice: {item}"));
            }
            founders.push(Founder { name: name.to_owned(), peer: peer.to_owned() });
        }
        Ok(Self(founders))
    }
    fn show(&self) -> String {
        let items: Vec<_> = self.0.iter().map(|f| format!("{}={}", f.name, f.peer)).collect();
        items.join(",")
    }
}

impl Text for ClientAuth {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err("none, optional or required".to_owned()),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Optional => "optional",
            Self::Required => "required",
        })
    }
}

impl Text for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("pretty or json".to_owned()),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Pretty => "pretty".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}
