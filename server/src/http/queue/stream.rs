//! ⑦ `receive?hold=true`: a stream of deliveries that lives with its connection.
//!
//! What is claimed is to be a consumer: of a queue with one consumer the stream waits until it is the one. At most `max`
//! messages are unsettled at a time; each one that is settled makes room for the next. They depend on the session of the
//! connection: when it goes, so do they, back to the queue.

use coracle_api::{self as api, Deliveries, HoldFrame};
use coracle_recipes::queue::{self, Delivered, Outcome, Receive, Terms, Ticket, Turn};
use coracle_store::{Attach, Key, Revision, SessionId};

use super::super::claim::{self, Standing};
use super::super::held::Told;
use super::super::hold::{Held, Holding};
use super::super::problem::Answer;
use super::super::turn::{any_changed, watches};
use super::super::wire as ids;
use super::{delivered, odd, receive, said, shown};
use crate::edge::Edge;

pub struct Consuming {
    edge: Edge,
    queue: String,
    terms: Terms,
    session: SessionId,
    /// Of the session.
    revision: Revision,
    /// Its place in the line, while it is there.
    ticket: Option<Ticket>,
    told: Told,
}

impl Held for Consuming {
    async fn look(&mut self, holding: &mut Holding) -> Answer<()> {
        let due = self.ticket.filter(|ticket| self.turn(*ticket) != Turn::Waiting);
        let delivered = match due {
            Some(ticket) => self.collect(holding, ticket).await?,
            None => None,
        };
        let delivered = match delivered {
            None if self.ticket.is_none() => self.ask(holding).await?,
            delivered => delivered,
        };
        self.standing(holding);
        if let Some(delivered) = delivered {
            self.deliver(holding, &delivered);
        }
        Ok(())
    }

    async fn changed(&mut self) {
        let keys = self.watched();
        let watches = watches(&self.edge, &keys);
        // Something may have happened between the look and the registration.
        let now = match self.ticket {
            Some(ticket) => self.turn(ticket) != Turn::Waiting,
            None => self.room() > 0 || self.watched() != keys,
        };
        if !now {
            any_changed(watches).await;
        }
    }
}

impl Consuming {
    /// By a session that was opened at a revision.
    pub fn new(edge: Edge, queue: String, terms: Terms, session: SessionId, revision: Revision) -> Self {
        Self { edge, queue, terms, session, revision, ticket: None, told: Told::default() }
    }

    fn turn(&self, ticket: Ticket) -> Turn {
        self.edge.node.read(|store| queue::turn(store.view(), &self.queue, ticket))
    }

    /// What it has in flight.
    fn flights(&self) -> Vec<Key> {
        self.edge.node.read(|store| queue::flights(store.view(), &self.queue, self.session))
    }

    fn room(&self) -> u32 {
        self.terms.max.saturating_sub(u32::try_from(self.flights().len()).unwrap_or(u32::MAX))
    }

    /// What wakes it: its turn or that it has room again, and who is the one consumer.
    fn watched(&self) -> Vec<Key> {
        let mut keys = match self.ticket {
            Some(ticket) => vec![queue::watched(&self.queue, ticket)],
            None => self.flights(),
        };
        keys.push(queue::watched_consumer(&self.queue));
        keys
    }

    /// Take what is there, or a place in the line, if there is room.
    async fn ask(&mut self, holding: &Holding) -> Answer<Option<Delivered>> {
        let room = self.room();
        if room == 0 {
            return Ok(None);
        }
        let receive = Receive {
            queue: self.queue.as_str().into(),
            terms: Terms { max: room, ..self.terms },
            attach: Attach::Session(self.session),
            wait: true,
            acks: Vec::new(),
        };
        let deadline = self.edge.deadline();
        let reply = receive::propose(&self.edge, &holding.caller, receive, deadline).await?;
        let (revision, _, outcome) = said(reply)?;
        self.edge.node.wait_revision(revision, deadline).await?;
        match outcome {
            Outcome::Delivered(delivered) => Ok(Some(delivered)),
            Outcome::Waiting(ticket, ..) => {
                self.ticket = Some(ticket);
                Ok(None)
            }
            other => Err(odd(other)),
        }
    }

    async fn collect(&mut self, holding: &Holding, ticket: Ticket) -> Answer<Option<Delivered>> {
        self.ticket = None;
        match receive::collect(&self.edge, &holding.caller, &self.queue, ticket).await {
            Ok((revision, _, outcome)) => {
                self.edge.node.wait_revision(revision, self.edge.deadline()).await?;
                match outcome {
                    Outcome::Delivered(delivered) => Ok(Some(delivered)),
                    Outcome::Waiting(..) => {
                        self.ticket = Some(ticket);
                        Ok(None)
                    }
                    other => Err(odd(other)),
                }
            }
            // It came too late; or the session has ended, as the next request will tell.
            Err(refused) if refused.0.code == api::Code::SessionExpired => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// Say whether it consumes, if that is new.
    fn standing(&mut self, holding: &mut Holding) {
        let (one, consumer) = self.edge.node.read(|store| {
            let view = store.view();
            (queue::config(view, &self.queue).single_active, queue::consumer(view, &self.queue))
        });
        let token = match consumer {
            _ if !one => Some(self.revision),
            Some(consumer) if consumer.session == self.session => Some(consumer.since),
            _ => None,
        };
        match token {
            Some(_) if holding.is_granted() => {}
            Some(token) => holding.acquired(token, None),
            None => {
                holding.set_granted(false);
                let again = self.told.again();
                let standing = again.unwrap_or_else(|| self.told.note(self.place(consumer)));
                let Standing { position, blockers, .. } = standing;
                holding.send("waiting", &HoldFrame::Waiting { position, blockers });
            }
        }
    }

    /// Behind the one consumer. Costs the places ahead.
    fn place(&self, consumer: Option<queue::OneConsumer>) -> Standing {
        let blocker = |it: queue::OneConsumer| claim::consumer(it.session, it.since, it.at);
        let ahead = self.edge.node.read(|store| queue::ahead(store.view(), &self.queue, self.ticket));
        let blockers = consumer.map(blocker).into_iter().collect();
        Standing { session: self.session, position: ahead + 1, blockers, closed_until: None }
    }

    fn deliver(&self, holding: &mut Holding, got: &Delivered) {
        if got.messages.is_empty() {
            return;
        }
        let delivery = |message| shown::delivery(message, got.session);
        let mut items: Vec<_> = got.messages.iter().map(delivery).collect();
        self.edge.node.read(|store| {
            for item in &mut items {
                delivered::fill(store, &self.queue, item);
            }
        });
        let (session, items) = (ids::session(self.session), Deliveries::OfQueue(items));
        holding.send("delivered", &HoldFrame::Delivered { session, items, gap: None });
    }
}
