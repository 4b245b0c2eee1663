//! A program that runs on the database, as it said itself last.

use sea_orm::entity::prelude::*;

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "node")]
pub struct Model {
    /// Random with every start.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    /// The latest format of the database that it knows.
    pub format: i64,
    /// Its version of the time zone database.
    #[sea_orm(column_type = "Text")]
    pub zone_data: String,
    /// When it said so, by the database's clock.
    pub last_seen: i64,
}

impl ActiveModelBehavior for ActiveModel {}
