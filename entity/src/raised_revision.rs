//! A number that a content of a purchase had before the same content came under a higher one. A content sent under this number again
//! is a duplicate or a conflict. The row is never updated or deleted.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "raised_revision")]
pub struct Model {
    /// The shop's id of the purchase.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub external_id: String,
    /// The number that the content had.
    #[sea_orm(primary_key, auto_increment = false)]
    pub revision: i64,
    /// The higher number, which may have been raised since.
    pub raised_to: i64,
}

impl ActiveModelBehavior for ActiveModel {}
