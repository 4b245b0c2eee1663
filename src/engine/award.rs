//! Awards: goals reached, with their points and their evidence.

use serde::{Deserialize, Serialize};

use super::money::{Currency, decimal_text};
use super::purchase::Key;
use super::window::Interval;

/// The most points one award can have; `pointsPerUnit` stops there.
pub const MAX_POINTS: i64 = 1_000_000_000;
/// Decimals of a rate.
pub const RATE_DECIMALS: u32 = 6;
/// The greatest rate.
pub const MAX_RATE: i64 = 10_000;

/// How many points an award has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AwardRule {
    /// The same each time, 1 to [`MAX_POINTS`].
    Points(i64),
    /// Per major unit of the reaching purchase's eligible amount.
    PointsPerUnit(Rate),
}

/// Points per major unit, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(pub i64);

impl Rate {
    /// `floor(eligible amount in major units × rate)`, at most [`MAX_POINTS`].
    pub fn points(self, eligible: i64, currency: Currency) -> i64 {
        let scale = i128::from(currency.minor_per_major()) * 10_i128.pow(RATE_DECIMALS);
        let points = i128::from(eligible) * i128::from(self.0) / scale;
        i64::try_from(points).unwrap_or(MAX_POINTS).min(MAX_POINTS)
    }

    /// A decimal without trailing zeros.
    pub fn format(self) -> String {
        let text = decimal_text(i128::from(self.0), RATE_DECIMALS);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl AwardRule {
    /// What an award that this purchase reaches is worth; 0: it does not exist.
    pub fn points(&self, eligible: i64, currency: Currency) -> i64 {
        match self {
            Self::Points(points) => *points,
            Self::PointsPerUnit(rate) => rate.points(eligible, currency),
        }
    }

    /// The least that an award can have.
    pub const fn least(&self) -> i64 {
        match self {
            Self::Points(points) => *points,
            Self::PointsPerUnit(_) => 1,
        }
    }
}

/// An award that history gives and the caps leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The purchase that reached the goal; its instant is `earnedAt`.
    pub by: Key,
    /// n-th of the awards that this purchase reached at once, from 1. With `by` and the campaign: the award's name.
    pub nth: i32,
    /// 1, 2 … among the window's awards before caps.
    pub ordinal: i64,
    /// > 0.
    pub points: i64,
    /// Unclipped.
    pub window: Interval,
    /// The first purchase of the evidence; the last is `by`. Which purchases between them count is derived: all
    /// eligible ones, for a streak the first k of each window.
    pub evidence_from: Key,
}

impl Reached {
    /// Award order: earnedAt, the reaching purchase's externalId, ordinal.
    pub fn order(&self) -> (&Key, i64) {
        (&self.by, self.ordinal)
    }

    /// What makes it the same award, within a campaign.
    pub fn name(&self) -> (&Key, i32) {
        (&self.by, self.nth)
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
