//! The one row that is changed to find out whether the database takes writes.

use sea_orm::entity::prelude::*;

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "write_probe")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// Random with every change.
    pub stamp: i64,
    /// Takes as much room as a batch does where less would prove nothing.
    #[sea_orm(column_type = "Blob")]
    pub filler: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
