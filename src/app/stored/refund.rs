//! Refunds between the engine and their table.

use entity::refund;

use crate::app::error::Error;
use crate::engine::purchase::Refund;

/// What of a refund counts, as stored.
pub fn from_row(row: &refund::Model) -> Result<Refund, Error> {
    let lines = serde_json::from_str(&row.lines)
        .map_err(|error| Error::Internal(format!("refund {}: {error}", row.external_id)))?;
    Ok(Refund { amount: row.amount, lines })
}
