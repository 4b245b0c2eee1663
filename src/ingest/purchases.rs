//! The layout of Windfall's own CSV: each row is a purchase, and the columns have the names of the fields.

use serde_json::Value;

use super::form;
use super::order::Seen;
use super::record::{Parsed, check};
use super::rows::Row;
use super::table::{Header, Layout, REJECTED_BECAUSE};
use crate::app::clock::Clock;
use crate::app::purchase::{PurchaseLine, RecordPurchase};
use crate::app::recorder::fact::Kept;
use crate::engine::time::{Instant, parse_instant};

const COLUMNS: [&str; 10] = [
    "externalId",
    "customerExternalId",
    "purchasedAt",
    "total",
    "currency",
    "channel",
    "lines",
    "revision",
    "refunded",
    "refundedUntil",
];
/// The first columns of the list must be there.
const REQUIRED_COLUMNS: usize = 5;

/// The places of the columns, in the order of [`COLUMNS`].
pub(super) struct Purchases([Option<usize>; COLUMNS.len()]);

impl Purchases {
    /// Whether the header has one of the columns that no other layout has.
    pub(super) fn recognises(header: &Header) -> bool {
        header.find_one(&["externalId", "customerExternalId", "purchasedAt"]).is_some()
    }

    /// Fails if the header is not usable.
    pub(super) fn new(header: &Header) -> anyhow::Result<Self> {
        let is_known =
            |name: &str| COLUMNS.iter().chain([&REJECTED_BECAUSE]).any(|known| known.eq_ignore_ascii_case(name));
        if let Some(unknown) = header.names().find(|name| !is_known(name)) {
            anyhow::bail!(
                "the header names a column `{unknown}`; the known columns are {}. To import a file with other columns, give --map",
                COLUMNS.join(", ")
            );
        }
        if let Some(twice) = header.twice(&COLUMNS) {
            anyhow::bail!("the header names the column `{twice}` twice");
        }
        if let Some(missing) = COLUMNS[..REQUIRED_COLUMNS].iter().find(|column| header.find(column).is_none()) {
            anyhow::bail!("the header has no column `{missing}`");
        }
        Ok(Self(COLUMNS.map(|column| header.find(column))))
    }

    fn cell(&self, row: &Row, column: usize) -> Result<Option<String>, String> {
        let Some(index) = self.0[column] else { return Ok(None) };
        Ok(row.cell(index)?.filter(|cell| !cell.is_empty()).map(std::borrow::Cow::into_owned))
    }
}

impl Layout for Purchases {
    fn made_at(&self, row: &Row) -> Result<Instant, String> {
        let text = self.0[2].map(|column| row.raw(column)).and_then(|text| std::str::from_utf8(text).ok());
        parse_instant(text.unwrap_or_default()).map_err(|error| error.to_string())
    }

    fn newest(&self, row: &Row) -> Option<Instant> {
        self.made_at(row).ok()
    }

    fn parse(&self, rows: &[Row], _: &mut Seen, clock: &Clock) -> Result<Parsed, String> {
        let Some(row) = rows.first() else { return Err("has no cells".to_owned()) };
        let needed = |column: usize| self.cell(row, column).map(Option::unwrap_or_default);
        let lines: Option<Vec<PurchaseLine>> = match self.cell(row, 6)? {
            None => None,
            Some(json) => {
                let value: Value = serde_json::from_str(&json).map_err(|_| {
                    "lines: write a list of objects, such as [{\"sku\": \"tea\", \"amount\": \"2.00\"}]".to_owned()
                })?;
                form::check_lines(&value)?;
                Some(serde_json::from_value(value).map_err(|error| format!("lines: {error}"))?)
            }
        };
        let revision = match self.cell(row, 7)? {
            None => 0,
            Some(text) => text.parse().map_err(|_| "revision: must be a whole number".to_owned())?,
        };
        let purchase = RecordPurchase {
            external_id: needed(0)?,
            customer_external_id: needed(1)?,
            purchased_at: needed(2)?,
            total: needed(3)?,
            currency: needed(4)?,
            channel: self.cell(row, 5)?,
            lines,
            revision,
            refunded: self.cell(row, 8)?,
            refunded_until: self.cell(row, 9)?,
        };
        check(purchase, Kept::default(), clock)
    }
}
