//! Refunds.

pub mod mutation;

use async_graphql::SimpleObject;

use crate::app::model;
use crate::engine::money::Currency;
use crate::engine::time::Instant;
use crate::graphql::money::Money;
use crate::graphql::scalar::DateTime;

/// What was taken back of a purchase.
#[derive(Clone, Debug, SimpleObject)]
pub struct Refund {
    /// The shop's id of this refund.
    external_id: String,
    /// How much: as given, or the sum of its lines, or the whole purchase.
    amount: Money,
    /// When it was made.
    refunded_at: DateTime,
}

impl Refund {
    /// Of a purchase in this currency.
    pub fn new(row: &model::Refund, currency: Currency) -> Self {
        Self {
            external_id: row.external_id.clone(),
            amount: Money::new(row.amount, currency),
            refunded_at: Instant(row.refunded_at).into(),
        }
    }
}
