//! What an import decides about the orders of a shop's export. `docs/import.md` explains each decision.
//!
//! An export is a state, not a list of events: each order is recorded as a revision, with its running sum of refunds. So a newer export
//! of the same orders revises what changed, an older one is superseded, and the same one again changes nothing.

use std::collections::HashMap;

use rust_decimal::Decimal;

use super::cell::{self, Cells};
use super::hash_of;
use super::record::{LeftOut, Parsed, Record, check};
use crate::app::clock::Clock;
use crate::app::purchase::{PurchaseLine, RecordPurchase};
use crate::app::recorder::fact::Kept;
use crate::engine::external_id::TEXT_BYTES;
use crate::engine::time::Instant;

/// The maximum number of orders that are compared with later ones of the file. They take some 48 MiB.
const MAX_SEEN: usize = 1 << 20;

/// The statuses of orders that count, without `wc-` and in lower case.
const COUNTED: [&str; 5] = ["paid", "partially_refunded", "refunded", "processing", "completed"];
/// The statuses of orders that are not paid yet, or not wholly. They are left out.
const LEFT_OUT: [&str; 6] = ["pending", "authorized", "expired", "partially_paid", "on-hold", "draft"];
/// The statuses of orders that never were, or are no more. They are recorded with a total of 0.
const VOID: [&str; 4] = ["voided", "failed", "cancelled", "trash"];

/// Which total of an order counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Total {
    /// The whole total: after discounts, with shipping and taxes.
    #[default]
    Order,
    /// The goods alone.
    Goods,
}

/// Which instant of an order is its `purchasedAt`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// When the order was created.
    #[default]
    Created,
    /// When the order was paid.
    Paid,
}

/// Which column is the external id of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderKey {
    /// The order's name or number, as the customer sees it.
    #[default]
    Name,
    /// The shop system's own id.
    Id,
}

/// The decisions about the orders of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// How cells are written.
    pub cells: Cells,
    pub total: Total,
    pub when: When,
    pub order_key: OrderKey,
    /// Further statuses of orders that count.
    pub counted_statuses: Vec<String>,
    /// Further statuses of orders that are recorded with a total of 0.
    pub void_statuses: Vec<String>,
    /// Further statuses of orders that are left out.
    pub left_out_statuses: Vec<String>,
    /// An order that is recorded under another customer goes to the one of the file.
    pub may_move: bool,
    /// The revision of all orders of the file.
    pub revision: i64,
    /// When the file was exported. `None` if the caller did not say so: then no refund is known to be in the file's sums.
    pub as_of: Option<Instant>,
}

/// An order as the file has it. All texts are those of cells.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    /// The external id.
    pub(super) id: String,
    /// The shop system's own id, if it is not the external id.
    pub(super) other_id: String,
    /// The external id of the customer. Empty if the file names none.
    pub(super) customer: String,
    /// The customer has no account.
    pub(super) is_guest: bool,
    /// The status. `None` if the file has no statuses.
    pub(super) status: Option<String>,
    pub(super) is_test: bool,
    pub(super) is_cancelled: bool,
    /// When the purchase was made.
    pub(super) at: Cell,
    /// When the order was created, for an order that was never paid.
    pub(super) created: Cell,
    pub(super) total: String,
    pub(super) currency: String,
    pub(super) channel: Option<String>,
    /// The file states channels.
    pub(super) has_channel: bool,
    /// The running sum of refunds. `None` if the file does not state it.
    pub(super) refunded: Option<String>,
    pub(super) refunded_until: Option<String>,
    /// The lines, or why they cannot be read. `None` if the file has none.
    pub(super) lines: Option<Result<Vec<OrderLine>, String>>,
    /// The file states categories.
    pub(super) has_categories: bool,
    /// A revision of the order's own.
    pub(super) revision: Option<i64>,
}

/// The text of a cell with the name of its column.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) column: String,
    pub(super) text: String,
}

/// A line of an order.
#[derive(Clone, Debug)]
pub(super) struct OrderLine {
    pub(super) sku: String,
    /// The name of the item, which stands for a missing sku.
    pub(super) name: String,
    pub(super) category: Option<String>,
    pub(super) quantity: i32,
    pub(super) amount: Decimal,
}

/// What becomes of an order because of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Counted,
    Void,
    LeftOut,
    Unknown,
}

impl Decisions {
    fn fate(&self, status: &str) -> Fate {
        let is_of = |known: &[&str], added: &[String]| {
            known.contains(&status) || added.iter().any(|added| normal(added) == status)
        };
        match status {
            _ if is_of(&[], &self.left_out_statuses) => Fate::LeftOut,
            _ if is_of(&[], &self.void_statuses) => Fate::Void,
            _ if is_of(&COUNTED, &self.counted_statuses) => Fate::Counted,
            _ if VOID.contains(&status) => Fate::Void,
            _ if LEFT_OUT.contains(&status) => Fate::LeftOut,
            _ => Fate::Unknown,
        }
    }

    /// Returns why a refund of an order with this status is left out.
    pub(super) fn refund_left_out_by(&self, status: Option<&str>) -> Option<String> {
        let status = normal(status?);
        match self.fate(&status) {
            Fate::Void => Some(format!("status `{status}`")),
            fate => left_out_by(fate, &status),
        }
    }

