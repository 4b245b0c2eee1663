//! A map: a TOML file that says which column of a shop's own file is which field. `docs/import.md` lists all of its keys.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use jiff::civil::{Date, date};
use jiff::fmt::strtime;
use rust_decimal::Decimal;
use serde::Deserialize;

use super::cell::{self, Cells};
use super::order::{Cell, Decisions, Order, OrderLine, Seen};
use super::record::{LeftOut, Parsed, Record};
use super::rows::Row;
use super::table::{Header, Layout, REJECTED_BECAUSE, refuse_repeated, text};
use crate::app::clock::Clock;
use crate::app::refund::RecordRefund;
use crate::engine::time::Instant;
use crate::engine::zone::Zone;

/// The largest map, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The fields to which a column or a constant can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
enum Field {
    ExternalId,
    CustomerExternalId,
    PurchasedAt,
    Total,
    Currency,
    Channel,
    Status,
    Revision,
    Refunded,
    RefundedUntil,
    LineSku,
    LineCategory,
    LineQuantity,
    LineAmount,
    LinePrice,
    RefundId,
    RefundPurchase,
    RefundedAt,
    RefundAmount,
}

/// The fields with their names in a map.
const FIELDS: [(Field, &str); 19] = [
    (Field::ExternalId, "externalId"),
    (Field::CustomerExternalId, "customerExternalId"),
    (Field::PurchasedAt, "purchasedAt"),
    (Field::Total, "total"),
    (Field::Currency, "currency"),
    (Field::Channel, "channel"),
    (Field::Status, "status"),
    (Field::Revision, "revision"),
    (Field::Refunded, "refunded"),
    (Field::RefundedUntil, "refundedUntil"),
    (Field::LineSku, "lines.sku"),
    (Field::LineCategory, "lines.category"),
    (Field::LineQuantity, "lines.quantity"),
    (Field::LineAmount, "lines.amount"),
    (Field::LinePrice, "lines.price"),
    (Field::RefundId, "refund.externalId"),
    (Field::RefundPurchase, "refund.purchaseExternalId"),
    (Field::RefundedAt, "refund.refundedAt"),
    (Field::RefundAmount, "refund.amount"),
];
/// The fields that every map must have.
const REQUIRED_FIELDS: [Field; 4] = [Field::ExternalId, Field::CustomerExternalId, Field::PurchasedAt, Field::Total];
/// The fields of an order, which its rows repeat or leave empty.
const ORDER_FIELDS: [Field; 9] = [
    Field::CustomerExternalId,
    Field::PurchasedAt,
    Field::Total,
    Field::Currency,
    Field::Channel,
    Field::Status,
    Field::Revision,
    Field::Refunded,
    Field::RefundedUntil,
];

impl Field {
    fn name(self) -> &'static str {
        FIELDS.iter().find(|(field, _)| *field == self).map_or("", |(_, name)| name)
    }
}

impl TryFrom<String> for Field {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        let field = FIELDS.iter().find(|(_, known)| *known == name).map(|(field, _)| *field);
        let names = || FIELDS.map(|(_, name)| name).join(", ");
        field.ok_or_else(|| format!("there is no field `{name}`: the fields are {}", names()))
    }
}

/// What becomes of rows with a negative total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NegativeRows {
    /// They are faulty.
    #[default]
    Refused,
    /// They are refunds.
    Refunds,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Statuses {
    counted: Vec<String>,
    void: Vec<String>,
    left_out: Vec<String>,
}

/// The content of a map.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// One character. `None`: found in the header.
    delimiter: Option<char>,
    #[serde(default)]
    decimal_comma: bool,
    time_zone: Option<String>,
    instant_format: Option<String>,
    currency: Option<String>,
    #[serde(default)]
    ignore_unknown_columns: bool,
    #[serde(default)]
    negative_rows: NegativeRows,
    columns: BTreeMap<String, Field>,
    #[serde(default)]
    constants: BTreeMap<Field, String>,
    #[serde(default)]
    statuses: Statuses,
}

