//! The rows of topics and their subscriptions.

use coracle_api::Code::{
    CursorExpired, MessageNotFound, ReceiptStale, SeqMismatch, SessionExpired, SessionRequired,
    SubscriptionBusy, SubscriptionNotFound, TooLarge, TooManyInFlight, TooManyWaiters, TopicFull,
    TopicNotFound, UnsupportedMediaType,
};
use coracle_api::{
    Deleted, HoldFrame, Page, Published, Receipts, SettledMany, Span, Subscription, SubscriptionConfig,
    Topic, TopicConfig, TopicDeleted, TopicFrame, TopicMessage, TopicMessages, TopicReceived,
};

use super::super::endpoint::{Content, Endpoint, Family, delete, get, post, put};
use super::super::params::{Kind, LIMIT_OF_BOTH, PREFIX, Param, REASON, WAIT, WATCH};
use super::super::subscription::{VISIBILITY_MAX, VISIBILITY_MIN};
use super::super::topic::{TTL_MAX, TTL_MIN};
use super::super::{subscription, topic, topic_read, topic_receive};

const SECOND: Span = Span::from_millis_saturating(1_000);

const TOPIC: Param =
    Param::name("topic").says("The topic: tokens with dots between them.").in_path().example("orders.paid");
const SUBJECT: Param = Param::name("topic")
    .says("A topic, or a pattern: `*` stands for one token, `>` for the rest.")
    .in_path()
    .example("orders.*");
const SUBSCRIPTION: Param = Param::name("name").says("The subscription.").in_path().example("mailer");
const SEQ: Param = Param::number("seq", 1).says("The message.").in_path();

const POSITION: &str = "^(new|first|last|[0-9]+|[0-9]{4}-.+)$";
const READ_FROM: &[Param] = &[
    Param::number("after", 0)
        .says("The last position seen: a seq of a topic, a revision of a pattern. Reading goes on behind it.")
        .twin("Last-Event-ID", "41"),
    Param::new("from", Kind::Pattern(POSITION))
        .says("`new`, `first`, `last`, a seq, or a time. Without it and `after`: the first of a page, the new of a wait or stream.")
        .example("first"),
    LIMIT_OF_BOTH,
    WATCH,
    Param::duration("heartbeat", SECOND, super::super::call::WAIT_MAX).says("A `progress` frame at least so often.").with("watch=true"),
];
const PUBLISH: &[Param] = &[
    Param::name("key").says("What the message is about: for `max_per_key` and filters."),
    Param::duration("ttl", TTL_MIN, TTL_MAX).says("The message is gone after that."),
    Param::number("expect_last_seq", 0)
        .says("Only if this is the last seq of the topic; 0: only if it does not exist.")
        .example("0"),
];
const BATCH: Param =
    Param::flag("batch").says("The body is `{\"items\":[..]}`: all of it or nothing, one after the other.");
const RECEIVE: &[Param] = &[
    Param::new("max", Kind::Number(1, 100)).says("Messages at most; 1 if not given."),
    WAIT,
    VISIBILITY,
    Param::flag("ack").says("Acknowledged at once: at most once, no receipts to bring."),
    Param::text("acks")
        .says("A receipt to acknowledge in the same entry. May repeat.")
        .repeats()
        .example(A_RECEIPT),
];
const VISIBILITY: Param = Param::duration("visibility", VISIBILITY_MIN, VISIBILITY_MAX)
    .says("How long it may stay unsettled; then it comes back.");
const RECEIPT: Param = Param::text("receipt")
    .says("Of a delivery. May repeat; more fit into the body.")
    .repeats()
    .example(A_RECEIPT);
const NACK: &[Param] = &[
    Param::duration("delay", Span::ZERO, VISIBILITY_MAX).says("It comes back after that, not at once."),
    Param::flag("count").says("`false`: this delivery does not count."),
    Param::flag("fatal").says("Dead at once."),
    REASON,
];
const TO: Param = Param::new("to", Kind::Pattern(POSITION))
    .says("`new`, `first`, `last`, a seq, or a time.")
    .required()
    .example("first");
const A_RECEIPT: &str = "r1:goMYKQEBGCo";

pub fn family() -> Family {
    Family {
        name: "Topics",
        says: "Publish and subscribe: logs under dot-separated names, patterns, retention, durable subscriptions.",
        rows: topic_rows().into_iter().chain(subscription_rows()).collect(),
    }
}

