//! How long batches keep the writer busy, so that the time of a batch can be told from its size.

use std::time::Duration;

use ::metrics::counter;
use parking_lot::Mutex;
use tokio::time::Instant as Monotonic;

use crate::metrics;

/// Sums over batches, from which the time of a batch of any size follows by least squares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub batches: u64,
    pub items: u64,
    pub items_squared: u64,
    /// The time in which the writer was busy.
    pub busy_micros: u64,
    /// Of each batch, its items times its part of `busy_micros`.
    pub item_micros: u64,
}

impl Sums {
    /// Adds a batch, which added this time to the time in which the writer was busy.
    pub fn add(&mut self, items: u64, micros: u64) {
        self.batches += 1;
        self.items += items;
        self.items_squared += items * items;
        self.busy_micros += micros;
        self.item_micros += items * micros;
    }
}

/// Notes the batches of a writer.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sums: Sums,
    /// When the last batch ended.
    ended: Option<Monotonic>,
}

impl Pace {
    /// Notes a batch that began and has just ended. While batches overlap, each counts from the end of the one before it.
    pub(super) fn note(&self, items: usize, began: Monotonic, ended: Monotonic) {
        let mut state = self.0.lock();
        let busy_from = state.ended.map_or(began, |before| before.max(began));
        let micros = micros(ended.saturating_duration_since(busy_from));
        state.ended = Some(state.ended.map_or(ended, |before| before.max(ended)));
        let items = items as u64;
        state.sums.add(items, micros);
        drop(state);
        counter!(metrics::WRITE_BATCH_ITEMS_SQUARED).increment(items * items);
        counter!(metrics::WRITE_BUSY_MICROSECONDS).increment(micros);
        counter!(metrics::WRITE_BUSY_ITEM_MICROSECONDS).increment(items * micros);
    }

    /// Returns the sums over all batches since the start.
    pub(super) fn sums(&self) -> Sums {
        self.0.lock().sums
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_batches_overlap_counts_once() {
        let pace = Pace::default();
        let start = Monotonic::now();
        let at = |millis| start + Duration::from_millis(millis);
        pace.note(10, at(0), at(4));
        pace.note(20, at(2), at(10));
        // It began before the other one ended, and ended before it.
        pace.note(1, at(3), at(9));
        pace.note(5, at(20), at(21));
        let expected = Sums {
            batches: 4,
            items: 36,
            items_squared: 526,
            busy_micros: 4_000 + 6_000 + 1_000,
            item_micros: 10 * 4_000 + 20 * 6_000 + 5 * 1_000,
        };
        assert_eq!(pace.sums(), expected);
    }
}
