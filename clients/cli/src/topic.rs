//! `topic`: publish, follow, look after topics. Durable subscriptions are in `subscription.rs`.

use std::io::Write;

use clap::Subcommand;
use coracle_client::api::{Instant, Overflow, Span, Topic as View, TopicConfig, TopicMessage};
use coracle_client::{MessageUpdate, Messages, Subscribe};
use futures::StreamExt;

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::Failure;
use crate::kv_list::short;
use crate::output::{self, Format};
use crate::subscription::{self, Subscription};
use crate::value_arg::{ValueArg, header};

#[derive(Debug, Subcommand)]
pub enum Topic {
    /// Publish a message
    #[command(after_help = "Examples:\n  coracle topic pub orders.paid 4711\n  \
                            coracle topic pub settings red --about color      in a table of current values\n  \
                            coracle topic pub orders.paid < order.json --content-type application/json")]
    Pub(Publish),
    /// Follow messages
    #[command(
        after_help = "Examples:\n  coracle topic sub orders.paid\n  coracle topic sub 'orders.*' --from first\n  \
                            coracle topic sub orders.paid --after 41 -o ndjson\n  coracle topic sub orders.paid -o raw      only the bodies"
    )]
    Sub(Sub),
    /// List topics, and patterns that have subscriptions
    #[command(after_help = "Example:\n  coracle topic ls orders.")]
    Ls {
        /// Only names that begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// What a topic keeps
    #[command(after_help = "Example:\n  coracle topic show orders.paid")]
    Show { topic: String },
    /// Set what a topic keeps
    #[command(
        after_help = "Examples:\n  coracle topic config orders.paid --max-age 1h --max-messages 10000\n  \
                            coracle topic config settings --max-per-key 1      a table of current values"
    )]
    Config(Config),
    /// Forget a topic: messages, bounds, subscriptions
    #[command(after_help = "Example:\n  coracle topic delete orders.paid")]
    Delete { topic: String },
    /// Durable subscriptions: each message once, until it is acknowledged
    #[command(subcommand)]
    Subscription(Subscription),
}

#[derive(Debug, clap::Args)]
pub struct Publish {
    topic: String,
    #[command(flatten)]
    value: ValueArg,
    /// What the message is about
    #[arg(long, value_name = "KEY")]
    about: Option<String>,
    /// Gone after this
    #[arg(long, value_name = "DURATION")]
    ttl: Option<Span>,
    /// Only if this is the last seq of the topic; 0: only if it does not exist
    #[arg(long, value_name = "SEQ")]
    expect_last_seq: Option<u64>,
    /// Something that travels with the message
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct Sub {
    /// A topic, or a pattern: `*` stands for one token, `>` for the rest
    topic: String,
    /// new, first, last, or a time
    #[arg(long, value_name = "PLACE", default_value = "new", conflicts_with = "after")]
    from: Place,
    /// Behind this position: a seq of a topic, a revision of a pattern
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
}

#[derive(Debug, Clone)]
enum Place {
    New,
    First,
    Last,
    Time(Instant),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "new" => Self::New,
            "first" => Self::First,
            "last" => Self::Last,
            _ => Self::Time(
                text.parse().map_err(|_| "new, first, last, or a time such as 2026-11-22T05:40:11Z")?,
            ),
        })
    }
}

#[derive(Debug, clap::Args)]
pub struct Config {
    topic: String,
    /// 24h; 0 is no bound, here and below
    #[arg(long, value_name = "DURATION")]
    max_age: Option<Span>,
    /// 64 MiB: bodies, keys and headers, and 256 bytes a message
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
    #[arg(long, value_name = "N")]
    max_messages: Option<u64>,
    /// Newest messages of each key
    #[arg(long, value_name = "N")]
    max_per_key: Option<u64>,
    /// A full topic refuses; otherwise the oldest make room
    #[arg(long)]
    reject: bool,
}

pub async fn run(connection: &Connection, topic: Topic) -> Result<(), Failure> {
    let named = |name: &str| connection.client().map(|client| client.topic(name));
    let output = connection.output();
    match topic {
        Topic::Pub(args) => publish(connection, args).await,
        Topic::Sub(args) => {
            let subscribe = named(&args.topic)?.subscribe();
            print(connection, begin(subscribe, &args)).await
        }
        Topic::Ls { prefix } => {
            let topics = connection.client()?.topics().list(&prefix).await?;
            let header = ["TOPIC", "MESSAGES", "BYTES", "LAST SEQ", "SUBSCRIPTIONS"];
            output.list(&topics, &header, |topic| {
                vec![
                    readable(topic.name.as_bytes()),
                    topic.messages.to_string(),
                    topic.bytes.to_string(),
                    topic.last_seq.to_string(),
                    topic.subscriptions.to_string(),
                ]
            })
        }
        Topic::Show { topic } => show(connection, &named(&topic)?.show().await?),
        Topic::Config(args) => {
            let config = TopicConfig {
                max_age: args.max_age,
                max_bytes: args.max_bytes,
                max_messages: args.max_messages,
                max_per_key: args.max_per_key,
                overflow: args.reject.then_some(Overflow::Reject),
            };
            show(connection, &named(&args.topic)?.configure(&config).await?)
        }
        Topic::Delete { topic } => {
            let done = named(&topic)?.delete().await?;
            output.item(&done, &[("messages", done.messages.to_string())])
        }
        Topic::Subscription(subscription) => subscription::run(connection, subscription).await,
    }
}

