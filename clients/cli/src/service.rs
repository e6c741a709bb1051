//! `service`: register an instance, with or without a command under it; look, pick, follow, drain.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::Subcommand;
use coracle_client::api::{self, Instance, Ratio, Span};
use coracle_client::{Coracle, Pick};

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::Failure;
use crate::output::Format;
use crate::service_run;

#[derive(Debug, Subcommand)]
pub enum Service {
    /// Register an instance, while a command runs or until interrupted
    #[command(after_help = REGISTER)]
    Register(Register),
    /// Take an instance out now
    #[command(after_help = "Example:\n  coracle service deregister web web-1")]
    Deregister { name: String, id: String },
    /// List services
    #[command(after_help = "Example:\n  coracle service ls")]
    Ls,
    /// The instances of a service
    #[command(after_help = "Example:\n  coracle service show web")]
    Show { name: String },
    /// Whom to call: prints host:port
    #[command(after_help = PICK)]
    Pick(PickArgs),
    /// Follow the instances to call; run a command with them at each change
    #[command(after_help = WATCH)]
    Watch(Watch),
    /// Pick an instance no more, remove it when the time is over
    #[command(after_help = "Example:\n  coracle service drain web web-1 --deadline 1m")]
    Drain {
        name: String,
        id: String,
        #[arg(long, value_name = "DURATION", default_value = "30s")]
        deadline: Span,
    },
    /// Say how a service is run; without options: back to the defaults
    #[command(after_help = "Example:\n  coracle service config web --protect 0.5 --deregister-after 5m")]
    Config(Config),
}

const REGISTER: &str = "Examples:
  coracle service register web --port 8080 -- ./serve --port 8080
  coracle service register web --address 10.0.0.7 --port 8080 --id web-1 --tag blue --meta owner=ann
  coracle service register db --address db.example --port 5432 --permanent

The command gets CORACLE_SERVICE_NAME and CORACLE_SERVICE_ID, and runs in its own process group. When it ends, the
instance is deregistered and the exit code is that of the command; told to stop, we deregister first. What is lost
meanwhile is registered again.";

const PICK: &str = "Examples:
  curl http://$(coracle service pick web)/
  coracle service pick web --strategy sticky --for ann
  coracle service pick web --zone east -n 3 -o json";

const WATCH: &str = "Examples:
  coracle service watch web                        one line of JSON at each change
  coracle service watch web -- ./reload.sh         run it at the beginning and at each change

The command gets CORACLE_SERVICE_NAME, CORACLE_SERVICE_ADDRESSES (host:port, with spaces between) and, on its standard
input, the instances as JSON. Only one runs at a time, always with the latest; changes that come faster are passed over.";

