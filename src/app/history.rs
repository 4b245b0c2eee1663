//! Stretches of customers' histories: purchases between two keys, with their refunds.

use std::collections::HashMap;

use entity::{CustomerId, purchase, refund};
use sea_orm::{ConnectionTrait, EntityTrait, FromQueryResult, IdenStatic, Iterable, QueryFilter};

use super::error::Error;
use super::rows::{Kind, Rows, any, first_of_each, join};
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

/// Of a purchase `t`.
fn columns_read(lines: Lines) -> String {
    let what = |column: purchase::Column| match column {
        purchase::Column::Lines if lines == Lines::LeftOut => "'[]' AS \"lines\"".to_owned(),
        column => format!("t.\"{}\"", column.as_str()),
    };
    purchase::Column::iter().map(what).collect::<Vec<_>>().join(", ")
}

/// [`purchases`] with their refunds, in no order.
pub async fn load(
    db: &impl ConnectionTrait,
    spans: HashMap<CustomerId, Span>,
    lines: Lines,
) -> Result<HashMap<CustomerId, Vec<Purchase>>, Error> {
    let rows = purchases(db, spans, lines).await?;
    let mut refunds = refunds(db, rows.iter().map(|row| row.external_id.clone())).await?;
    let mut history: HashMap<CustomerId, Vec<Purchase>> = HashMap::new();
    for row in rows {
        let of_row = refunds.remove(&row.external_id).unwrap_or_default();
        let of_row = of_row.iter().map(super::refund::from_row).collect::<Result<_, _>>()?;
        history.entry(row.customer_id).or_default().push(super::purchase::from_row(&row, of_row)?);
    }
    Ok(history)
}

/// All refunds of these purchases, by purchase.
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
