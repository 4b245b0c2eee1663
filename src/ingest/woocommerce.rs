//! The layout of orders that plug-ins of WooCommerce export: Customer/Order/Coupon Export, with one row per order or one row per
//! item, and WebToffee, with one row per order.

use rust_decimal::Decimal;
use serde_json::Value;

use super::cell;
use super::order::{Cell, Decisions, Order, OrderKey, OrderLine, Seen, Total, When};
use super::record::Parsed;
use super::rows::Row;
use super::table::{Header, Layout, refuse_repeated, text};
use crate::app::clock::Clock;
use crate::engine::time::Instant;

/// The cells of an order that each of its rows repeats. They are compared, not added up.
const REPEATED: [&str; 11] = [
    "order_id",
    "order_number",
    "order_date",
    "status",
    "order_total",
    "order_currency",
    "refunded_total",
    "customer_id",
    "customer_user",
    "customer_email",
    "billing_email",
];
/// The other columns that are used if they are there.
const USED: [&str; 14] = [
    "order_status",
    "currency",
    "paid_date",
    "payment_method",
    "refunds",
    "refund_items",
    "line_items",
    "item_id",
    "item_sku",
    "item_name",
    "item_quantity",
    "item_total",
    "item_total_tax",
    "line_item_1",
];
/// The fields of an item of WebToffee, which writes them without escapes.
const WEBTOFFEE_FIELDS: [&str; 11] =
    ["name", "product_id", "sku", "quantity", "total", "sub_total", "tax", "refunded", "meta", "tax_data", "item_id"];

pub(super) struct WooCommerce {
    decisions: Decisions,
    key: usize,
    other_key: Option<usize>,
    date: usize,
    paid: Option<usize>,
    status: usize,
    total: usize,
    currency: usize,
    customer: Option<usize>,
    email: Option<usize>,
    refunded: Option<usize>,
    refunds: Option<usize>,
    /// The column of the refunds has escapes, as items in a cell have.
    refunds_are_escaped: bool,
    payment_method: Option<usize>,
    items: Items,
    /// The columns that rows of one order repeat, with their names.
    repeated: Vec<(usize, &'static str)>,
}

/// Where the items of an order are.
enum Items {
    /// The file has no items.
    None,
    /// All items in one cell.
    InCell(usize),
    /// Each item in a cell of its own.
    InCells(Vec<usize>),
    /// Each item in a row of its own.
    InRows(ItemColumns),
}

/// The columns of a row with one item.
struct ItemColumns {
    id: Option<usize>,
    sku: Option<usize>,
    name: Option<usize>,
    quantity: usize,
    total: usize,
    tax: Option<usize>,
}

impl WooCommerce {
    pub(super) fn recognises(header: &Header) -> bool {
        header.find_one(&["order_id", "order_number"]).is_some() && header.has_all(&["order_date", "order_total"])
    }

