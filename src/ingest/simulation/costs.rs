//! How long recording takes: a batch of n items takes a + b·n seconds.
//!
//! The figures are measured as what each batch adds to the time in which its writer is busy: from its begin, or from the end of the batch
//! before it if that is later, to its own end. So batches that overlap are not counted twice, and the sum is the time in which the writer
//! was busy. A writer that takes this long, one batch at a time, ends each batch when the real one did.

use super::{micros, seconds};
use crate::app::recorder::pace::Sums;

/// The largest cost, in seconds.
pub const MAX_COST: f64 = 60.0;

/// What recording costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Seconds for a batch, however large.
    pub batch: f64,
    /// Seconds for each item of a batch.
    pub item: f64,
}

/// How good measured costs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Batches had different sizes, from which both costs follow.
    Both,
    /// Batches had almost the same size, or larger ones were no slower. Then one of the costs is taken to be 0.
    ItemOnly,
    BatchOnly,
}

/// Why no costs follow from what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{batches} batches were measured, and at least {MIN_BATCHES} are needed: let the server record something first"
)]
pub struct TooFew {
    batches: u64,
}

/// The number of batches from which costs can be told.
const MIN_BATCHES: u64 = 10;

impl Costs {
    /// How long a batch takes, in microseconds.
    pub fn of(&self, items: usize) -> u64 {
        micros(self.batch + self.item * count(items as u64))
    }

    /// The highest rate of a writer with batches of this size, in items a second.
    pub fn capacity(&self, items: usize) -> f64 {
        count(items as u64) / (self.batch + self.item * count(items as u64))
    }

    /// Finds the costs that fit what was measured best, by least squares.
    pub fn fit(sums: &Sums) -> Result<(Self, Fit), TooFew> {
        let Sums { batches, items, items_squared, busy_micros, item_micros } = *sums;
        if batches < MIN_BATCHES || items == 0 {
            return Err(TooFew { batches });
        }
        let (n, items, squares) = (count(batches), count(items), count(items_squared));
        let (busy, products) = (seconds(busy_micros), seconds(item_micros));
        let spread = n * squares - items * items;
        // Sizes that differ by less than a hundredth tell nothing.
        if spread < 1e-4 * items * items {
            return Ok((Self { batch: 0.0, item: busy / items }, Fit::ItemOnly));
        }
        let item = (n * products - items * busy) / spread;
        let batch = (busy - item * items) / n;
        Ok(if item < 0.0 {
            (Self { batch: busy / n, item: 0.0 }, Fit::BatchOnly)
        } else if batch < 0.0 {
            (Self { batch: 0.0, item: busy / items }, Fit::ItemOnly)
        } else {
            (Self { batch, item }, Fit::Both)
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "sums that people look at; the difference cancels at 2^53 only")]
fn count(number: u64) -> f64 {
    number as f64
}

/// Finds the sums in the text of `/metrics`. `None`: the text is not that of a server which counts them.
pub fn of_metrics(text: &str) -> Option<Sums> {
    let value = |name: &str| {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<f64>().ok();
        text.lines().find_map(of)
    };
    let whole = |name: &str| value(name).map(whole);
    Some(Sums {
        // These two are there from the first batch on.
        batches: whole(&format!("{}_count", crate::metrics::WRITE_BATCH_ITEMS)).unwrap_or_default(),
        items: whole(&format!("{}_sum", crate::metrics::WRITE_BATCH_ITEMS)).unwrap_or_default(),
        items_squared: whole(crate::metrics::WRITE_BATCH_ITEMS_SQUARED)?,
        busy_micros: whole(crate::metrics::WRITE_BUSY_MICROSECONDS)?,
        item_micros: whole(crate::metrics::WRITE_BUSY_ITEM_MICROSECONDS)?,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(batches: &[(u64, u64)]) -> Sums {
        let mut sums = Sums::default();
        for (items, micros) in batches {
            sums.add(*items, *micros);
        }
        sums
    }

    #[test]
    fn costs_follow_from_sums() {
        let exact: Vec<(u64, u64)> = (1..=40).map(|n| (n * 6, 2_000 + 50 * n * 6)).collect();
        let (costs, fit) = Costs::fit(&sums(&exact)).unwrap();
        assert_eq!(fit, Fit::Both);
        assert!((costs.batch - 0.002).abs() < 1e-9 && (costs.item - 0.000_05).abs() < 1e-12, "{costs:?}");
        assert_eq!((costs.of(0), costs.of(256)), (2_000, 14_800));
        assert!((costs.capacity(100) - 100.0 / 0.007).abs() < 1e-6);
        let alike = Costs::fit(&sums(&[(100, 5_000); 20])).unwrap();
        assert_eq!(alike, (Costs { batch: 0.0, item: 0.000_05 }, Fit::ItemOnly));
        let falling: Vec<(u64, u64)> = (1..=20).map(|n| (n, 10_000 - n * 100)).collect();
        assert_eq!(Costs::fit(&sums(&falling)).unwrap().1, Fit::BatchOnly);
        let from_nothing: Vec<(u64, u64)> = (1..=20).map(|n| (n * 10, n * n * 100)).collect();
        assert_eq!(Costs::fit(&sums(&from_nothing)).unwrap().1, Fit::ItemOnly);
        assert!(Costs::fit(&sums(&[(5, 5); 9])).is_err());
    }

    #[test]
    fn sums_are_read_from_metrics() {
        let text = "# TYPE windfall_write_batch_items histogram\nwindfall_write_batch_items_bucket{le=\"1\"} 5\n\
            windfall_write_batch_items_sum 120\nwindfall_write_batch_items_count 30\n\
            windfall_write_batch_items_squared_total 900\nwindfall_write_busy_microseconds_total 70000\n\
            windfall_write_busy_item_microseconds_total 400000\n";
        let expected = Sums { batches: 30, items: 120, items_squared: 900, busy_micros: 70_000, item_micros: 400_000 };
        assert_eq!(of_metrics(text), Some(expected));
        assert_eq!(of_metrics("windfall_write_batch_items_sum 120\n"), None);
    }
}
