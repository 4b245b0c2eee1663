//! Money.

use async_graphql::SimpleObject;

use super::scalar::{CurrencyCode, Decimal};
use crate::engine::money::Currency;

/// An amount of money.
#[derive(Clone, Debug, SimpleObject)]
pub struct Money {
    /// In major units, always with the currency's decimals: `"20.00"`.
    amount: Decimal,
    /// What it is an amount of.
    currency: CurrencyCode,
}

impl Money {
    /// From minor units.
    pub fn new(minor: i64, currency: Currency) -> Self {
        Self { amount: Decimal(currency.format(i128::from(minor))), currency: currency.into() }
    }
}
