//! The rows of queues.

use coracle_api::Code::{
    CursorExpired, FenceStale, MessageNotFound, NotConsumer, QueueFull, QueueKindMismatch, QueueNotEmpty,
    QueueNotFound, ReceiptStale, SessionExpired, SessionRequired, TooManyWaiters, UnsupportedMediaType,
};
use coracle_api::queue::{
    Consuming, Controlled, Count, Message, Queue, QueueConfig, Received, Sent, SentOneOrMany,
};
use coracle_api::{Deleted, HoldFrame, Page, Receipts, SettledMany, Span};
use coracle_recipes::queue::{RECEIVE, SPAN, VISIBILITY};

use super::super::endpoint::{Content, Endpoint, Family, delete, get, post, put};
use super::super::params::{HOLD, Kind, ON_DISCONNECT, PREFIX, Param, REASON, SESSION, TO, WAIT};
use super::super::queue;

const LONGEST: Span = Span::from_millis_saturating(SPAN.0);
const SHORTEST: Span = Span::from_millis_saturating(VISIBILITY.0);

const SEND: &[Param] = &[
    Param::new("priority", Kind::Number(0, 9)).says("The highest first; in queues of kind `priority`."),
    Param::name("group").says("At most one message of a group is in flight."),
    Param::duration("delay", Span::ZERO, LONGEST).says("Not before this."),
    Param::duration("ttl", Span::ZERO, LONGEST)
        .says("Not later than this. In a barrier queue: it goes with a session of its own, of this lifetime.")
        .example("1h"),
    Param::name("dedup_id").says("Sent again within the queue's window it is the same message."),
    Param::name("id").says("The producer's name of an item of a barrier queue: once a generation."),
    Param::session("session").says("Withdraws the item of a barrier queue if it ends before the release."),
    HOLD,
    ON_DISCONNECT,
    Param::flag("batch").says("The body is `{\"items\":[..]}`: all of them or none, one behind the other."),
    WAIT,
];
const RECEIVING: &[Param] = &[
    Param::new("max", Kind::Number(1, RECEIVE as u64)).says("Messages at most; 1 if not given."),
    Param::duration("visibility", SHORTEST, LONGEST)
        .says("Until they are visible again, if not settled before."),
    Param::flag("ack").says("They are gone when they are delivered: at most once."),
    Param::number("after", 0).says("The generation seen last, in a barrier queue with `delivery=broadcast`."),
    Param::text("acks").says("Receipts to acknowledge in the same entry.").repeats().example("r1:812-0.830"),
    WAIT,
];
const RECEIPT: Param =
    Param::text("receipt").says("Of a delivery; or `{\"receipts\":[..]}`.").repeats().example("r1:812-0.830");
const NACK: &[Param] = &[
    RECEIPT,
    Param::duration("delay", Span::ZERO, LONGEST)
        .says("Not ready before this, instead of the queue's back-off."),
    Param::flag("count").says("`false`: the delivery does not count."),
    Param::flag("fatal").says("To the dead letters at once."),
    REASON,
];
const ID: Param =
    Param::new("id", Kind::Pattern("^[0-9]+-[0-9]+$")).says("The message.").in_path().example("812-0");
const STATE: Param = Param::word("state", &["ready", "blocked", "delayed", "in_flight", "held", "dead"])
    .says("Only these: `ready` in the order of delivery, `dead` those of the dead letter queue.");
const TOKEN: Param = Param::number("token", 1).says("Of the claim that `barrier.guard` names.");

pub fn family() -> Family {
    Family {
        name: "Queues",
        says: "Messages in order, assigned by the server to whoever has waited longest, settled by receipt. Barrier \
               queues hold them until a condition holds, then release all at once.",
        rows: rows(),
    }
}

