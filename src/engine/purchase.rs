//! Purchases and refunds, and the nets: what is left of a purchase and of its lines after its refunds.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::money::Currency;
use super::time::Instant;

/// The place of a purchase in the order of the customer's purchases: `(purchasedAt, externalId)`, with `externalId` compared as
/// bytes. Two purchases never have the same place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The `purchasedAt` of the purchase.
    #[serde(rename = "t")]
    pub at: Instant,
    #[serde(rename = "i")]
    pub external_id: String,
}

impl Key {
    /// Returns a key before every purchase at this instant and after every earlier one. (No `externalId` is empty.)
    pub fn before(at: Instant) -> Self {
        Self { at, external_id: String::new() }
    }
}

/// A purchase with its refunds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    pub key: Key,
    /// In minor units, at least 0.
    pub total: i64,
    /// The currency of the total, the lines and the refunds.
    pub currency: Currency,
    pub channel: Option<String>,
    /// In the order in which the shop gave them.
    pub lines: Vec<Line>,
    /// In any order. The nets do not depend on it.
    pub refunds: Vec<Refund>,
    /// The revision of the campaign set in the commit that recorded the purchase; 0 before that.
    pub set_revision: i64,
}

/// One article of a purchase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The number of the article in the shop.
    pub sku: String,
    /// The shop's category of the article, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// At least 1. The goal `units` counts it.
    pub quantity: i32,
    /// In minor units, at least 0. The amounts of the lines need not sum to the total.
    pub amount: i64,
}

/// Takes back all or part of a purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// In minor units: the amount that was given, the sum of the lines, or the total of the purchase.
    pub amount: i64,
    /// Empty if the refund names no article. It then reduces all lines of the purchase in proportion.
    pub lines: Vec<RefundLine>,
    /// The revision of the campaign set in the commit that recorded the refund; 0 before that.
    pub set_revision: i64,
}

/// The part of a refund that names an article.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundLine {
    /// The sku of at least one line of the purchase.
    pub sku: String,
    /// In minor units, above 0.
    pub amount: i64,
}

/// How a fraction becomes a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    Down,
    Up,
}

impl Line {
    /// Returns the place in the order in which a refund that names a sku takes from the lines of that sku. Only equal lines have
    /// the same place.
    pub fn order(&self) -> (&str, Option<&str>, i32, i64) {
        (&self.sku, self.category.as_deref(), self.quantity, self.amount)
    }
}

impl Purchase {
    /// Returns the purchase as it counts in a campaign that was settled at this revision of the campaign set: without the refunds
    /// recorded since then. Returns `None` if the purchase itself was recorded since then. See "Settlement" in
    /// `docs/semantics.md`.
    pub fn settled(&self, settled_revision: i64) -> Option<Cow<'_, Self>> {
        let counts = |set_revision: i64| set_revision < settled_revision;
        if !counts(self.set_revision) {
            return None;
        }
        if self.refunds.iter().all(|refund| counts(refund.set_revision)) {
            return Some(Cow::Borrowed(self));
        }
        let refunds = self.refunds.iter().filter(|refund| counts(refund.set_revision)).cloned().collect();
        Some(Cow::Owned(Self { refunds, ..self.clone() }))
    }

    /// Returns `max(0, total − sum of all refunds)`.
    pub fn net(&self) -> i64 {
        let refunded: i128 = self.refunds.iter().map(|refund| i128::from(refund.amount)).sum();
        left(self.total, refunded)
    }

    /// Returns the net of each line, in line order: `left × net ÷ rest`, rounded as `rounding` says, or 0 if `rest` is 0. See
    /// "Net" in `docs/semantics.md`.
    pub fn net_lines(&self, rounding: Rounding) -> Vec<i64> {
        let by_line = self.refunds.iter().filter(|refund| !refund.lines.is_empty());
        let rest = left(self.total, by_line.clone().map(|refund| i128::from(refund.amount)).sum());
        if rest == 0 {
            return vec![0; self.lines.len()];
        }
        let net = self.net();
        let mut remaining: Vec<i64> = self.lines.iter().map(|line| line.amount).collect();
        // A fixed order instead of the order given, because the same lines in another order are the same purchase.
        let mut ordered: Vec<usize> = (0..self.lines.len()).collect();
        ordered.sort_by(|one, other| self.lines[*one].order().cmp(&self.lines[*other].order()));
        for named in by_line.flat_map(|refund| &refund.lines) {
            let mut open = named.amount;
            for at in ordered.iter().filter(|at| self.lines[**at].sku == named.sku) {
                let taken = open.min(remaining[*at]);
                remaining[*at] -= taken;
                open -= taken;
            }
        }
        remaining
            .into_iter()
            .map(|left| {
                // The share is at most `left`, because `net` is at most `rest`: all refunds include those with lines.
                let share = i128::from(left) * i128::from(net);
                let rest = i128::from(rest);
                let rounded = match rounding {
                    Rounding::Down => share / rest,
                    Rounding::Up => (share + rest - 1) / rest,
                };
                i64::try_from(rounded).unwrap_or(i64::MAX)
            })
            .collect()
    }
}