    /// Fails if the header is not usable.
    pub(super) fn new(header: &Header, decisions: Decisions) -> anyhow::Result<Self> {
        let needed = |names: &[&str]| {
            header.find_one(names).ok_or_else(|| {
                let names = names.join("` or `");
                anyhow::anyhow!(
                    "the header has no column `{names}`, which the order exports of WooCommerce's plug-ins have"
                )
            })
        };
        let all: Vec<&str> = header.names().filter(|name| !name.is_empty()).collect();
        if let Some(twice) = header.twice(&REPEATED).or_else(|| header.twice(&USED)) {
            anyhow::bail!("the header names the column `{twice}` twice");
        }
        let (number, id) = (header.find("order_number"), header.find("order_id"));
        let (key, other_key) = match (decisions.order_key, number, id) {
            (OrderKey::Id, _, None) => anyhow::bail!("the header has no column `order_id`, which --order-key id needs"),
            (OrderKey::Id, number, Some(id)) => (id, number),
            (OrderKey::Name, Some(number), id) => (number, id),
            (OrderKey::Name, None, _) => (needed(&["order_number", "order_id"])?, None),
        };
        let customer = header.find_one(&["customer_id", "customer_user"]);
        let email = header.find_one(&["billing_email", "customer_email"]);
        if customer.is_none() && email.is_none() {
            needed(&["customer_id", "billing_email"])?;
        }
        let paid = header.find("paid_date");
        if decisions.when == When::Paid && paid.is_none() {
            anyhow::bail!("the header has no column `paid_date`, which --instant paid needs");
        }
        let numbered: Vec<usize> = all
            .iter()
            .filter(|name| name.strip_prefix("line_item_").is_some_and(|number| number.parse::<u32>().is_ok()))
            .filter_map(|name| header.find(name))
            .collect();
        let items = if let Some(cell) = header.find("line_items") {
            Items::InCell(cell)
        } else if !numbered.is_empty() {
            Items::InCells(numbered)
        } else if let (Some(total), Some(quantity)) = (header.find("item_total"), header.find("item_quantity")) {
            let find = |name: &str| header.find(name);
            let (id, sku, name, tax) = (find("item_id"), find("item_sku"), find("item_name"), find("item_total_tax"));
            Items::InRows(ItemColumns { id, sku, name, quantity, total, tax })
        } else {
            Items::None
        };
        if decisions.total == Total::Goods && matches!(items, Items::None) {
            anyhow::bail!("the header has no columns with items, which --total goods needs");
        }
        Ok(Self {
            decisions,
            key,
            other_key,
            date: needed(&["order_date"])?,
            paid,
            status: needed(&["status", "order_status"])?,
            total: needed(&["order_total"])?,
            currency: needed(&["order_currency", "currency"])?,
            customer,
            email,
            refunded: header.find("refunded_total"),
            refunds: header.find_one(&["refunds", "refund_items"]),
            refunds_are_escaped: header.find("refunds").is_some(),
            payment_method: header.find("payment_method"),
            items,
            repeated: REPEATED.iter().filter_map(|name| Some((header.find(name)?, *name))).collect(),
        })
    }

    fn lines(&self, rows: &[Row], currency: &str) -> Option<Result<Vec<OrderLine>, String>> {
        let first = rows.first()?;
        let in_cell = |column: usize, read: fn(&str) -> Result<Vec<Item>, String>| {
            let items = read(&text(first, Some(column))?)?;
            items.into_iter().map(|item| self.line(&item, currency)).collect::<Result<Vec<_>, String>>()
        };
        Some(match &self.items {
            Items::None => return None,
            Items::InCell(column) => in_cell(*column, items_of_cell),
            Items::InCells(columns) => {
                let lines = columns.iter().map(|column| in_cell(*column, items_of_webtoffee));
                lines.collect::<Result<Vec<_>, _>>().map(|lines| lines.concat())
            }
            Items::InRows(columns) => rows.iter().map(|row| self.line(&item_of_row(row, columns)?, currency)).collect(),
        })
    }

    fn line(&self, item: &Item, currency: &str) -> Result<OrderLine, String> {
        let field = |name: &str| item.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let name = field("name").unwrap_or_default().to_owned();
        let of_item = |what: &str, reason: String| format!("the {what} of the item {name}: {reason}");
        let quantity = field("quantity").ok_or_else(|| of_item("quantity", "is missing".to_owned()))?;
        let quantity = cell::quantity(quantity).map_err(|reason| of_item("quantity", reason))?;
        let amount = |field: Option<&str>| match field.map(str::trim) {
            None | Some("") => Ok(Decimal::ZERO),
            Some(text) => self.decisions.cells.amount(text, currency).and_then(|amount| cell::exact(&amount)),
        };
        let total = field("total").ok_or_else(|| of_item("total", "is missing".to_owned()))?;
        let total = amount(Some(total)).map_err(|reason| of_item("total", reason))?;
        let tax = amount(field("total_tax").or_else(|| field("tax"))).map_err(|reason| of_item("tax", reason))?;
        let amount = total.checked_add(tax).ok_or_else(|| of_item("total", "is too large".to_owned()))?;
        Ok(OrderLine { sku: field("sku").unwrap_or_default().to_owned(), name, category: None, quantity, amount })
    }

