//! Stretches of customers' histories: purchases between two keys, with their refunds.

use std::collections::HashMap;

use entity::{CustomerId, purchase, refund};
use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait, EntityTrait, FromQueryResult, IdenStatic, Iterable, QueryFilter, QuerySelect};

use super::error::Error;
use super::rows::{Kind, Limit, Rows, any, first_of_each, join};
use crate::engine::purchase::{Key, Purchase};
use crate::engine::rule::Rule;
use crate::engine::time::Instant;

/// A stretch of a customer's purchases, `(after, to]`; no end: all that follow.
pub type Span = (Key, Option<Key>);

/// Whether purchases come with their lines, which are most of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lines {
    /// As stored.
    Loaded,
    /// As if there were none: for rules that do not look at them.
    LeftOut,
}

impl Lines {
    /// What the rule looks at.
    pub fn of(rule: &Rule) -> Self {
        if rule.reads_lines() { Self::Loaded } else { Self::LeftOut }
    }
}

/// Each customer's purchases in its span.
pub async fn purchases(
    db: &impl ConnectionTrait,
    spans: HashMap<CustomerId, Span>,
    lines: Lines,
) -> Result<Vec<purchase::Model>, Error> {
    if spans.is_empty() {
        return Ok(Vec::new());
    }
    let columns = [
        ("customer_id", Kind::Int),
        ("after_at", Kind::Int),
        ("after_id", Kind::Text),
        ("to_at", Kind::Int),
        ("to_id", Kind::Text),
    ];
    let mut rows = Rows::new(db.get_database_backend(), &columns);
    for (customer, (after, to)) in spans {
        let to = to.unwrap_or_else(|| Key::before(Instant::FOREVER));
        rows.push(vec![
            customer.0.into(),
            after.at.0.into(),
            after.external_id.into(),
            to.at.0.into(),
            to.external_id.into(),
        ]);
    }
    // The bare bounds on purchased_at are what the index is searched by.
    let on = "t.customer_id = r.customer_id \
        AND t.purchased_at >= r.after_at AND t.purchased_at <= r.to_at \
        AND (t.purchased_at > r.after_at OR t.external_id > COALESCE(r.after_id, '')) \
        AND (t.purchased_at < r.to_at OR t.external_id <= COALESCE(r.to_id, ''))";
    let found = join(db, &columns_read(lines), "purchase", rows, on, "").await?;
    Ok(found.iter().map(|row| purchase::Model::from_query_result(row, "")).collect::<Result<_, _>>()?)
}

/// Of each span the first `most` purchases, in no order.
pub async fn first_purchases(
    db: &impl ConnectionTrait,
    spans: &[(CustomerId, Span)],
    lines: Lines,
    most: usize,
) -> Result<Vec<Vec<purchase::Model>>, Error> {
    let columns = [
        ("span", Kind::Int),
        ("customer_id", Kind::Int),
        ("after_at", Kind::Int),
        ("after_id", Kind::Text),
        ("to_at", Kind::Int),
        ("to_id", Kind::Text),
    ];
    let mut rows = Rows::new(db.get_database_backend(), &columns);
    for (index, (customer, (after, to))) in (0_i64..).zip(spans.iter().cloned()) {
        let to = to.unwrap_or_else(|| Key::before(Instant::FOREVER));
        rows.push(vec![
            index.into(),
            customer.0.into(),
            after.at.0.into(),
            after.external_id.into(),
            to.at.0.into(),
            to.external_id.into(),
        ]);
    }
    let mut found = vec![Vec::new(); spans.len()];
    if rows.is_empty() {
        return Ok(found);
    }
    let conditions = "s.customer_id = r.customer_id \
        AND s.purchased_at >= r.after_at AND s.purchased_at <= r.to_at \
        AND (s.purchased_at > r.after_at OR s.external_id > COALESCE(r.after_id, '')) \
        AND (s.purchased_at < r.to_at OR s.external_id <= COALESCE(r.to_id, ''))";
    let what = format!("r.span, {}", columns_read(lines));
    let order = "s.purchased_at, s.external_id";
    for row in first_of_each(db, &what, "purchase", rows, conditions, order, most).await? {
        let index: i64 = row.try_get("", "span")?;
        if let Some(of_span) = usize::try_from(index).ok().and_then(|index| found.get_mut(index)) {
            of_span.push(purchase::Model::from_query_result(&row, "")?);
        }
    }
    Ok(found)
}

/// A stretch of one customer's purchases, `(after, to]`; no end: all that follow.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Whose.
    pub customer: CustomerId,
    /// Exclusive.
    pub after: Key,
    /// Inclusive.
    pub to: Option<Key>,
}

/// The first purchases of a stretch.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// With their refunds, in order.
    pub purchases: Vec<Purchase>,
    /// More may follow: this is the last of these; none: that is all.
    pub reached: Option<Key>,
}

