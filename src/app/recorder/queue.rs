//! The facts that wait to be recorded. A batch takes all that wait, up to a limit. Facts of a customer whose batch is not
//! committed yet stay in the queue, so on one node a customer is in one batch at a time, and its facts keep their order.
//!
//! The queue itself is not bounded: each item holds permits for its room.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::fact::{Answer, Fact};

/// The permits for the room that an item takes in the queue: one for the item, and one per byte. Dropping them frees the room.
pub(super) type Room = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// A fact that waits, and where its result goes.
pub(super) struct Item {
    pub(super) fact: Fact,
    pub(super) reply: oneshot::Sender<Answer>,
    /// Given back when the item is dropped.
    #[expect(dead_code, reason = "held only")]
    pub(super) room: Room,
}

/// The queue of a node. All clones share it.
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when an item may have become available, and when the queue is closed.
    changed: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Item>,
    /// The customers whose facts must wait, and how many batches each of them is in. A long change may be written while a batch
    /// has the same customer.
    taken: HashMap<String, usize>,
    closed: bool,
}

/// Customers in a transaction. Their later facts wait until this value is dropped.
pub(super) struct Taken {
    queue: Queue,
    customers: HashSet<String>,
}

impl Queue {
    /// Adds an item. Drops the item if the queue is closed.
    pub(super) fn push(&self, item: Item) {
        let mut state = self.0.state.lock();
        if !state.closed {
            state.waiting.push_back(item);
            drop(state);
            self.0.changed.notify_one();
        }
    }

    /// Accepts no more items. The waiting ones can still be taken.
    pub(super) fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_one();
    }

    /// Waits until an item can be taken. Returns `false` once the queue is closed and empty. Only one task may wait.
    pub(super) async fn is_ready(&self) -> bool {
        loop {
            // Created before the look at the queue, so that no change between the look and the wait is missed.
            let changed = self.0.changed.notified();
            {
                let state = self.0.state.lock();
                if state.waiting.iter().any(|item| !state.taken.contains_key(item.fact.customer())) {
                    return true;
                }
                if state.closed && state.waiting.is_empty() {
                    return false;
                }
            }
            changed.await;
        }
    }

    /// The number of waiting items.
    pub(super) fn len(&self) -> usize {
        self.0.state.lock().waiting.len()
    }

    /// Takes the items of a batch, at most `most`.
    pub(super) fn take(&self, most: usize) -> (Vec<Item>, Taken) {
        let mut state = self.0.state.lock();
        let items = state.take(most);
        let customers = items.iter().map(|item| item.fact.customer().to_owned()).collect();
        (items, self.hold(&mut state, customers))
    }

    /// Lets the facts of this customer wait until the returned value is dropped. Does not wait for the batches that have some.
    pub(super) fn hold_back(&self, customer: &str) -> Taken {
        self.hold(&mut self.0.state.lock(), HashSet::from([customer.to_owned()]))
    }

    fn hold(&self, state: &mut State, customers: HashSet<String>) -> Taken {
        customers.iter().for_each(|customer| *state.taken.entry(customer.clone()).or_default() += 1);
        Taken { queue: self.clone(), customers }
    }
}

impl State {
    fn release(&mut self, customer: &str) {
        if let Some(batches) = self.taken.get_mut(customer) {
            *batches -= 1;
            if *batches == 0 {
                self.taken.remove(customer);
            }
        }
    }

    fn take(&mut self, most: usize) -> Vec<Item> {
        let Self { waiting, taken, .. } = self;
        let mut items = Vec::new();
        let mut others = VecDeque::new();
        while items.len() < most {
            let Some(item) = waiting.pop_front() else { break };
            if taken.contains_key(item.fact.customer()) {
                others.push_back(item);
            } else {
                items.push(item);
            }
        }
        // They came before the rest.
        while let Some(item) = others.pop_back() {
            waiting.push_front(item);
        }
        items
    }
}

impl Taken {
    /// Lets other batches take the facts of this customer.
    pub(super) fn release(&mut self, customer: &str) {
        if self.customers.remove(customer) {
            self.queue.0.state.lock().release(customer);
            self.queue.0.changed.notify_one();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.queue.0.state.lock();
        self.customers.iter().for_each(|customer| state.release(customer));
        drop(state);
        self.queue.0.changed.notify_one();
    }
}
