//! The API type for amounts of money.

use async_graphql::SimpleObject;

use super::scalar::{CurrencyCode, Decimal};
use crate::engine::money::Currency;

/// An amount of money in one currency.
#[derive(Clone, Debug, SimpleObject)]
pub struct Money {
    /// The amount in major units, with exactly as many decimals as the currency has. For example, `"20.00"` in EUR.
    amount: Decimal,
    /// The currency of the amount.
    currency: CurrencyCode,
}

impl Money {
    /// Converts an amount in minor units.
    pub fn new(minor: i64, currency: Currency) -> Self {
        Self { amount: Decimal(currency.format(i128::from(minor))), currency: currency.into() }
    }
}
