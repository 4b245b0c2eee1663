//! A recorded purchase: the content that counts, which is the one with the highest revision. The others are in `purchase_revision`.
//! The net of the purchase follows from its refunds and its running sum.

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
    /// When the server recorded this content.
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
    /// The customer's version after the commit that recorded this content.
    pub version: i64,
    /// The shop's number of this content.
    pub revision: i64,
    /// The running sum that counts, in minor units of `currency`: that of the highest recorded revision that states one.
    pub refunded: Option<i64>,
    /// The instant up to which the running sum was counted.
    pub refunded_until: Option<i64>,
    /// The revision that states the running sum. `None`: no revision states one.
    pub refunded_revision: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
