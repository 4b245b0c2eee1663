//! One row that a node changes to find out whether the database accepts writes.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "write_probe")]
pub struct Model {
    /// Always 1: the table has one row.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// Random for each change.
    pub stamp: i64,
    /// Empty as a rule. While the database refuses writes, as large as a batch, because a full disk often has room for a small
    /// row.
    #[sea_orm(column_type = "Blob")]
    pub filler: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
