//! Converts purchases between the engine and their table.

use entity::{CustomerId, purchase, refund};

use crate::app::error::Error;
use crate::app::recorder::fact::NewPurchase;
use crate::app::stored::refund as refunds;
use crate::engine::money::Currency;
use crate::engine::purchase::{Key, Line, Purchase, Refund, RunningSum};
use crate::engine::time::Instant;

/// Returns the row of a purchase whose only content is this one.
pub fn to_row(
    new: &NewPurchase,
    customer_id: CustomerId,
    recorded_at: Instant,
    set_revision: i64,
    version: i64,
) -> Result<purchase::Model, Error> {
    let NewPurchase { revision, purchase, .. } = new;
    let sum = purchase.sums.first();
    Ok(purchase::Model {
        external_id: purchase.key.external_id.clone(),
        customer_id,
        purchased_at: purchase.key.at.0,
        recorded_at: recorded_at.0,
        total: purchase.total,
        currency: purchase.currency.as_str().to_owned(),
        channel: purchase.channel.clone(),
        lines: lines_text(&purchase.lines)?,
        set_revision,
        version,
        revision: *revision,
        refunded: sum.map(|sum| sum.amount),
        refunded_until: sum.and_then(|sum| sum.until).map(|until| until.0),
        refunded_revision: sum.map(|sum| sum.revision),
    })
}

/// Returns the lines as they are stored.
pub fn lines_text(lines: &[Line]) -> Result<String, Error> {
    serde_json::to_string(lines).map_err(|error| Error::Internal(error.to_string()))
}

/// Returns the purchase of a row, with the given refunds.
pub fn from_row(row: &purchase::Model, refunds: Vec<Refund>) -> Result<Purchase, Error> {
    let broken = |error: String| Error::Internal(format!("purchase {}: {error}", row.external_id));
    let currency = currency(row)?;
    let sum = row.refunded.map(|amount| RunningSum {
        revision: row.refunded_revision.unwrap_or_default(),
        amount,
        currency,
        until: row.refunded_until.map(Instant),
        set_revision: row.set_revision,
    });
    Ok(Purchase {
        key: key(row),
        total: row.total,
        currency,
        channel: row.channel.clone(),
        lines: serde_json::from_str(&row.lines).map_err(|error| broken(error.to_string()))?,
        refunds,
        sums: sum.into_iter().collect(),
        set_revision: row.set_revision,
        replaced_at: None,
    })
}

/// Returns the purchase of a row, with the refunds of these rows.
pub fn with_refunds(row: &purchase::Model, rows: &[refund::Model]) -> Result<Purchase, Error> {
    from_row(row, rows.iter().map(refunds::from_row).collect::<Result<_, _>>()?)
}

/// The currency of the amounts of the row.
pub fn currency(row: &purchase::Model) -> Result<Currency, Error> {
    let broken = |error| Error::Internal(format!("purchase {}: {error}", row.external_id));
    Currency::recorded(&row.currency).map_err(broken)
}

/// The place of the purchase in the order of the customer's purchases.
pub fn key(row: &purchase::Model) -> Key {
    Key { at: Instant(row.purchased_at), external_id: row.external_id.clone() }
}

/// Whether the content of the row states the running sum itself. Otherwise, an earlier content states it, or none.
pub fn states_sum(row: &purchase::Model) -> bool {
    row.refunded_revision == Some(row.revision)
}
