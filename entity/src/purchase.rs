//! A recorded purchase. Never updated or deleted; what is left of it follows from its refunds.

use sea_orm::entity::prelude::*;

use crate::CustomerId;

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "purchase")]
pub struct Model {
    /// The shop's name for it.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub external_id: String,
    /// Whose.
    pub customer_id: CustomerId,
    /// Event time, µs.
    pub purchased_at: i64,
    /// Time of arrival, µs.
    pub recorded_at: i64,
    /// Minor units.
    pub total: i64,
    /// ISO 4217.
    #[sea_orm(column_type = "Text")]
    pub currency: String,
    /// Where it was made.
    #[sea_orm(column_type = "Text", nullable)]
    pub channel: Option<String>,
    /// JSON: the engine's `Line`s; `[]`: none. Text, since no SQL looks into it and what reads it reads much of it.
    #[sea_orm(column_type = "Text")]
    pub lines: String,
    /// Campaign-set revision of its commit: facts at or after a campaign's settlement do not count.
    pub revision: i64,
    /// The customer's version that its commit made.
    pub version: i64,
}

impl ActiveModelBehavior for ActiveModel {}
