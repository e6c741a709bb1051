//! `queue`: send, receive, settle; look after queues. `queue work` is in `queue_work.rs`.

use std::io::Write;

use clap::Subcommand;
use coracle_client::api::queue::{Message, MessageState, OnBreak, QueueConfig};
use coracle_client::api::{SettledMany, Span};
use coracle_client::{Fence, Nack, SendMessage};

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::{Failure, WAIT_RAN_OUT};
use crate::output::Format;
use crate::queue_work;
use crate::value_arg::{ValueArg, header};

#[derive(Debug, Subcommand)]
pub enum Queue {
    /// Send a message
    #[command(
        after_help = "Examples:\n  coracle queue send mail hello\n  coracle queue send mail < letter.txt\n  \
                            coracle queue send mail hello --group ann --delay 5m --dedup-id 7\n  \
                            coracle queue send gather part --id part-7 --wait 10m      an item of a barrier queue, its ordinal"
    )]
    Send(Send),
    /// Receive messages; acknowledge them by their receipts
    #[command(after_help = "Examples:\n  coracle queue receive mail --wait 20s\n  \
                            coracle queue receive mail --ack -o raw      at most once: only the value")]
    Receive(Receive),
    /// Acknowledge deliveries: they are done
    #[command(after_help = "Example:\n  coracle queue ack mail r1:812-0.830")]
    Ack {
        queue: String,
        #[arg(required = true)]
        receipts: Vec<String>,
    },
    /// Give deliveries back
    #[command(
        after_help = "Example:\n  coracle queue nack mail r1:812-0.830 --delay 1m --reason 'mail host is down'"
    )]
    Nack(GiveBack),
    /// Look at messages without receiving them
    #[command(
        after_help = "Examples:\n  coracle queue peek mail\n  coracle queue peek mail --state in-flight --limit 10"
    )]
    Peek(Peek),
    /// Take one message out, whatever its state
    #[command(after_help = "Example:\n  coracle queue rm mail 812-0")]
    Rm { queue: String, id: String },
    /// List queues
    #[command(after_help = "Example:\n  coracle queue ls mail.")]
    Ls {
        /// Only names that begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// How a queue stands
    #[command(after_help = "Example:\n  coracle queue show mail")]
    Show { queue: String },
    /// Configure a queue by JSON, or show its configuration
    #[command(after_help = "Examples:\n  coracle queue config mail\n  \
                            coracle queue config mail '{\"visibility\":\"1m\",\"max_deliveries\":3}'\n  \
                            coracle queue config gather '{\"kind\":\"barrier\",\"barrier\":{\"size\":10,\"strict\":true,\"finalizer\":{}}}'")]
    Config {
        queue: String,
        /// The configuration; `-` reads it from standard input
        json: Option<String>,
    },
    /// Forget a queue with its configuration and messages
    #[command(after_help = "Example:\n  coracle queue delete mail")]
    Delete { queue: String },
    /// Remove all messages that are not in flight
    #[command(after_help = "Example:\n  coracle queue purge mail")]
    Purge { queue: String },
    /// Bring dead letters back
    #[command(
        after_help = "Examples:\n  coracle queue redrive mail.dead\n  coracle queue redrive mail.dead --to mail2"
    )]
    Redrive {
        queue: String,
        /// To this queue instead of the one they died in
        #[arg(long, value_name = "QUEUE")]
        to: Option<String>,
    },
    /// Deliver nothing until `resume`
    #[command(after_help = "Example:\n  coracle queue pause mail")]
    Pause { queue: String },
    /// Go on delivering
    #[command(after_help = "Example:\n  coracle queue resume mail")]
    Resume { queue: String },
    /// Release the generation of a barrier queue that fills, or give it a signal
    #[command(after_help = "Examples:\n  coracle queue open gather\n  coracle queue open gather --signal go")]
    Open {
        queue: String,
        #[arg(long, value_name = "NAME")]
        signal: Option<String>,
        /// Proof of the claim that the queue's guard asks for, such as locks/boss
        #[arg(long, value_name = "CLAIM", requires = "fence")]
        held: Option<String>,
        // Not --token, which is the bearer's.
        #[arg(id = "fence", long, value_name = "TOKEN", requires = "held")]
        token: Option<u64>,
    },
    /// Break the generation of a barrier queue that fills
    #[command(after_help = "Example:\n  coracle queue break gather --reason 'wrong batch' --items drop")]
    Break {
        queue: String,
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// What becomes of its items [default: as configured]
        #[arg(long, value_enum)]
        items: Option<Items>,
    },
    /// Run a command for each message: the message on its standard input
    #[command(after_help = queue_work::EXAMPLES)]
    Work(queue_work::Work),
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Items {
    /// They belong to the next generation
    CarryOver,
    DeadLetter,
    Drop,
}

