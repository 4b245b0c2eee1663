//! Reads stretches of customers' histories: purchases between two keys, with their refunds.

use std::collections::HashMap;

use entity::{CustomerId, purchase, purchase_revision, refund};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ConnectionTrait, DbErr, EntityTrait, FromQueryResult, IdenStatic, Iterable, QueryFilter, QueryOrder, QueryResult,
    QuerySelect,
};

use crate::app::error::Error;
use crate::app::rows::{Kind, Limit, Rows, any, first_of_each, join};
use crate::app::stored::stretches::{Ends, INDEX, Stored, Stretches, index, lies_in};
use crate::app::stored::{purchase as purchases, purchase_revision as revisions, refund as stored_refund};
use crate::engine::money::Currency;
use crate::engine::purchase::{Key, Purchase, RunningSum};
use crate::engine::rule::Campaign;
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// Whether purchases are read with their lines, which make up most of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lines {
    Loaded,
    /// Purchases are read as if they had no lines. This is for rules that do not depend on lines. Refunds have theirs.
    LeftOut,
}

/// What a campaign needs of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub lines: Lines,
    /// The revision of the campaign set at which the campaign was settled. It counts the contents of purchases that counted then.
    /// `None`: it counts those that count now.
    pub settled_revision: Option<i64>,
}

impl View {
    pub fn of(campaign: Campaign<'_>) -> Self {
        let lines = if campaign.rule.reads_lines() { Lines::Loaded } else { Lines::LeftOut };
        Self { lines, settled_revision: campaign.settled_revision }
    }

    /// What campaigns that are not settled need.
    pub fn now(lines: Lines) -> Self {
        Self { lines, settled_revision: None }
    }
}

/// The limits for what is read of each stretch.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub rows: usize,
    /// The limit for the bytes of lines. The first row that exceeds the limit is still read.
    pub bytes: usize,
}

/// The first purchases of a stretch.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In order, with their refunds.
    pub purchases: Vec<Purchase>,
    /// The key of the last of these purchases if the stretch may have more. `None` if they are all.
    pub reached: Option<Key>,
}

/// Reads the first purchases of each stretch, with their refunds. One statement reads all stretches, but nothing that is between
/// them.
pub async fn pages(
    db: &impl ConnectionTrait,
    stretches: &[(CustomerId, Stretch)],
    view: View,
    bounds: Bounds,
) -> Result<Vec<Page>, Error> {
    if let Some(settled_revision) = view.settled_revision {
        return settled_pages(db, stretches, view.lines, settled_revision, bounds).await;
    }
    let lines = if view.lines == Lines::Loaded { "t.lines" } else { "'[]' AS lines" };
    let what = format!("{COUNTED_COLUMNS}, {lines}, {IS_REFUNDED} AS is_refunded");
    let first: Vec<First<Counted>> = first_of(db, stretches, view.lines, bounds, &what, "purchase", "").await?;
    let refunded = first.iter().flat_map(|first| &first.rows).filter(|row| row.is_refunded.is_some());
    let refunded: Vec<String> = refunded.map(|row| row.external_id.clone()).collect();
    let refunds = refunds(db, refunded).await?;
    let mut pages = Vec::with_capacity(first.len());
    for First { rows, may_have_more } in first {
        let mut purchases = Vec::with_capacity(rows.len());
        for row in rows {
            let refunds = refunds.get(&row.external_id).map(Vec::as_slice).unwrap_or_default();
            purchases.push(row.into_purchase(refunds)?);
        }
        let reached = purchases.last().filter(|_| may_have_more).map(|last: &Purchase| last.key.clone());
        pages.push(Page { purchases, reached });
    }
    Ok(pages)
}

