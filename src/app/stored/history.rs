//! Reads stretches of customers' histories: purchases between two keys, with their refunds.

use std::collections::HashMap;

use entity::{CustomerId, purchase, refund};
use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait, EntityTrait, FromQueryResult, IdenStatic, Iterable, QueryFilter, QuerySelect};

use crate::app::error::Error;
use crate::app::rows::{Limit, any, first_of_each};
use crate::app::stored::purchase as purchases;
use crate::app::stored::stretches::{Ends, INDEX, Stored, Stretches, index, lies_in};
use crate::engine::purchase::{Key, Purchase};
use crate::engine::rule::Rule;
use crate::engine::stretch::Stretch;

/// Whether purchases are read with their lines, which make up most of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lines {
    Loaded,
    /// Purchases and refunds are read as if they had no lines. This is for rules that do not depend on lines.
    LeftOut,
}

impl Lines {
    /// Returns what the rule needs.
    pub fn of(rule: &Rule) -> Self {
        if rule.reads_lines() { Self::Loaded } else { Self::LeftOut }
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
    lines: Lines,
    bounds: Bounds,
) -> Result<Vec<Page>, Error> {
    let FirstRows { rows, refunded } = first_rows(db, stretches, lines, bounds).await?;
    let refunds = refunds_for(db, refunded, lines).await?;
    let purchase = |row: &purchase::Model| {
        let refunds = refunds.get(&row.external_id).map(Vec::as_slice).unwrap_or_default();
        purchases::with_refunds(row, refunds)
    };
    let page = |rows: Vec<purchase::Model>| {
        let bytes: usize = rows.iter().map(|row| row.lines.len()).sum();
        let may_have_more = rows.len() >= bounds.rows || (lines == Lines::Loaded && bytes >= bounds.bytes);
        let purchases = rows.iter().map(purchase).collect::<Result<Vec<_>, _>>()?;
        let reached = purchases.last().filter(|_| may_have_more).map(|last| last.key.clone());
        Ok(Page { purchases, reached })
    };
    rows.into_iter().map(page).collect()
}

/// The SQL that is 1 if the purchase `t` has refunds, and null otherwise. With LIMIT, PostgreSQL searches the index for each row.
/// It may read all refunds for EXISTS.
const IS_REFUNDED: &str = "(SELECT 1 FROM refund WHERE refund.purchase_external_id = t.external_id LIMIT 1)";

/// What [`first_rows`] reads.
struct FirstRows {
    /// The rows of each stretch, in the order of the customer's purchases.
    rows: Vec<Vec<purchase::Model>>,
    /// The external ids of those that have refunds.
    refunded: Vec<String>,
}

/// Reads the first rows of each stretch.
async fn first_rows(
    db: &impl ConnectionTrait,
    stretches: &[(CustomerId, Stretch)],
    lines: Lines,
    bounds: Bounds,
) -> Result<FirstRows, Error> {
    let mut first = vec![Vec::new(); stretches.len()];
    let mut refunded = Vec::new();
    if stretches.is_empty() {
        return Ok(FirstRows { rows: first, refunded });
    }
    let bytes = (lines == Lines::Loaded).then_some((purchase::Column::Lines.as_str(), bounds.bytes));
    let mut asked = Stretches::new(db.get_database_backend());
    for (customer, stretch) in stretches {
        asked.push(*customer, stretch);
    }
    let conditions = lies_in("s", Stored::Purchases, Ends::AfterTo);
    let what = format!("{INDEX}, {IS_REFUNDED} AS refunded, {}", columns_read(lines));
    let (rows, limit) = (asked.into_rows(), Limit { rows: bounds.rows, bytes });
    for row in first_of_each(db, &what, "purchase", rows, &conditions, "purchased_at, external_id", limit).await? {
        if let Some(first) = first.get_mut(index(&row)?) {
            let is_refunded = row.try_get::<Option<i32>>("", "refunded")?.is_some();
            let row = purchase::Model::from_query_result(&row, "")?;
            refunded.extend(is_refunded.then(|| row.external_id.clone()));
            first.push(row);
        }
    }
    for rows in &mut first {
        rows.sort_unstable_by(|a: &purchase::Model, b| {
            (a.purchased_at, &a.external_id).cmp(&(b.purchased_at, &b.external_id))
        });
    }
    Ok(FirstRows { rows: first, refunded })
}

/// Returns the SQL for all columns of a purchase `t`.
fn columns_read(lines: Lines) -> String {
    let what = |column: purchase::Column| match column {
        purchase::Column::Lines if lines == Lines::LeftOut => "'[]' AS \"lines\"".to_owned(),
        column => format!("t.\"{}\"", column.as_str()),
    };
    purchase::Column::iter().map(what).collect::<Vec<_>>().join(", ")
}

/// Loads all refunds of these purchases, by the external id of the purchase.
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
