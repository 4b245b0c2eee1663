//! Purchases, refunds and running sums, and the nets: what is left of a purchase and of its lines after what was taken back.

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

/// One content of a purchase, with what was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    pub key: Key,
    /// In minor units, at least 0.
    pub total: i64,
    /// The currency of the total and the lines.
    pub currency: Currency,
    pub channel: Option<String>,
    /// In the order in which the shop gave them.
    pub lines: Vec<Line>,
    /// In any order. The nets do not depend on it.
    pub refunds: Vec<Refund>,
    /// The running sums that the contents of the purchase state, in any order. The one of the highest revision counts, so a caller
    /// that has it may leave out the others.
    pub sums: Vec<RunningSum>,
    /// The revision of the campaign set in the commit that recorded this content; 0 before that.
    pub set_revision: i64,
    /// The revision of the campaign set in the commit that replaced this content by one of a higher revision. `None` if this is
    /// the content that counts.
    pub replaced_at: Option<i64>,
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
    /// In minor units of `currency`: the amount that was given, or the sum of the lines. `None` stands for the total of the purchase.
    pub amount: Option<i64>,
    /// Empty if the refund names no article. It then reduces all lines of the purchase in proportion.
    pub lines: Vec<RefundLine>,
    /// The currency of the amounts. A revision of the purchase may have another one.
    pub currency: Currency,
    pub refunded_at: Instant,
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