    /// Turns an order into what the import records of it. `seen` has the orders before it.
    pub(super) fn decide(&self, order: Order, seen: &mut Seen, clock: &Clock) -> Result<Parsed, String> {
        let Ok(id) = cell::id(&order.id).map(str::to_owned) else {
            return Err(format!("the order's name {}", cell::id(&order.id).err().unwrap_or_default()));
        };
        if id.is_empty() {
            return Err("names no order: the first cell of an order is its name or number".to_owned());
        }
        let left_out = |reason: String| Ok(Parsed::from(Record::LeftOut(LeftOut { reason, order: id.clone() })));
        if order.is_test {
            return left_out("a test order".to_owned());
        }
        let status = order.status.as_deref().map(normal);
        let by_status = status.as_deref().map_or(Fate::Counted, |status| self.fate(status));
        let fate = if order.is_cancelled { Fate::Void } else { by_status };
        let status = status.unwrap_or_default();
        if let Some(reason) = left_out_by(fate, &status) {
            return left_out(reason);
        }
        let customer = cell::id(&order.customer).map_err(|reason| format!("the customer {reason}"))?.to_owned();
        if customer.is_empty() || customer == "0" {
            return left_out("no customer".to_owned());
        }
        let is_void = fate == Fate::Void;
        let Cell { column, text } = if is_void { &order.created } else { &order.at };
        if text.trim().is_empty() {
            return Err(format!("{column}: is empty"));
        }
        let at = self.cells.instant(text).map_err(|reason| format!("{column}: {reason}"))?;
        if let Some(as_of) = self.as_of.filter(|as_of| at > *as_of) {
            return Err(format!(
                "{column}: is after --as-of ({as_of}): give the instant at which the file was exported"
            ));
        }
        let is_guest = order.is_guest;
        let lines = order.lines.filter(|_| !is_void).transpose()?;
        let lines: Option<Vec<PurchaseLine>> = lines.map(|lines| lines.into_iter().filter_map(line).collect());
        let kept = Kept {
            channel: !order.has_channel,
            categories: !order.has_categories,
            lines: lines.is_none(),
            customer: !self.may_move,
        };
        let currency = order.currency.trim().to_owned();
        if currency.is_empty() {
            return Err("has no currency".to_owned());
        }
        let amount =
            |name: &str, text: &str| self.cells.amount(text, &currency).map_err(|reason| format!("{name}: {reason}"));
        let total = if is_void { "0".to_owned() } else { amount("total", &order.total)? };
        let mut refunded = match order.refunded.as_deref().map(str::trim) {
            None => None,
            _ if is_void => None,
            Some("") => Some("0".to_owned()),
            // Some systems write what was taken back as a negative number.
            Some(text) => Some(amount("refunded", text)?.trim_start_matches('-').to_owned()),
        };
        if self.total == Total::Goods
            && let Some(sum) = &refunded
            && cell::exact(sum)? > cell::exact(&total)?
        {
            refunded = Some(total.clone());
        }
        let refunded_until = refunded.as_ref().and(order.refunded_until.or(self.as_of.map(|at| at.to_string())));
        let purchase = RecordPurchase {
            external_id: id,
            customer_external_id: customer,
            purchased_at: at.to_string(),
            total,
            currency,
            refunded,
            refunded_until,
            channel: order.channel,
            lines,
            revision: order.revision.unwrap_or(self.revision),
        };
        seen.compare(&purchase, &order.other_id)?;
        let is_by_status = by_status == Fate::Void;
        let void = is_void.then(|| if is_by_status { format!("status `{status}`") } else { "cancelled".to_owned() });
        Ok(Parsed { is_guest, void, ..check(purchase, kept, clock)? })
    }
}

/// Writes a status without `wc-`, in lower case.
fn normal(status: &str) -> String {
    let status = status.trim().to_lowercase();
    status.strip_prefix("wc-").map(str::to_owned).unwrap_or(status)
}

/// A line with nothing of an item was taken out of the order.
fn line(line: OrderLine) -> Option<PurchaseLine> {
    let OrderLine { sku, name, category, quantity, amount } = line;
    let sku = match sku.trim() {
        "" => cut(name.trim()).to_owned(),
        sku => sku.to_owned(),
    };
    (quantity > 0).then(|| PurchaseLine { sku, category, quantity, amount: amount.normalize().to_string() })
}

/// Cuts a name to the length that a text may have.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(TEXT_BYTES)]
}

/// Returns why an order is left out because of its status.
fn left_out_by(fate: Fate, status: &str) -> Option<String> {
    match (fate, status) {
        (Fate::Counted | Fate::Void, _) => None,
        (Fate::LeftOut, status) => Some(format!("status `{status}`")),
        (Fate::Unknown, "") => Some("no status".to_owned()),
        (Fate::Unknown, status) => {
            Some(format!("unknown status `{status}`: to count such orders, give --count-status \"{status}\""))
        }
    }
}

/// The orders of a file that were read, as hashes.
#[derive(Default)]
pub(super) struct Seen {
    /// By the name of the order: its identity and its content.
    orders: HashMap<u64, (u64, u64)>,
}

impl Seen {
    /// Compares an order with an earlier one of the same name: it must be the same order with the same content. Notes the order, up to a
    /// limit.
    fn compare(&mut self, purchase: &RecordPurchase, other_id: &str) -> Result<(), String> {
        let (name, identity) =
            (hash_of(&purchase.external_id), hash_of((other_id.trim(), &purchase.customer_external_id)));
        let content = hash_of(purchase);
        match self.orders.get(&name) {
            Some((seen, _)) if *seen != identity => {
                Err("another order of this file has the same name, but another id or customer, as \
                in two shops: give --order-key id, or mend the file"
                    .to_owned())
            }
            Some((_, seen)) if *seen != content => {
                Err("the order occurs in this file twice, with different content: mend the file".to_owned())
            }
            Some(_) => Ok(()),
            None => {
                if self.orders.len() < MAX_SEEN {
                    self.orders.insert(name, (identity, content));
                }
                Ok(())
            }
        }
    }
}
