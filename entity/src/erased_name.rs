//! A name that the shop used for something of an erased customer: the id of a purchase, or an idempotency key. Only its hash is kept.

use sea_orm::entity::prelude::*;

use crate::CustomerId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "erased_name")]
pub struct Model {
    /// What `app::stored::erased_name` computes from the name and the key of the installation.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub hash: String,
    pub customer_id: CustomerId,
}

impl ActiveModelBehavior for ActiveModel {}