#[derive(Debug, clap::Args)]
pub struct Send {
    queue: String,
    #[command(flatten)]
    value: ValueArg,
    /// At most one message of a group is in flight
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// 0 to 9, the highest first; in queues of kind priority
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Not delivered before
    #[arg(long, value_name = "DURATION")]
    delay: Option<Span>,
    /// Not delivered later than this
    #[arg(long, value_name = "DURATION")]
    ttl: Option<Span>,
    /// Within the queue's window the same id is the same message
    #[arg(long, value_name = "ID")]
    dedup_id: Option<String>,
    /// The name of an item of a barrier queue: once a generation
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Wait for the release of the generation of a barrier queue
    #[arg(long, value_name = "DURATION")]
    wait: Option<Span>,
    /// Something that travels with the message
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct Receive {
    queue: String,
    /// At most so many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    max: u32,
    /// How long to wait for the first
    #[arg(long, value_name = "DURATION")]
    wait: Option<Span>,
    /// How long the delivery is nobody else's [default: that of the queue]
    #[arg(long, value_name = "DURATION")]
    visibility: Option<Span>,
    /// Acknowledge them once they are printed
    #[arg(long)]
    ack: bool,
}

#[derive(Debug, clap::Args)]
pub struct GiveBack {
    queue: String,
    #[arg(required = true)]
    receipts: Vec<String>,
    #[command(flatten)]
    how: HowBack,
}

/// How a delivery is given back, of a queue or of a subscription.
#[derive(Debug, clap::Args)]
pub struct HowBack {
    /// Not again before [default: as the queue has it]
    #[arg(long, value_name = "DURATION")]
    delay: Option<Span>,
    /// The delivery does not count
    #[arg(long)]
    uncounted: bool,
    /// To the dead letters at once
    #[arg(long)]
    fatal: bool,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl From<HowBack> for Nack {
    fn from(how: HowBack) -> Self {
        let HowBack { delay, uncounted, fatal, reason } = how;
        Self { delay: delay.map(Into::into), uncounted, fatal, reason }
    }
}

#[derive(Debug, clap::Args)]
pub struct Peek {
    queue: String,
    /// Only messages of this state
    #[arg(long, value_enum)]
    state: Option<State>,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum State {
    Ready,
    /// Behind another of their group
    Blocked,
    Delayed,
    InFlight,
    /// Items of a barrier queue that wait
    Held,
}

impl From<State> for MessageState {
    fn from(state: State) -> Self {
        match state {
            State::Ready => Self::Ready,
            State::Blocked => Self::Blocked,
            State::Delayed => Self::Delayed,
            State::InFlight => Self::InFlight,
            State::Held => Self::Held,
        }
    }
}

pub async fn run(connection: &Connection, queue: Queue) -> Result<(), Failure> {
    let named = |name: &str| connection.client().map(|client| client.queue(name));
    let output = connection.output();
    match queue {
        Queue::Send(args) => send(connection, args).await,
        Queue::Receive(args) => receive(connection, args).await,
        Queue::Ack { queue, receipts } => settled(connection, &named(&queue)?.ack(receipts).await?),
        Queue::Nack(args) => {
            let GiveBack { queue, receipts, how } = args;
            settled(connection, &named(&queue)?.nack(receipts, &how.into()).await?)
        }
        Queue::Peek(args) => {
            let messages = named(&args.queue)?.peek(args.state.map(Into::into), args.limit).await?;
            output.list(&messages, &["ID", "STATE", "TRIES", "SENT", "GROUP", "VALUE"], message_row)
        }
        Queue::Rm { queue, id } => {
            let done = named(&queue)?.remove(&id).await?;
            output.item(&done, &[("deleted", done.deleted.to_string())])
        }
        Queue::Ls { prefix } => list(connection, &prefix).await,
        Queue::Show { queue } => show(connection, &queue).await,
        Queue::Config { queue, json: None } => {
            let shown = named(&queue)?.show().await?;
            output.item(&shown.config, &[("config", serde_json::to_string(&shown.config)?)])
        }
        Queue::Config { queue, json: Some(json) } => {
            let json = if json == "-" { std::io::read_to_string(std::io::stdin())? } else { json };
            let config: QueueConfig =
                serde_json::from_str(&json).map_err(|e| Failure::Usage(format!("{e}")))?;
            let shown = named(&queue)?.configure(&config).await?;
            output.item(&shown, &[("config", serde_json::to_string(&shown.config)?)])
        }
        Queue::Delete { queue } => {
            let done = named(&queue)?.delete().await?;
            output.item(&done, &[("deleted", done.deleted.to_string())])
        }
        Queue::Purge { queue } => {
            let done = named(&queue)?.purge().await?;
            output.item(&done, &[("purged", done.count.to_string())])
        }
        Queue::Redrive { queue, to } => {
            let done = named(&queue)?.redrive(to.as_deref()).await?;
            output.item(&done, &[("redriven", done.count.to_string())])
        }
        Queue::Pause { queue } => controlled(connection, named(&queue)?.close().await?),
        Queue::Resume { queue } => controlled(connection, named(&queue)?.open().await?),
        Queue::Open { queue, signal, held, token } => {
            let fence = held.zip(token).map(|(held, token)| Fence::new(held, token));
            let queue = named(&queue)?;
            let done = match signal {
                Some(signal) => queue.signal(&signal, fence.as_ref()).await?,
                None => queue.open_with(fence.as_ref()).await?,
            };
            controlled(connection, done)
        }
        Queue::Break { queue, reason, items } => {
            let items = items.map(|items| match items {
                Items::CarryOver => OnBreak::CarryOver,
                Items::DeadLetter => OnBreak::DeadLetter,
                Items::Drop => OnBreak::Drop,
            });
            controlled(connection, named(&queue)?.break_generation(&reason, items).await?)
        }
        Queue::Work(work) => queue_work::run(connection, work).await,
    }
}

async fn send(connection: &Connection, args: Send) -> Result<(), Failure> {
    let mut message = connection.client()?.queue(&args.queue).send(args.value.read()?);
    message = with(message, args.group, SendMessage::group);
    message = with(message, args.priority, SendMessage::priority);
    message = with(message, args.delay.map(Into::into), SendMessage::delay);
    message = with(message, args.ttl.map(Into::into), SendMessage::ttl);
    message = with(message, args.dedup_id, SendMessage::dedup_id);
    message = with(message, args.id, SendMessage::id);
    message = with(message, args.wait.map(Into::into), SendMessage::wait);
    for text in &args.headers {
        let (name, value) = header(text)?;
        message = message.header(name, value);
    }
    let sent = message.await?;
    let mut fields = vec![("id", sent.id.clone()), ("revision", sent.revision.to_string())];
    if sent.duplicate {
        fields.push(("duplicate", "of an earlier one".to_owned()));
    }
    let numbers = [("generation", sent.generation), ("ordinal", sent.ordinal), ("size", sent.size)];
    fields.extend(numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string()))));
    fields.extend(sent.receipt.clone().map(|receipt| ("receipt", receipt)));
    connection.output().item(&sent, &fields)
}

