//! Takes back all or part of a purchase. Never updated or deleted.

use sea_orm::entity::prelude::*;

use crate::CustomerId;

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "refund")]
pub struct Model {
    /// The shop's name for it.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub external_id: String,
    /// Of which purchase.
    #[sea_orm(column_type = "Text")]
    pub purchase_external_id: String,
    /// The purchase's customer.
    pub customer_id: CustomerId,
    /// µs.
    pub refunded_at: i64,
    /// Time of arrival, µs.
    pub recorded_at: i64,
    /// Minor units: as given, or the sum of its lines, or the purchase's total.
    pub amount: i64,
    /// JSON: the engine's `RefundLine`s; `[]`: none. Text, since no SQL looks into it and what reads it reads much of it.
    #[sea_orm(column_type = "Text")]
    pub lines: String,
    /// Campaign-set revision of its commit.
    pub revision: i64,
    /// The customer's version that its commit made.
    pub version: i64,
}

impl ActiveModelBehavior for ActiveModel {}