#[rustfmt::skip]
fn topic_rows() -> Vec<Endpoint> {
    vec![
        get("/v1/topics", topic::list).says("List topics, and patterns that have subscriptions.")
            .takes(&[PREFIX]).pages().waits().watches::<Topic>().answers::<Page<Topic>>(200).problems(&[CursorExpired]),
        get("/v1/topics/{topic}", topic::show).says("What a topic keeps, and its bounds.")
            .takes(&[SUBJECT]).waits().watches::<Topic>().answers::<Topic>(200).problems(&[TopicNotFound]),
        put("/v1/topics/{topic}", topic::configure).says("Set the bounds of a topic.")
            .more("What is absent is the default. `max_per_key: 1` makes a table of current values, without an age.")
            .takes(&[TOPIC]).json::<TopicConfig>().sample(r#"{"max_age":"1h"}"#).changes().answers::<Topic>(200).answers::<Topic>(201),
        delete("/v1/topics/{topic}", topic::delete).says("Forget a topic: messages, bounds, subscriptions.")
            .takes(&[TOPIC]).changes().answers::<TopicDeleted>(200).problems(&[TopicNotFound]),
        post("/v1/topics/{topic}/messages", topic::publish).says("Publish a message, or a batch.")
            .more("The body is the message; headers `Coracle-Meta-*` go with it.")
            .takes(&[TOPIC]).takes(PUBLISH).takes(&[BATCH]).changes().value().sample(r#"{"items":[{"value":"first"}]}"#).answers::<Published>(201)
            .problems(&[TopicFull, SeqMismatch, UnsupportedMediaType]),
        get("/v1/topics/{topic}/messages", topic_read::messages).says("Read or follow messages.")
            .more("Positions are seqs of a topic, and revisions of a pattern: there is one order over all topics.")
            .takes(&[SUBJECT]).reads().takes(READ_FROM).takes(&[WAIT]).formats(&["json"])
            .answers::<TopicMessages>(200).answers_with(304, Content::None).streams::<TopicFrame>("watch=true").problems(&[TooManyWaiters]),
        get("/v1/topics/{topic}/messages/{seq}", topic_read::message_of).says("One message.")
            .takes(&[TOPIC, SEQ]).reads().formats(&["json", "raw"])
            .answers::<TopicMessage>(200).answers_with(200, Content::Value).problems(&[MessageNotFound]),
    ]
}

#[rustfmt::skip]
fn subscription_rows() -> Vec<Endpoint> {
    vec![
        get("/v1/topics/{topic}/subscriptions", subscription::list).says("List the subscriptions of a topic or pattern.")
            .takes(&[SUBJECT]).pages().waits().answers::<Page<Subscription>>(200).problems(&[CursorExpired]),
        get("/v1/topics/{topic}/subscriptions/{name}", subscription::show).says("Where a subscription is, and how far behind.")
            .takes(&[SUBJECT, SUBSCRIPTION]).reads().answers::<Subscription>(200).problems(&[SubscriptionNotFound]),
        put("/v1/topics/{topic}/subscriptions/{name}", subscription::subscribe).says("Make a durable subscription, or change its settings.")
            .more("A new one begins at `from`; one that exists stays where it is.")
            .takes(&[SUBJECT, SUBSCRIPTION]).json::<SubscriptionConfig>().sample(r#"{"from":"first"}"#).changes()
            .answers::<Subscription>(200).answers::<Subscription>(201).problems(&[SubscriptionNotFound]),
        delete("/v1/topics/{topic}/subscriptions/{name}", subscription::unsubscribe).says("Forget a subscription.")
            .takes(&[SUBJECT, SUBSCRIPTION]).changes().answers::<Deleted>(200).problems(&[SubscriptionNotFound]),
        post("/v1/topics/{topic}/subscriptions/{name}/receive", topic_receive::receive).says("Receive messages to be settled by receipt.")
            .more("With a session what is not settled when that ends comes back at once. `format=raw` answers one bare message with its receipt in `Coracle-Receipt`, or 204.")
            .takes(&[SUBJECT, SUBSCRIPTION]).takes(RECEIVE).trio().changes().formats(&["json", "raw"])
            .answers::<TopicReceived>(200).answers_with(200, Content::Value).answers_with(204, Content::None).streams::<HoldFrame>("hold=true")
            .problems(&[SubscriptionNotFound, SubscriptionBusy, SessionRequired, SessionExpired, TooManyInFlight, TooManyWaiters]),
        post("/v1/topics/{topic}/subscriptions/{name}/ack", subscription::ack).says("Acknowledge deliveries, for good.")
            .takes(&[SUBJECT, SUBSCRIPTION, RECEIPT]).needs(NEEDS).json::<Receipts>().changes()
            .answers::<SettledMany>(200).problems(&[ReceiptStale, SubscriptionNotFound]),
        post("/v1/topics/{topic}/subscriptions/{name}/nack", subscription::nack).says("Give deliveries back.")
            .takes(&[SUBJECT, SUBSCRIPTION, RECEIPT]).takes(NACK).needs(NEEDS).json::<Receipts>().changes()
            .answers::<SettledMany>(200).problems(&[ReceiptStale, SubscriptionNotFound]),
        post("/v1/topics/{topic}/subscriptions/{name}/renew", subscription::renew).says("Keep deliveries longer.")
            .takes(&[SUBJECT, SUBSCRIPTION, RECEIPT, VISIBILITY]).needs(NEEDS).json::<Receipts>().changes()
            .answers::<SettledMany>(200).problems(&[ReceiptStale, SubscriptionNotFound]),
        post("/v1/topics/{topic}/subscriptions/{name}/seek", subscription::seek).says("Go to another place; what was handed out is forgotten.")
            .takes(&[SUBJECT, SUBSCRIPTION, TO]).changes().answers::<Subscription>(200).problems(&[SubscriptionNotFound, TooLarge]),
    ]
}

const NEEDS: &str = "receipt=r1:goMYKQEBGCo";