#[rustfmt::skip]
fn rows() -> Vec<Endpoint> {
    vec![
        get("/v1/queues", queue::list).says("List queues.")
            .takes(&[PREFIX]).pages().waits().watches::<Queue>().answers::<Page<Queue>>(200).problems(&[CursorExpired]),
        get("/v1/queues/{name}", queue::show).says("How a queue is configured, what is in it, who waits.")
            .waits().watches::<Queue>().answers::<Queue>(200).problems(&[QueueNotFound]),
        put("/v1/queues/{name}", queue::configure).says("Configure a queue.")
            .json::<QueueConfig>().sample(r#"{"visibility":"1m","max_deliveries":3}"#).changes()
            .answers::<Queue>(200).answers::<Queue>(201).problems(&[QueueNotEmpty, QueueKindMismatch]),
        delete("/v1/queues/{name}", queue::delete).says("Delete a queue with all its messages.")
            .changes().answers::<Deleted>(200).problems(&[QueueNotFound, QueueNotEmpty]),
        get("/v1/queues/{name}/messages", queue::messages).says("Look at messages, without effect.")
            .takes(&[STATE, Param::number("generation", 1).says("Items of this generation of a barrier queue, in their order.")])
            .more("In a watch with `state` an event says that a message `entered` it or `left` it.")
            .pages().waits().watches::<Message>().answers::<Page<Message>>(200).problems(&[CursorExpired]),
        post("/v1/queues/{name}/messages", queue::send).says("Send a message: the body is the value.")
            .more("202: with `wait` in a barrier queue with `delivery=self`, the item is in and its turn has not come.")
            .takes(SEND).value().sample(r#"{"items":[{"value":"hello"}]}"#).changes().answers::<Sent>(200).answers::<SentOneOrMany>(201).answers::<Sent>(202).streams::<HoldFrame>("hold=true")
            .problems(&[QueueFull, QueueKindMismatch, SessionExpired, MessageNotFound, UnsupportedMediaType]),
        get("/v1/queues/{name}/messages/{id}", queue::message).says("Look at one message.")
            .takes(&[ID]).waits().watches::<Message>().answers::<Message>(200).problems(&[MessageNotFound]),
        delete("/v1/queues/{name}/messages/{id}", queue::remove).says("Take one message out, whatever its state.")
            .takes(&[ID]).changes().answers::<Deleted>(200).problems(&[MessageNotFound]),
        post("/v1/queues/{name}/receive", queue::receive).says("Receive messages, or wait for them in line.")
            .more("With a session the delivery lasts as long as the session. 204: `format=raw`, and there is nothing.")
            .takes(RECEIVING).trio().formats(&["json", "raw"]).changes()
            .answers::<Received>(200).answers_with(200, Content::Value).answers_with(204, Content::None).streams::<HoldFrame>("hold=true")
            .problems(&[SessionRequired, SessionExpired, TooManyWaiters, QueueKindMismatch]),
        post("/v1/queues/{name}/ack", queue::ack).says("Acknowledge deliveries: their messages are done.")
            .takes(&[RECEIPT]).needs("receipt=r1:812-0.830").json::<Receipts>().changes().answers::<SettledMany>(200).problems(&[ReceiptStale]),
        post("/v1/queues/{name}/nack", queue::nack).says("Give deliveries back: now, later, or to the dead letters.")
            .takes(NACK).needs("receipt=r1:812-0.830").json::<Receipts>().changes().answers::<SettledMany>(200).problems(&[ReceiptStale]),
        post("/v1/queues/{name}/renew", queue::renew).says("Let the visibility of deliveries begin anew.")
            .takes(&[RECEIPT, Param::duration("visibility", SHORTEST, LONGEST).says("Instead of the queue's.")])
            .needs("receipt=r1:812-0.830").json::<Receipts>().changes().answers::<SettledMany>(200).problems(&[ReceiptStale]),
        post("/v1/queues/{name}/purge", queue::purge).says("Remove what waits; what was sent before the request.")
            .takes(&[Param::flag("in_flight").says("Also what is in flight.")]).changes().answers::<Count>(200),
        post("/v1/queues/{name}/redrive", queue::redrive).says("Bring dead letters back to the queues they died in.")
            .takes(&[
                Param::name("to").says("To this queue instead."),
                Param::new("rate", Kind::Number(1, 100_000)).says("So many a second."),
                Param::number("limit", 1).says("So many at most."),
            ]).changes().answers::<Count>(200).problems(&[QueueNotFound]),
        post("/v1/queues/{name}/open", queue::open).says("Go on delivering; or signal or release what fills in a barrier queue.")
            .takes(&[Param::name("signal").says("What the generation waits for.").example("go"), Param::flag("now").says("Release it now, whatever its conditions say."), TOKEN.with("now=true")])
            .changes().answers::<Controlled>(200).problems(&[QueueKindMismatch, FenceStale]),
        post("/v1/queues/{name}/close", queue::close).says("Take messages, but deliver none.")
            .changes().answers::<Controlled>(200),
        post("/v1/queues/{name}/break", queue::break_generation).says("End the generation that fills, without releasing it.")
            .takes(&[REASON, TOKEN, Param::word("items", &["carry_over", "dead_letter", "drop"]).says("What becomes of its items.")])
            .changes().answers::<Controlled>(200).problems(&[QueueKindMismatch, FenceStale]),
        post("/v1/queues/{name}/transfer", queue::transfer).says("Make another session the one consumer.")
            .takes(&[SESSION, TO]).changes().answers::<Consuming>(200).problems(&[NotConsumer, SessionExpired]),
    ]
}
