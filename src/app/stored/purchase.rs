//! Converts purchases between the engine and their table.

use entity::{CustomerId, purchase, refund};

use crate::app::error::Error;
use crate::app::stored::refund as refunds;
use crate::engine::money::Currency;
use crate::engine::purchase::{Key, Purchase, Refund};
use crate::engine::time::Instant;

pub fn to_row(
    purchase: &Purchase,
    customer_id: CustomerId,
    recorded_at: Instant,
    set_revision: i64,
    version: i64,
) -> Result<purchase::Model, Error> {
    Ok(purchase::Model {
        external_id: purchase.key.external_id.clone(),
        customer_id,
        purchased_at: purchase.key.at.0,
        recorded_at: recorded_at.0,
        total: purchase.total,
        currency: purchase.currency.as_str().to_owned(),
        channel: purchase.channel.clone(),
        lines: serde_json::to_string(&purchase.lines).map_err(|error| Error::Internal(error.to_string()))?,
        set_revision,
        version,
    })
}

/// Returns the purchase of a row, with the given refunds.
pub fn from_row(row: &purchase::Model, refunds: Vec<Refund>) -> Result<Purchase, Error> {
    let broken = |error: String| Error::Internal(format!("purchase {}: {error}", row.external_id));
    Ok(Purchase {
        key: Key { at: Instant(row.purchased_at), external_id: row.external_id.clone() },
        total: row.total,
        currency: Currency::recorded(&row.currency).map_err(|error| broken(error.to_string()))?,
        channel: row.channel.clone(),
        lines: serde_json::from_str(&row.lines).map_err(|error| broken(error.to_string()))?,
        refunds,
        set_revision: row.set_revision,
    })
}

/// Returns the purchase of a row, with the refunds of these rows.
pub fn with_refunds(row: &purchase::Model, rows: &[refund::Model]) -> Result<Purchase, Error> {
    from_row(row, rows.iter().map(refunds::from_row).collect::<Result<_, _>>()?)
}

/// The place of the purchase in the order of the customer's purchases.
pub fn key(row: &purchase::Model) -> Key {
    Key { at: Instant(row.purchased_at), external_id: row.external_id.clone() }
}
