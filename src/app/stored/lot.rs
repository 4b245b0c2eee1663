//! Converts lots between the engine and their table.

use entity::{CustomerId, lot};
use sea_orm::{ConnectionTrait, EntityTrait, FromQueryResult as _, QueryFilter as _};

use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, any, delete, first_of_each, join};
use crate::engine::lot::{Lot, LotKey};
use crate::engine::time::Instant;

/// The `matures_at` of available lots. No points mature at the beginning of 1970: they are earned then at the earliest.
const AVAILABLE: i64 = 0;

/// The place of a lot among those of its customer.
pub fn key(row: &lot::Model) -> LotKey {
    let matures_at = Some(row.matures_at).filter(|at| *at != AVAILABLE).map(Instant);
    LotKey { matures_at, expires_at: Instant(row.expires_at) }
}

/// The points of a lot.
pub fn parts(row: &lot::Model) -> Lot {
    let lot::Model { left, reserved, spent, expired, .. } = *row;
    Lot { left, reserved, spent, expired }
}

/// The row of a lot.
pub fn to_row(customer_id: CustomerId, key: LotKey, parts: Lot) -> lot::Model {
    let Lot { left, reserved, spent, expired } = parts;
    let matures_at = key.matures_at.map_or(AVAILABLE, |at| at.0);
    lot::Model { customer_id, matures_at, expires_at: key.expires_at.0, left, reserved, spent, expired }
}

/// Which lots of a customer a statement looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The pending ones, by the instant at which they become available.
    Pending,
    /// The available ones of which something is left, in spending order.
    Spendable,
}

/// Loads the first lots of each customer after an instant, at most `most` of each customer and in no particular order.
pub async fn load_first(
    db: &impl ConnectionTrait,
    search: Search,
    after: impl Iterator<Item = (CustomerId, Instant)>,
    most: usize,
) -> Result<Vec<lot::Model>, Error> {
    let mut rows = Rows::new(db.get_database_backend(), &[("customer_id", Kind::Int), ("after", Kind::Int)]);
    after.for_each(|(customer, after)| rows.push(vec![customer.0.into(), after.0.into()]));
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (conditions, order) = match search {
        Search::Pending => (
            "s.customer_id = r.customer_id AND s.matures_at > 0 AND s.matures_at > r.after".to_owned(),
            "s.matures_at, s.expires_at",
        ),
        Search::Spendable => (
            format!(
                "s.customer_id = r.customer_id AND s.matures_at = {AVAILABLE} AND s.\"left\" > 0 AND s.expires_at > r.after"
            ),
            "s.expires_at",
        ),
    };
    let found = first_of_each(db, "t.*", "lot", rows, &conditions, order, most).await?;
    Ok(found.iter().map(|row| lot::Model::from_query_result(row, "")).collect::<Result<_, _>>()?)
}

fn keyed(db: &impl ConnectionTrait, keys: impl IntoIterator<Item = (CustomerId, LotKey)>) -> Rows {
    let columns = [("customer_id", Kind::Int), ("matures_at", Kind::Int), ("expires_at", Kind::Int)];
    let mut rows = Rows::new(db.get_database_backend(), &columns);
    for (customer, key) in keys {
        let matures_at = key.matures_at.map_or(AVAILABLE, |at| at.0);
        rows.push(vec![customer.0.into(), matures_at.into(), key.expires_at.0.into()]);
    }
    rows
}

const HAS_KEY: &str = "t.customer_id = r.customer_id AND t.matures_at = r.matures_at AND t.expires_at = r.expires_at";

/// Loads lots by their keys.
pub async fn load(
    db: &impl ConnectionTrait,
    keys: impl IntoIterator<Item = (CustomerId, LotKey)>,
) -> Result<Vec<lot::Model>, Error> {
    let rows = keyed(db, keys);
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let found = join(db, "t.*", "lot", rows, HAS_KEY, "").await?;
    Ok(found.iter().map(|row| lot::Model::from_query_result(row, "")).collect::<Result<_, _>>()?)
}

/// Loads all lots of these customers.
pub async fn load_all(
    db: &impl ConnectionTrait,
    customers: impl IntoIterator<Item = CustomerId>,
) -> Result<Vec<lot::Model>, Error> {
    let of_customers = any(db.get_database_backend(), lot::Column::CustomerId, customers.into_iter().map(|id| id.0));
    Ok(lot::Entity::find().filter(of_customers).all(db).await?)
}

/// Deletes lots by their keys.
pub async fn delete_keyed(
    db: &impl ConnectionTrait,
    keys: impl IntoIterator<Item = (CustomerId, LotKey)>,
) -> Result<(), Error> {
    let rows = keyed(db, keys);
    if rows.is_empty() {
        return Ok(());
    }
    Ok(delete(db, "lot", &["customer_id", "matures_at", "expires_at"], rows, HAS_KEY).await?)
}
