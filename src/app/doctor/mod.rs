//! What a database says about itself, for `windfall doctor`. Nothing here writes, and nothing takes a lock.

pub mod postgres;

use entity::{dead_letter, installation, waiting_fact};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, PaginatorTrait as _, QuerySelect as _};

use super::database::Database;

/// How the schema of a database relates to this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The names of the migrations that the database lacks.
    pub pending: Vec<String>,
    /// `None` if the database has no tables yet.
    pub format: Option<i64>,
}

/// Reads which migrations the database lacks, and its format.
pub async fn schema(database: &Database) -> Result<Schema, DbErr> {
    let pending = database.pending_migrations().await?;
    // The table is made by one of the first migrations.
    let format: Result<Option<i64>, DbErr> = installation::Entity::find()
        .select_only()
        .column(installation::Column::Format)
        .into_tuple()
        .one(database.read())
        .await;
    let format = if pending.is_empty() { format? } else { format.unwrap_or_default() };
    Ok(Schema { pending, format })
}

/// Facts of topics that are not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrecorded {
    pub dead_letters: u64,
    pub waiting_facts: u64,
    /// When the first of the waiting facts becomes a dead letter, in µs since 1970.
    pub first_expiry: Option<i64>,
}

/// Counts the dead letters, and the refunds that wait for their purchase.
pub async fn unrecorded(db: &impl ConnectionTrait) -> Result<Unrecorded, DbErr> {
    let first_expiry = waiting_fact::Entity::find()
        .select_only()
        .column_as(sea_orm::ColumnTrait::min(&waiting_fact::Column::ExpiresAt), "first")
        .into_tuple::<Option<i64>>()
        .one(db)
        .await?;
    Ok(Unrecorded {
        dead_letters: dead_letter::Entity::find().count(db).await?,
        waiting_facts: waiting_fact::Entity::find().count(db).await?,
        first_expiry: first_expiry.flatten(),
    })
}
