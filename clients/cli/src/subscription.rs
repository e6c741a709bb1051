//! `topic subscription`: durable subscriptions.

use std::io::Write;

use clap::Subcommand;
use coracle_client::api::{SessionId, Span, Subscription as View, SubscriptionConfig, SubscriptionMode};

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::{Failure, WAIT_RAN_OUT};
use crate::kv_list::short;
use crate::output::Format;
use crate::queue::{HowBack, settled};

#[derive(Debug, Subcommand)]
pub enum Subscription {
    /// Make a subscription, or change its settings: one that exists stays where it is
    #[command(after_help = "Examples:\n  coracle topic subscription set orders.paid mailer --from first\n  \
                            coracle topic subscription set 'orders.*' ship --exclusive --visibility 1m")]
    Set(Set),
    /// List the subscriptions of a topic or pattern
    #[command(after_help = "Example:\n  coracle topic subscription ls orders.paid")]
    Ls { topic: String },
    /// Where a subscription is, and how far behind
    #[command(after_help = "Example:\n  coracle topic subscription show orders.paid mailer")]
    Show { topic: String, name: String },
    /// Forget a subscription
    #[command(after_help = "Example:\n  coracle topic subscription delete orders.paid mailer")]
    Delete { topic: String, name: String },
    /// Receive messages; acknowledge them by their receipts
    #[command(
        after_help = "Examples:\n  coracle topic subscription receive orders.paid mailer --wait 20s\n  \
                            coracle topic subscription receive orders.paid mailer --ack -o raw      at most once: only the body"
    )]
    Receive(Receive),
    /// Acknowledge deliveries: they are done
    #[command(after_help = "Example:\n  coracle topic subscription ack orders.paid mailer r1:goMYKQEBGCo")]
    Ack {
        topic: String,
        name: String,
        #[arg(required = true)]
        receipts: Vec<String>,
    },
    /// Give deliveries back
    #[command(
        after_help = "Example:\n  coracle topic subscription nack orders.paid mailer r1:goMYKQEBGCo --delay 1m"
    )]
    Nack(GiveBack),
    /// Go to another place; what was handed out is forgotten
    #[command(after_help = "Examples:\n  coracle topic subscription seek orders.paid mailer first\n  \
                            coracle topic subscription seek orders.paid mailer 2026-11-22T05:40:11Z")]
    Seek {
        topic: String,
        name: String,
        /// new, first, last, a seq, or a time
        to: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct Set {
    topic: String,
    name: String,
    /// Where a new one begins: new, first, last, a seq, or a time
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// One session receives at a time
    #[arg(long)]
    exclusive: bool,
    /// Only messages whose key this covers
    #[arg(long, value_name = "PATTERN")]
    filter: Option<String>,
    /// How long a delivery may stay unsettled [default: 30s]
    #[arg(long, value_name = "DURATION")]
    visibility: Option<Span>,
    /// So many deliveries, then the message is dead [default: 5]
    #[arg(long, value_name = "N")]
    max_deliveries: Option<u64>,
    /// Topic that the dead are published to
    #[arg(long, value_name = "TOPIC")]
    dead_letter: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Receive {
    topic: String,
    name: String,
    /// At most so many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    max: u32,
    /// How long to wait for the first
    #[arg(long, value_name = "DURATION")]
    wait: Option<Span>,
    /// How long the delivery is nobody else's [default: that of the subscription]
    #[arg(long, value_name = "DURATION")]
    visibility: Option<Span>,
    /// What the delivery lives with; an exclusive subscription needs one
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Acknowledge them once they are printed
    #[arg(long)]
    ack: bool,
}

#[derive(Debug, clap::Args)]
pub struct GiveBack {
    topic: String,
    name: String,
    #[arg(required = true)]
    receipts: Vec<String>,
    #[command(flatten)]
    how: HowBack,
}

pub async fn run(connection: &Connection, subscription: Subscription) -> Result<(), Failure> {
    let named =
        |topic: &str, name: &str| connection.client().map(|client| client.topic(topic).subscription(name));
    match subscription {
        Subscription::Set(args) => {
            let config = SubscriptionConfig {
                from: args.from,
                mode: args.exclusive.then_some(SubscriptionMode::Exclusive),
                filter: args.filter,
                visibility: args.visibility,
                max_deliveries: args.max_deliveries,
                dead_letter: args.dead_letter,
            };
            show(connection, &named(&args.topic, &args.name)?.configure(&config).await?)
        }
        Subscription::Ls { topic } => {
            let subscriptions = connection.client()?.topic(topic).subscriptions().await?;
            let header = ["NAME", "MODE", "LAG", "IN FLIGHT", "RETURNED", "DEAD"];
            connection.output().list(&subscriptions, &header, |it| {
                vec![
                    readable(it.name.as_bytes()),
                    mode(it.mode).to_owned(),
                    lag(it),
                    it.in_flight.to_string(),
                    it.returned.to_string(),
                    it.dead.to_string(),
                ]
            })
        }
        Subscription::Show { topic, name } => show(connection, &named(&topic, &name)?.show().await?),
        Subscription::Delete { topic, name } => {
            let done = named(&topic, &name)?.delete().await?;
            connection.output().item(&done, &[("deleted", done.deleted.to_string())])
        }
        Subscription::Receive(args) => receive(connection, args).await,
        Subscription::Ack { topic, name, receipts } => {
            settled(connection, &named(&topic, &name)?.ack(receipts).await?)
        }
        Subscription::Nack(args) => {
            let GiveBack { topic, name, receipts, how } = args;
            settled(connection, &named(&topic, &name)?.nack(receipts, &how.into()).await?)
        }
        Subscription::Seek { topic, name, to } => show(connection, &named(&topic, &name)?.seek(to).await?),
    }
}

async fn receive(connection: &Connection, args: Receive) -> Result<(), Failure> {
    let subscription = connection.client()?.topic(&args.topic).subscription(&args.name);
    let mut receive = subscription.receive().max(args.max).wait(args.wait.unwrap_or_default().into());
    if let Some(visibility) = args.visibility {
        receive = receive.visibility(visibility.into());
    }
    if let Some(session) = args.session {
        receive = receive.session(session);
    }
    let received = receive.await?;
    if let Some(gap) = received.gap {
        eprintln!("coracle: messages after {} up to {} are no longer kept", gap.from, gap.to);
    }
    if received.items.is_empty() {
        eprintln!("coracle: nothing to be had");
        return Err(Failure::Exit(WAIT_RAN_OUT));
    }
    let output = connection.output();
    if output.format() == Format::Raw {
        // The bytes as they were published; receipts are for those who ask for JSON.
        let mut out = std::io::stdout().lock();
        for delivery in &received.items {
            out.write_all(&delivery.message.value.bytes)?;
        }
        out.flush()?;
    } else {
        output.list(&received.items, &["RECEIPT", "TOPIC", "SEQ", "TRIES", "VALUE"], |delivery| {
            vec![
                delivery.receipt.clone(),
                readable(delivery.message.topic.as_bytes()),
                delivery.message.seq.to_string(),
                delivery.deliveries.to_string(),
                short(&delivery.message.value.bytes),
            ]
        })?;
    }
    if args.ack {
        subscription.ack(received.items.into_iter().map(|delivery| delivery.receipt).collect()).await?;
    }
    Ok(())
}

fn show(connection: &Connection, it: &View) -> Result<(), Failure> {
    let mut fields = vec![
        ("subscription", readable(it.name.as_bytes())),
        ("topic", readable(it.topic.as_bytes())),
        ("mode", mode(it.mode).to_owned()),
        ("lag", lag(it)),
    ];
    fields.extend(it.oldest.map(|time| ("oldest", time.to_string())));
    fields.extend([
        ("in flight", it.in_flight.to_string()),
        ("returned", it.returned.to_string()),
        ("delivered", it.delivered.to_string()),
        ("acknowledged", it.acked.to_string()),
        ("dead", format!("{} to {}", it.dead, readable(it.dead_letter.as_bytes()))),
        ("gaps", it.gaps.to_string()),
        ("visibility", it.visibility.to_string()),
    ]);
    fields.extend(it.filter.as_ref().map(|filter| ("filter", readable(filter.as_bytes()))));
    fields.extend(it.consumer.map(|session| ("consumer", session.to_string())));
    connection.output().item(it, &fields)
}

fn lag(it: &View) -> String {
    if it.lag_is_more { format!("{} or more", it.lag) } else { it.lag.to_string() }
}

fn mode(mode: SubscriptionMode) -> &'static str {
    match mode {
        SubscriptionMode::Shared => "shared",
        SubscriptionMode::Exclusive => "exclusive",
    }
}
