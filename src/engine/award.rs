//! Awards: how many points an award has, and what is known of an award that is reached.

use serde::{Deserialize, Serialize};

use super::dates::Dates;
use super::money::{Currency, decimal_text};
use super::purchase::Key;
use super::window::Interval;

/// The most points that one award can have. `pointsPerUnit` never gives more.
pub const MAX_POINTS: i64 = 1_000_000_000;
/// The most decimals that a rate can have.
pub const RATE_DECIMALS: u32 = 6;
/// The greatest rate, in points per major unit.
pub const MAX_RATE: i64 = 10_000;
/// The most rates of [`CategoryRates`].
pub const MAX_RATES: usize = 100;

/// How many points an award has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AwardRule {
    /// The same points each time, from 1 to [`MAX_POINTS`].
    Points(i64),
    /// Points per major unit of the reaching purchase's eligible amount.
    PointsPerUnit(Rate),
    /// Points per major unit, by the categories of the matching lines.
    PointsByCategory(CategoryRates),
}

/// Rates for categories, and one for all the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CategoryRates {
    /// Above 0.
    pub rate: Rate,
    /// From 1 to [`MAX_RATES`]. Of several that name a category, the first counts.
    pub rates: Vec<CategoryRate>,
}

/// The rate of some categories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CategoryRate {
    /// Not empty.
    pub categories: Vec<String>,
    /// At least 0.
    pub rate: Rate,
}

/// Points per major unit, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(pub i64);

impl Rate {
    /// Returns the millionths of points that this amount, in minor units, gives for each minor unit of a major one.
    fn of(self, amount: i128) -> i128 {
        amount * i128::from(self.0)
    }

    /// Whether the rate is at most [`MAX_RATE`] and at least `least`, in millionths.
    pub fn is_within(self, least: i64) -> bool {
        (least..=MAX_RATE * 10_i64.pow(RATE_DECIMALS)).contains(&self.0)
    }

    /// Formats the rate as a decimal without trailing zeros.
    pub fn format(self) -> String {
        let text = decimal_text(i128::from(self.0), RATE_DECIMALS);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl AwardRule {
    /// Returns the points of an award whose reaching purchase has this eligible amount, in minor units, and these matching lines:
    /// the category and the net of each. Points per unit are rounded down once, and are at most [`MAX_POINTS`]. An award of zero
    /// points does not exist.
    pub fn points<'a>(
        &self,
        eligible: i64,
        lines: impl Iterator<Item = (Option<&'a str>, i64)> + Clone,
        currency: Currency,
    ) -> i64 {
        let rated = match self {
            Self::Points(points) => return *points,
            Self::PointsPerUnit(rate) => rate.of(eligible.into()),
            Self::PointsByCategory(rates) => rates.of(eligible.into(), lines),
        };
        let scale = i128::from(currency.minor_per_major()) * 10_i128.pow(RATE_DECIMALS);
        i64::try_from(rated / scale).unwrap_or(MAX_POINTS).min(MAX_POINTS)
    }

    /// Returns the fewest points that an award can have.
    pub const fn least(&self) -> i64 {
        match self {
            Self::Points(points) => *points,
            Self::PointsPerUnit(_) | Self::PointsByCategory(_) => 1,
        }
    }
}

impl CategoryRates {
    /// Each line goes by the rate of its category, and the rest of the eligible amount by the general rate. Lines that together
    /// exceed the eligible amount are reduced in proportion.
    fn of<'a>(&self, eligible: i128, lines: impl Iterator<Item = (Option<&'a str>, i64)> + Clone) -> i128 {
        let sum: i128 = lines.clone().map(|(_, net)| i128::from(net)).sum();
        let (mut rest, mut rated) = (eligible, 0);
        for (category, net) in lines {
            let named = |one: &&CategoryRate| one.categories.iter().any(|name| Some(name.as_str()) == category);
            if let Some(one) = self.rates.iter().find(named) {
                let net = i128::from(net);
                let part = if sum > eligible { net * eligible / sum } else { net };
                rest -= part;
                rated += one.rate.of(part);
            }
        }
        rated + self.rate.of(rest)
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
    /// What the goal gave before the caps in points.
    pub points_before_cap: i64,
    /// Not clipped to the period.
    pub window: Interval,
    /// The dates of the points, which follow from `earnedAt`.
    pub dates: Dates,
    /// The first purchase of the evidence; `by` is the last. [`super::evidence`] derives those between the two.
    pub evidence_from: Key,
}

/// What identifies an award within one customer and campaign: the `externalId` of the reaching purchase, and the position of the award
/// among those that this purchase reached. A revision that moves the purchase to another instant does not change it.
pub type AwardName = (String, i32);

/// The place of an award among those of one customer and campaign: the key of the reaching purchase, and the position of the award
/// among those that this purchase reached.
pub type AwardPlace = (Key, i32);

impl Reached {
    /// Returns the place in award order: by `earnedAt`, the `externalId` of the reaching purchase, and the ordinal.
    pub fn order(&self) -> (&Key, i64) {
        (&self.by, self.ordinal)
    }

    /// Returns what identifies the award within one customer and campaign.
    pub fn name(&self) -> AwardName {
        (self.by.external_id.clone(), self.nth)
    }

    /// Returns the place among the awards of one customer and campaign.
    pub fn place(&self) -> AwardPlace {
        (self.by.clone(), self.nth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_per_unit_are_floored_and_bounded() {
        let eur = Currency::parse("EUR").unwrap();
        let points = |rate, eligible| AwardRule::PointsPerUnit(Rate(rate)).points(eligible, std::iter::empty(), eur);
        assert_eq!(points(1_500_000, 1999), 29);
        assert_eq!(points(1, 99_999_999), 0);
        assert_eq!(points(10_000_000_000, crate::engine::money::MAX_MINOR), MAX_POINTS);
        assert_eq!(Rate(1_500_000).format(), "1.5");
        assert_eq!(Rate(2_000_000).format(), "2");
    }
}
