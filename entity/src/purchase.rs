//! A recorded purchase. It is never updated or deleted. Its net follows from its refunds.

use sea_orm::entity::prelude::*;

use crate::CustomerId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "purchase")]
pub struct Model {
    /// The shop's id of the purchase.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub external_id: String,
    pub customer_id: CustomerId,
    /// When the purchase was made.
    pub purchased_at: i64,
    /// When the server recorded the purchase.
    pub recorded_at: i64,
    pub total: i64,
    /// The ISO 4217 code of the currency.
    #[sea_orm(column_type = "Text")]
    pub currency: String,
    /// Where the purchase was made, such as `web`.
    #[sea_orm(column_type = "Text", nullable)]
    pub channel: Option<String>,
    /// JSON: an array of the engine's `Line`s. Stored as plain text, because no SQL looks into it and most readers read many
    /// rows.
    #[sea_orm(column_type = "Text")]
    pub lines: String,
    /// The campaign-set revision at its commit. A settled campaign counts only facts with a revision below that of its
    /// settlement.
    pub set_revision: i64,
    /// The customer's version after the commit that recorded this purchase.
    pub version: i64,
}

impl ActiveModelBehavior for ActiveModel {}
