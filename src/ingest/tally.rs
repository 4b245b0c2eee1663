//! What an import understood of a file: how many purchases with which totals, of how many customers; what it left out by which rule;
//! and which faults it found.

use std::collections::{BTreeMap, HashSet};

use super::format::Span;
use super::hash_of;
use super::record::{LeftOut, Parsed, Record};
use crate::app::recorder::fact::NewPurchase;
use crate::engine::money::Currency;

/// The number of records that are described.
const DESCRIBED: usize = 10;
/// The number of different rules, and of different faults, that are told.
const MAX_GROUPS: usize = 200;
/// The number of orders that are named of each rule.
const NAMED: usize = 5;
/// The number of customers that are told apart. They take some 32 MiB.
const MAX_CUSTOMERS: usize = 1 << 20;

/// Writes a number of things: `1 order`, `2 orders`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// What was understood.
#[derive(Default)]
pub struct Tally {
    pub purchases: u64,
    pub refunds: u64,
    pub adjustments: u64,
    /// Purchases of customers without an account.
    pub guests: u64,
    pub totals: BTreeMap<Currency, Totals>,
    /// The first records, each described in a line.
    pub first: Vec<String>,
    /// The orders that were recorded with a total of 0, by the rule.
    pub void: Groups,
    /// The orders that were left out, by the rule.
    pub left_out: Groups,
    /// The faults, with the lines that have them.
    pub faults: Groups,
    customers: HashSet<u64>,
}

/// The sums of the purchases in one currency, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub purchases: u64,
    pub total: i128,
    /// The running sums of refunds that the purchases state.
    pub refunded: i128,
}

/// Counts texts that are alike.
#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<String, Group>,
    /// The number of texts beyond the limit of different ones.
    pub more: u64,
}

/// Texts that are alike.
#[derive(Debug, Default)]
pub struct Group {
    pub count: u64,
    /// The names of the first of them.
    pub named: Vec<String>,
}

impl Groups {
    pub(super) fn note(&mut self, text: &str, name: impl FnOnce() -> String) {
        if !self.groups.contains_key(text) {
            if self.groups.len() >= MAX_GROUPS {
                self.more += 1;
                return;
            }
            self.groups.insert(text.to_owned(), Group::default());
        }
        let Some(group) = self.groups.get_mut(text) else { return };
        group.count += 1;
        if group.named.len() < NAMED {
            group.named.push(name());
        }
    }

    /// Returns the different texts, the most frequent first.
    pub fn by_count(&self) -> Vec<(&str, &Group)> {
        let mut groups: Vec<(&str, &Group)> = self.groups.iter().map(|(text, group)| (text.as_str(), group)).collect();
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        groups
    }
}

impl Tally {
    /// Returns the number of facts.
    pub fn facts(&self) -> u64 {
        self.purchases + self.refunds + self.adjustments
    }

    /// Returns the number of different customers, and whether there may be more.
    pub fn customers(&self) -> (usize, bool) {
        (self.customers.len(), self.customers.len() >= MAX_CUSTOMERS)
    }

    pub(super) fn note(&mut self, span: Span, parsed: &Parsed) {
        match &parsed.record {
            Record::Purchase(purchase) => {
                self.note_purchase(purchase, parsed.is_guest);
                if let Some(reason) = &parsed.void {
                    self.void.note(reason, || purchase.purchase.key.external_id.clone());
                }
            }
            Record::Refund(_) => self.refunds += 1,
            Record::Adjustment(adjustment) => {
                self.adjustments += 1;
                self.note_customer(&adjustment.customer_external_id);
            }
            Record::LeftOut(LeftOut { reason, order }) => self.left_out.note(reason, || order.clone()),
        }
        self.refunds += parsed.refunds.len() as u64;
        if self.first.len() < DESCRIBED {
            self.first.push(format!("line {}: {}", span.number, describe(parsed)));
        }
    }

    fn note_purchase(&mut self, new: &NewPurchase, is_guest: bool) {
        self.purchases += 1;
        self.guests += u64::from(is_guest);
        let totals = self.totals.entry(new.purchase.currency).or_default();
        totals.purchases += 1;
        totals.total += i128::from(new.purchase.total);
        totals.refunded += new.purchase.sums.first().map_or(0, |sum| i128::from(sum.amount));
        self.note_customer(&new.customer_external_id);
    }

    fn note_customer(&mut self, customer: &str) {
        if self.customers.len() < MAX_CUSTOMERS {
            self.customers.insert(hash_of(customer));
        }
    }

    pub(super) fn note_fault(&mut self, span: Span, reason: &str) {
        self.faults.note(&without_lines(reason), || span.number.to_string());
    }
}

/// Removes the numbers of lines from a reason, so that equal faults of different lines are counted together.
fn without_lines(reason: &str) -> String {
    let mut parts = reason.split(" on line ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start_matches(|character: char| character.is_ascii_digit()))
}

fn describe(parsed: &Parsed) -> String {
    let record = match &parsed.record {
        Record::Purchase(new) => describe_purchase(new, parsed.is_guest),
        Record::Refund(refund) => format!(
            "refund {} of the purchase {}, {} at {}",
            refund.external_id,
            refund.purchase_external_id,
            refund.amount.as_deref().unwrap_or("all that is left"),
            refund.refunded_at
        ),
        Record::Adjustment(adjustment) => format!(
            "adjustment of {} by {}: {}",
            adjustment.customer_external_id,
            points(adjustment.points),
            adjustment.reason
        ),
        Record::LeftOut(LeftOut { reason, order }) => format!("{order} is left out: {reason}"),
    };
    let beside = parsed.refunds.iter();
    let beside: String = beside
        .map(|refund| format!("; refund {}, {}", refund.external_id, refund.amount.as_deref().unwrap_or_default()))
        .collect();
    record + &beside
}

fn points(points: i64) -> String {
    if points.abs() == 1 { format!("{points} point") } else { format!("{points} points") }
}

fn describe_purchase(new: &NewPurchase, is_guest: bool) -> String {
    let purchase = &new.purchase;
    let money = |amount: i64| format!("{} {}", purchase.currency.format(amount.into()), purchase.currency);
    let refunded = purchase.sums.first().map_or_else(String::new, |sum| format!(", refunded {}", money(sum.amount)));
    let channel = purchase.channel.as_ref().map_or_else(String::new, |channel| format!(", channel {channel}"));
    format!(
        "purchase {} of {}{} at {}: {}{refunded}, {}{channel}, revision {}",
        purchase.key.external_id,
        if is_guest { "the guest " } else { "" },
        &*new.customer_external_id,
        purchase.key.at,
        money(purchase.total),
        counted(purchase.lines.len() as u64, "line"),
        new.revision
    )
}