    /// Returns the running sum of refunds.
    fn refunded(&self, row: &Row, currency: &str) -> Result<Option<String>, String> {
        match (self.refunded, self.refunds) {
            (Some(column), _) => text(row, Some(column)).map(Some),
            (None, Some(column)) => {
                let cell = text(row, Some(column))?;
                let refunds =
                    if self.refunds_are_escaped { items_of_cell(&cell)? } else { refunds_of_webtoffee(&cell)? };
                let mut sum = Decimal::ZERO;
                for refund in refunds {
                    let amount = refund.iter().find(|(name, _)| name == "amount" || name == "total");
                    let amount = amount.ok_or_else(|| "a refund states no amount".to_owned())?;
                    let amount = self.decisions.cells.amount(&amount.1, currency)?;
                    let amount = cell::exact(amount.trim_start_matches('-'))?;
                    sum = sum.checked_add(amount).ok_or_else(|| "the refunds are too large".to_owned())?;
                }
                Ok(Some(sum.to_string()))
            }
            (None, None) => Ok(None),
        }
    }

    fn order(&self, rows: &[Row]) -> Result<Order, String> {
        let Some(first) = rows.first() else { return Err("has no cells".to_owned()) };
        refuse_repeated(rows)?;
        let cell = |column: usize| text(first, Some(column));
        let key = cell(self.key)?;
        for (column, name) in &self.repeated {
            let of_order = cell(*column)?;
            if let Some(row) = rows.iter().find(|row| row.raw(*column) != first.raw(*column)) {
                return Err(format!(
                    "{name} is `{of_order}` here and `{}` on line {}: all rows of an order must repeat its cells",
                    text(row, Some(*column))?,
                    row.number
                ));
            }
        }
        let account = account(&text(first, self.customer)?)?;
        let has_account = account.is_some();
        let customer = account.map_or_else(|| text(first, self.email).map(|email| email.trim().to_lowercase()), Ok)?;
        let currency = cell(self.currency)?;
        let created = Cell { column: "order_date".to_owned(), text: cell(self.date)? };
        let at = match (self.decisions.when, self.paid) {
            (When::Paid, Some(paid)) => Cell { column: "paid_date".to_owned(), text: cell(paid)? },
            _ => created.clone(),
        };
        let lines = self.lines(rows, currency.trim());
        let total = match (self.decisions.total, &lines) {
            // What the items cost, with their taxes.
            (Total::Goods, Some(Ok(lines))) => {
                let sum = lines.iter().try_fold(Decimal::ZERO, |sum, line| sum.checked_add(line.amount));
                sum.ok_or_else(|| "the items are too large".to_owned())?.to_string()
            }
            _ => cell(self.total)?,
        };
        Ok(Order {
            id: key,
            other_id: text(first, self.other_key)?,
            is_guest: !has_account && !customer.is_empty(),
            customer,
            status: Some(cell(self.status)?),
            is_test: text(first, self.payment_method)?.to_lowercase().contains("bogus"),
            is_cancelled: false,
            at,
            created,
            total,
            refunded: self.refunded(first, currency.trim())?,
            refunded_until: None,
            currency,
            channel: None,
            has_channel: false,
            lines,
            has_categories: false,
            revision: None,
        })
    }
}

impl Layout for WooCommerce {
    fn order_name<'a>(&self, row: &'a Row) -> Option<&'a [u8]> {
        matches!(self.items, Items::InRows(_)).then(|| row.raw(self.key).trim_ascii())
    }

    fn continues(&self, order: &[Row], row: &Row) -> bool {
        let Items::InRows(ItemColumns { id: Some(id), .. }) = self.items else { return true };
        // An item that occurs again begins a second copy of the order.
        let item = row.raw(id);
        item.is_empty() || order.iter().all(|of_order| of_order.raw(id) != item)
    }

    fn may_be_part(&self, _: &Row) -> bool {
        true
    }

    fn made_at(&self, row: &Row) -> Result<Instant, String> {
        let paid = self.paid.filter(|paid| self.decisions.when == When::Paid && !row.raw(*paid).is_empty());
        self.decisions.cells.instant(&text(row, Some(paid.unwrap_or(self.date)))?)
    }

    fn newest(&self, row: &Row) -> Option<Instant> {
        let mut texts: Vec<String> =
            [Some(self.date), self.paid].iter().flatten().filter_map(|column| text(row, Some(*column)).ok()).collect();
        let refunds = text(row, self.refunds).ok().and_then(|cell| items_of_cell(&cell).ok()).unwrap_or_default();
        texts.extend(refunds.into_iter().flatten().filter(|(name, _)| name == "date").map(|(_, date)| date));
        texts.iter().filter_map(|text| self.decisions.cells.instant(text).ok()).max()
    }

    fn parse(&self, rows: &[Row], seen: &mut Seen, clock: &Clock) -> Result<Parsed, String> {
        self.decisions.decide(self.order(rows)?, seen, clock)
    }
}

