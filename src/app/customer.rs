//! Reading customers: what a reader may see of them, and their balances.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{CustomerId, customer};
use sea_orm::{EntityTrait, QueryFilter};

use super::App;
use super::error::Error;
use super::reading::page::{Filter, List, Listed, Page, Part, Position, Slice, of_root};
use super::reading::snapshot::{Extent, View};
use super::rows::{Kind, any};
use super::stored::customer::blank;
use super::viewer::{Reader, Shop};
use crate::engine::time::Instant;

impl Listed for customer::Model {
    const LIST: List = List {
        name: "customer",
        table: "customer",
        order: &[("recorded_at", Kind::Int), ("id", Kind::Int)],
        descending: true,
    };

    fn position(&self) -> Position {
        [Part::Int(self.recorded_at), Part::Int(self.id.0)].into()
    }
}

/// Whose data a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    All,
    /// One customer's; none: that one has no row yet, so there is no data.
    Only(Option<CustomerId>),
}

impl Scope {
    /// Whether this customer's data may be seen.
    pub fn sees(self, customer: CustomerId) -> bool {
        match self {
            Self::All => true,
            Self::Only(only) => only == Some(customer),
        }
    }
}

/// The reader's scope in terms of rows.
pub async fn scope(app: &App, reader: Reader<'_>) -> Result<Scope, Error> {
    let Some(myself) = reader.myself() else { return Ok(Scope::All) };
    let customer = by_external_ids(app, vec![myself.to_owned()]).await?.remove(myself);
    Ok(Scope::Only(customer.map(|customer| customer.id)))
}

/// A customer as it is now.
#[derive(Clone, Debug)]
pub struct Current {
    /// Its row.
    pub row: Arc<customer::Model>,
    /// What more is known of it at that version; none: it is blank.
    pub view: Option<View>,
}

/// Those of these customers (by external id, each with the version that the reader has seen) that it may see. The one that
/// its token speaks for is always among them: before its first purchase it is blank.
pub async fn find(
    app: &App,
    reader: Reader<'_>,
    names: Vec<(String, Option<i64>)>,
    extent: Extent,
) -> Result<HashMap<String, Current>, Error> {
    let visible: Vec<_> = names.into_iter().filter(|(name, _)| reader.sees(name)).collect();
    let myself = reader.myself().filter(|myself| visible.iter().any(|(visible, _)| visible == myself));
    let found = if visible.is_empty() { HashMap::new() } else { app.snapshots().find(&visible, extent).await? };
    let current = |view: View| Current { row: Arc::clone(&view.snapshot.customer), view: Some(view) };
    let mut found: HashMap<_, _> = found.into_iter().map(|(name, view)| (name, current(view))).collect();
    if let Some(myself) = myself {
        let blank = || Current { row: Arc::new(blank(myself)), view: None };
        found.entry(myself.to_owned()).or_insert_with(blank);
    }
    Ok(found)
}

/// A customer by external id; blank before its first purchase.
pub async fn find_or_blank(app: &App, external_id: &str) -> Result<Arc<customer::Model>, Error> {
    let row = by_external_ids(app, vec![external_id.to_owned()]).await?.remove(external_id);
    Ok(Arc::new(row.unwrap_or_else(|| blank(external_id))))
}

async fn by_external_ids(app: &App, external_ids: Vec<String>) -> Result<HashMap<String, customer::Model>, Error> {
    let named = any(app.database.backend(), customer::Column::ExternalId, external_ids);
    let rows = customer::Entity::find().filter(named).all(app.database.read()).await?;
    Ok(rows.into_iter().map(|row| (row.external_id.clone(), row)).collect())
}

/// Customers by key: owners of rows that the reader has been shown.
pub async fn by_ids(app: &App, ids: Vec<CustomerId>) -> Result<HashMap<CustomerId, customer::Model>, Error> {
    let keyed = any(app.database.backend(), customer::Column::Id, ids.into_iter().map(|id| id.0));
    let rows = customer::Entity::find().filter(keyed).all(app.database.read()).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Refuses a row that is older than what the caller has seen. There is one database, so a version that it does not have
/// is one that never was.
pub fn require_version(customer: &customer::Model, at_least: Option<i64>) -> Result<(), Error> {
    match at_least {
        Some(version) if version > customer.version => {
            Err(Error::BadUserInput("the customer has no such version".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Newest first; `prefix`: those whose external id begins so.
pub async fn list(app: &App, _: &Shop, page: &Page, prefix: Option<&str>) -> Result<Slice<customer::Model>, Error> {
    let filter = match prefix {
        None | Some("") => Filter::default(),
        // No stored text holds U+0000, and PostgreSQL takes no parameter that does.
        Some(prefix) if prefix.contains('\0') => Filter { rows: Vec::new(), ..Filter::default() },
        Some(prefix) => begins_with(prefix),
    };
    of_root(app.database.read(), page, &filter).await
}

fn begins_with(prefix: &str) -> Filter {
    let mut filter = Filter {
        sql: " AND s.external_id >= r.prefix".to_owned(),
        columns: vec![("prefix", Kind::Text)],
        rows: vec![vec![prefix.into()]],
    };
    if let Some(end) = successor(prefix) {
        filter.sql += " AND s.external_id < r.prefix_end";
        filter.columns.push(("prefix_end", Kind::Text));
        filter.rows.iter_mut().for_each(|row| row.push(end.clone().into()));
    }
    filter
}

/// The least text above all that begin with `prefix`, in byte order (which is that of code points).
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // The range passes over the surrogates, which no text holds.
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// A customer's points at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// What can be spent; negative after a deficit.
    pub available: i64,
    /// Awarded, but not spendable yet.
    pub pending: i64,
    /// Points of the standing awards.
    pub lifetime: i64,
    /// When this holds.
    pub as_of: Instant,
    /// The customer's.
    pub version: i64,
}

/// The balance now. No activated campaign holds points back or lets them expire yet, so all are available.
pub fn balance(customer: &customer::Model, now: Instant) -> Balance {
    Balance {
        available: customer.balance,
        pending: 0,
        lifetime: customer.lifetime,
        as_of: now,
        version: customer.version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_of_a_prefix_is_above_all_that_begin_with_it() {
        assert_eq!(successor("ab").as_deref(), Some("ac"));
        assert_eq!(successor("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(successor("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(successor("\u{10ffff}"), None);
    }
}
