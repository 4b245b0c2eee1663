//! Converts refunds between the engine and their table.

use entity::{CustomerId, refund};

use crate::app::error::Error;
use crate::app::recorder::fact::NewRefund;
use crate::engine::money::Currency;
use crate::engine::purchase::Refund;
use crate::engine::time::Instant;

pub fn to_row(
    new: &NewRefund,
    customer_id: CustomerId,
    recorded_at: Instant,
    set_revision: i64,
    version: i64,
) -> Result<refund::Model, Error> {
    let Refund { amount, lines, currency, refunded_at, .. } = &new.refund;
    Ok(refund::Model {
        external_id: new.external_id.to_string(),
        purchase_external_id: new.purchase_external_id.to_string(),
        customer_id,
        refunded_at: refunded_at.0,
        recorded_at: recorded_at.0,
        amount: *amount,
        lines: serde_json::to_string(lines).map_err(|error| Error::Internal(error.to_string()))?,
        set_revision,
        version,
        currency: Some(currency.as_str().to_owned()),
    })
}

/// Returns the part of a stored refund that the engine uses.
pub fn from_row(row: &refund::Model) -> Result<Refund, Error> {
    let broken = |error: String| Error::Internal(format!("refund {}: {error}", row.external_id));
    // Without an amount, the currency does not matter.
    let currency = Currency::recorded(row.currency.as_deref().unwrap_or("XXX"));
    Ok(Refund {
        amount: row.amount,
        lines: serde_json::from_str(&row.lines).map_err(|error| broken(error.to_string()))?,
        currency: currency.map_err(|error| broken(error.to_string()))?,
        refunded_at: Instant(row.refunded_at),
        set_revision: row.set_revision,
    })
}
