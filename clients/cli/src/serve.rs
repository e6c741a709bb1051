//! `serve`: run a node. Settings, their layers and their help live in the server; here they become flags.

use std::io::Write;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, FromArgMatches, value_parser};
use coracle_server::Config;
use coracle_server::config::SETTINGS;

use crate::exit::{Failure, USAGE};

const EXAMPLES: &str = "Examples:
  coracle serve
  coracle serve --data /var/lib/coracle --listen 0.0.0.0:7070
  coracle serve --name n1 --initial-cluster n1=10.0.0.1:7071,n2=10.0.0.2:7071,n3=10.0.0.3:7071 \\
      --listen 10.0.0.1:7070 --peer-listen 10.0.0.1:7071
  coracle serve --config coracle.toml --print-config

Each flag is also a variable CORACLE_<FLAG> and a key of the TOML file. Flags win over variables, those over the file.";

/// The settings given as flags, by name, as text.
#[derive(Debug)]
pub struct Serve {
    config: Option<PathBuf>,
    print_config: bool,
    flags: Vec<(String, String)>,
}

impl clap::Args for Serve {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Settings as TOML [env: CORACLE_CONFIG=]");
        let print = Arg::new("print_config")
            .long("print-config")
            .action(ArgAction::SetTrue)
            .help("Print every setting with its value and where that came from, and do nothing");
        let settings = SETTINGS.iter().map(|setting| {
            let default = match setting.default {
                "" => String::new(),
                default => format!(" [default: {default}]"),
            };
            Arg::new(setting.name)
                // Once for each flag, and clap wants to keep it.
                .long(&*setting.flag().leak())
                .value_name(setting.value_name)
                .allow_hyphen_values(true)
                .help(&*format!("{}{default}", setting.help).leak())
        });
        command.after_help(EXAMPLES).arg(config).arg(print).args(settings)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Serve {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = SETTINGS
            .iter()
            .filter_map(|s| Some((s.name.to_owned(), matches.get_one::<String>(s.name)?.clone())))
            .collect();
        Ok(Self {
            config: matches.get_one("config").cloned(),
            print_config: matches.get_flag("print_config"),
            flags,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

pub fn run(serve: &Serve) -> Result<(), Failure> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let config = Config::load(serve.flags.iter().cloned(), variables, serve.config.as_deref())
        .map_err(|error| Failure::Usage(error.to_string()))?;
    if serve.print_config {
        let mut out = std::io::stdout().lock();
        for (setting, value, origin) in config.values() {
            writeln!(out, "{} = {value:?}  # {origin}", setting.name)?;
        }
        return Ok(());
    }
    let runtime = runtime(config.threads)?;
    runtime.block_on(coracle_server::run(config, std::future::pending())).map_err(|error| match error {
        coracle_server::RunError::Config(error) => {
            eprintln!("coracle: {error}");
            Failure::Exit(USAGE)
        }
        error => Failure::Other(error.to_string()),
    })
}

/// Sockets that are read before what came is worked on. With the 1 024 of tokio all clients of a node are in step: it
/// reads, then waits for the disk or its peers, then answers, and one half of a cluster stands still while the other works.
/// Puts on one node: 18 % more a second.
const EVENTS: usize = 16;

/// One thread serves small machines best: nothing is handed between threads, and log and checkpoint have their own
/// anyway (docs/PERFORMANCE.md). With many cores, half of them.
fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = match if threads > 0 { threads } else { (cores / 2).clamp(1, 8) } {
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads).thread_name("edge");
            builder
        }
    };
    builder.enable_all().max_io_events_per_tick(EVENTS).build()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::{Args, Command};

    #[test]
    fn flags_become_settings() {
        let line = [
            "coracle",
            "serve",
            "--peer-listen",
            "127.0.0.1:9",
            "--tls-client-auth",
            "none",
            "--config",
            "f",
        ];
        let Command::Serve(serve) = Args::parse_from(line).command else { panic!() };
        assert_eq!(serve.config.as_deref(), Some("f".as_ref()));
        assert_eq!(
            serve.flags,
            [
                ("peer_listen".to_owned(), "127.0.0.1:9".to_owned()),
                ("tls_client_auth".to_owned(), "none".to_owned())
            ]
        );
    }
}
