//! The turns of jobs to commit something of their own beside the batches: a claim, the renewal of a lease, a deletion.
//!
//! SQLite has one connection that writes, and a disk makes one commit durable after the other. So each commit of a job delays the
//! batch after it. While facts of callers wait, a job gets its turn only after a batch has begun since the last turn ended:
//! between two batches there is at most one commit of a job, however many jobs are due. (On PostgreSQL, up to `MAX_OPEN_BATCHES`
//! batches are under way at a time.) A batch has begun when it has its transaction; a job that waits for the same connection
//! comes after it.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::timeout;

/// A job waits for its turn for at most this long. So the lease of a job does not expire because batches are slow.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Counts the batches, and gives jobs their turns.
#[derive(Debug, Default)]
pub(in crate::app) struct JobTurns {
    batches: watch::Sender<u64>,
    /// The number of batches when the last turn ended.
    seen: Mutex<u64>,
}

/// The turn of a job. It ends when this value is dropped.
#[derive(Debug)]
pub struct JobTurn<'a> {
    batches: &'a watch::Sender<u64>,
    seen: MutexGuard<'a, u64>,
}

impl JobTurns {
    /// Notes that a batch has its transaction.
    pub(super) fn note_batch(&self) {
        self.batches.send_modify(|batches| *batches += 1);
    }

    /// Waits for a turn. Turns are given in the order in which they are asked for. `callers_wait` says whether facts of callers
    /// could be in a batch now.
    pub(super) async fn take(&self, callers_wait: impl Fn() -> bool) -> JobTurn<'_> {
        let seen = self.seen.lock().await;
        let mut batches = self.batches.subscribe();
        let turn = async {
            // The sender exists as long as `self`, so `changed` does not fail.
            while callers_wait() && *batches.borrow_and_update() == *seen && batches.changed().await.is_ok() {}
        };
        // If it takes too long, the turn is given nevertheless.
        let _ = timeout(MAX_WAIT, turn).await;
        JobTurn { batches: &self.batches, seen }
    }
}

impl Drop for JobTurn<'_> {
    fn drop(&mut self) {
        *self.seen = *self.batches.borrow();
    }
}
