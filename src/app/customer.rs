//! Reads customers and their balances, and decides which customers a reader may see.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{CustomerId, customer};
use sea_orm::{EntityTrait, QueryFilter};

use super::App;
use super::error::Error;
use super::reading::page::{Filter, List, Listed, Page, Part, Position, Slice, of_root};
use super::reading::snapshot::{Extent, Snapshot, View};
use super::rows::{Kind, any};
use super::stored::customer::{blank, load_by_ids};
use super::viewer::{Reader, Shop};
use crate::engine::purse::Sums;
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

/// The customers whose data a reader may see, by their rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The data of every customer.
    All,
    /// Only one customer. `None` if that customer has no row yet and therefore no data.
    Only(Option<CustomerId>),
}

impl Scope {
    /// Whether the reader may see the data of this customer.
    pub fn sees(self, customer: CustomerId) -> bool {
        match self {
            Self::All => true,
            Self::Only(only) => only == Some(customer),
        }
    }
}

/// Looks up the scope of a reader.
pub async fn scope(app: &App, reader: Reader<'_>) -> Result<Scope, Error> {
    let Some(myself) = reader.myself() else { return Ok(Scope::All) };
    let customer = by_external_ids(app, vec![myself.to_owned()]).await?.remove(myself);
    Ok(Scope::Only(customer.map(|customer| customer.id)))
}

/// The current state of a customer.
#[derive(Clone, Debug)]
pub struct Current {
    pub row: Arc<customer::Model>,
    /// The snapshot of the same version. `None` if the customer has no row yet and `row` is blank.
    pub view: Option<View>,
}

/// Finds customers by external id, each at least at the given version. Leaves out those that do not exist or that the reader
/// may not see. The customer of the reader's own token always exists: before its first purchase it is blank.
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

/// Finds a customer by external id. Returns a blank row if nothing is recorded of the customer.
pub async fn find_or_blank(app: &App, external_id: &str) -> Result<Arc<customer::Model>, Error> {
    let row = by_external_ids(app, vec![external_id.to_owned()]).await?.remove(external_id);
    Ok(Arc::new(row.unwrap_or_else(|| blank(external_id))))
}

/// Loads customers by external id without checking rights.
pub async fn by_external_ids(app: &App, external_ids: Vec<String>) -> Result<HashMap<String, customer::Model>, Error> {
    let named = any(app.database.backend(), customer::Column::ExternalId, external_ids);
    let rows = customer::Entity::find().filter(named).all(app.database.read()).await?;
    Ok(rows.into_iter().map(|row| (row.external_id.clone(), row)).collect())
}

/// Loads customers by key without checking rights: for the owners of rows that the reader already sees.
pub async fn by_ids(app: &App, ids: Vec<CustomerId>) -> Result<HashMap<CustomerId, customer::Model>, Error> {
    Ok(load_by_ids(app.database.read(), ids).await?)
}

/// Fails if the row is older than the version that the caller claims to have seen. All reads go to one database, so a
/// version that is not there never existed.
pub fn require_version(customer: &customer::Model, at_least: Option<i64>) -> Result<(), Error> {
    match at_least {
        Some(version) if version > customer.version => {
            Err(Error::BadUserInput("the customer has no such version: use one that a response returned".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Returns a page of the customers, newest first. With `prefix`, only those whose external id begins with it.
pub async fn list(app: &App, _: &Shop, page: &Page, prefix: Option<&str>) -> Result<Slice<customer::Model>, Error> {
    let filter = match prefix {
        None | Some("") => Filter::default(),
        // No stored text contains U+0000, and PostgreSQL refuses a parameter that does.
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

/// Returns the smallest text that is greater than all texts that begin with `prefix`. Byte order equals code point order.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // The range skips the surrogates, which no text contains.
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// The points of a customer at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The points that can be spent. Negative if the customer has a deficit.
    pub available: i64,
    /// The points that were awarded but cannot be spent yet.
    pub pending: i64,
    /// The points that are set aside.
    pub reserved: i64,
    /// The first expiry of available points, and the points that expire then.
    pub expiring_next: Option<(Instant, i64)>,
    /// The first instant at which pending points become available, and how many do.
    pub maturing_next: Option<(Instant, i64)>,
    /// The points of the customer's STANDING awards.
    pub lifetime: i64,
    /// The instant at which this balance holds.
    pub as_of: Instant,
    /// The version of the customer.
    pub version: i64,
}

impl Balance {
    /// The balance of a customer, whose points the clock does not change, at `now` or at its last entry if that is later. All points are
    /// in the pool.
    pub fn of_pool(customer: &customer::Model, now: Instant) -> Self {
        Self {
            available: customer.balance,
            pending: 0,
            reserved: 0,
            expiring_next: None,
            maturing_next: None,
            lifetime: customer.lifetime,
            as_of: now.max(Instant(customer.posted_at)),
            version: customer.version,
        }
    }

    /// The balance at `now`, or at the last commit if that is later.
    pub fn of_snapshot(snapshot: &Snapshot, now: Instant) -> Self {
        let in_pool = Self::of_pool(&snapshot.customer, now);
        let Some(points) = &snapshot.points else {
            let last = snapshot.running.held.map_or(now, |held| held.at);
            return Self { as_of: in_pool.as_of.max(last), ..in_pool };
        };
        let purse = points.at(in_pool.as_of);
        let Sums { pending, reserved, .. } = purse.sums();
        Self {
            available: purse.available(),
            pending,
            reserved,
            expiring_next: purse.expiring_next(),
            maturing_next: purse.maturing_next(),
            as_of: purse.now(),
            ..in_pool
        }
    }
}

/// Returns the points of the snapshot that are available at `as_of` and expire by `by`. The snapshot contains only the lots that expire
/// next. If more are needed, they are read; returns `None` if the customer has changed since then.
pub async fn expiring(app: &App, snapshot: &Snapshot, as_of: Instant, by: Instant) -> Result<Option<i64>, Error> {
    let Some(points) = &snapshot.points else { return Ok(Some(0)) };
    match points.expiring(as_of, by) {
        Some(expiring) => Ok(Some(expiring)),
        None => {
            let all = app.snapshots().all_points(snapshot).await?;
            Ok(all.and_then(|all| all.expiring(as_of, by)))
        }
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