/// The first purchases of each stretch: at most so many rows, and so many bytes of lines with one row that passes them.
/// Stretches that lie apart are read apart, in one statement.
pub async fn pages(
    db: &impl ConnectionTrait,
    stretches: &[Stretch],
    lines: Lines,
    max_rows: usize,
    max_bytes: usize,
) -> Result<Vec<Page>, Error> {
    let bytes = (lines == Lines::Loaded).then_some((purchase::Column::Lines.as_str(), max_bytes));
    let conditions = "s.customer_id = r.customer_id \
        AND (s.purchased_at, s.external_id) > (r.after_at, COALESCE(r.after_id, '')) \
        AND (s.purchased_at, s.external_id) <= (r.to_at, COALESCE(r.to_id, ''))";
    let what = format!("r.stretch, {}", columns_read(lines));
    let (rows, limit) = (rows_of(db, stretches), Limit { rows: max_rows, bytes });
    let found = first_of_each(db, &what, "purchase", rows, conditions, "purchased_at, external_id", limit).await?;
    let mut rows: Vec<Vec<purchase::Model>> = stretches.iter().map(|_| Vec::new()).collect();
    for row in &found {
        let stretch = usize::try_from(row.try_get::<i64>("", "stretch")?).unwrap_or(usize::MAX);
        if let Some(rows) = rows.get_mut(stretch) {
            rows.push(purchase::Model::from_query_result(row, "")?);
        }
    }
    drop(found);
    let bought = rows.iter().flatten().map(|row| row.external_id.clone());
    let refunds = refunds_for(db, bought, lines).await?;
    rows.into_iter().map(|rows| page(rows, &refunds, max_rows, max_bytes)).collect()
}

fn rows_of(db: &impl ConnectionTrait, stretches: &[Stretch]) -> Rows {
    let columns = [
        ("stretch", Kind::Int),
        ("customer_id", Kind::Int),
        ("after_at", Kind::Int),
        ("after_id", Kind::Text),
        ("to_at", Kind::Int),
        ("to_id", Kind::Text),
    ];
    let mut rows = Rows::new(db.get_database_backend(), &columns);
    for (index, Stretch { customer, after, to }) in (0_i64..).zip(stretches) {
        let to = to.clone().unwrap_or_else(|| Key::before(Instant::FOREVER));
        rows.push(vec![
            index.into(),
            customer.0.into(),
            after.at.0.into(),
            after.external_id.clone().into(),
            to.at.0.into(),
            to.external_id.into(),
        ]);
    }
    rows
}

fn page(
    mut rows: Vec<purchase::Model>,
    refunds: &HashMap<String, Vec<refund::Model>>,
    max_rows: usize,
    max_bytes: usize,
) -> Result<Page, Error> {
    rows.sort_unstable_by(|a, b| (a.purchased_at, &a.external_id).cmp(&(b.purchased_at, &b.external_id)));
    let bytes: usize = rows.iter().map(|row| row.lines.len()).sum();
    let more = rows.len() >= max_rows || bytes >= max_bytes;
    let with_refunds = |row: &purchase::Model| {
        let refunds = refunds.get(&row.external_id).map(Vec::as_slice).unwrap_or_default();
        super::purchase::from_row(row, refunds.iter().map(super::refund::from_row).collect::<Result<_, _>>()?)
    };
    let purchases = rows.iter().map(with_refunds).collect::<Result<Vec<_>, _>>()?;
    let reached = purchases.last().filter(|_| more).map(|last| last.key.clone());
    Ok(Page { purchases, reached })
}

/// Of a purchase `t`.
fn columns_read(lines: Lines) -> String {
    let what = |column: purchase::Column| match column {
        purchase::Column::Lines if lines == Lines::LeftOut => "'[]' AS \"lines\"".to_owned(),
        column => format!("t.\"{}\"", column.as_str()),
    };
    purchase::Column::iter().map(what).collect::<Vec<_>>().join(", ")
}

/// All refunds of these purchases, by purchase.
pub async fn refunds(
    db: &impl ConnectionTrait,
    purchases: impl IntoIterator<Item = String>,
) -> Result<HashMap<String, Vec<refund::Model>>, Error> {
    refunds_for(db, purchases, Lines::Loaded).await
}

async fn refunds_for(
    db: &impl ConnectionTrait,
    purchases: impl IntoIterator<Item = String>,
    lines: Lines,
) -> Result<HashMap<String, Vec<refund::Model>>, Error> {
    let purchases: Vec<String> = purchases.into_iter().collect();
    let mut by_purchase: HashMap<String, Vec<refund::Model>> = HashMap::new();
    if purchases.is_empty() {
        return Ok(by_purchase);
    }
    let filter = any(db.get_database_backend(), refund::Column::PurchaseExternalId, purchases);
    let mut select = refund::Entity::find().filter(filter);
    if lines == Lines::LeftOut {
        let others = refund::Column::iter().filter(|column| !matches!(column, refund::Column::Lines));
        select = select.select_only().columns(others).expr_as(Expr::cust("'[]'"), "lines");
    }
    for row in select.all(db).await? {
        by_purchase.entry(row.purchase_external_id.clone()).or_default().push(row);
    }
    Ok(by_purchase)
}
