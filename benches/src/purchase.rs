//! The purchases that all systems record. The n-th purchase of a seed is always the same, except for its instant, which
//! depends on when the run began.

use clap::ValueEnum;

/// Purchases are up to this old: 30 days in seconds.
pub const SPAN_SECONDS: u64 = 30 * 24 * 3600;
/// The smallest and the largest total, in cents.
const TOTAL_CENTS: std::ops::RangeInclusive<u64> = 500..=20_000;
const CATEGORIES: [&str; 8] = ["shoes", "books", "coffee", "toys", "garden", "music", "sports", "tools"];

/// When purchases were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// At the time of the request.
    Now,
    /// At a random second of the 30 days before the run.
    Late,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Purchase {
    pub number: u64,
    /// From 1 to the number of customers.
    pub customer: u64,
    pub total_cents: u64,
    pub category: &'static str,
    /// How many seconds before the run it was made. 0 for [`When::Now`].
    pub age_seconds: u64,
}

impl Purchase {
    /// Returns the n-th purchase of a seed.
    pub fn nth(number: u64, seed: u64, customers: u64, when: When) -> Self {
        let mut random = Random::new(seed ^ mix(number));
        let customer = 1 + random.below(customers);
        let total_cents = TOTAL_CENTS.start() + random.below(TOTAL_CENTS.end() - TOTAL_CENTS.start() + 1);
        let category = CATEGORIES[usize::try_from(random.below(CATEGORIES.len() as u64)).unwrap_or_default()];
        let age_seconds = match when {
            When::Now => 0,
            When::Late => random.below(SPAN_SECONDS),
        };
        Self { number, customer, total_cents, category, age_seconds }
    }
}

/// The generator `SplitMix64`: fast, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below the bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0) % bound
    }
}

/// Spreads the bits of a number.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purchases_are_repeatable_and_within_their_limits() {
        for number in 0..1000 {
            let purchase = Purchase::nth(number, 7, 20, When::Late);
            assert_eq!(purchase, Purchase::nth(number, 7, 20, When::Late));
            assert!((1..=20).contains(&purchase.customer) && TOTAL_CENTS.contains(&purchase.total_cents));
            assert!(purchase.age_seconds < SPAN_SECONDS);
        }
        assert_ne!(Purchase::nth(1, 7, 20, When::Late), Purchase::nth(1, 8, 20, When::Late));
    }
}