/// Say it if it was given.
fn with<T>(send: SendMessage, given: Option<T>, say: fn(SendMessage, T) -> SendMessage) -> SendMessage {
    match given {
        Some(given) => say(send, given),
        None => send,
    }
}

async fn receive(connection: &Connection, args: Receive) -> Result<(), Failure> {
    let queue = connection.client()?.queue(&args.queue);
    let mut receive = queue.receive().max(args.max).wait(args.wait.unwrap_or_default().into());
    if let Some(visibility) = args.visibility {
        receive = receive.visibility(visibility.into());
    }
    let jobs = receive.await?;
    if jobs.is_empty() {
        eprintln!("coracle: nothing to be had");
        return Err(Failure::Exit(WAIT_RAN_OUT));
    }
    let messages: Vec<Message> = jobs.iter().map(|job| job.message().clone()).collect();
    let output = connection.output();
    if output.format() == Format::Raw {
        // The bytes as they were sent; receipts are for those who ask for JSON.
        let mut out = std::io::stdout().lock();
        for message in &messages {
            out.write_all(&message.value.bytes)?;
        }
        out.flush()?;
    } else {
        output.list(&messages, &["RECEIPT", "TRIES", "VALUE"], |message| {
            let receipt = message.receipt.clone().unwrap_or_default();
            vec![receipt, message.deliveries.to_string(), readable(&message.value.bytes)]
        })?;
    }
    if args.ack {
        let receipts = jobs.iter().map(|job| job.receipt().to_owned()).collect();
        queue.ack(receipts).await?;
    }
    Ok(())
}

