//! Goals: what must be reached in a window.

use serde::{Deserialize, Serialize};

/// The most that a [`Goal::Distinct`] can ask for: what was counted so far is a part of each stored state.
pub const MAX_DISTINCT: i32 = 1_000;

/// Counted over a window's eligible purchases in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Reached by each purchase.
    EveryPurchase,
    /// Reached by the n-th purchase; with `repeat` by the 2n-th, 3n-th … too.
    Purchases {
        /// n ≥ 1.
        at_least: i32,
        /// Once a window, or again and again.
        repeat: bool,
    },
    /// Reached when the eligible amounts sum to so much; with `repeat` at each further multiple.
    Spend {
        /// Minor units, > 0.
        at_least: i64,
        /// Once a window, or again and again.
        repeat: bool,
    },
    /// Reached when so many different ones were bought.
    Distinct {
        /// What must differ.
        of: DistinctOf,
        /// 1 to [`MAX_DISTINCT`].
        at_least: i32,
    },
    /// Reached by the k-th purchase of the n-th of n consecutive windows with at least k each.
    Streak {
        /// n ≥ 1 windows.
        length: i32,
        /// k ≥ 1 purchases in each.
        purchases_per_window: i32,
        /// Whether counting starts again at the next window.
        repeat: bool,
    },
}

/// What a [`Goal::Distinct`] tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DistinctOf {
    /// Articles.
    Sku,
    /// Categories; lines without one do not count.
    Category,
}

impl Goal {
    /// Whether a window can give more than one award.
    pub const fn repeats(&self) -> bool {
        match self {
            Self::EveryPurchase => true,
            Self::Purchases { repeat, .. } | Self::Spend { repeat, .. } | Self::Streak { repeat, .. } => *repeat,
            Self::Distinct { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Campaigns are stored with it, and keys of requests that may come again.
    #[test]
    fn the_stored_form_is_for_ever() {
        let (at_least, repeat) = (2_000, true);
        for (goal, stored) in [
            (Goal::EveryPurchase, json!("every_purchase")),
            (Goal::Purchases { at_least: 3, repeat }, json!({"purchases": {"at_least": 3, "repeat": true}})),
            (Goal::Spend { at_least, repeat }, json!({"spend": {"at_least": 2_000, "repeat": true}})),
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
