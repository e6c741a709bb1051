//! ⑥ Wake: from an applied change to the tasks that wait for it.
//!
//! A watcher holds no queue: it is told the first revision that concerns it and reads the history from there at its
//! own pace, so that ten thousand idle watchers cost a few hundred bytes each and a slow one costs nobody anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use coracle_store::{Change, Revision, Selection, WatcherId, Watchers};
use futures::task::AtomicWaker;

/// Everybody who waits for changes on this node.
#[derive(Default)]
pub struct Hub {
    registered: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    index: Watchers,
    slots: BTreeMap<WatcherId, Arc<Slot>>,
}

/// One watcher's mailbox: the first revision it has not been told of, 0 for none.
#[derive(Default)]
struct Slot {
    first: AtomicU64,
    waker: AtomicWaker,
}

impl Slot {
    fn tell(&self, revision: Revision) {
        if self.first.compare_exchange(0, revision.0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.waker.wake();
        }
    }
}

impl Hub {
    /// Register an interest.
    #[must_use]
    pub fn watch(self: &Arc<Self>, selection: Selection) -> Watch {
        let slot = Arc::new(Slot::default());
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let id = inner.index.insert(selection);
        inner.slots.insert(id, slot.clone());
        self.registered.store(inner.slots.len() as u64, Ordering::Release);
        Watch { hub: self.clone(), id, slot }
    }

    /// Tell everybody whom these changes concern. In revision order, after the state shows them.
    pub fn publish<'a>(&self, changes: impl Iterator<Item = &'a Arc<Change>>) {
        if self.watchers() == 0 {
            return;
        }
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            inner.index.matching(change, &mut |id| {
                if let Some(slot) = inner.slots.get(&id) {
                    slot.tell(change.revision);
                }
            });
        }
    }

    /// The state was replaced as a whole (a snapshot was installed): wake everybody.
    pub fn publish_all(&self, revision: Revision) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.slots.values().for_each(|slot| slot.tell(revision));
    }

    /// Number of registered watchers.
    #[must_use]
    pub fn watchers(&self) -> u64 {
        self.registered.load(Ordering::Acquire)
    }
}

/// A registered interest in changes; unregisters on drop.
pub struct Watch {
    hub: Arc<Hub>,
    id: WatcherId,
    slot: Arc<Slot>,
}

impl Watch {
    /// The first revision since the last call (or registration) that touched the selection; waits for one if there
    /// is none. Later ones are not queued: read [`coracle_store::Store::changes_after`] from there. Cancel-safe.
    pub async fn changed(&mut self) -> Revision {
        std::future::poll_fn(|context| {
            if let Some(revision) = self.take() {
                return Poll::Ready(revision);
            }
            self.slot.waker.register(context.waker());
            self.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn take(&self) -> Option<Revision> {
        match self.slot.first.swap(0, Ordering::AcqRel) {
            0 => None,
            revision => Some(Revision(revision)),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut inner = self.hub.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.index.remove(self.id);
        inner.slots.remove(&self.id);
        self.hub.registered.store(inner.slots.len() as u64, Ordering::Release);
    }
}