impl Map {
    /// Reads and checks a map.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let name = || format!("the map {}", file.display());
        let bytes = std::fs::metadata(file).with_context(|| format!("{} cannot be read", name()))?.len();
        anyhow::ensure!(bytes <= MAX_BYTES, "{} is larger than {MAX_BYTES} bytes", name());
        let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", name()))?;
        let map: Self = toml::from_str(&text).with_context(|| format!("{} is not usable", name()))?;
        map.check().with_context(|| format!("{} is not usable", name()))?;
        Ok(map)
    }

    fn check(&self) -> anyhow::Result<()> {
        let has = |field: Field| self.columns.values().any(|mapped| *mapped == field) || self.constant(field).is_some();
        if let Some(missing) = REQUIRED_FIELDS.iter().find(|field| !has(**field)) {
            anyhow::bail!("no column is mapped to `{}`", missing.name());
        }
        anyhow::ensure!(
            has(Field::Currency),
            "no column is mapped to `currency`: map one, or set `currency = \"EUR\"`"
        );
        let by_key = self.currency.as_ref().map(|_| Field::Currency);
        let mut fields: Vec<Field> =
            self.columns.values().chain(self.constants.keys()).copied().chain(by_key).collect();
        fields.sort_unstable();
        if let Some(pair) = fields.windows(2).find(|pair| pair[0] == pair[1]) {
            anyhow::bail!("the field `{}` is mapped twice", pair[0].name());
        }
        if let Some(format) = &self.instant_format {
            check_instant_format(format)?;
        }
        if has(Field::LineAmount) && has(Field::LinePrice) {
            anyhow::bail!("map `lines.amount` or `lines.price`, not both");
        }
        if (has(Field::LineAmount) || has(Field::LinePrice)) != has(Field::LineSku) {
            anyhow::bail!("lines need both `lines.sku` and one of `lines.amount` and `lines.price`");
        }
        if has(Field::RefundedUntil) && !has(Field::Refunded) {
            anyhow::bail!("`refundedUntil` needs `refunded`");
        }
        if self.negative_rows == NegativeRows::Refunds && !has(Field::RefundPurchase) && !has(Field::RefundId) {
            anyhow::bail!(
                "`negative_rows = \"refunds\"` needs `refund.purchaseExternalId` or `refund.externalId`: a refund has an id of its own"
            );
        }
        if let Some(delimiter) = self.delimiter {
            anyhow::ensure!(
                delimiter.is_ascii() && delimiter != '"',
                "`delimiter` must be one ASCII character, such as \";\""
            );
        }
        if let Some(zone) = &self.time_zone {
            Zone::parse(zone).context("time_zone")?;
        }
        Ok(())
    }

    /// Returns the names of the columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(String::as_str)
    }

    /// Returns the value of a field that is the same for all rows.
    fn constant(&self, field: Field) -> Option<&str> {
        let currency = self.currency.as_deref().filter(|_| field == Field::Currency);
        self.constants.get(&field).map(String::as_str).or(currency)
    }

    /// Returns the delimiter that the map states.
    pub(super) fn delimiter(&self) -> Option<u8> {
        self.delimiter.and_then(|delimiter| u8::try_from(delimiter).ok())
    }

    /// Whether the header has all columns of the map.
    pub(super) fn recognises(&self, header: &Header) -> bool {
        self.columns.keys().all(|column| header.find(column).is_some())
    }

    /// Returns the columns of the map that the header lacks.
    pub(super) fn missing<'a>(&'a self, header: &Header) -> Vec<&'a str> {
        self.columns.keys().map(String::as_str).filter(|column| header.find(column).is_none()).collect()
    }
}

/// Checks that a form names a whole date.
fn check_instant_format(form: &str) -> anyhow::Result<()> {
    let sample = date(2026, 11, 2).at(18, 30, 0, 0).in_tz("UTC")?;
    let has_date = || -> Result<Date, jiff::Error> { strtime::parse(form, strtime::format(form, &sample)?)?.to_date() };
    has_date().map(|_| ()).with_context(|| {
        format!("`instant_format` = `{form}` must have the form of a whole date, such as %d.%m.%Y %H:%M")
    })
}

/// The layout of a file for which there is a map.
pub(super) struct Mapped {
    map: Map,
    columns: BTreeMap<Field, usize>,
    decisions: Decisions,
}

impl Mapped {
    /// Fails if the header does not agree with the map.
    pub(super) fn new(header: &Header, map: Map, decisions: Decisions) -> anyhow::Result<Self> {
        let mapped: Vec<&str> = map.columns.keys().map(String::as_str).collect();
        let is_known = |name: &&str| mapped.iter().any(|column| column.eq_ignore_ascii_case(name));
        let unknown = header.names().find(|name| !name.is_empty() && *name != REJECTED_BECAUSE && !is_known(name));
        if let Some(unknown) = unknown.filter(|_| !map.ignore_unknown_columns) {
            anyhow::bail!(
                "the header names a column `{unknown}` that the map does not: map it, or set `ignore_unknown_columns = true`"
            );
        }
        if let Some(twice) = header.twice(&mapped) {
            anyhow::bail!("the header names the column `{twice}` twice");
        }
        let columns = map.columns.iter().filter_map(|(name, field)| Some((*field, header.find(name)?))).collect();
        let zone = map.time_zone.as_deref().and_then(|zone| Zone::parse(zone).ok());
        let cells = Cells {
            decimal_comma: map.decimal_comma || decisions.cells.decimal_comma,
            zone: decisions.cells.zone.clone().or(zone),
            instant_format: map.instant_format.clone(),
        };
        let Statuses { counted, void, left_out } = map.statuses.clone();
        let counted_statuses = [decisions.counted_statuses, counted].concat();
        let decisions =
            Decisions { cells, counted_statuses, void_statuses: void, left_out_statuses: left_out, ..decisions };
        Ok(Self { map, columns, decisions })
    }

