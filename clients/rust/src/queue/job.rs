//! A delivery that is being worked on: it stays ours as long as it is renewed.

use std::time::{Duration, Instant};

use coracle_api::queue::Message;
use coracle_api::{Code, Instant as Moment, Span};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Queue;
use crate::{Error, LossReason, Nack};

/// Visibility where neither the receiver nor the message says one.
const VISIBILITY: Duration = Duration::from_secs(30);

/// One message, received. It is renewed in the background until it is settled or dropped; dropped without having been
/// settled it becomes visible again when its time is over.
#[derive(Debug)]
pub struct Job {
    queue: Queue,
    message: Message,
    lost: watch::Receiver<Option<LossReason>>,
    keeper: Option<AbortHandle>,
}

impl Job {
    pub(super) fn new(queue: Queue, message: Message, asked: Option<Duration>, sent: Instant) -> Self {
        let (tell, lost) = watch::channel(None);
        // With a session it lives with that, and nobody has to renew it here.
        let keeper = match (&message.receipt, message.until) {
            (Some(receipt), Some(until)) => {
                let visibility = asked.unwrap_or_else(|| span(message.since, until));
                let keeping = keep(queue.clone(), receipt.clone(), asked, visibility, sent);
                let task = tokio::spawn(async move { tell.send_replace(Some(keeping.await)) });
                Some(task.abort_handle())
            }
            _ => None,
        };
        Self { queue, message, lost, keeper }
    }

    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The bytes that were sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.message.value.bytes
    }

    #[must_use]
    pub fn receipt(&self) -> &str {
        self.message.receipt.as_deref().unwrap_or_default()
    }

    /// Resolves when the delivery is no longer ours: somebody else may have it by then.
    pub async fn lost(&self) -> LossReason {
        let mut lost = self.lost.clone();
        loop {
            if let Some(reason) = *lost.borrow_and_update() {
                return reason;
            }
            if lost.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// It is done: never delivered again.
    ///
    /// # Errors
    /// `receipt_stale` if it was no longer ours; see [`Error`].
    pub async fn ack(self) -> Result<(), Error> {
        self.queue.ack(vec![self.receipt().to_owned()]).await.map(drop)
    }

    /// Give it back.
    ///
    /// # Errors
    /// `receipt_stale` if it was no longer ours; see [`Error`].
    pub async fn nack(self, nack: &Nack) -> Result<(), Error> {
        self.queue.nack(vec![self.receipt().to_owned()], nack).await.map(drop)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

/// From a delivery until the message is visible again, as the message says.
fn span(since: Option<Moment>, until: Moment) -> Duration {
    let Some(since) = since else { return VISIBILITY };
    let ms = until.unix_ms().saturating_sub(since.unix_ms());
    if ms == 0 { VISIBILITY } else { Duration::from_millis(ms) }
}

/// Renew at every third of the visibility, until it cannot be ours any more; why.
async fn keep(
    queue: Queue,
    receipt: String,
    asked: Option<Duration>,
    visibility: Duration,
    sent: Instant,
) -> LossReason {
    let mut until = sent + visibility;
    let mut pause = visibility / 3;
    loop {
        tokio::time::sleep(pause).await;
        let asked_at = Instant::now();
        let left = until.saturating_duration_since(asked_at);
        match tokio::time::timeout(left, queue.renew(vec![receipt.clone()], asked)).await {
            Ok(Ok(settled)) if settled.items.first().is_some_and(|item| item.ok) => {
                until = asked_at + settled.visibility.map_or(visibility, Span::as_duration);
                pause = visibility / 3;
            }
            Ok(Ok(_)) => return LossReason::Expired,
            Ok(Err(error)) if error.code() == Some(Code::ReceiptStale) => return LossReason::Expired,
            Ok(Err(_)) | Err(_) if Instant::now() >= until => return LossReason::OutOfTime,
            Ok(Err(_)) | Err(_) => pause = visibility / 12,
        }
    }
}
