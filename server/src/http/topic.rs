//! ① Topics: publish, settings, delete.

use coracle_api::{Code, Problem};
use coracle_recipes::topic;

/// Why a topic or subscription was not changed.
pub fn problem(refusal: &topic::Refusal) -> Problem {
    use topic::Refusal;
    match refusal {
        Refusal::NoSubject(text) => {
            let detail = format!("tokens with dots between them; * and > stand for tokens actual={text:?}");
            Problem::invalid("path", "name", detail)
        }
        Refusal::LastSeq(actual) => {
            let detail = format!("somebody has published since last_seq={actual}");
            Problem::new(Code::SeqMismatch, detail).with("last_seq", actual)
        }
        Refusal::Full(messages, bytes) => {
            let detail = format!("the topic would keep more than it may messages={messages} bytes={bytes}");
            Problem::new(Code::TopicFull, detail).with("messages", messages).with("bytes", bytes)
        }
        Refusal::TooLarge => {
            Problem::new(Code::TooLarge, "more in one publish than the topic keeps at all limit=retention")
                .with("limit", "retention")
        }
        Refusal::NoTopic => {
            Problem::new(Code::TopicNotFound, "no message, no settings and no subscription under this name")
        }
        Refusal::NoSubscription => Problem::new(Code::SubscriptionNotFound, "no such subscription"),
        Refusal::Consumed(session, since) => {
            let detail = format!("another session receives session={session} since={since}");
            Problem::new(Code::SubscriptionBusy, detail)
                .with("session", session.to_string())
                .with("since", since.0)
        }
        Refusal::NeedsSession => {
            let detail = "an exclusive subscription is received from with session, ttl or hold";
            Problem::invalid("query", "session", detail)
        }
        Refusal::TooManyInFlight(most) => {
            let detail = format!("acknowledge or give back first max={most}");
            Problem::new(Code::TooManyInFlight, detail).with("max", most)
        }
        Refusal::TooManySubscriptions(most) => {
            let detail = format!("over a limit limit=subscriptions_per_topic max={most}");
            Problem::new(Code::TooLarge, detail).with("limit", "subscriptions_per_topic").with("max", most)
        }
    }
}
