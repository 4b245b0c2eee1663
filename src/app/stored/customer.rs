//! The rows of customers, and customers that have no row.

use std::collections::HashMap;

use entity::{CustomerId, customer};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, QueryFilter};

use crate::app::rows::any;

/// Loads customers by key.
pub async fn load_by_ids(
    db: &impl ConnectionTrait,
    ids: Vec<CustomerId>,
) -> Result<HashMap<CustomerId, customer::Model>, DbErr> {
    let keyed = any(db.get_database_backend(), customer::Column::Id, ids.into_iter().map(|id| id.0));
    let rows = customer::Entity::find().filter(keyed).all(db).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Returns a customer for which nothing is recorded. No row has the id 0, so this customer has no awards and no entries.
pub fn blank(external_id: &str) -> customer::Model {
    customer::Model {
        id: CustomerId(0),
        external_id: external_id.to_owned(),
        recorded_at: 0,
        version: 0,
        stamp: 0,
        evaluated_revision: 0,
        ledger_sequence: 0,
        posted_at: 0,
        award_number: 0,
        balance: 0,
        lifetime: 0,
        due_at: None,
        head: Vec::new(),
    }
}
