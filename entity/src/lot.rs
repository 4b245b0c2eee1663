//! The points of a customer that wait or expire, by their dates. Points that do neither are in no lot: they are the pool.

use sea_orm::entity::prelude::*;

use crate::CustomerId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "lot")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    /// When the points become available. 0: they are available. A lot that becomes available joins the one with the same expiry.
    #[sea_orm(primary_key, auto_increment = false)]
    pub matures_at: i64,
    /// When the points expire. The greatest integer: never.
    #[sea_orm(primary_key, auto_increment = false)]
    pub expires_at: i64,
    /// Neither reserved, nor spent, nor expired.
    pub left: i64,
    pub reserved: i64,
    pub spent: i64,
    pub expired: i64,
}

impl ActiveModelBehavior for ActiveModel {}
