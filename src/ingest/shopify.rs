//! The layout of Shopify's orders export: one row per line item. The first row of an order has the cells of the order.

use rust_decimal::Decimal;

use super::cell;
use super::order::{Cell, Decisions, Order, OrderKey, OrderLine, Seen, Total, When};
use super::record::Parsed;
use super::rows::Row;
use super::table::{Header, Layout, text};
use crate::app::clock::Clock;
use crate::engine::time::Instant;

/// The columns without which a file is no orders export of Shopify.
const NEEDED: [&str; 8] =
    ["Name", "Email", "Financial Status", "Total", "Currency", "Created at", "Lineitem quantity", "Lineitem price"];

/// The columns that are used if they are there.
const USED: [&str; 10] = [
    "Subtotal",
    "Refunded Amount",
    "Paid at",
    "Fulfilled at",
    "Cancelled at",
    "Payment Method",
    "Id",
    "Lineitem sku",
    "Lineitem name",
    "Lineitem discount",
];

pub(super) struct Shopify {
    decisions: Decisions,
    name: usize,
    id: Option<usize>,
    email: usize,
    status: usize,
    total: usize,
    subtotal: Option<usize>,
    currency: usize,
    created_at: usize,
    paid_at: Option<usize>,
    cancelled_at: Option<usize>,
    refunded: Option<usize>,
    payment_method: Option<usize>,
    quantity: usize,
    price: usize,
    item: Option<usize>,
    sku: Option<usize>,
    discount: Option<usize>,
    /// All columns with instants.
    instants: Vec<usize>,
}

impl Shopify {
    pub(super) fn recognises(header: &Header) -> bool {
        header.has_all(&["Name", "Email", "Financial Status", "Lineitem quantity"])
    }

    /// Fails if the header is not usable.
    pub(super) fn new(header: &Header, decisions: Decisions) -> anyhow::Result<Self> {
        let needed = |name: &str| {
            header.find(name).ok_or_else(|| {
                anyhow::anyhow!(
                    "the header has no column `{name}`, which an orders export of Shopify has: export the orders again"
                )
            })
        };
        if let Some(twice) = header.twice(&NEEDED).or_else(|| header.twice(&USED)) {
            anyhow::bail!("the header names the column `{twice}` twice");
        }
        let id = header.find("Id");
        if decisions.order_key == OrderKey::Id && id.is_none() {
            anyhow::bail!("the header has no column `Id`, which --order-key id needs");
        }
        let (subtotal, paid_at) = (header.find("Subtotal"), header.find("Paid at"));
        if decisions.total == Total::Goods && subtotal.is_none() {
            anyhow::bail!("the header has no column `Subtotal`, which --total goods needs");
        }
        if decisions.when == When::Paid && paid_at.is_none() {
            anyhow::bail!("the header has no column `Paid at`, which --instant paid needs");
        }
        let instants = ["Created at", "Paid at", "Fulfilled at", "Cancelled at"];
        Ok(Self {
            decisions,
            name: needed("Name")?,
            id,
            email: needed("Email")?,
            status: needed("Financial Status")?,
            total: needed("Total")?,
            subtotal,
            currency: needed("Currency")?,
            created_at: needed("Created at")?,
            paid_at,
            cancelled_at: header.find("Cancelled at"),
            refunded: header.find("Refunded Amount"),
            payment_method: header.find("Payment Method"),
            quantity: needed("Lineitem quantity")?,
            price: needed("Lineitem price")?,
            item: header.find("Lineitem name"),
            sku: header.find("Lineitem sku"),
            discount: header.find("Lineitem discount"),
            instants: instants.iter().filter_map(|name| header.find(name)).collect(),
        })
    }

    /// Whether the row has the cells of an order, not only those of a line.
    fn begins_order(&self, row: &Row) -> bool {
        [self.status, self.total, self.currency].iter().any(|column| !row.raw(*column).trim_ascii().is_empty())
    }