/// What became of each receipt.
pub fn settled(connection: &Connection, settled: &SettledMany) -> Result<(), Failure> {
    connection.output().list(&settled.items, &["RECEIPT", "OK"], |item| {
        vec![item.receipt.clone(), if item.ok { "yes" } else { "stale" }.to_owned()]
    })
}

fn controlled(connection: &Connection, done: coracle_client::api::queue::Controlled) -> Result<(), Failure> {
    let mut fields = vec![("paused", done.paused.to_string())];
    fields.extend(done.generation.map(|generation| ("generation", generation.to_string())));
    fields.extend(done.released.map(|released| ("released", released.to_string())));
    fields.extend(done.count.map(|count| ("items", count.to_string())));
    connection.output().item(&done, &fields)
}

fn message_row(message: &Message) -> Vec<String> {
    let state = message.state.map(|state| format!("{state:?}").to_lowercase()).unwrap_or_default();
    vec![
        message.id.clone(),
        state,
        message.deliveries.to_string(),
        message.sent.to_string(),
        message.group.as_deref().map(|group| readable(group.as_bytes())).unwrap_or_default(),
        readable(&message.value.bytes[..message.value.bytes.len().min(60)]),
    ]
}

async fn list(connection: &Connection, prefix: &str) -> Result<(), Failure> {
    let queues = connection.client()?.queues().list(prefix).await?;
    let header = ["QUEUE", "KIND", "READY", "DELAYED", "IN FLIGHT", "DEAD", "WAITING", "OLDEST"];
    connection.output().list(&queues, &header, |queue| {
        vec![
            readable(queue.name.as_bytes()),
            format!("{:?}", queue.config.kind).to_lowercase(),
            (queue.ready + queue.blocked + queue.held).to_string(),
            queue.delayed.to_string(),
            queue.in_flight.to_string(),
            queue.dead.to_string(),
            queue.waiting.to_string(),
            queue.oldest_age.map(|age| age.to_string()).unwrap_or_default(),
        ]
    })
}

async fn show(connection: &Connection, name: &str) -> Result<(), Failure> {
    let queue = connection.client()?.queue(name).show().await?;
    let mut fields = vec![
        ("queue", readable(queue.name.as_bytes())),
        ("kind", format!("{:?}", queue.config.kind).to_lowercase()),
        ("ready", queue.ready.to_string()),
        ("blocked", queue.blocked.to_string()),
        ("delayed", queue.delayed.to_string()),
        ("in flight", queue.in_flight.to_string()),
        ("dead", queue.dead.to_string()),
        ("waiting", queue.waiting.to_string()),
        ("oldest", queue.oldest_age.map(|age| age.to_string()).unwrap_or_default()),
    ];
    if queue.config.paused {
        fields.push(("paused", "yes".to_owned()));
    }
    if let Some(filling) = &queue.filling {
        let progress = filling.progress.clone().unwrap_or_else(|| filling.items.to_string());
        fields.push(("filling", format!("generation {} has {progress}", filling.generation)));
        let missing = filling.missing.iter().flatten().map(|id| readable(id.as_bytes()));
        fields.extend(missing.map(|id| ("missing", id)));
    }
    if let Some(draining) = &queue.draining {
        let (generation, left, size) = (draining.generation, draining.left, draining.size);
        fields.push(("draining", format!("generation {generation} has {left} of {size} left")));
    }
    connection.output().item(&queue, &fields)
}