/// Returns the id of a customer's account, or `None` for a guest, whose id is 0. Spreadsheets write `17.0`.
fn account(id: &str) -> Result<Option<String>, String> {
    let wrong = || "customer_id: must be a whole number, 0 for a guest".to_owned();
    let id = id.trim();
    if id.is_empty() {
        return Ok(None);
    }
    let id = Decimal::from_str_exact(id).map_err(|_| wrong())?.normalize();
    match id {
        id if id.is_zero() => Ok(None),
        id if id.scale() == 0 && id.is_sign_positive() => Ok(Some(id.to_string())),
        _ => Err(wrong()),
    }
}

/// The fields of an item by their names.
type Item = Vec<(String, String)>;

fn item_of_row(row: &Row, columns: &ItemColumns) -> Result<Item, String> {
    let field = |name: &str, column: Option<usize>| Ok::<_, String>((name.to_owned(), text(row, column)?));
    Ok(vec![
        field("sku", columns.sku)?,
        field("name", columns.name)?,
        field("quantity", Some(columns.quantity))?,
        field("total", Some(columns.total))?,
        field("total_tax", columns.tax)?,
    ])
}

/// Reads items from a cell: JSON, or `name:value|name:value;…` with a backslash before each of `|`, `:`, `;` and `\` in a value.
fn items_of_cell(cell: &str) -> Result<Vec<Item>, String> {
    let cell = cell.trim();
    if cell.starts_with(['[', '{']) {
        let json: Value =
            serde_json::from_str(cell).map_err(|error| format!("a cell with JSON cannot be read: {error}"))?;
        let items = match json {
            Value::Array(items) => items,
            other => vec![other],
        };
        return items.iter().map(item_of_json).collect();
    }
    let items = split_unescaped(cell, ';').into_iter().filter(|item| !item.trim().is_empty());
    Ok(items.map(item_of_text).collect())
}

fn item_of_json(item: &Value) -> Result<Item, String> {
    let fields = item.as_object().ok_or_else(|| "a cell with JSON must be a list of objects".to_owned())?;
    let field = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Some((name.clone(), text.clone())),
        Value::Number(number) => Some((name.clone(), number.to_string())),
        _ => None,
    };
    Ok(fields.iter().filter_map(field).collect())
}

fn item_of_text(item: &str) -> Item {
    let field = |field: &str| {
        let mut parts = split_unescaped(field, ':').into_iter();
        let name = parts.next().unwrap_or_default().trim().to_owned();
        // Only the first colon separates.
        let value: Vec<&str> = parts.collect();
        (name, unescaped(&value.join(":")))
    };
    split_unescaped(item, '|').into_iter().map(field).collect()
}