    /// Whether the map has a column or a constant for the field.
    fn has(&self, field: Field) -> bool {
        self.columns.contains_key(&field) || self.map.constant(field).is_some()
    }

    /// Returns the value of a field; empty if the map does not have it.
    fn value(&self, row: &Row, field: Field) -> Result<String, String> {
        match self.columns.get(&field) {
            Some(column) => text(row, Some(*column)),
            None => Ok(self.map.constant(field).unwrap_or_default().to_owned()),
        }
    }

    /// Returns the value of a field, or `None` if it is empty.
    fn filled(&self, row: &Row, field: Field) -> Result<Option<String>, String> {
        Ok(Some(self.value(row, field)?.trim().to_owned()).filter(|value| !value.is_empty()))
    }

    fn line(&self, row: &Row, currency: &str) -> Result<Option<OrderLine>, String> {
        let at = |name: &str, reason: String| format!("{name} on line {}: {reason}", row.number);
        let Some(sku) = self.filled(row, Field::LineSku)? else { return Ok(None) };
        let quantity = match self.filled(row, Field::LineQuantity)? {
            None => 1,
            Some(quantity) => cell::quantity(&quantity).map_err(|reason| at("lines.quantity", reason))?,
        };
        let decimal = |name: &str, text: &str| {
            let amount = self.decisions.cells.amount(text, currency).and_then(|amount| cell::exact(&amount));
            amount.map_err(|reason| at(name, reason))
        };
        let amount = if self.has(Field::LineAmount) {
            decimal("lines.amount", &self.value(row, Field::LineAmount)?)?
        } else {
            let price = decimal("lines.price", &self.value(row, Field::LinePrice)?)?;
            let amount = Decimal::from(quantity).checked_mul(price);
            amount.ok_or_else(|| at("lines.price", "is too large".to_owned()))?
        };
        Ok(Some(OrderLine {
            sku,
            name: String::new(),
            category: self.filled(row, Field::LineCategory)?,
            quantity,
            amount,
        }))
    }

    fn order(&self, rows: &[Row], first: &Row) -> Result<Order, String> {
        let id = self.value(first, Field::ExternalId)?;
        // The cells of an order are the same in all of its rows, or empty in the rows after the first.
        for field in ORDER_FIELDS {
            let value = self.value(first, field)?;
            for row in &rows[1..] {
                let again = self.value(row, field)?;
                if !again.trim().is_empty() && again.trim() != value.trim() {
                    return Err(format!(
                        "{} is `{value}` here and `{again}` on line {}: the rows of an order must have the same cells, or empty ones",
                        field.name(),
                        row.number
                    ));
                }
            }
        }
        let currency = self.value(first, Field::Currency)?;
        let lines = self.has(Field::LineSku).then(|| {
            rows.iter()
                .filter_map(|row| self.line(row, currency.trim()).transpose())
                .collect::<Result<Vec<_>, String>>()
        });
        let at = Cell { column: "purchasedAt".to_owned(), text: self.value(first, Field::PurchasedAt)? };
        let revision = match self.filled(first, Field::Revision)? {
            Some(text) => Some(text.parse().map_err(|_| "revision: must be a whole number".to_owned())?),
            None => None,
        };
        let refunded_until = match self.filled(first, Field::RefundedUntil)? {
            Some(text) => {
                let at = self.decisions.cells.instant(&text).map_err(|reason| format!("refundedUntil: {reason}"))?;
                Some(at.to_string())
            }
            None => None,
        };
        Ok(Order {
            id,
            customer: self.value(first, Field::CustomerExternalId)?,
            status: if self.has(Field::Status) { Some(self.value(first, Field::Status)?) } else { None },
            created: at.clone(),
            at,
            total: self.value(first, Field::Total)?,
            channel: self.filled(first, Field::Channel)?,
            has_channel: self.has(Field::Channel),
            refunded: if self.has(Field::Refunded) { Some(self.value(first, Field::Refunded)?) } else { None },
            refunded_until,
            currency,
            lines,
            has_categories: self.has(Field::LineCategory),
            revision,
            ..Order::default()
        })
    }

    /// Whether a row is a refund by itself.
    fn is_refund(&self, row: &Row) -> bool {
        self.map.negative_rows == NegativeRows::Refunds && !matches!(self.negative_row(row), Ok(None))
    }