fn left(total: i64, refunded: i128) -> i64 {
    i64::try_from((i128::from(total) - refunded).max(0)).unwrap_or(total)
}

/// Why a refund is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefundRefusal {
    #[error("must be above zero")]
    NotPositive {
        /// The index of the refund's line, or `None` for the amount of the refund itself.
        line: Option<usize>,
    },
    #[error("is above the purchase's total")]
    AboveTotal,
    /// The refund names more of a sku than the sum of the purchase's lines of that sku.
    #[error("is above the amount of this sku in the purchase")]
    AboveLines {
        /// The index of the refund's first line that names the sku.
        line: usize,
    },
    #[error("is not in the purchase")]
    SkuNotInPurchase {
        /// The index of the refund's line.
        line: usize,
    },
    /// The refund has both an amount and lines, and the amount is not the sum of the lines.
    #[error("is not the sum of the lines")]
    NotTheSum,
}

/// Checks a refund against its purchase, which has this `total` and these `lines`. Returns the refund with the amount that
/// counts, or why it is refused. Earlier refunds do not matter: several refunds that together exceed the total are accepted,
/// and the net stops at 0.
pub fn settle_refund(
    total: i64,
    lines: &[Line],
    amount: Option<i64>,
    refund_lines: Vec<RefundLine>,
) -> Result<Refund, RefundRefusal> {
    if amount.is_some_and(|amount| amount <= 0) {
        return Err(RefundRefusal::NotPositive { line: None });
    }
    if refund_lines.is_empty() {
        let amount = amount.unwrap_or(total);
        return if amount > total {
            Err(RefundRefusal::AboveTotal)
        } else {
            Ok(Refund { amount, lines: Vec::new(), set_revision: 0 })
        };
    }
    for (index, refunded) in refund_lines.iter().enumerate() {
        if refunded.amount <= 0 {
            return Err(RefundRefusal::NotPositive { line: Some(index) });
        }
        let bought = lines.iter().filter(|line| line.sku == refunded.sku);
        if bought.clone().next().is_none() {
            return Err(RefundRefusal::SkuNotInPurchase { line: index });
        }
        // Several lines of the refund that name the same sku are added first.
        let of_sku = refund_lines.iter().filter(|line| line.sku == refunded.sku);
        let asked: i128 = of_sku.map(|line| i128::from(line.amount)).sum();
        if asked > bought.map(|line| i128::from(line.amount)).sum() {
            return Err(RefundRefusal::AboveLines { line: index });
        }
    }
    let sum: i128 = refund_lines.iter().map(|line| i128::from(line.amount)).sum();
    if amount.is_some_and(|amount| i128::from(amount) != sum) {
        return Err(RefundRefusal::NotTheSum);
    }
    match i64::try_from(sum) {
        Ok(amount) if amount <= total => Ok(Refund { amount, lines: refund_lines, set_revision: 0 }),
        _ => Err(RefundRefusal::AboveTotal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sku: &str, amount: i64) -> Line {
        Line { sku: sku.into(), category: None, quantity: 1, amount }
    }

    fn refund(amount: i64, lines: &[(&str, i64)]) -> Refund {
        let lines = lines.iter().map(|(sku, amount)| RefundLine { sku: (*sku).into(), amount: *amount }).collect();
        Refund { amount, lines, set_revision: 0 }
    }

    fn purchase(total: i64, lines: &[(&str, i64)], refunds: Vec<Refund>) -> Purchase {
        Purchase {
            key: Key { at: Instant(0), external_id: "p".into() },
            total,
            currency: Currency::parse("EUR").unwrap(),
            channel: None,
            lines: lines.iter().map(|(sku, amount)| line(sku, *amount)).collect(),
            refunds,
            set_revision: 0,
        }
    }

    #[test]
    fn net_stops_at_zero() {
        assert_eq!(purchase(100, &[], vec![refund(60, &[]), refund(60, &[])]).net(), 0);
    }

    #[test]
    fn a_refund_without_lines_shrinks_every_line_in_proportion() {
        let bought = purchase(100, &[("a", 60), ("b", 41)], vec![refund(50, &[])]);
        assert_eq!(bought.net_lines(Rounding::Down), [30, 20]);
        assert_eq!(bought.net_lines(Rounding::Up), [30, 21]);
    }

    #[test]
    fn a_refund_that_names_a_sku_is_spread_over_its_lines_whatever_order_they_came_in() {
        let bought = purchase(100, &[("a", 20), ("b", 50), ("a", 30)], vec![refund(35, &[("a", 35)])]);
        assert_eq!(bought.net_lines(Rounding::Down), [0, 50, 15]);
        let bought = purchase(100, &[("a", 30), ("b", 50), ("a", 20)], vec![refund(35, &[("a", 35)])]);
        assert_eq!(bought.net_lines(Rounding::Down), [15, 50, 0]);
    }

    #[test]
    fn refusals() {
        let lines = [line("a", 60), line("a", 10)];
        let named = |sku: &str, amount| RefundLine { sku: sku.into(), amount };
        let settle = |amount, refund_lines| settle_refund(100, &lines, amount, refund_lines);
        assert_eq!(settle(None, vec![]).unwrap().amount, 100);
        assert_eq!(settle(None, vec![named("a", 30), named("a", 40)]).unwrap().amount, 70);
        assert_eq!(settle(Some(0), vec![]), Err(RefundRefusal::NotPositive { line: None }));
        assert_eq!(settle(Some(101), vec![]), Err(RefundRefusal::AboveTotal));
        assert_eq!(settle(None, vec![named("b", 1)]), Err(RefundRefusal::SkuNotInPurchase { line: 0 }));
        assert_eq!(settle(None, vec![named("a", 40), named("a", 31)]), Err(RefundRefusal::AboveLines { line: 0 }));
        assert_eq!(settle(Some(5), vec![named("a", 4)]), Err(RefundRefusal::NotTheSum));
        // A purchase with a total of 0 can be refunded as a whole.
        assert_eq!(settle_refund(0, &[], None, vec![]).unwrap().amount, 0);
    }

    #[test]
    fn a_settled_campaign_counts_what_was_recorded_before() {
        let early = Refund { set_revision: 4, ..refund(10, &[]) };
        let late = Refund { set_revision: 5, ..refund(20, &[]) };
        let whole = Purchase { set_revision: 3, ..purchase(100, &[], vec![early, late]) };
        assert_eq!(whole.settled(6).map(|counted| counted.net()), Some(70));
        assert_eq!(whole.settled(5).map(|counted| counted.net()), Some(90));
        assert_eq!(whole.settled(4).map(|counted| counted.net()), Some(100));
        assert_eq!(whole.settled(3), None);
    }
}