/// Like [`pages`], for a settled campaign: reads the contents that counted when it was settled, which are in two tables.
async fn settled_pages(
    db: &impl ConnectionTrait,
    stretches: &[(CustomerId, Stretch)],
    lines: Lines,
    settled_revision: i64,
    bounds: Bounds,
) -> Result<Vec<Page>, Error> {
    let counting = format!(" AND s.set_revision < {settled_revision}");
    let what = columns_read::<purchase::Column>(lines);
    let current: Vec<First<purchase::Model>> =
        first_of(db, stretches, lines, bounds, &what, "purchase", &counting).await?;
    let replaced_since = format!("{counting} AND s.ended_set_revision >= {settled_revision}");
    let what = columns_read::<purchase_revision::Column>(lines);
    let replaced: Vec<First<purchase_revision::Model>> =
        first_of(db, stretches, lines, bounds, &what, "purchase_revision", &replaced_since).await?;
    let current_ids = current.iter().flat_map(|first| &first.rows).map(|row| row.external_id.clone());
    let replaced_ids = replaced.iter().flat_map(|first| &first.rows).map(|row| row.external_id.clone());
    let ids: Vec<String> = current_ids.chain(replaced_ids).collect();
    let taken_back = TakenBack::load(db, ids).await?;
    let mut pages = Vec::with_capacity(stretches.len());
    for (current, replaced) in current.into_iter().zip(replaced) {
        let end = |more: bool, last: Option<Key>| last.filter(|_| more);
        let ends = [
            end(current.may_have_more, current.rows.last().map(purchases::key)),
            end(replaced.may_have_more, replaced.rows.last().map(revisions::key)),
        ];
        let reached = ends.into_iter().flatten().min();
        let mut purchases = Vec::new();
        for row in &current.rows {
            purchases.push(taken_back.purchase(row)?);
        }
        for row in &replaced.rows {
            purchases.push(taken_back.replaced(row)?);
        }
        purchases.retain(|purchase| reached.as_ref().is_none_or(|reached| purchase.key <= *reached));
        purchases.sort_by(|one, other| one.key.cmp(&other.key));
        pages.push(Page { purchases, reached });
    }
    Ok(pages)
}

/// What was taken back of purchases, and when, whatever counts now.
#[derive(Default)]
pub struct TakenBack {
    refunds: HashMap<String, Vec<refund::Model>>,
    /// The contents that do not count now, without their lines.
    contents: HashMap<String, Vec<purchase_revision::Model>>,
}

impl TakenBack {
    /// Combines refunds and contents that were loaded, by the external id of the purchase.
    pub fn new(
        refunds: HashMap<String, Vec<refund::Model>>,
        contents: HashMap<String, Vec<purchase_revision::Model>>,
    ) -> Self {
        Self { refunds, contents }
    }

    /// Loads what was taken back of the purchases with these external ids.
    pub async fn load(db: &impl ConnectionTrait, external_ids: Vec<String>) -> Result<Self, Error> {
        let contents = contents(db, external_ids.iter().cloned(), Lines::LeftOut).await?;
        Ok(Self { refunds: refunds(db, external_ids).await?, contents })
    }

    /// The refunds of a purchase.
    pub fn refunds(&self, external_id: &str) -> &[refund::Model] {
        self.refunds.get(external_id).map(Vec::as_slice).unwrap_or_default()
    }