    /// Returns the refund that a row with a negative total is, if it is one.
    fn negative_row(&self, row: &Row) -> Result<Option<RecordRefund>, String> {
        let currency = self.value(row, Field::Currency)?;
        let total = self.decisions.cells.amount(&self.value(row, Field::Total)?, currency.trim());
        let Some(amount) = total.ok().and_then(|total| total.strip_prefix('-').map(str::to_owned)) else {
            return Ok(None);
        };
        let id = self.value(row, Field::ExternalId)?;
        let purchase = self.filled(row, Field::RefundPurchase)?.unwrap_or_else(|| id.clone());
        let at = self.filled(row, Field::RefundedAt)?;
        let at = at.map_or_else(|| self.value(row, Field::PurchasedAt), Ok)?;
        let refund_id = self.filled(row, Field::RefundId)?.unwrap_or(id);
        self.refund(&refund_id, &purchase, &at, amount).map(Some)
    }

    /// Returns the refund that the columns of a purchase's row state, if they state one.
    fn refund_columns(&self, row: &Row) -> Result<Option<RecordRefund>, String> {
        let Some(amount) = self.filled(row, Field::RefundAmount)? else { return Ok(None) };
        let currency = self.value(row, Field::Currency)?;
        let amount = self.decisions.cells.amount(&amount, currency.trim());
        let amount = amount.map_err(|reason| format!("refund.amount: {reason}"))?.trim_start_matches('-').to_owned();
        if cell::exact(&amount)?.is_zero() {
            return Ok(None);
        }
        let order = self.value(row, Field::ExternalId)?;
        let purchase = self.filled(row, Field::RefundPurchase)?.unwrap_or_else(|| order.clone());
        let id = self.filled(row, Field::RefundId)?.unwrap_or_else(|| format!("{}-refund", order.trim()));
        let at = self.filled(row, Field::RefundedAt)?;
        let at = at.map_or_else(|| self.value(row, Field::PurchasedAt), Ok)?;
        self.refund(&id, &purchase, &at, amount).map(Some)
    }

    fn refund(&self, id: &str, purchase: &str, at: &str, amount: String) -> Result<RecordRefund, String> {
        let refunded_at = self.decisions.cells.instant(at).map_err(|reason| format!("refund.refundedAt: {reason}"))?;
        Ok(RecordRefund {
            external_id: cell::id(id).map_err(|reason| format!("refund.externalId {reason}"))?.to_owned(),
            purchase_external_id: cell::id(purchase)
                .map_err(|reason| format!("refund.purchaseExternalId {reason}"))?
                .to_owned(),
            refunded_at: refunded_at.to_string(),
            amount: Some(amount),
            lines: None,
        })
    }
}

impl Layout for Mapped {
    fn order_name<'a>(&self, row: &'a Row) -> Option<&'a [u8]> {
        let has_lines = self.columns.contains_key(&Field::LineSku);
        let name = self.columns.get(&Field::ExternalId).filter(|_| has_lines && !self.is_refund(row))?;
        Some(row.raw(*name).trim_ascii())
    }

    fn continues(&self, _: &[Row], _: &Row) -> bool {
        true
    }

    fn may_be_part(&self, _: &Row) -> bool {
        true
    }

    fn made_at(&self, row: &Row) -> Result<Instant, String> {
        self.decisions.cells.instant(&self.value(row, Field::PurchasedAt)?)
    }

    fn newest(&self, row: &Row) -> Option<Instant> {
        let instant = |field| self.decisions.cells.instant(&self.value(row, field).ok()?).ok();
        [Field::PurchasedAt, Field::RefundedAt, Field::RefundedUntil].into_iter().filter_map(instant).max()
    }

    fn parse(&self, rows: &[Row], seen: &mut Seen, clock: &Clock) -> Result<Parsed, String> {
        let Some(first) = rows.first() else { return Err("has no cells".to_owned()) };
        if self.map.negative_rows == NegativeRows::Refunds
            && let Some(refund) = self.negative_row(first)?
        {
            let status = if self.has(Field::Status) { Some(self.value(first, Field::Status)?) } else { None };
            return Ok(match self.decisions.refund_left_out_by(status.as_deref()) {
                Some(reason) => Record::LeftOut(LeftOut { reason, order: refund.external_id }).into(),
                None => Record::Refund(Box::new(refund)).into(),
            });
        }
        if self.has(Field::LineSku) {
            refuse_repeated(rows)?;
        }
        let parsed = self.decisions.decide(self.order(rows, first)?, seen, clock)?;
        if parsed.void.is_some() || matches!(parsed.record, Record::LeftOut(_)) {
            return Ok(parsed);
        }
        let mut refunds: Vec<RecordRefund> = Vec::new();
        for row in rows {
            let refund = self.refund_columns(row)?;
            // Rows may repeat the refund of their order.
            refunds.extend(refund.filter(|refund| !refunds.contains(refund)));
        }
        Ok(Parsed { refunds, ..parsed })
    }
}
