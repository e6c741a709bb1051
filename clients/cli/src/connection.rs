//! How every client command reaches the cluster, and how it shows what it gets.

use std::path::PathBuf;
use std::time::Duration;

use coracle_client::api::Span;
use coracle_client::{Coracle, TlsOptions};

use crate::exit::Failure;
use crate::output::{Format, Output};

const DEFAULT_URL: &str = "http://127.0.0.1:7070";

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection and output")]
pub struct Connection {
    /// Base URL of a node; several with commas
    #[arg(long, short = 'u', global = true, env = "CORACLE_URL", default_value = DEFAULT_URL, value_name = "URL")]
    pub url: String,
    /// Authority that signs the servers' certificates, PEM [default: those of the system]
    #[arg(long, global = true, env = "CORACLE_CACERT", value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Our certificate, PEM
    #[arg(long, global = true, env = "CORACLE_CERT", value_name = "FILE", requires = "client_key")]
    pub cert: Option<PathBuf>,
    /// The private key of our certificate, PEM
    #[arg(
        id = "client_key",
        long = "key",
        global = true,
        env = "CORACLE_KEY",
        value_name = "FILE",
        requires = "cert"
    )]
    pub key: Option<PathBuf>,
    /// Bearer token
    #[arg(long, global = true, env = "CORACLE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Time for one call with all its retries; waits come on top
    #[arg(long, global = true, default_value = "30s", value_name = "DURATION")]
    pub timeout: Span,
    /// Form of the output [default: table on a terminal, else json]
    #[arg(long, short = 'o', global = true, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Print the equivalent curl command and do nothing
    #[arg(long, global = true)]
    pub curl: bool,
}

impl Connection {
    /// A client of the cluster.
    pub fn client(&self) -> Result<Coracle, Failure> {
        Ok(self.builder([self.url.as_str()]).build()?)
    }

    /// A client of one node only, for questions about that node.
    pub fn client_of(&self, url: &str, deadline: Duration) -> Result<Coracle, Failure> {
        Ok(self.builder([url]).deadline(deadline).build()?)
    }

    /// A client for a command that makes many calls, which one curl command cannot show.
    pub fn client_for_many_calls(&self) -> Result<Coracle, Failure> {
        if self.curl {
            return Err(Failure::Usage(
                "this command makes many calls; there is no curl command for it".into(),
            ));
        }
        self.client()
    }

    fn builder<'a>(&self, urls: impl IntoIterator<Item = &'a str>) -> coracle_client::Builder {
        let tls = TlsOptions {
            ca_file: self.cacert.clone(),
            cert_file: self.cert.clone(),
            key_file: self.key.clone(),
        };
        let mut builder = Coracle::builder()
            .endpoints(urls)
            .tls(tls)
            .deadline(self.timeout.as_duration())
            .show_only(self.curl);
        if let Some(token) = &self.token {
            builder = builder.bearer(token);
        }
        builder
    }

    pub fn output(&self) -> Output {
        Output::new(self.output)
    }
}
