//! ⑦ An item of a barrier queue that lives with its connection, until its generation is released.

use coracle_api::HoldFrame;
use coracle_recipes::queue::barrier::HandOut;
use coracle_recipes::queue::{self, MessageId, Own};
use coracle_store::{Key, Revision, SessionId};

use super::super::held::end_of;
use super::super::hold::{Held, Holding};
use super::super::problem::Answer;
use super::super::turn::{any_changed, watches};
use super::shown;
use crate::edge::Edge;

pub struct HeldItem {
    edge: Edge,
    queue: String,
    id: MessageId,
    session: SessionId,
    /// Of the put.
    revision: Revision,
}

impl HeldItem {
    pub fn new(edge: Edge, queue: String, id: MessageId, session: SessionId, revision: Revision) -> Self {
        Self { edge, queue, id, session, revision }
    }

    fn own(&self) -> (Own, Vec<Key>) {
        self.edge.node.read(|store| {
            let view = store.view();
            (queue::own(view, &self.queue, self.id), queue::watched_own(view, &self.queue, self.id))
        })
    }
}

impl Held for HeldItem {
    async fn look(&mut self, holding: &mut Holding) -> Answer<()> {
        if !holding.is_granted() {
            holding.acquired(self.revision, None);
            self.edge.node.wait_revision(self.revision, self.edge.deadline()).await?;
        }
        match self.own().0 {
            Own::Filling(..) => {}
            Own::Released { generation, ordinal, size, delivery, turn } => {
                let barrier = self.edge.node.read(|store| queue::config(store.view(), &self.queue).barrier);
                let own = turn && barrier.is_some_and(|barrier| barrier.hand_out == HandOut::Own);
                let receipt = own.then(|| shown::own_receipt(self.id, delivery));
                let id = self.id.to_string();
                holding.send("released", &HoldFrame::Released { id, generation, ordinal, size, receipt });
                holding.finish();
            }
            Own::Gone => holding.lost(end_of(&self.edge, self.session).unwrap_or("released"), None),
        }
        Ok(())
    }

    async fn changed(&mut self) {
        let keys = self.own().1;
        let watches = watches(&self.edge, &keys);
        // It may have changed between the look and the registration.
        if self.own().1 == keys {
            any_changed(watches).await;
        }
    }
}
