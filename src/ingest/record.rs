//! Parses a line of a file into a fact and checks it as far as that is possible without the database.

use serde::Deserialize;

use crate::app::clock::Clock;
use crate::app::purchase::{PurchaseLine, RecordPurchase};
use crate::app::recorder::fact::NewPurchase;
use crate::app::refund::RecordRefund;

/// The fact that a line contains.
pub enum Record {
    /// A purchase that passed all checks.
    Purchase(Box<NewPurchase>),
    /// A refund. It can be checked only once its purchase is found.
    Refund(Box<RecordRefund>),
}

/// A line with a refund: `{"refund": {…}}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundRecord {
    refund: RecordRefund,
}

/// Parses a line of JSON, which contains a purchase or a refund. `clock` is used to refuse purchases from the future.
pub(super) fn parse_json(line: &[u8], clock: &Clock) -> Result<Record, String> {
    let malformed = |error: serde_json::Error| {
        // serde_json counts lines within this one line, so only the column helps.
        let text = error.to_string();
        text.split(" at line 1").next().unwrap_or(&text).to_owned() + &format!(" (column {})", error.column())
    };
    let not_a_purchase = match serde_json::from_slice::<RecordPurchase>(line) {
        Ok(purchase) => return check(purchase, clock),
        Err(error) => error,
    };
    // Only a refund has this key, and it has no other.
    let is_refund = serde_json::from_slice::<serde_json::Value>(line).is_ok_and(|json| json.get("refund").is_some());
    if !is_refund {
        return Err(malformed(not_a_purchase));
    }
    let record = serde_json::from_slice::<RefundRecord>(line).map_err(malformed)?;
    Ok(Record::Refund(Box::new(record.refund)))
}

fn check(purchase: RecordPurchase, clock: &Clock) -> Result<Record, String> {
    match purchase.check_by(clock, &[]) {
        Ok(purchase) => Ok(Record::Purchase(Box::new(purchase))),
        Err(error) => Err(error.to_string()),
    }
}

/// A purchase as a row of a CSV file. The cell `lines` is empty or contains JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Row {
    external_id: String,
    customer_external_id: String,
    purchased_at: String,
    total: String,
    currency: String,
    #[serde(default)]
    refunded: Option<String>,
    #[serde(default)]
    refunded_until: Option<String>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    lines: Option<String>,
    #[serde(default)]
    revision: Option<i64>,
}

/// Parses a row of a CSV file, which contains a purchase. `clock` is used to refuse purchases from the future.
pub(super) fn parse_row(row: &csv::ByteRecord, header: &csv::StringRecord, clock: &Clock) -> Result<Record, String> {
    if row.len() != header.len() {
        return Err(format!("has {} cells where the header has {}", row.len(), header.len()));
    }
    let text = |cell| std::str::from_utf8(cell).map_err(|_| "is not UTF-8".to_owned());
    let mut cells = row.iter().map(text).collect::<Result<Vec<&str>, _>>()?;
    if let Some(last) = cells.last_mut() {
        *last = last.strip_suffix('\r').unwrap_or(last);
    }
    let row: Row = csv::StringRecord::from(cells).deserialize(Some(header)).map_err(|error| error.to_string())?;
    let lines: Option<Vec<PurchaseLine>> = match row.lines.as_deref() {
        None | Some("") => None,
        Some(json) => Some(serde_json::from_str(json).map_err(|error| format!("lines: {error}"))?),
    };
    let purchase = RecordPurchase {
        external_id: row.external_id,
        customer_external_id: row.customer_external_id,
        purchased_at: row.purchased_at,
        total: row.total,
        currency: row.currency,
        // An empty cell is an absent value.
        refunded: row.refunded.filter(|cell| !cell.is_empty()),
        refunded_until: row.refunded_until.filter(|cell| !cell.is_empty()),
        channel: row.channel.filter(|cell| !cell.is_empty()),
        lines,
        revision: row.revision.unwrap_or_default(),
    };
    check(purchase, clock)
}