    /// The contents of a purchase that do not count now, without their lines.
    pub fn contents(&self, external_id: &str) -> &[purchase_revision::Model] {
        self.contents.get(external_id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns a purchase with all its refunds and running sums.
    pub fn purchase(&self, row: &purchase::Model) -> Result<Purchase, Error> {
        let sums = revisions::sums(row, self.contents(&row.external_id))?;
        Ok(Purchase { sums, ..purchases::with_refunds(row, self.refunds(&row.external_id))? })
    }

    /// Returns a content with all refunds and running sums of its purchase, whose row is `purchase`.
    pub fn content(&self, row: &purchase_revision::Model, purchase: &purchase::Model) -> Result<Purchase, Error> {
        let sums = revisions::sums(purchase, self.contents(&row.external_id))?;
        Ok(Purchase { sums, ..self.replaced(row)? })
    }

    /// Returns a content that does not count now, with all refunds, and the running sums of all such contents. That is what a campaign
    /// needs that was settled while the content counted.
    pub fn replaced(&self, row: &purchase_revision::Model) -> Result<Purchase, Error> {
        let mut sums = Vec::new();
        for content in self.contents(&row.external_id) {
            sums.extend(revisions::sum(content)?);
        }
        let refunds = self.refunds(&row.external_id).iter().map(stored_refund::from_row).collect::<Result<_, _>>()?;
        revisions::from_row(row, refunds, sums)
    }
}

/// What the column `lines` contains if it is not read: no lines.
pub const LEFT_OUT: &str = "[]";

/// Loads the lines of contents that do not count, by external id and revision.
pub async fn load_lines(
    db: &impl ConnectionTrait,
    contents: Vec<(String, i64)>,
) -> Result<HashMap<(String, i64), String>, Error> {
    let columns = [("external_id", Kind::Text), ("revision", Kind::Int)];
    let mut rows = Rows::new(db.get_database_backend(), &columns);
    for (external_id, revision) in contents {
        rows.push(vec![external_id.into(), revision.into()]);
    }
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let on = "t.external_id = r.external_id AND t.revision = r.revision";
    let what = "t.external_id, t.revision, t.lines";
    let mut lines = HashMap::new();
    for row in join(db, what, "purchase_revision", rows, on, "").await? {
        lines.insert((row.try_get("", "external_id")?, row.try_get("", "revision")?), row.try_get("", "lines")?);
    }
    Ok(lines)
}

/// Loads the contents of purchases that do not count now, by the external id of the purchase, in the order of their revisions.
pub async fn contents(
    db: &impl ConnectionTrait,
    external_ids: impl IntoIterator<Item = String>,
    lines: Lines,
) -> Result<HashMap<String, Vec<purchase_revision::Model>>, Error> {
    let mut by_purchase: HashMap<String, Vec<purchase_revision::Model>> = HashMap::new();
    let of_purchases = any(db.get_database_backend(), purchase_revision::Column::ExternalId, external_ids);
    let mut select = purchase_revision::Entity::find().filter(of_purchases);
    if lines == Lines::LeftOut {
        let others = purchase_revision::Column::iter();
        let others = others.filter(|column| !matches!(column, purchase_revision::Column::Lines));
        select = select.select_only().columns(others).expr_as(Expr::cust("'[]'"), "lines");
    }
    for row in select.order_by_asc(purchase_revision::Column::Revision).all(db).await? {
        by_purchase.entry(row.external_id.clone()).or_default().push(row);
    }
    Ok(by_purchase)
}

/// The SQL that is 1 if the purchase `t` has refunds, and null otherwise. With LIMIT, PostgreSQL searches the index for each row.
/// It may read all refunds for EXISTS.
const IS_REFUNDED: &str = "(SELECT 1 FROM refund WHERE refund.purchase_external_id = t.external_id LIMIT 1)";

/// The columns of [`Counted`] that are always read, in the order of its fields.
const COUNTED_COLUMNS: &str =
    "t.external_id, t.purchased_at, t.total, t.currency, t.channel, t.refunded, t.refunded_until, t.refunded_revision";

/// What a campaign that is not settled counts of a purchase. Late purchases read many rows, so nothing else is read, and columns are not
/// searched by name.
struct Counted {
    external_id: String,
    purchased_at: i64,
    total: i64,
    currency: String,
    channel: Option<String>,
    refunded: Option<i64>,
    refunded_until: Option<i64>,
    refunded_revision: Option<i64>,
    lines: String,
    /// Whether the purchase has refunds.
    is_refunded: Option<i32>,
}

impl FromQueryResult for Counted {
    /// Reads the columns after [`INDEX`].
    fn from_query_result(row: &QueryResult, _prefix: &str) -> Result<Self, DbErr> {
        Ok(Self {
            external_id: row.try_get_by_index(1)?,
            purchased_at: row.try_get_by_index(2)?,
            total: row.try_get_by_index(3)?,
            currency: row.try_get_by_index(4)?,
            channel: row.try_get_by_index(5)?,
            refunded: row.try_get_by_index(6)?,
            refunded_until: row.try_get_by_index(7)?,
            refunded_revision: row.try_get_by_index(8)?,
            lines: row.try_get_by_index(9)?,
            is_refunded: row.try_get_by_index(10)?,
        })
    }
}

impl Counted {
    /// Returns the purchase with these refunds. Its revision of the campaign set is unknown, and only settled campaigns look at it.
    fn into_purchase(self, refunds: &[refund::Model]) -> Result<Purchase, Error> {
        let broken = |error: String| Error::Internal(format!("purchase {}: {error}", self.external_id));
        let currency = Currency::recorded(&self.currency).map_err(|error| broken(error.to_string()))?;
        let sum = self.refunded.map(|amount| RunningSum {
            revision: self.refunded_revision.unwrap_or_default(),
            amount,
            currency,
            until: self.refunded_until.map(Instant),
            set_revision: 0,
        });
        let lines = serde_json::from_str(&self.lines).map_err(|error| broken(error.to_string()))?;
        Ok(Purchase {
            total: self.total,
            currency,
            channel: self.channel,
            lines,
            refunds: refunds.iter().map(stored_refund::from_row).collect::<Result<_, _>>()?,
            sums: sum.into_iter().collect(),
            set_revision: 0,
            replaced_at: None,
            key: Key { at: Instant(self.purchased_at), external_id: self.external_id },
        })
    }
}

/// A row that has a place in the order of a customer's purchases.
trait Placed: FromQueryResult {
    fn place(&self) -> (i64, &str);
    fn line_bytes(&self) -> usize;
}

impl Placed for Counted {
    fn place(&self) -> (i64, &str) {
        (self.purchased_at, &self.external_id)
    }

    fn line_bytes(&self) -> usize {
        self.lines.len()
    }
}

impl Placed for purchase::Model {
    fn place(&self) -> (i64, &str) {
        (self.purchased_at, &self.external_id)
    }

    fn line_bytes(&self) -> usize {
        self.lines.len()
    }
}

impl Placed for purchase_revision::Model {
    fn place(&self) -> (i64, &str) {
        (self.purchased_at, &self.external_id)
    }

    fn line_bytes(&self) -> usize {
        self.lines.len()
    }
}

/// The first rows of a stretch, in order.
struct First<R> {
    rows: Vec<R>,
    may_have_more: bool,
}

/// Reads the first rows of each stretch from a table. `and` is a further condition.
async fn first_of<R: Placed>(
    db: &impl ConnectionTrait,
    stretches: &[(CustomerId, Stretch)],
    lines: Lines,
    bounds: Bounds,
    what: &str,
    table: &str,
    and: &str,
) -> Result<Vec<First<R>>, Error> {
    let mut first: Vec<First<R>> = stretches.iter().map(|_| First { rows: Vec::new(), may_have_more: false }).collect();
    if stretches.is_empty() {
        return Ok(first);
    }
    let bytes = (lines == Lines::Loaded).then_some(("lines", bounds.bytes));
    let mut asked = Stretches::new(db.get_database_backend());
    for (customer, stretch) in stretches {
        asked.push(*customer, stretch);
    }
    let conditions = lies_in("s", Stored::Purchases, Ends::AfterTo) + and;
    let what = format!("{INDEX}, {what}");
    let (rows, limit) = (asked.into_rows(), Limit { rows: bounds.rows, bytes });
    for row in first_of_each(db, &what, table, rows, &conditions, "purchased_at, external_id", limit).await? {
        if let Some(first) = first.get_mut(index(&row)?) {
            first.rows.push(R::from_query_result(&row, "")?);
        }
    }
    for First { rows, may_have_more } in &mut first {
        rows.sort_unstable_by(|one, other| one.place().cmp(&other.place()));
        let bytes: usize = rows.iter().map(Placed::line_bytes).sum();
        *may_have_more = rows.len() >= bounds.rows || (lines == Lines::Loaded && bytes >= bounds.bytes);
    }
    Ok(first)
}

/// Returns the SQL for all columns of a row `t`.
fn columns_read<C: Iterable + IdenStatic>(lines: Lines) -> String {
    let what = |column: C| match column.as_str() {
        "lines" if lines == Lines::LeftOut => "'[]' AS \"lines\"".to_owned(),
        column => format!("t.\"{column}\""),
    };
    C::iter().map(what).collect::<Vec<_>>().join(", ")
}

/// Loads all refunds of these purchases, by the external id of the purchase. Always loads their lines, because the
/// conversion to another currency rounds each line.
pub async fn refunds(
    db: &impl ConnectionTrait,
    purchases: impl IntoIterator<Item = String>,
) -> Result<HashMap<String, Vec<refund::Model>>, Error> {
    let purchases: Vec<String> = purchases.into_iter().collect();
    let mut by_purchase: HashMap<String, Vec<refund::Model>> = HashMap::new();
    if purchases.is_empty() {
        return Ok(by_purchase);
    }
    let filter = any(db.get_database_backend(), refund::Column::PurchaseExternalId, purchases);
    for row in refund::Entity::find().filter(filter).all(db).await? {
        by_purchase.entry(row.purchase_external_id.clone()).or_default().push(row);
    }
    Ok(by_purchase)
}
