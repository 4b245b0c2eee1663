//! The purchases of which a content was recorded while refunds may wait: their refunds are to be tried.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The number of purchases that are looked up together.
const MAX_TAKEN: usize = 512;
/// The maximum number of purchases that a node remembers. The refunds of those beyond it are found by a sweep.
const MAX_WOKEN: usize = 10_000;

/// The purchases whose refunds are to be tried.
#[derive(Debug, Default)]
pub struct Woken {
    purchases: Mutex<BTreeSet<String>>,
    changed: Notify,
}

impl Woken {
    /// Notes that a content of these purchases was recorded.
    pub(super) fn wake(&self, purchases: impl Iterator<Item = String>) {
        let mut woken = self.purchases.lock();
        let room = MAX_WOKEN.saturating_sub(woken.len());
        woken.extend(purchases.take(room));
        if !woken.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Waits until purchases are noted.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes purchases out, not too many at a time.
    pub(super) fn take(&self) -> Vec<String> {
        let mut woken = self.purchases.lock();
        let mut taken = Vec::new();
        while taken.len() < MAX_TAKEN {
            let Some(purchase) = woken.pop_first() else { break };
            taken.push(purchase);
        }
        taken
    }
}