async fn publish(connection: &Connection, args: Publish) -> Result<(), Failure> {
    let mut message = connection.client()?.topic(&args.topic).publish(args.value.read()?);
    if let Some(key) = args.about {
        message = message.key(key);
    }
    if let Some(ttl) = args.ttl {
        message = message.ttl(ttl.into());
    }
    if let Some(seq) = args.expect_last_seq {
        message = message.expect_last_seq(seq);
    }
    for text in &args.headers {
        let (name, value) = header(text)?;
        message = message.header(name, value);
    }
    let done = message.await?;
    connection.output().item(&done, &[("seq", done.seq.to_string()), ("revision", done.revision.to_string())])
}

fn begin(subscribe: Subscribe, args: &Sub) -> Messages {
    match (args.after, &args.from) {
        (Some(position), _) => subscribe.after(position),
        (None, Place::New) => subscribe.from_now(),
        (None, Place::First) => subscribe.from_first(),
        (None, Place::Last) => subscribe.from_last(),
        (None, Place::Time(time)) => subscribe.at(*time),
    }
}

/// Print messages until we are interrupted.
async fn print(connection: &Connection, mut updates: Messages) -> Result<(), Failure> {
    let format = connection.output().format();
    while let Some(update) = updates.next().await {
        match update? {
            MessageUpdate::Messages { messages, .. } => {
                let mut out = std::io::stdout().lock();
                for message in &messages {
                    write(&mut out, format, message)?;
                }
                out.flush()?;
            }
            MessageUpdate::Gap { from, to } => {
                eprintln!(
                    "coracle: messages after {from} up to {to} are no longer kept; the oldest kept follow"
                );
            }
            MessageUpdate::Lagged => eprintln!("coracle: too slow, continuing"),
            MessageUpdate::Bye { .. } => eprintln!("coracle: the node said goodbye, continuing elsewhere"),
            MessageUpdate::Reconnecting { detail } => eprintln!("coracle: reconnecting: {detail}"),
            _ => {}
        }
    }
    Ok(())
}

/// One message, in the form asked for.
pub fn write(out: &mut impl Write, format: Format, message: &TopicMessage) -> Result<(), Failure> {
    match format {
        Format::Json | Format::Ndjson => output::line(out, message)?,
        Format::Raw => {
            out.write_all(&message.value.bytes)?;
            out.write_all(b"\n")?;
        }
        Format::Table => {
            let TopicMessage { topic, seq, revision, value, .. } = message;
            let key = message.key.as_deref().map(|key| format!("{} = ", readable(key.as_bytes())));
            let (topic, value) = (readable(topic.as_bytes()), short(&value.bytes));
            writeln!(out, "{revision}  {topic} {seq}  {}{value}", key.unwrap_or_default())?;
        }
    }
    Ok(())
}

fn show(connection: &Connection, topic: &View) -> Result<(), Failure> {
    let mut fields = vec![
        ("topic", readable(topic.name.as_bytes())),
        ("messages", topic.messages.to_string()),
        ("bytes", topic.bytes.to_string()),
        ("last seq", topic.last_seq.to_string()),
    ];
    fields.extend(topic.first_seq.map(|seq| ("first seq", seq.to_string())));
    fields.extend(topic.first_time.map(|time| ("oldest", time.to_string())));
    fields.push(("subscriptions", topic.subscriptions.to_string()));
    if let Some(config) = &topic.config {
        fields.extend(config.max_age.map(|age| ("max age", age.to_string())));
        fields.extend(config.max_bytes.map(|bytes| ("max bytes", bytes.to_string())));
        fields.extend(config.max_messages.map(|most| ("max messages", most.to_string())));
        fields.extend(config.max_per_key.map(|most| ("max per key", most.to_string())));
        if config.overflow == Some(Overflow::Reject) {
            fields.push(("overflow", "reject".to_owned()));
        }
    }
    connection.output().item(topic, &fields)
}
