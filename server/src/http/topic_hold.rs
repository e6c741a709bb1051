//! ⑦ `receive?hold=true` of a subscription: a stream of deliveries that lives with its connection.
//!
//! What is claimed is to be a consumer: of an exclusive subscription the stream waits until it is the one. At most `max`
//! messages are unsettled at a time; each one that is settled makes room for the next.

use std::time::Instant;

use coracle_api::{Deliveries, Gap, HoldFrame};
use coracle_raft::node::Watch;
use coracle_recipes::topic::{self, Received};
use coracle_store::{Key, Revision, Selection, SessionId, Timestamp, session};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::claim;
use super::held::end_of;
use super::hold::{Held, Holding};
use super::problem::Answer;
use super::topic_receive::{Answered, Ready, Receiving, Seen, delivery, line_of};
use super::turn::{any_changed, watches};
use super::wire;
use crate::edge::Edge;
use crate::lines::First;

pub struct Consuming {
    receiving: Receiving,
    session: SessionId,
    /// Of the session.
    revision: Revision,
    /// The session itself.
    own: Watch,
    /// Unsettled messages at most.
    max: u64,
    begun: bool,
    /// Among those who receive through this node: on the way to the front, or there, with what wakes it.
    line: Option<BoxFuture<'static, First>>,
    front: Option<(First, Watch, Watch)>,
    seen: Seen,
    /// Behind whom it was told to wait, by the token, and when.
    told: Option<(Option<Revision>, Instant)>,
}

impl Consuming {
    /// By a session that was opened at a revision.
    pub fn new(receiving: Receiving, session: SessionId, revision: Revision) -> Self {
        let (max, begun, line, front, seen) = (receiving.receive.max, false, None, None, Seen::default());
        let own = receiving.edge.node.watch(Selection::Key(session::key(session)));
        Self { receiving, session, revision, own, max, begun, line, front, seen, told: None }
    }

    /// What it has in flight.
    fn flights(&self) -> Vec<Key> {
        let name = &self.receiving.receive.from;
        self.receiving.edge.node.read(|store| topic::flights(store.view(), name, self.session))
    }

    fn room(&self) -> u64 {
        self.max.saturating_sub(self.flights().len() as u64)
    }

    /// Whether there is something to ask for.
    async fn is_ready(&mut self, granted: bool) -> bool {
        if !std::mem::replace(&mut self.begun, true) {
            return true;
        }
        if self.front.is_none() {
            return false;
        }
        loop {
            let receive = &self.receiving.receive;
            let (ready, free) = self.receiving.edge.node.read(|store| {
                let view = store.view();
                let ready = self.seen.look(view, &receive.from, &receive.attach);
                (ready, topic::consumer(view, &receive.from).is_none())
            });
            match ready {
                Ready::Yes | Ready::Gone => return true,
                Ready::No => return free && !granted,
                Ready::More => tokio::task::yield_now().await,
            }
        }
    }

    /// It consumes.
    fn granted(&self, holding: &mut Holding) {
        if !holding.is_granted() {
            let token = self.consumer(&holding.edge).map_or(self.revision, |(_, since, _)| since);
            holding.acquired(token, None);
        }
    }

    fn consumer(&self, edge: &Edge) -> Option<(SessionId, Revision, Timestamp)> {
        edge.node.read(|store| topic::consumer(store.view(), &self.receiving.receive.from))
    }

    /// If another consumes, say so. Nobody has a place here: whoever asks first when the other has gone is the next.
    fn waiting(&mut self, holding: &mut Holding) {
        let consumer = self.consumer(&holding.edge).filter(|(consumer, ..)| *consumer != self.session);
        if consumer.is_none() && holding.is_granted() {
            return;
        }
        holding.set_granted(false);
        // Other receivers come and go: only what is new is told, and that it is still so.
        let (behind, soon) = (consumer.map(|(_, since, _)| since), holding.ttl().as_duration() / 6);
        if self.told.is_some_and(|(told, at)| told == behind && at.elapsed() < soon) {
            return;
        }
        self.told = Some((behind, Instant::now()));
        let blocker = |(session, token, since)| claim::consumer(session, token, since);
        let blockers = consumer.map(blocker).into_iter().collect();
        holding.send("waiting", &HoldFrame::Waiting { position: 1, blockers });
    }

    fn deliver(&self, holding: &mut Holding, got: &Received) {
        if got.deliveries.is_empty() && got.gap.is_none() {
            return;
        }
        let session = wire::session(self.session);
        let items = Deliveries::OfTopic(got.deliveries.iter().map(delivery).collect());
        let gap = got.gap.map(|(from, to)| Gap { from, to });
        holding.send("delivered", &HoldFrame::Delivered { session, items, gap });
    }
}

impl Held for Consuming {
    async fn look(&mut self, holding: &mut Holding) -> Answer<()> {
        if let Some(reason) = end_of(&holding.edge, self.session).filter(|_| self.begun) {
            holding.lost(reason, None);
            return Ok(());
        }
        let room = self.room();
        while room > 0 && self.is_ready(holding.is_granted()).await {
            self.receiving.receive.max = room;
            let Answered::Received(revision, got) = self.receiving.ask().await? else { break };
            holding.edge.node.wait_revision(revision, holding.edge.deadline()).await?;
            self.granted(holding);
            self.deliver(holding, &got);
            if !got.deliveries.is_empty() {
                // Now it is another's turn.
                self.front = None;
                return Ok(());
            }
        }
        self.waiting(holding);
        Ok(())
    }

    async fn changed(&mut self) {
        let flights = self.flights();
        if flights.len() as u64 >= self.max {
            (self.line, self.front) = (None, None);
            let watches = watches(&self.receiving.edge, &flights);
            // One may have been settled between the look and the registration.
            if self.flights() == flights {
                any_changed(watches).await;
            }
            return;
        }
        if let Some((_, messages, back)) = &mut self.front {
            tokio::select! {
                _ = messages.changed() => {}
                _ = back.changed() => {}
                _ = self.own.changed() => {}
            }
            return;
        }
        let (edge, name) = (&self.receiving.edge, &self.receiving.receive.from);
        let line = self.line.get_or_insert_with(|| {
            let (lines, name) = (edge.receivers.clone(), line_of(name));
            async move { lines.first(name).await }.boxed()
        });
        let first = tokio::select! {
            first = line => first,
            _ = self.own.changed() => return,
        };
        let messages = edge.node.watch(topic::messages(&name.subject));
        let back = edge.node.watch(topic::wake(name));
        (self.line, self.front) = (None, Some((first, messages, back)));
    }
}
