//! Purchases and refunds, and what is left of them (net).

use serde::{Deserialize, Serialize};

use super::money::Currency;
use super::time::Instant;

/// The order of a customer's purchases: `(purchasedAt, externalId)`, the latter as bytes. There are no ties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// `purchasedAt`.
    #[serde(rename = "t")]
    pub at: Instant,
    /// The purchase's `externalId`.
    #[serde(rename = "i")]
    pub external_id: String,
}

impl Key {
    /// Before every purchase of that instant (no `externalId` is empty).
    pub fn before(at: Instant) -> Self {
        Self { at, external_id: String::new() }
    }
}

/// A recorded purchase with the refunds that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// `(purchasedAt, externalId)`.
    pub key: Key,
    /// Minor units, ≥ 0.
    pub total: i64,
    /// Of the total and all amounts.
    pub currency: Currency,
    /// Where it was made.
    pub channel: Option<String>,
    /// In the order given.
    pub lines: Vec<Line>,
    /// In any order: net does not depend on it.
    pub refunds: Vec<Refund>,
}

/// One article of a purchase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The shop's article number.
    pub sku: String,
    /// The shop's category, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// ≥ 1.
    pub quantity: i32,
    /// Minor units, ≥ 0. Lines need not sum to the total.
    pub amount: i64,
}

/// Takes back all or part of a purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Minor units: as given, or the sum of its lines, or the purchase's total.
    pub amount: i64,
    /// What it names; empty: nothing in particular.
    pub lines: Vec<RefundLine>,
}

/// The part of a refund that names an article.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundLine {
    /// An article of the purchase.
    pub sku: String,
    /// Minor units, > 0.
    pub amount: i64,
}

impl Line {
    /// Lines of one sku in the order in which refunds that name it take from them; without ties but for equal lines.
    pub fn order(&self) -> (&str, Option<&str>, i32, i64) {
        (&self.sku, self.category.as_deref(), self.quantity, self.amount)
    }
}

impl Purchase {
    /// `max(0, total − all refunds)`.
    pub fn net(&self) -> i64 {
        let refunded: i128 = self.refunds.iter().map(|refund| i128::from(refund.amount)).sum();
        left(self.total, refunded)
    }

    /// What is left of each line, in line order: `floor(left × net / rest)`, 0 where `rest` = 0.
    pub fn net_lines(&self) -> Vec<i64> {
        let by_line = self.refunds.iter().filter(|refund| !refund.lines.is_empty());
        let rest = left(self.total, by_line.clone().map(|refund| i128::from(refund.amount)).sum());
        if rest == 0 {
            return vec![0; self.lines.len()];
        }
        let net = self.net();
        let mut remaining: Vec<i64> = self.lines.iter().map(|line| line.amount).collect();
        // Not in the order given: the same lines in another order are the same purchase.
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
                // At most left × (net / rest) ≤ left: net ≤ rest, since the refunds by line are among all refunds.
                let share = i128::from(left) * i128::from(net) / i128::from(rest);
                i64::try_from(share).unwrap_or(i64::MAX)
            })
            .collect()
    }
}

/// `max(0, total − refunded)`.
fn left(total: i64, refunded: i128) -> i64 {
    i64::try_from((i128::from(total) - refunded).max(0)).unwrap_or(total)
}

/// Why a refund was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefundRefusal {
    /// Amount ≤ 0.
    #[error("must be above zero")]
    NotPositive {
        /// Index of the line; none: the refund's own amount.
        line: Option<usize>,
    },
    /// Above the purchase's total.
    #[error("is above the purchase's total")]
    AboveTotal,
    /// Above the sum of that article's lines.
    #[error("is above what the purchase has of this sku")]
    AboveLines {
        /// Index of the first line that names the article.
        line: usize,
    },
    /// The article was not bought.
    #[error("is not in the purchase")]
    SkuNotInPurchase {
        /// Index of the line.
        line: usize,
    },
    /// `amount` beside `lines` that is not their sum.
    #[error("is not the sum of the lines")]
    NotTheSum,
}

/// Settles a refund against its purchase: the amount that counts, or why it is refused. Earlier refunds do not matter:
/// several that together exceed the total are accepted, and net stops at 0.
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
        return if amount > total { Err(RefundRefusal::AboveTotal) } else { Ok(Refund { amount, lines: Vec::new() }) };
    }
    for (index, refunded) in refund_lines.iter().enumerate() {
        if refunded.amount <= 0 {
            return Err(RefundRefusal::NotPositive { line: Some(index) });
        }
        let bought = lines.iter().filter(|line| line.sku == refunded.sku);
        if bought.clone().next().is_none() {
            return Err(RefundRefusal::SkuNotInPurchase { line: index });
        }
        // Several lines of one sku are added first.
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
        Ok(amount) if amount <= total => Ok(Refund { amount, lines: refund_lines }),
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
        Refund { amount, lines }
    }

    fn purchase(total: i64, lines: &[(&str, i64)], refunds: Vec<Refund>) -> Purchase {
        Purchase {
            key: Key { at: Instant(0), external_id: "p".into() },
            total,
            currency: Currency::parse("EUR").unwrap(),
            channel: None,
            lines: lines.iter().map(|(sku, amount)| line(sku, *amount)).collect(),
            refunds,
        }
    }

    #[test]
    fn net_stops_at_zero() {
        assert_eq!(purchase(100, &[], vec![refund(60, &[]), refund(60, &[])]).net(), 0);
    }

    #[test]
    fn a_refund_without_lines_shrinks_every_line_in_proportion() {
        let bought = purchase(100, &[("a", 60), ("b", 41)], vec![refund(50, &[])]);
        assert_eq!(bought.net_lines(), [30, 20]);
    }

    #[test]
    fn a_refund_that_names_a_sku_is_spread_over_its_lines_whatever_order_they_came_in() {
        let bought = purchase(100, &[("a", 20), ("b", 50), ("a", 30)], vec![refund(35, &[("a", 35)])]);
        assert_eq!(bought.net_lines(), [0, 50, 15]);
        let bought = purchase(100, &[("a", 30), ("b", 50), ("a", 20)], vec![refund(35, &[("a", 35)])]);
        assert_eq!(bought.net_lines(), [15, 50, 0]);
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
        // A total of zero may be refunded whole.
        assert_eq!(settle_refund(0, &[], None, vec![]).unwrap().amount, 0);
    }
}