    fn line(&self, row: &Row, currency: &str) -> Result<Option<OrderLine>, String> {
        let (quantity, price) = (text(row, Some(self.quantity))?, text(row, Some(self.price))?);
        if quantity.trim().is_empty() && price.trim().is_empty() {
            return Ok(None);
        }
        let at = |name: &str, reason: String| format!("{name} on line {}: {reason}", row.number);
        let quantity = cell::quantity(&quantity).map_err(|reason| at("Lineitem quantity", reason))?;
        let amount = |name: &str, text: &str| {
            let amount = self.decisions.cells.amount(text, currency).and_then(|amount| cell::exact(&amount));
            amount.map_err(|reason| at(name, reason))
        };
        let price = amount("Lineitem price", &price)?;
        let discount = match text(row, self.discount)?.trim() {
            "" => Decimal::ZERO,
            discount => amount("Lineitem discount", discount)?,
        };
        let amount = Decimal::from(quantity).checked_mul(price).and_then(|amount| amount.checked_sub(discount));
        let amount = amount.ok_or_else(|| at("Lineitem price", "is too large".to_owned()))?;
        Ok(Some(OrderLine { sku: text(row, self.sku)?, name: text(row, self.item)?, category: None, quantity, amount }))
    }

    fn order(&self, rows: &[Row]) -> Result<Order, String> {
        let Some(first) = rows.first() else { return Err("has no cells".to_owned()) };
        let cell = |column: usize| text(first, Some(column));
        let name = cell(self.name)?;
        if !self.begins_order(first) {
            return Err(format!(
                "continues the order {}, which does not stand above it: keep the rows of an order together",
                name.trim()
            ));
        }
        for (column, title) in [(Some(self.email), "Email"), (self.id, "Id"), (Some(self.created_at), "Created at")] {
            let of_order = text(first, column)?;
            for row in &rows[1..] {
                let again = text(row, column)?;
                if !again.trim().is_empty() && again.trim() != of_order.trim() {
                    return Err(format!(
                        "{title} is `{}` here and `{}` on line {}: these are two orders with one name, which must be \
                         imported under their ids (--order-key id), or the file is damaged",
                        of_order.trim(),
                        again.trim(),
                        row.number
                    ));
                }
            }
        }
        let currency = cell(self.currency)?;
        let lines = rows.iter().filter_map(|row| self.line(row, currency.trim()).transpose()).collect();
        let created = Cell { column: "Created at".to_owned(), text: cell(self.created_at)? };
        let at = match (self.decisions.when, self.paid_at) {
            (When::Paid, Some(paid_at)) => Cell { column: "Paid at".to_owned(), text: cell(paid_at)? },
            _ => created.clone(),
        };
        let total = match (self.decisions.total, self.subtotal) {
            (Total::Goods, Some(subtotal)) => subtotal,
            _ => self.total,
        };
        let id = text(first, self.id)?;
        let (id, other_id) = if self.decisions.order_key == OrderKey::Id { (id, name) } else { (name, id) };
        Ok(Order {
            id,
            other_id,
            customer: cell(self.email)?.trim().to_lowercase(),
            is_guest: false,
            status: Some(cell(self.status)?),
            is_test: text(first, self.payment_method)?.to_lowercase().contains("bogus"),
            is_cancelled: !text(first, self.cancelled_at)?.trim().is_empty(),
            at,
            created,
            total: cell(total)?,
            currency,
            channel: None,
            has_channel: false,
            refunded: self.refunded.map(&cell).transpose()?,
            refunded_until: None,
            // Without sku and name, nothing is known about a line.
            lines: self.sku.or(self.item).map(|_| lines),
            has_categories: false,
            revision: None,
        })
    }
}

impl Layout for Shopify {
    fn order_name<'a>(&self, row: &'a Row) -> Option<&'a [u8]> {
        Some(row.raw(self.name).trim_ascii())
    }

    fn continues(&self, _: &[Row], row: &Row) -> bool {
        !self.begins_order(row)
    }

    fn may_be_part(&self, first: &Row) -> bool {
        !self.begins_order(first)
    }

    fn made_at(&self, row: &Row) -> Result<Instant, String> {
        let paid = self.paid_at.filter(|paid| self.decisions.when == When::Paid && !row.raw(*paid).is_empty());
        self.decisions.cells.instant(&text(row, Some(paid.unwrap_or(self.created_at)))?)
    }

    fn newest(&self, row: &Row) -> Option<Instant> {
        self.instants
            .iter()
            .filter_map(|column| self.decisions.cells.instant(&text(row, Some(*column)).ok()?).ok())
            .max()
    }

    fn parse(&self, rows: &[Row], seen: &mut Seen, clock: &Clock) -> Result<Parsed, String> {
        self.decisions.decide(self.order(rows)?, seen, clock)
    }
}
