//! Converts the contents of purchases that do not count between the engine and their table.

use entity::{purchase, purchase_revision};

use crate::app::error::Error;
use crate::app::stored::purchase as purchases;
use crate::engine::money::Currency;
use crate::engine::purchase::{Key, Purchase, Refund, RunningSum};
use crate::engine::time::Instant;

/// Returns the content of the row of a purchase, which names this customer, as one that has not ended.
pub fn of_purchase(row: purchase::Model, customer_external_id: String) -> purchase_revision::Model {
    let states_sum = purchases::states_sum(&row);
    purchase_revision::Model {
        customer_external_id,
        refunded: row.refunded.filter(|_| states_sum),
        refunded_until: row.refunded_until.filter(|_| states_sum),
        external_id: row.external_id,
        revision: row.revision,
        customer_id: row.customer_id,
        purchased_at: row.purchased_at,
        recorded_at: row.recorded_at,
        total: row.total,
        currency: row.currency,
        channel: row.channel,
        lines: row.lines,
        set_revision: row.set_revision,
        version: row.version,
        ended_set_revision: None,
        ended_version: None,
    }
}

/// Returns the purchase as this content has it, with the given refunds and running sums.
pub fn from_row(
    row: &purchase_revision::Model,
    refunds: Vec<Refund>,
    sums: Vec<RunningSum>,
) -> Result<Purchase, Error> {
    let broken = |error: String| Error::Internal(format!("purchase {}: {error}", row.external_id));
    Ok(Purchase {
        key: key(row),
        total: row.total,
        currency: currency(row)?,
        channel: row.channel.clone(),
        lines: serde_json::from_str(&row.lines).map_err(|error| broken(error.to_string()))?,
        refunds,
        sums,
        set_revision: row.set_revision,
        replaced_at: row.ended_set_revision,
    })
}

/// Returns the running sum that the content states.
pub fn sum(row: &purchase_revision::Model) -> Result<Option<RunningSum>, Error> {
    let Some(amount) = row.refunded else { return Ok(None) };
    Ok(Some(RunningSum {
        revision: row.revision,
        amount,
        currency: currency(row)?,
        until: row.refunded_until.map(Instant),
        set_revision: row.set_revision,
    }))
}

/// Returns all running sums that were stated for a purchase. `others` are its contents that do not count.
pub fn sums(row: &purchase::Model, others: &[purchase_revision::Model]) -> Result<Vec<RunningSum>, Error> {
    let mut sums = purchases::from_row(row, Vec::new())?.sums;
    sums.retain(|_| purchases::states_sum(row));
    for other in others {
        sums.extend(sum(other)?);
    }
    Ok(sums)
}

/// The currency of the amounts of the row.
pub fn currency(row: &purchase_revision::Model) -> Result<Currency, Error> {
    let broken = |error| Error::Internal(format!("purchase {}: {error}", row.external_id));
    Currency::recorded(&row.currency).map_err(broken)
}

/// The place of the content in the order of the customer's purchases.
pub fn key(row: &purchase_revision::Model) -> Key {
    Key { at: Instant(row.purchased_at), external_id: row.external_id.clone() }
}
