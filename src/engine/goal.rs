//! Goals: what must be reached in a window.

use serde::{Deserialize, Serialize};

/// The greatest `at_least` of a [`Goal::Distinct`]. It is bounded because each stored state contains the counted items.
pub const MAX_DISTINCT: i32 = 1_000;

/// What is counted over the eligible purchases of a window, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Reached at each purchase.
    EveryPurchase,
    /// Reached at the n-th purchase; with `repeat` also at the 2n-th, the 3n-th, and so on.
    Purchases {
        /// The number n, at least 1.
        at_least: i32,
        repeat: bool,
    },
    /// Reached at the purchase at which the sum of the eligible amounts reaches `at_least`; with `repeat` also at each
    /// further multiple.
    Spend {
        /// In minor units, above 0.
        at_least: i64,
        repeat: bool,
    },
    /// Reached at the purchase at which `at_least` different articles or categories have been bought.
    Distinct {
        of: DistinctOf,
        /// From 1 to [`MAX_DISTINCT`].
        at_least: i32,
    },
    /// Reached at the purchase at which the sum of the units of the matching lines reaches `at_least`; with `repeat` also at each
    /// further multiple.
    Units {
        /// At least 1.
        at_least: i32,
        repeat: bool,
    },
    /// Reached at the k-th purchase of the last of n consecutive windows with at least k purchases each.
    Streak {
        /// The number n of windows, at least 1.
        length: i32,
        /// The number k of purchases in each window, at least 1.
        purchases_per_window: i32,
        /// Whether counting starts again at the next window after an award. Otherwise only the first streak counts.
        repeat: bool,
    },
}

/// What must differ for a [`Goal::Distinct`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DistinctOf {
    Sku,
    /// Lines without a category do not count.
    Category,
}

impl Goal {
    /// Whether counting starts again after an award: in the same window or, for a streak, at the next window.
    pub const fn repeats(&self) -> bool {
        match self {
            Self::EveryPurchase => true,
            Self::Purchases { repeat, .. }
            | Self::Spend { repeat, .. }
            | Self::Units { repeat, .. }
            | Self::Streak { repeat, .. } => *repeat,
            Self::Distinct { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Stored campaigns contain this form. So do the requests that idempotency keys identify.
    #[test]
    fn the_stored_form_is_for_ever() {
        let (at_least, repeat) = (2_000, true);
        for (goal, stored) in [
            (Goal::EveryPurchase, json!("every_purchase")),
            (Goal::Purchases { at_least: 3, repeat }, json!({"purchases": {"at_least": 3, "repeat": true}})),
            (Goal::Spend { at_least, repeat }, json!({"spend": {"at_least": 2_000, "repeat": true}})),
            (Goal::Units { at_least: 6, repeat }, json!({"units": {"at_least": 6, "repeat": true}})),
            (Goal::Distinct { of: DistinctOf::Sku, at_least: 2 }, json!({"distinct": {"of": "SKU", "at_least": 2}})),
            (
                Goal::Streak { length: 4, purchases_per_window: 1, repeat },
                json!({"streak": {"length": 4, "purchases_per_window": 1, "repeat": true}}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&goal).unwrap(), stored);
            assert_eq!(serde_json::from_value::<Goal>(stored).unwrap(), goal);
        }
    }
}