#[derive(Debug, clap::Args)]
pub struct Register {
    pub name: String,
    /// Where it can be reached [default: the name of this host]
    #[arg(long, value_name = "HOST")]
    pub address: Option<String>,
    #[arg(long)]
    pub port: Option<u16>,
    /// Its name, unique in the service [default: host and port, or host and process id]
    #[arg(long)]
    pub id: Option<String>,
    /// How long it outlives this process, if that cannot say goodbye
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    pub ttl: Span,
    /// It stays when this process ends: it is deregistered by hand
    #[arg(long, conflicts_with_all = ["ttl", "command"])]
    pub permanent: bool,
    #[arg(long)]
    pub scheme: Option<String>,
    /// Its version
    #[arg(long, value_name = "VERSION")]
    pub release: Option<String>,
    #[arg(long)]
    pub zone: Option<String>,
    /// Share of the traffic, 0 to 1000 [default: 100]
    #[arg(long)]
    pub weight: Option<u16>,
    /// May be given more than once
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// May be given more than once
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = pair)]
    pub meta: Vec<(String, String)>,
    /// When we are told to stop: time from the farewell to the signal for the command, so that callers can turn away
    #[arg(long, value_name = "DURATION", default_value = "0s", requires = "command")]
    pub linger: Span,
    /// The command that is the instance
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub struct PickArgs {
    pub name: String,
    #[arg(long, value_enum)]
    pub strategy: Option<Strategy>,
    /// With the strategy sticky: the same key, the same instance
    #[arg(long = "for", value_name = "KEY")]
    pub key: Option<String>,
    /// From this zone, if there is one
    #[arg(long)]
    pub zone: Option<String>,
    /// Up to so many different ones
    #[arg(short, value_name = "N", default_value_t = 1)]
    pub n: u64,
    /// Only those with this tag
    #[arg(long)]
    pub tag: Option<String>,
    /// Not this one; may be given more than once
    #[arg(long, value_name = "ID")]
    pub exclude: Vec<String>,
    /// How long to wait for somebody to be there
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Strategy {
    /// Each in turn
    RoundRobin,
    Random,
    /// In proportion to the weights
    Weighted,
    /// The less loaded of two
    Least,
    /// The same for the same --for KEY
    Sticky,
}

#[derive(Debug, clap::Args)]
pub struct Watch {
    pub name: String,
    /// All instances, not only those to call
    #[arg(long)]
    pub all: bool,
    /// The command to run at each change
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub struct Config {
    pub name: String,
    /// If a smaller part is healthy, all are returned: 0 to 1
    #[arg(long, value_name = "PART")]
    pub protect: Option<Ratio>,
    /// How long a dead instance is shown as critical
    #[arg(long, value_name = "DURATION")]
    pub deregister_after: Option<Span>,
    /// A new instance gets its full share after this long
    #[arg(long, value_name = "DURATION")]
    pub slow_start: Option<Span>,
    /// So many reported errors in a row eject an instance, 0 never
    #[arg(long, value_name = "N")]
    pub eject_errors: Option<u16>,
    /// For how long
    #[arg(long, value_name = "DURATION")]
    pub eject_for: Option<Span>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("such as owner=ann")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub async fn run(connection: &Connection, service: Service) -> Result<(), Failure> {
    match service {
        Service::Register(args) => register(connection, args).await,
        Service::Deregister { name, id } => {
            let done = connection.client()?.service(name).deregister(&id).await?;
            connection.output().item(&done, &[("deregistered", done.deleted.to_string())])
        }
        Service::Ls => list(connection).await,
        Service::Show { name } => {
            let shown = connection.client()?.service(name).show().await?;
            if shown.degraded {
                eprintln!("coracle: too few are healthy: callers get all of them healthy={}", shown.healthy);
            }
            connection.output().list(&shown.items, &HEADER, row)
        }
        Service::Pick(args) => pick(connection, args).await,
        Service::Watch(args) => {
            let service = connection.client()?.service(args.name.clone());
            service_run::watch(service, &args.name, args.all, &args.command).await
        }
        Service::Drain { name, id, deadline } => {
            let draining = connection.client()?.service(name).drain(&id, deadline.into()).await?;
            let leaves = draining.leaves.map(|at| at.to_string()).unwrap_or_default();
            connection.output().item(&draining, &[("leaves", leaves)])
        }
        Service::Config(args) => configure(connection, args).await,
    }
}

async fn register(connection: &Connection, args: Register) -> Result<(), Failure> {
    let client = connection.client()?;
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let id = args.id.clone().unwrap_or_else(|| match args.port {
        Some(port) => format!("{}:{port}", host()),
        None => format!("{}/{}", host(), std::process::id()),
    });
    let said = api::Registration {
        address: args.address.clone().unwrap_or_else(host),
        port: args.port,
        ports: BTreeMap::new(),
        scheme: args.scheme,
        version: args.release,
        zone: args.zone,
        weight: args.weight,
        tags: args.tags,
        meta: args.meta.into_iter().collect(),
        status: None,
    };
    if args.permanent || connection.curl {
        let ttl = (!args.permanent).then(|| args.ttl.into());
        let instance = client.service(args.name).put(&id, &said, ttl).await?;
        return connection.output().item(&instance, &[("id", instance.id.clone())]);
    }
    let instance = coracle_client::Instance::from_registration(said).id(id).ttl(args.ttl.into());
    let service = client.service(args.name.clone());
    service_run::register(&service, &args.name, instance, &args.command, args.linger.into()).await
}

async fn list(connection: &Connection) -> Result<(), Failure> {
    let services = connection.client()?.services().list().await?;
    connection.output().list(&services, &["SERVICE", "INSTANCES", "HEALTHY", "EJECTED"], |service| {
        vec![
            readable(service.name.as_bytes()),
            service.instances.to_string(),
            service.healthy.to_string(),
            service.ejected.to_string(),
        ]
    })
}

const HEADER: [&str; 8] = ["ID", "ADDRESS", "STATUS", "ZONE", "WEIGHT", "LOAD", "LIVENESS", "TAGS"];

fn row(instance: &Instance) -> Vec<String> {
    let status = match instance.ejected_until {
        Some(until) => format!("{} (ejected until {until})", instance.status.as_str()),
        None => instance.status.as_str().to_owned(),
    };
    vec![
        readable(instance.id.as_bytes()),
        instance.authority(),
        status,
        instance.zone.as_deref().map(|zone| readable(zone.as_bytes())).unwrap_or_default(),
        instance.weight.to_string(),
        instance.load.map(|load| load.to_string()).unwrap_or_default(),
        match (instance.liveness, instance.ttl) {
            (api::Liveness::Ttl, Some(ttl)) => format!("ttl {ttl}"),
            (api::Liveness::Permanent, _) => "permanent".to_owned(),
            _ => "session".to_owned(),
        },
        instance.tags.join(","),
    ]
}

async fn pick(connection: &Connection, args: PickArgs) -> Result<(), Failure> {
    if (args.strategy == Some(Strategy::Sticky)) != args.key.is_some() {
        return Err(Failure::Usage("--for goes with --strategy sticky, and only with it".to_owned()));
    }
    let picked = asked(&connection.client()?, &args).several(args.n).await?;
    if picked.degraded {
        eprintln!("coracle: too few are healthy: this is one of all");
    }
    match connection.output().format_or(Format::Raw) {
        Format::Raw => picked.items.iter().for_each(|instance| println!("{}", instance.authority())),
        _ => return connection.output().list(&picked.items, &HEADER, row),
    }
    Ok(())
}

fn asked(client: &Coracle, args: &PickArgs) -> Pick {
    let pick = client.service(args.name.clone()).pick();
    let pick = match args.strategy {
        None | Some(Strategy::RoundRobin) => pick,
        Some(Strategy::Random) => pick.random(),
        Some(Strategy::Weighted) => pick.weighted(),
        Some(Strategy::Least) => pick.least(),
        Some(Strategy::Sticky) => pick.sticky(args.key.as_deref().unwrap_or_default()),
    };
    let pick = args.zone.iter().fold(pick, |pick, zone| pick.zone(zone));
    let pick = args.tag.iter().fold(pick, |pick, tag| pick.tag(tag));
    let pick = args.exclude.iter().fold(pick, |pick, id| pick.exclude(id));
    args.wait.iter().fold(pick, |pick, wait| pick.wait((*wait).into()))
}

async fn configure(connection: &Connection, args: Config) -> Result<(), Failure> {
    let config = api::ServiceConfig {
        protect: args.protect,
        deregister_after: args.deregister_after,
        slow_start: args.slow_start,
        eject_errors: args.eject_errors,
        eject_for: args.eject_for,
    };
    let service = connection.client()?.service(args.name);
    if config == api::ServiceConfig::default() {
        let done = service.reset().await?;
        return connection.output().item(&done, &[("settings", "default".to_owned())]);
    }
    let shown = service.configure(&config).await?;
    let config = shown.config.clone().unwrap_or_default();
    let text = |span: Option<Span>| span.map(|span| span.to_string()).unwrap_or_default();
    connection.output().item(
        &shown,
        &[
            ("protect", config.protect.unwrap_or_default().to_string()),
            ("deregister after", text(config.deregister_after)),
            ("slow start", text(config.slow_start)),
            ("eject errors", config.eject_errors.unwrap_or_default().to_string()),
            ("eject for", text(config.eject_for)),
        ],
    )
}