/// Splits at a separator that no backslash precedes.
fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut from, mut is_escaped) = (0, false);
    for (at, character) in text.char_indices() {
        if character == separator && !is_escaped {
            parts.push(&text[from..at]);
            from = at + character.len_utf8();
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    parts.push(&text[from..]);
    parts
}

fn unescaped(text: &str) -> String {
    let (mut plain, mut is_escaped) = (String::with_capacity(text.len()), false);
    for character in text.chars() {
        if character == '\\' && !is_escaped {
            is_escaped = true;
        } else {
            plain.push(character);
            is_escaped = false;
        }
    }
    plain
}

/// Reads the refunds of a cell of WebToffee: `amount:…|reason:…|date:…;amount:…`. Nothing is escaped, so a refund begins only at the
/// start and at `;amount:`.
fn refunds_of_webtoffee(cell: &str) -> Result<Vec<Item>, String> {
    let cell = cell.trim();
    if cell.is_empty() {
        return Ok(Vec::new());
    }
    let rest = cell.strip_prefix("amount:").ok_or_else(|| "a refund must begin with `amount:`".to_owned())?;
    let refund = |refund: &str| {
        let amount = refund.split('|').next().unwrap_or_default();
        vec![("amount".to_owned(), amount.trim().to_owned())]
    };
    Ok(rest.split(";amount:").map(refund).collect())
}

/// Reads the item of a cell of WebToffee: `name:…|product_id:…|sku:…`. Nothing is escaped, so a name may contain any mark: a field
/// begins only where `|`, the name of a known field and a colon stand.
fn items_of_webtoffee(cell: &str) -> Result<Vec<Item>, String> {
    if cell.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut starts: Vec<(usize, usize, &str)> = Vec::new();
    for field in WEBTOFFEE_FIELDS {
        let marker = format!("|{field}:");
        // A name may look like a field, so the last one counts.
        starts.extend(cell.rfind(&marker).map(|at| (at, at + marker.len(), field)));
    }
    starts.sort_unstable();
    let first = starts.first().map_or(cell.len(), |(at, ..)| *at);
    let name = cell[..first].strip_prefix("name:").ok_or_else(|| "an item must begin with `name:`".to_owned())?;
    let mut item = vec![("name".to_owned(), name.to_owned())];
    for (index, (_, from, field)) in starts.iter().enumerate() {
        let to = starts.get(index + 1).map_or(cell.len(), |(at, ..)| *at);
        item.push(((*field).to_owned(), cell[*from..to].trim().to_owned()));
    }
    Ok(vec![item])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(fields: &[(&str, &str)]) -> Item {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn items_in_a_cell_are_escaped_or_json() {
        let cell = r"name:Tea\: green\|fine|sku:tea\;1|quantity:2;name:Back\\slash|total:3.50";
        let expected = vec![
            item(&[("name", "Tea: green|fine"), ("sku", "tea;1"), ("quantity", "2")]),
            item(&[("name", r"Back\slash"), ("total", "3.50")]),
        ];
        assert_eq!(items_of_cell(cell), Ok(expected));
        let json = r#"[{"name":"Tea","quantity":2,"total":"3.50","meta":[]}]"#;
        assert_eq!(items_of_cell(json), Ok(vec![item(&[("name", "Tea"), ("quantity", "2"), ("total", "3.50")])]));
        assert_eq!(
            items_of_cell("date:2026-01-02 10:00:00|amount:5"),
            Ok(vec![item(&[("date", "2026-01-02 10:00:00"), ("amount", "5")])])
        );
        assert_eq!(items_of_cell(" "), Ok(Vec::new()));
        assert!(items_of_cell("[1]").is_err());
    }

    #[test]
    fn items_of_webtoffee_have_no_escapes() {
        let cell =
            "name:Mug | blue: large|sku:fake|product_id:7|sku:mug-1|quantity:2|total:20.00|sub_total:22.00|tax:4.00";
        let items = items_of_webtoffee(cell).unwrap();
        let field = |name: &str| items[0].iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(field("name"), Some("Mug | blue: large|sku:fake"));
        assert_eq!(
            (field("sku"), field("quantity"), field("total"), field("tax")),
            (Some("mug-1"), Some("2"), Some("20.00"), Some("4.00"))
        );
        assert!(items_of_webtoffee("Mug").is_err());
    }
}