/// All that was taken back of a purchase up to an instant, as the shop added it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningSum {
    /// The revision of the purchase that states the sum.
    pub revision: i64,
    /// In minor units of `currency`, at least 0.
    pub amount: i64,
    pub currency: Currency,
    /// Refunds after this instant are not part of the sum. `None`: all refunds are.
    pub until: Option<Instant>,
    /// The revision of the campaign set in the commit that recorded the sum; 0 before that.
    pub set_revision: i64,
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
    /// Returns the purchase as it counts in a campaign. `None` if another content of the purchase, or none, counts in it.
    ///
    /// A campaign that was settled at a revision of the campaign set counts the content, the refunds and the running sum that
    /// counted then. See "Settlement" in `docs/semantics.md`.
    pub fn counted(&self, settled_revision: Option<i64>) -> Option<Cow<'_, Self>> {
        let Some(settled) = settled_revision else { return self.replaced_at.is_none().then_some(Cow::Borrowed(self)) };
        let counts = |set_revision: i64| set_revision < settled;
        if !counts(self.set_revision) || self.replaced_at.is_some_and(counts) {
            return None;
        }
        let refunds = self.refunds.iter().filter(|refund| counts(refund.set_revision));
        let sums = self.sums.iter().filter(|sum| counts(sum.set_revision));
        if refunds.clone().count() == self.refunds.len() && sums.clone().count() == self.sums.len() {
            return Some(Cow::Borrowed(self));
        }
        let (refunds, sums) = (refunds.cloned().collect(), sums.cloned().collect());
        Some(Cow::Owned(Self { refunds, sums, ..self.clone() }))
    }

    /// Returns what was taken back, in minor units. Refunds and the running sum may be the same money, so the greater of these
    /// counts: all refunds, or the running sum with the refunds after it. See "Net" in `docs/semantics.md`.
    pub fn refunded(&self) -> i128 {
        let amounts = || self.refunds.iter().map(|refund| (refund.refunded_at, self.amount_of(refund)));
        let all: i128 = amounts().map(|(_, amount)| amount).sum();
        let Some(sum) = self.sums.iter().max_by_key(|sum| sum.revision) else { return all };
        let later = amounts().filter(|(at, _)| sum.until.is_some_and(|until| *at > until));
        let with_later = self.converted(sum.amount, sum.currency) + later.map(|(_, amount)| amount).sum::<i128>();
        all.max(with_later)
    }

    /// Returns what a refund takes back, in minor units of the purchase.
    pub fn amount_of(&self, refund: &Refund) -> i128 {
        match refund.amount {
            None => self.total.into(),
            Some(amount) if refund.lines.is_empty() => self.converted(amount, refund.currency),
            Some(_) => refund.lines.iter().map(|line| self.converted(line.amount, refund.currency)).sum(),
        }
    }

    /// Converts an amount to the currency of the purchase: it keeps its decimal number, rounded down.
    fn converted(&self, amount: i64, currency: Currency) -> i128 {
        i128::from(amount) * i128::from(self.currency.minor_per_major()) / i128::from(currency.minor_per_major())
    }

    /// Returns `max(0, total − refunded)`.
    pub fn net(&self) -> i64 {
        left(self.total, self.refunded())
    }

    /// Returns the net of each line, in line order: `left × net ÷ rest`, rounded as `rounding` says, or 0 if `rest` is 0. See
    /// "Net" in `docs/semantics.md`.
    pub fn net_lines(&self, rounding: Rounding) -> Vec<i64> {
        let by_line = self.refunds.iter().filter(|refund| !refund.lines.is_empty());
        let rest = left(self.total, by_line.clone().map(|refund| self.amount_of(refund)).sum());
        if rest == 0 {
            return vec![0; self.lines.len()];
        }
        let net = self.net();
        let mut remaining: Vec<i64> = self.lines.iter().map(|line| line.amount).collect();
        // A fixed order instead of the order given, because the same lines in another order are the same purchase.
        let mut ordered: Vec<usize> = (0..self.lines.len()).collect();
        ordered.sort_by(|one, other| self.lines[*one].order().cmp(&self.lines[*other].order()));
        let named = by_line.flat_map(|refund| refund.lines.iter().map(|line| (line, refund.currency)));
        for (named, currency) in named {
            let mut open = i64::try_from(self.converted(named.amount, currency)).unwrap_or(i64::MAX);
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

/// What a refund is checked against: a recorded content of its purchase.
#[derive(Clone, Copy, Debug)]
pub struct Refundable<'a> {
    pub total: i64,
    pub lines: &'a [Line],
}

/// Checks a refund, whose amounts are in the currency of the content. Returns the amount of the refund, `None` if it takes back the
/// total, or why it is refused. Earlier refunds do not matter: several refunds that together exceed the total are accepted, and the
/// net stops at 0.
pub fn check_refund(
    content: Refundable<'_>,
    amount: Option<i64>,
    refund_lines: &[RefundLine],
) -> Result<Option<i64>, RefundRefusal> {
    if amount.is_some_and(|amount| amount <= 0) {
        return Err(RefundRefusal::NotPositive { line: None });
    }
    if refund_lines.is_empty() {
        return if amount.is_some_and(|amount| amount > content.total) {
            Err(RefundRefusal::AboveTotal)
        } else {
            Ok(amount)
        };
    }
    for (index, refunded) in refund_lines.iter().enumerate() {
        if refunded.amount <= 0 {
            return Err(RefundRefusal::NotPositive { line: Some(index) });
        }
        let bought = content.lines.iter().filter(|line| line.sku == refunded.sku);
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
        Ok(amount) if amount <= content.total => Ok(Some(amount)),
        _ => Err(RefundRefusal::AboveTotal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sku: &str, amount: i64) -> Line {
        Line { sku: sku.into(), category: None, quantity: 1, amount }
    }

    fn eur() -> Currency {
        Currency::parse("EUR").unwrap()
    }

    fn refund(amount: i64, lines: &[(&str, i64)]) -> Refund {
        let lines = lines.iter().map(|(sku, amount)| RefundLine { sku: (*sku).into(), amount: *amount }).collect();
        Refund { amount: Some(amount), lines, currency: eur(), refunded_at: Instant(0), set_revision: 0 }
    }

    fn purchase(total: i64, lines: &[(&str, i64)], refunds: Vec<Refund>) -> Purchase {
        Purchase {
            key: Key { at: Instant(0), external_id: "p".into() },
            total,
            currency: eur(),
            channel: None,
            lines: lines.iter().map(|(sku, amount)| line(sku, *amount)).collect(),
            refunds,
            sums: Vec::new(),
            set_revision: 0,
            replaced_at: None,
        }
    }

    fn sum(revision: i64, amount: i64, until: Option<i64>) -> RunningSum {
        RunningSum { revision, amount, currency: eur(), until: until.map(Instant), set_revision: 0 }
    }

    #[test]
    fn net_stops_at_zero() {
        assert_eq!(purchase(100, &[], vec![refund(60, &[]), refund(60, &[])]).net(), 0);
    }

    #[test]
    fn a_running_sum_and_refunds_do_not_count_twice() {
        let at = |at, amount| Refund { refunded_at: Instant(at), ..refund(amount, &[]) };
        let left = |sums: Vec<RunningSum>, refunds| Purchase { sums, ..purchase(100, &[], refunds) }.net();
        assert_eq!(left(vec![sum(0, 30, None)], vec![at(1, 10), at(9, 10)]), 70);
        // Of the refunds, only those after the sum are added to it.
        assert_eq!(left(vec![sum(0, 30, Some(5))], vec![at(1, 10), at(5, 10), at(9, 10)]), 60);
        // The refunds together are more than the sum.
        assert_eq!(left(vec![sum(0, 5, Some(5))], vec![at(1, 10), at(2, 10)]), 80);
        // The highest revision that states a sum counts, even if its sum is lower.
        assert_eq!(left(vec![sum(2, 0, None), sum(1, 30, None)], vec![]), 100);
    }

    #[test]
    fn a_refund_of_the_whole_follows_the_total() {
        let whole = || vec![Refund { amount: None, ..refund(1, &[]) }];
        assert_eq!(purchase(100, &[], whole()).refunded(), 100);
        assert_eq!(purchase(250, &[], whole()).refunded(), 250);
    }

    #[test]
    fn an_amount_keeps_its_decimal_number_in_another_currency() {
        let in_yen =
            |refunds| Purchase { currency: Currency::parse("JPY").unwrap(), ..purchase(500, &[("a", 400)], refunds) };
        assert_eq!(in_yen(vec![refund(1_999, &[])]).refunded(), 19);
        // Each line is rounded, then the sum is made.
        assert_eq!(in_yen(vec![refund(398, &[("a", 199), ("a", 199)])]).refunded(), 2);
        assert_eq!(in_yen(vec![refund(398, &[("a", 199), ("a", 199)])]).net_lines(Rounding::Down), [398]);
        let sums = vec![sum(0, 1_999, None)];
        assert_eq!(Purchase { sums, ..in_yen(vec![]) }.net(), 481);
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
        let check = |amount, refund_lines: &[RefundLine]| {
            check_refund(Refundable { total: 100, lines: &lines }, amount, refund_lines)
        };
        assert_eq!(check(None, &[]), Ok(None));
        assert_eq!(check(None, &[named("a", 30), named("a", 40)]), Ok(Some(70)));
        assert_eq!(check(Some(0), &[]), Err(RefundRefusal::NotPositive { line: None }));
        assert_eq!(check(Some(101), &[]), Err(RefundRefusal::AboveTotal));
        assert_eq!(check(None, &[named("b", 1)]), Err(RefundRefusal::SkuNotInPurchase { line: 0 }));
        assert_eq!(check(None, &[named("a", 40), named("a", 31)]), Err(RefundRefusal::AboveLines { line: 0 }));
        assert_eq!(check(Some(5), &[named("a", 4)]), Err(RefundRefusal::NotTheSum));
        // A purchase with a total of 0 can be refunded as a whole.
        assert_eq!(check_refund(Refundable { total: 0, lines: &[] }, None, &[]), Ok(None));
    }

    #[test]
    fn a_settled_campaign_counts_what_counted_before() {
        let early = Refund { set_revision: 4, ..refund(10, &[]) };
        let late = Refund { set_revision: 5, ..refund(20, &[]) };
        let whole = Purchase { set_revision: 3, ..purchase(100, &[], vec![early, late]) };
        let net = |purchase: &Purchase, settled| purchase.counted(settled).map(|counted| counted.net());
        assert_eq!([6, 5, 4, 3].map(|settled| net(&whole, Some(settled))), [Some(70), Some(90), Some(100), None]);
        assert_eq!(net(&whole, None), Some(70));
        let replaced = Purchase { replaced_at: Some(5), ..whole };
        assert_eq!([6, 5, 4].map(|settled| net(&replaced, Some(settled))), [None, Some(90), Some(100)]);
        assert_eq!(net(&replaced, None), None);
        let sums =
            vec![RunningSum { set_revision: 4, ..sum(1, 50, None) }, RunningSum { set_revision: 5, ..sum(2, 0, None) }];
        let summed = Purchase { sums, ..purchase(100, &[], Vec::new()) };
        assert_eq!([6, 5, 4].map(|settled| net(&summed, Some(settled))), [Some(100), Some(50), Some(100)]);
    }
}
