//! The turns of batches to be evaluated.
//!
//! A batch is cheaper for each item the more items it has, so batches are evaluated one after the other. But while a batch waits for
//! the database, this process is idle, and the other way round. So if many items wait, they are shared between two batches that are
//! evaluated at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::queue::{Item, Queue, Taken};

/// The number of batches that are evaluated at a time if many items wait.
const TURNS: u32 = 2;
/// The minimum number of items with which a batch begins while another one is evaluated. With 48, no more items are recorded in a
/// second, and each takes more CPU (`scripts/bench writes`, built with either number).
const ITEMS_BESIDE: usize = 64;

/// The turn of a batch to be evaluated, which ends at its COMMIT.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

/// Gives batches their turns, and says how many items they take.
#[derive(Clone)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
    /// The maximum number of items of a batch.
    most: usize,
    /// The same as [`ITEMS_BESIDE`], but not above `most`. `None`: batches are evaluated one after the other.
    beside: Option<usize>,
}

impl Turns {
    /// `most` is the maximum number of items of a batch, and `open` the number of batches that may be under way.
    pub(super) fn new(most: usize, open: usize) -> Self {
        let beside = (open > 1).then(|| ITEMS_BESIDE.min(most));
        Self { free: Arc::new(Semaphore::new(TURNS as usize)), most, beside }
    }

    /// Waits until no other batch is evaluated.
    pub(super) async fn alone(&self) -> Turn {
        let mut all = Arc::clone(&self.free).acquire_many_owned(TURNS).await.ok()?;
        // The others become free: if enough items wait, a batch begins beside this one.
        all.split(1)
    }

    /// Waits until no other batch is evaluated, or until enough items wait for a batch beside another one.
    pub(super) async fn next(&self, queue: &Queue) -> Turn {
        let Some(beside) = self.beside else { return self.alone().await };
        tokio::select! {
            biased;
            turn = self.alone() => turn,
            () = queue.offers(beside) => Arc::clone(&self.free).acquire_owned().await.ok(),
        }
    }

    /// Takes the items of the next batch. Leaves half of the items that wait to a batch beside it, unless these are too few.
    pub(super) fn take(&self, queue: &Queue) -> (Vec<Item>, Taken) {
        queue.take(self.share(queue), self.most)
    }

    /// Returns how many of the items that wait are the share of the next batch.
    fn share(&self, queue: &Queue) -> usize {
        let Some(beside) = self.beside else { return self.most };
        queue.available(self.most * TURNS as usize).div_ceil(TURNS as usize).clamp(beside, self.most)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::queue::tests::of_caller;
    use super::*;

    fn queue(items: std::ops::Range<usize>) -> Queue {
        let queue = Queue::default();
        items.for_each(|n| queue.push(of_caller(&format!("c{n}"))));
        queue
    }

    /// Polls once.
    async fn is_ready(future: impl Future<Output = Turn>) -> Turn {
        timeout(Duration::ZERO, future).await.ok().flatten()
    }

    #[tokio::test]
    async fn few_items_are_one_batch_and_wait_for_the_one_before() {
        let (turns, queue) = (Turns::new(256, 3), queue(0..ITEMS_BESIDE - 1));
        let first = is_ready(turns.next(&queue)).await;
        assert!(first.is_some());
        assert!(turns.share(&queue) >= ITEMS_BESIDE - 1, "it takes all of them");
        assert!(is_ready(turns.next(&queue)).await.is_none());
        drop(first);
        assert!(is_ready(turns.next(&queue)).await.is_some());
    }

    #[tokio::test]
    async fn many_items_are_shared_between_two_batches() {
        let (turns, queue) = (Turns::new(256, 3), queue(0..300));
        let mut under_way = Vec::new();
        for items in [150, 75] {
            let turn = is_ready(turns.next(&queue)).await;
            assert!(turn.is_some());
            assert_eq!(turns.share(&queue), items);
            under_way.push((turn, queue.take(items, items)));
        }
        assert!(is_ready(turns.next(&queue)).await.is_none(), "two at a time");
        under_way.pop();
        assert!(is_ready(turns.next(&queue)).await.is_some());
        assert!(is_ready(turns.alone()).await.is_none());
    }

    #[tokio::test]
    async fn a_batch_begins_beside_another_one_as_soon_as_enough_items_wait() {
        let (turns, queue) = (Turns::new(256, 3), queue(0..ITEMS_BESIDE - 1));
        let _first = is_ready(turns.next(&queue)).await;
        let mut second = pin!(turns.next(&queue));
        assert!(is_ready(second.as_mut()).await.is_none());
        queue.push(of_caller("one more"));
        assert!(is_ready(second).await.is_some());
    }

    #[tokio::test]
    async fn items_that_cannot_be_taken_do_not_count() {
        let (turns, queue) = (Turns::new(256, 3), Queue::default());
        (0..300).for_each(|_| queue.push(of_caller("guest")));
        let _first = is_ready(turns.next(&queue)).await;
        let _taken = queue.take(1, 1);
        assert!(is_ready(turns.next(&queue)).await.is_none(), "all are of a customer in the first batch");
    }

    #[tokio::test]
    async fn items_count_as_soon_as_their_customer_is_released() {
        let (turns, queue) = (Turns::new(256, 3), Queue::default());
        (0..300).for_each(|_| queue.push(of_caller("guest")));
        let _first = is_ready(turns.next(&queue)).await;
        let (_, taken) = queue.take(1, 1);
        let mut second = pin!(turns.next(&queue));
        assert!(is_ready(second.as_mut()).await.is_none());
        drop(taken);
        assert!(is_ready(second).await.is_some());
    }

    #[tokio::test]
    async fn one_connection_writes_the_largest_batches() {
        let (turns, queue) = (Turns::new(256, 1), queue(0..1_000));
        let _first = is_ready(turns.next(&queue)).await;
        assert_eq!(turns.share(&queue), 256);
        assert!(is_ready(turns.next(&queue)).await.is_none());
    }

    #[tokio::test]
    async fn a_batch_is_never_above_its_limit() {
        for most in [1, 63, 256] {
            let (turns, queue) = (Turns::new(most, 3), queue(0..1_000));
            assert_eq!(turns.share(&queue), most);
            let _first = is_ready(turns.next(&queue)).await;
            assert!(is_ready(turns.next(&queue)).await.is_some(), "full batches are evaluated two at a time");
        }
    }
}
