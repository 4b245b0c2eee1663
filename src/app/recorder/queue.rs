//! The facts that wait to be recorded. A batch takes all that wait, up to a limit. Facts of a customer whose batch is not
//! committed yet stay in the queue, so on one node a customer is in one batch at a time, and its facts keep their order.
//!
//! Facts of jobs have a line of their own. A batch takes the facts of callers first. Jobs fill it only if no caller waits;
//! otherwise they add a small part to it, so that they go on under any load.
//!
//! The queue itself is not bounded: each item holds permits for its room.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::fact::{Answer, Fact};

/// While facts of callers wait, a batch takes one fact of a job for each so many facts that a batch can have, but at least one.
const FACTS_PER_JOB_FACT: usize = 8;
/// After how many more items in a line [`Queue::offers`] counts again.
const ITEMS_PER_COUNT: usize = 16;

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
    /// Notified each time when a line has grown by [`ITEMS_PER_COUNT`], and when customers are released.
    grown: Notify,
}

#[derive(Default)]
struct State {
    /// The facts of callers.
    waiting: VecDeque<Item>,
    of_jobs: VecDeque<Item>,
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
            let line = if item.fact.is_of_job() { &mut state.of_jobs } else { &mut state.waiting };
            line.push_back(item);
            let has_grown = line.len().is_multiple_of(ITEMS_PER_COUNT);
            drop(state);
            self.0.changed.notify_one();
            if has_grown {
                self.0.grown.notify_waiters();
            }
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
                if state.can_take_of(&state.waiting) || state.can_take_of(&state.of_jobs) {
                    return true;
                }
                if state.closed && state.waiting.is_empty() && state.of_jobs.is_empty() {
                    return false;
                }
            }
            changed.await;
        }
    }

    /// Whether the fact of a caller waits that a batch could take.
    pub(super) fn keeps_callers_waiting(&self) -> bool {
        let state = self.0.state.lock();
        state.can_take_of(&state.waiting)
    }

    /// The number of facts of callers that a batch could take, counted up to `most`. If there are none, the number of facts of jobs.
    pub(super) fn available(&self, most: usize) -> usize {
        let state = self.0.state.lock();
        match state.available_of(&state.waiting, most) {
            0 => state.available_of(&state.of_jobs, most),
            of_callers => of_callers,
        }
    }

    /// Waits until about so many items are available. Returns without a wait if they are.
    pub(super) async fn offers(&self, items: usize) {
        loop {
            // Created before the count, so that no growth between the count and the wait is missed.
            let grown = self.0.grown.notified();
            if self.available(items) >= items {
                return;
            }
            grown.await;
        }
    }

    /// Takes the items of a batch: the first `share` items, further items of the same customers, at most `most` in all, and a small
    /// part more of jobs.
    pub(super) fn take(&self, share: usize, most: usize) -> (Vec<Item>, Taken) {
        let mut state = self.0.state.lock();
        let (items, customers) = state.take(share, most);
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

impl Shared {
    /// Tells the waiting task that customers were released.
    fn released(&self) {
        self.changed.notify_one();
        self.grown.notify_waiters();
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

    fn can_take_of(&self, line: &VecDeque<Item>) -> bool {
        self.available_of(line, 1) > 0
    }

    fn available_of(&self, line: &VecDeque<Item>, most: usize) -> usize {
        line.iter().filter(|item| !self.taken.contains_key(item.fact.customer())).take(most).count()
    }

    /// Returns the items of a batch and their customers.
    fn take(&mut self, share: usize, most: usize) -> (Vec<Item>, HashSet<String>) {
        let Self { waiting, of_jobs, taken, .. } = self;
        let mut customers = HashSet::new();
        let mut items = take_of(waiting, taken, &mut customers, share, most);
        let room = if items.is_empty() { most } else { (most / FACTS_PER_JOB_FACT).max(1) };
        items.extend(take_of(of_jobs, taken, &mut customers, room, room));
        (items, customers)
    }
}

/// Takes the first `share` items of a line whose customers are not taken, and adds their customers to `customers`. Among the next
/// `most` items, takes those of these customers too, up to `most` items in all: another batch could not take them.
fn take_of(
    line: &mut VecDeque<Item>,
    taken: &HashMap<String, usize>,
    customers: &mut HashSet<String>,
    share: usize,
    most: usize,
) -> Vec<Item> {
    let mut items = Vec::new();
    let mut others = VecDeque::new();
    let mut seen_after_share = 0;
    while items.len() < most && seen_after_share < most {
        let Some(item) = line.pop_front() else { break };
        let customer = item.fact.customer();
        let in_share = items.len() < share;
        if !in_share {
            seen_after_share += 1;
        }
        if customers.contains(customer) {
            items.push(item);
        } else if in_share && !taken.contains_key(customer) {
            customers.insert(customer.to_owned());
            items.push(item);
        } else {
            others.push_back(item);
        }
    }
    // They came before the rest.
    while let Some(item) = others.pop_back() {
        line.push_front(item);
    }
    items
}

impl Taken {
    /// Lets other batches take the facts of this customer.
    pub(super) fn release(&mut self, customer: &str) {
        if self.customers.remove(customer) {
            self.queue.0.state.lock().release(customer);
            self.queue.0.released();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.queue.0.state.lock();
        self.customers.iter().for_each(|customer| state.release(customer));
        drop(state);
        self.queue.0.released();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::app::recorder::fact::NewAdjustment;
    use crate::engine::external_id::ExternalId;

    fn item(fact: Fact) -> Item {
        let permit = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Item { fact, reply: oneshot::channel().0, room: (permit(), permit()) }
    }

    /// The fact of a caller about this customer.
    pub(in crate::app::recorder) fn of_caller(customer: &str) -> Item {
        numbered(customer, 1)
    }

    fn numbered(customer: &str, points: i64) -> Item {
        item(Fact::Adjustment(NewAdjustment {
            customer_external_id: ExternalId::stored(customer),
            points,
            reason: "r".to_owned(),
            idempotency_key: "k".to_owned(),
            expires_at: None,
            allow_negative: true,
            actor: None,
        }))
    }

    fn of_job(customer: &str) -> Item {
        item(Fact::Evaluation(customer.to_owned()))
    }

    /// Returns how many facts of callers and of jobs a batch has.
    fn counted(items: &[Item]) -> (usize, usize) {
        let of_jobs = items.iter().filter(|item| item.fact.is_of_job()).count();
        (items.len() - of_jobs, of_jobs)
    }

    #[test]
    fn callers_do_not_wait_behind_jobs() {
        let queue = Queue::default();
        (0..600).for_each(|n| queue.push(of_job(&format!("j{n}"))));
        (0..300).for_each(|n| queue.push(of_caller(&format!("c{n}"))));
        let mut batches = Vec::new();
        while queue.available(1) > 0 {
            let (items, taken) = queue.take(256, 256);
            batches.push(counted(&items));
            drop(taken);
        }
        assert_eq!(batches, [(256, 32), (44, 32), (0, 256), (0, 256), (0, 24)]);
    }

    /// Returns the points of the adjustments of a customer.
    fn points(items: &[Item], customer: &str) -> Vec<i64> {
        let of_customer = items.iter().filter(|item| item.fact.customer() == customer);
        of_customer
            .filter_map(|item| if let Fact::Adjustment(new) = &item.fact { Some(new.points) } else { None })
            .collect()
    }

    #[test]
    fn facts_of_one_customer_are_not_shared_between_batches() {
        let queue = Queue::default();
        for n in 0..150 {
            queue.push(numbered("guest", n));
            queue.push(of_caller(&format!("c{n}")));
        }
        let (first, taken) = queue.take(100, 120);
        assert_eq!(first.len(), 120);
        assert_eq!(points(&first, "guest"), (0..70).collect::<Vec<_>>(), "50 of the share, and as many more as fit");
        let (beside, beside_taken) = queue.take(100, 120);
        let names: Vec<&str> = beside.iter().map(|item| item.fact.customer()).collect();
        assert_eq!(names, (50..150).map(|n| format!("c{n}")).collect::<Vec<_>>(), "the others, in order");
        drop((taken, beside_taken));
        let (rest, _taken) = queue.take(100, 120);
        assert_eq!(points(&rest, "guest"), (70..150).collect::<Vec<_>>(), "in order");
    }

    #[test]
    fn looking_for_facts_of_the_same_customers_is_bounded() {
        let queue = Queue::default();
        queue.push(of_caller("guest"));
        (0..120).for_each(|n| queue.push(of_caller(&format!("c{n}"))));
        queue.push(of_caller("guest"));
        assert_eq!(queue.take(1, 120).0.len(), 1);
    }

    #[test]
    fn jobs_go_on_whatever_waits() {
        let queue = Queue::default();
        (0..2).for_each(|n| queue.push(of_job(&format!("j{n}"))));
        (0..3).for_each(|n| queue.push(of_caller(&format!("c{n}"))));
        let mut batches = Vec::new();
        while queue.available(1) > 0 {
            batches.push(counted(&queue.take(1, 1).0));
        }
        assert_eq!(batches, [(1, 1), (1, 1), (1, 0)]);
    }

    #[test]
    fn a_customer_in_a_batch_keeps_nobody_waiting() {
        let queue = Queue::default();
        assert!(!queue.keeps_callers_waiting());
        queue.push(of_job("ada"));
        assert!(!queue.keeps_callers_waiting(), "the fact of a job");
        queue.push(of_caller("ada"));
        assert!(queue.keeps_callers_waiting());
        let held = queue.hold_back("ada");
        assert!(!queue.keeps_callers_waiting(), "nothing can be taken");
        drop(held);
        assert!(queue.keeps_callers_waiting());
    }
}
