//! The API type for refunds. [`mutation`] records them.

pub mod mutation;

use async_graphql::SimpleObject;

use crate::app::model;
use crate::engine::time::Instant;
use crate::graphql::money::Money;
use crate::graphql::scalar::DateTime;

/// A refund: it takes back all or part of one purchase.
#[derive(Clone, Debug, SimpleObject)]
pub struct Refund {
    /// The shop's id of the refund, unique among refunds.
    external_id: String,
    /// The refunded amount in the purchase's currency: the given amount, or else the sum of the given lines, or else
    /// the `total` of the purchase as it is now.
    amount: Money,
    /// When the refund was made. It decides only whether a running sum (`refunded` of `recordPurchase`) includes the refund.
    refunded_at: DateTime,
}

impl Refund {
    /// Converts a stored refund that takes back this amount.
    pub fn new(row: &model::Refund, amount: Money) -> Self {
        Self { external_id: row.external_id.clone(), amount, refunded_at: Instant(row.refunded_at).into() }
    }
}
