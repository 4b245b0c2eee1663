//! The points that a redemption took from one lot or from the pool.

use sea_orm::entity::prelude::*;

use crate::CustomerId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "taking")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub redemption_number: i64,
    /// When the lot expires. The greatest integer: the pool.
    #[sea_orm(primary_key, auto_increment = false)]
    pub expires_at: i64,
    pub points: i64,
}

impl ActiveModelBehavior for ActiveModel {}
