//! A program that runs on the database. Each program renews its own row every few seconds.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "node")]
pub struct Model {
    /// Random for each start of a program.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    /// The latest format of the database that the program knows.
    pub format: i64,
    /// The program's version of the time zone database.
    #[sea_orm(column_type = "Text")]
    pub zone_data: String,
    /// When the program last renewed the row, by the database's clock on PostgreSQL and by its own on SQLite.
    pub last_seen: i64,
}

impl ActiveModelBehavior for ActiveModel {}
