//! Converts refunds between the engine and their table.

use entity::{CustomerId, refund};

use crate::app::error::Error;
use crate::app::recorder::fact::NewRefund;
use crate::engine::purchase::Refund;
use crate::engine::time::Instant;

pub fn to_row(
    new: &NewRefund,
    customer_id: CustomerId,
    recorded_at: Instant,
    set_revision: i64,
    version: i64,
) -> Result<refund::Model, Error> {
    Ok(refund::Model {
        external_id: new.external_id.to_string(),
        purchase_external_id: new.purchase_external_id.to_string(),
        customer_id,
        refunded_at: new.refunded_at.0,
        recorded_at: recorded_at.0,
        amount: new.refund.amount,
        lines: serde_json::to_string(&new.refund.lines).map_err(|error| Error::Internal(error.to_string()))?,
        set_revision,
        version,
    })
}

/// Returns the part of a stored refund that the engine uses.
pub fn from_row(row: &refund::Model) -> Result<Refund, Error> {
    let lines = serde_json::from_str(&row.lines)
        .map_err(|error| Error::Internal(format!("refund {}: {error}", row.external_id)))?;
    Ok(Refund { amount: row.amount, lines, set_revision: row.set_revision })
}
