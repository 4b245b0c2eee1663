//! Awards: how many points an award has, and what is known of an award that is reached.

use serde::{Deserialize, Serialize};

use super::money::{Currency, decimal_text};
use super::purchase::Key;
use super::window::Interval;

/// The most points that one award can have. `pointsPerUnit` never gives more.
pub const MAX_POINTS: i64 = 1_000_000_000;
/// The most decimals that a rate can have.
pub const RATE_DECIMALS: u32 = 6;
/// The greatest rate, in points per major unit.
pub const MAX_RATE: i64 = 10_000;

/// How many points an award has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AwardRule {
    /// The same points each time, from 1 to [`MAX_POINTS`].
    Points(i64),
    /// Points per major unit of the reaching purchase's eligible amount.
    PointsPerUnit(Rate),
}

/// Points per major unit, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(pub i64);

impl Rate {
    /// Returns `floor(eligible amount in major units × rate)`, at most [`MAX_POINTS`]. `eligible` is in minor units.
    pub fn points(self, eligible: i64, currency: Currency) -> i64 {
        let scale = i128::from(currency.minor_per_major()) * 10_i128.pow(RATE_DECIMALS);
        let points = i128::from(eligible) * i128::from(self.0) / scale;
        i64::try_from(points).unwrap_or(MAX_POINTS).min(MAX_POINTS)
    }

    /// Formats the rate as a decimal without trailing zeros.
    pub fn format(self) -> String {
        let text = decimal_text(i128::from(self.0), RATE_DECIMALS);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl AwardRule {
    /// Returns the points of an award whose reaching purchase has this eligible amount, in minor units. An award of zero
    /// points does not exist.
    pub fn points(&self, eligible: i64, currency: Currency) -> i64 {
        match self {
            Self::Points(points) => *points,
            Self::PointsPerUnit(rate) => rate.points(eligible, currency),
        }
    }

    /// Returns the fewest points that an award can have.
    pub const fn least(&self) -> i64 {
        match self {
            Self::Points(points) => *points,
            Self::PointsPerUnit(_) => 1,
        }
    }
}

/// An award that follows from the recorded history. A fold also returns awards that the cap on the customer's awards
/// does not keep; see [`super::cap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The reaching purchase. Its instant is `earnedAt`.
    pub by: Key,
    /// The position among the awards that this purchase reached, from 1. The customer, the campaign, `by` and `nth` are
    /// the name of the award.
    pub nth: i32,
    /// The position among the awards of the window before caps, from 1. Always 1 for `everyPurchase`, `rolling` and
    /// `streak`.
    pub ordinal: i64,
    /// Always above 0: an award of zero points does not exist.
    pub points: i64,
    /// Not clipped to the period.
    pub window: Interval,
    /// The first purchase of the evidence; `by` is the last. [`super::evidence`] derives those between the two.
    pub evidence_from: Key,
}

/// The key of the purchase that reached an award, and the position of the award among those that this purchase reached.
pub type AwardName = (Key, i32);

impl Reached {
    /// Returns the place in award order: by `earnedAt`, the `externalId` of the reaching purchase, and the ordinal.
    pub fn order(&self) -> (&Key, i64) {
        (&self.by, self.ordinal)
    }

    /// Returns what identifies the award within one customer and campaign.
    pub fn name(&self) -> AwardName {
        (self.by.clone(), self.nth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_per_unit_are_floored_and_bounded() {
        let eur = Currency::parse("EUR").unwrap();
        assert_eq!(Rate(1_500_000).points(1999, eur), 29);
        assert_eq!(Rate(1).points(99_999_999, eur), 0);
        assert_eq!(Rate(10_000_000_000).points(crate::engine::money::MAX_MINOR, eur), MAX_POINTS);
        assert_eq!(Rate(1_500_000).format(), "1.5");
        assert_eq!(Rate(2_000_000).format(), "2");
    }
}
