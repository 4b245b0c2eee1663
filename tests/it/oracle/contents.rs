//! Revisions: which of the recorded contents of a purchase counts, for which customer, and what was taken back of it.

use super::{Instant, Line, Purchase, Refund, Sum};

/// All that was recorded of one purchase, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) external_id: String,
    pub(crate) contents: Vec<Content>,
    pub(crate) refunds: Vec<Refund>,
}

/// A purchase as one revision states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) revision: i64,
    /// 0 is the customer whose awards are looked at; any other number is another customer.
    pub(crate) customer: usize,
    pub(crate) at: Instant,
    pub(crate) total: i64,
    pub(crate) currency: String,
    pub(crate) channel: Option<String>,
    pub(crate) lines: Vec<Line>,
    pub(crate) refunded: Option<i64>,
    pub(crate) refunded_until: Option<Instant>,
}

impl Order {
    /// "The content with the highest recorded revision is the purchase, whatever came first."
    pub(crate) fn counting(&self) -> &Content {
        self.contents.iter().max_by_key(|content| content.revision).expect("an order has a content")
    }

    /// The purchase as it counts, and its customer.
    pub(crate) fn now(&self) -> (usize, Purchase) {
        let content = self.counting().clone();
        // "of the highest recorded revision that states one"
        let stating = self.contents.iter().filter(|content| content.refunded.is_some());
        let sum = stating.max_by_key(|content| content.revision).map(|content| Sum {
            amount: content.refunded.expect("it states one"),
            currency: content.currency.clone(),
            until: content.refunded_until,
        });
        let purchase = Purchase {
            external_id: self.external_id.clone(),
            at: content.at,
            total: content.total,
            currency: content.currency,
            channel: content.channel,
            lines: content.lines,
            refunds: self.refunds.clone(),
            sum,
        };
        (content.customer, purchase)
    }
}

/// The purchases of a customer, as they count.
pub(crate) fn purchases_of(customer: usize, orders: &[Order]) -> Vec<Purchase> {
    let now = orders.iter().map(Order::now);
    now.filter(|(owner, _)| *owner == customer).map(|(_, purchase)| purchase).collect()
}

/// The decimals of the currencies that the tests use.
fn decimals(currency: &str) -> u32 {
    match currency {
        "JPY" => 0,
        "KWD" => 3,
        _ => 2,
    }
}

/// "An amount, and `refunded`, keeps its decimal number under another currency (each line, else the amount, rounded down)."
pub(crate) fn in_currency(amount: i64, from: &str, to: &str) -> i64 {
    amount * 10_i64.pow(decimals(to)) / 10_i64.pow(decimals(from))
}
