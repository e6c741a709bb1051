//! Configuration: every setting of a server once, with its flag, environment variable, file key, default and help.
//!
//! Layers: flags > `CORACLE_*` > TOML file > default, merged setting by setting. Each value remembers where it came
//! from. The command line builds its flags from [`SETTINGS`], so a setting is added in one place: the table below.

mod text;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use coracle_api::{ByteSize, Span};

use text::Text;
pub use text::{ClientAuth, Founder, Founders, LogFormat};

/// What is known about one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// `peer_listen`: the key in the file. The flag is `--peer-listen`, the variable `CORACLE_PEER_LISTEN`.
    pub name: &'static str,
    /// Placeholder in help texts: `ADDR`.
    pub value_name: &'static str,
    /// The default as text; empty if there is none.
    pub default: &'static str,
    pub help: &'static str,
}

impl Setting {
    /// `peer-listen`
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// `CORACLE_PEER_LISTEN`
    #[must_use]
    pub fn variable(&self) -> String {
        format!("CORACLE_{}", self.name.to_ascii_uppercase())
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    /// Name of the variable.
    Environment(String),
    Flag,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Why a configuration is refused. `Display` names the setting, the value and where it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file: {reason} path={}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("not a configuration file: {reason} path={}", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("unknown setting in {origin}: name={name}")]
    Unknown { name: String, origin: Origin },
    #[error("bad value for {name} from {origin}: {reason} value={value:?}")]
    Bad { name: &'static str, value: String, origin: Origin, reason: String },
    #[error("{0}")]
    Contradiction(String),
}

macro_rules! settings {
    ($($name:ident: $type:ty = $default:literal $value_name:literal $help:literal;)*) => {
        /// All settings of a server.
        #[derive(Debug, Clone)]
        pub struct Config {
            $(#[doc = $help] pub $name: $type,)*
            origins: Vec<Origin>,
        }

        /// Every setting, in the order of help and `--print-config`.
        pub const SETTINGS: &[Setting] = &[
            $(Setting { name: stringify!($name), value_name: $value_name, default: $default, help: $help },)*
        ];

        impl Config {
            fn from_texts(mut texts: impl FnMut(usize) -> (String, Origin)) -> Result<Self, ConfigError> {
                let mut origins = Vec::with_capacity(SETTINGS.len());
                Ok(Self {
                    $($name: {
                        let (text, origin) = texts(origins.len());
                        origins.push(origin.clone());
                        <$type as Text>::parse(&text).map_err(|reason| ConfigError::Bad {
                            name: stringify!($name), value: text, origin, reason,
                        })?
                    },)*
                    origins,
                })
            }

            /// Every setting with its value and where that came from, for `--print-config`.
            #[must_use]
            pub fn values(&self) -> Vec<(&'static Setting, String, &Origin)> {
                let texts = [$(Text::show(&self.$name),)*];
                SETTINGS.iter().zip(texts).zip(&self.origins).map(|((s, text), origin)| (s, text, origin)).collect()
            }
        }
    };
}

settings! {
    data: PathBuf = "./coracle-data" "DIR" "Holds log, checkpoints and identity; created if absent";
    name: String = "n1" "NAME" "Name of this node, unique in the cluster";
    listen: SocketAddr = "127.0.0.1:7070" "ADDR" "Where clients connect (HTTP)";
    peer_listen: SocketAddr = "127.0.0.1:7071" "ADDR" "Where the other nodes connect";
    advertise_url: Option<String> = "" "URL" "Base URL by which clients reach this node [default: from --listen]";
    advertise_peer: Option<String> = "" "HOST:PORT" "Address by which the other nodes reach this one [default: from --initial-cluster or --peer-listen]";
    initial_cluster: Founders = "" "LIST" "Founding members, the same text on each: n1=host:7071,n2=host:7071,... [default: a cluster of one]";
    cluster_token: String = "coracle" "TEXT" "Keeps clusters with equal addresses apart; the same on each founding member";
    join: Option<String> = "" "URL" "With an empty data directory: ask this cluster to admit this node as a learner";
    tls_cert: Option<PathBuf> = "" "FILE" "Certificate chain for clients, PEM";
    tls_key: Option<PathBuf> = "" "FILE" "Its private key, PEM";
    tls_client_ca: Option<PathBuf> = "" "FILE" "Authority that signs client certificates, PEM";
    tls_client_auth: ClientAuth = "none" "MODE" "Client certificates: none, optional or required";
    peer_tls_cert: Option<PathBuf> = "" "FILE" "Certificate of this node for its peers, PEM";
    peer_tls_key: Option<PathBuf> = "" "FILE" "Its private key, PEM";
    peer_tls_ca: Option<PathBuf> = "" "FILE" "Authority that signs the certificates of all nodes, PEM";
    allowed_host: Vec<String> = "" "HOST,..." "Further names clients may use in the Host header (loopback, listen and advertised are always allowed); * allows all";
    quota: ByteSize = "2GiB" "SIZE" "Live data above this refuses growth";
    history_age: Span = "10m" "DURATION" "Old revisions are kept at least this long, unless the next two are exceeded";
    history_count: u64 = "100000" "N" "Changes kept at most";
    history_bytes: ByteSize = "64MiB" "SIZE" "Bytes of changes kept at most";
    max_value: ByteSize = "1MiB" "SIZE" "Largest value, at most 1MiB";
    max_connections: usize = "12000" "N" "Client connections at once";
    max_requests: usize = "4096" "N" "Requests worked on at once; renewals, releases and deletes are always taken";
    max_waiters: usize = "10000" "N" "Parked requests at once";
    max_streams: usize = "11000" "N" "Open streams at once";
    request_timeout: Span = "5s" "DURATION" "A request that has no answer by then gets 503 or 504";
    header_timeout: Span = "10s" "DURATION" "Time to send the head of a request";
    body_timeout: Span = "30s" "DURATION" "Time to send the body of a request";
    idle_timeout: Span = "2m" "DURATION" "A connection without a request is closed after this";
    shutdown_grace: Span = "10s" "DURATION" "Time for running requests when stopping";
    checkpoint_interval: Span = "30s" "DURATION" "A checkpoint is written this often while there are changes";
    checkpoint_bytes: ByteSize = "64MiB" "SIZE" "A checkpoint is written after about so much log";
    segment_bytes: ByteSize = "64MiB" "SIZE" "Size of a log file";
    keep_log_entries: u64 = "100000" "N" "Log kept for members that were away, unless it exceeds the next; who was away for longer gets a snapshot";
    keep_log_bytes: ByteSize = "128MiB" "SIZE" "The same in bytes";
    threads: usize = "0" "N" "Threads for requests; 0 means half the cores, at most 8";
    log_format: LogFormat = "pretty" "FORMAT" "pretty or json";
    log_level: String = "info" "FILTER" "error, warn, info, debug, or a filter such as info,openraft=debug";
}

impl Default for Config {
    fn default() -> Self {
        Self::from_texts(|i| (SETTINGS[i].default.to_owned(), Origin::Default))
            .expect("the defaults are valid")
    }
}

impl Config {
    /// Merge the layers and check the whole. `flags` are (setting name, value) pairs, `variables` the whole
    /// environment (variables that are no setting are ignored: orchestrators add their own), `file` is
    /// `--config`, or `CORACLE_CONFIG` if absent. An empty value unsets an optional setting.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(
        flags: impl IntoIterator<Item = (String, String)>,
        variables: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut chosen: Vec<Option<(String, Origin)>> = vec![None; SETTINGS.len()];
        let variables: Vec<_> = variables.into_iter().collect();
        let named =
            variables.iter().find(|(name, _)| name == "CORACLE_CONFIG").map(|(_, path)| Path::new(path));
        if let Some(path) = file.or(named) {
            let text = std::fs::read_to_string(path)
                .map_err(|e| ConfigError::Unreadable { path: path.to_owned(), reason: e.to_string() })?;
            let origin = Origin::File(path.to_owned());
            for (name, value) in file_values(&text, path)? {
                choose(&mut chosen, &name, value, &origin)?;
            }
        }
        for (name, value) in variables {
            if let Some(i) = SETTINGS.iter().position(|s| s.variable() == name) {
                chosen[i] = Some((value, Origin::Environment(name)));
            }
        }
        for (name, value) in flags {
            choose(&mut chosen, &name, value, &Origin::Flag)?;
        }
        let config = Self::from_texts(|i| {
            chosen[i].take().unwrap_or_else(|| (SETTINGS[i].default.to_owned(), Origin::Default))
        })?;
        config.check()?;
        Ok(config)
    }

    /// Settings that contradict each other.
    ///
    /// # Errors
    /// [`ConfigError::Contradiction`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let all_or_none = |files: &[bool]| files.iter().all(|f| *f) || !files.iter().any(|f| *f);
        let founders = &self.initial_cluster.0;
        let wrong = if !all_or_none(&[self.tls_cert.is_some(), self.tls_key.is_some()]) {
            "tls_cert and tls_key go together".to_owned()
        } else if self.tls_client_auth != ClientAuth::None
            && (self.tls_client_ca.is_none() || self.tls_cert.is_none())
        {
            "tls_client_auth needs tls_client_ca, tls_cert and tls_key".to_owned()
        } else if !all_or_none(&[
            self.peer_tls_cert.is_some(),
            self.peer_tls_key.is_some(),
            self.peer_tls_ca.is_some(),
        ]) {
            "peer_tls_cert, peer_tls_key and peer_tls_ca go together".to_owned()
        } else if self.join.is_some() && !founders.is_empty() {
            "join and initial_cluster exclude each other: a node joins a cluster or founds one".to_owned()
        } else if !founders.is_empty() && !founders.iter().any(|f| f.name == self.name) {
            format!("initial_cluster does not list this node name={}", self.name)
        } else if self.max_value.0 > coracle_store::limits::VALUE_BYTES as u64 {
            format!(
                "max_value is over its bound limit={} actual={}",
                coracle_store::limits::VALUE_BYTES,
                self.max_value.0
            )
        } else if self.name.is_empty() || self.name.len() > 64 {
            "name must have 1 to 64 bytes".to_owned()
        } else {
            return Ok(());
        };
        Err(ConfigError::Contradiction(wrong))
    }
}

fn choose(
    chosen: &mut [Option<(String, Origin)>],
    name: &str,
    value: String,
    origin: &Origin,
) -> Result<(), ConfigError> {
    let unknown = || ConfigError::Unknown { name: name.to_owned(), origin: origin.clone() };
    let index = SETTINGS.iter().position(|s| s.name == name).ok_or_else(unknown)?;
    chosen[index] = Some((value, origin.clone()));
    Ok(())
}

/// The keys of a TOML file with their values as text; a list becomes a comma-separated text.
fn file_values(text: &str, path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let malformed = |reason: String| ConfigError::Malformed { path: path.to_owned(), reason };
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| malformed(e.to_string()))?;
    table
        .into_iter()
        .map(|(name, value)| match plain(&value) {
            Some(text) => Ok((name, text)),
            None => Err(malformed(format!("a setting is a text, a number or a list of texts name={name}"))),
        })
        .collect()
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => items.iter().map(plain).collect::<Option<Vec<_>>>().map(|i| i.join(",")),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests;
