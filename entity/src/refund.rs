//! A refund takes back all or part of a purchase. It is never updated or deleted.

use sea_orm::entity::prelude::*;

use crate::CustomerId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "refund")]
pub struct Model {
    /// The shop's id of the refund.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub external_id: String,
    /// The external id of the refunded purchase.
    #[sea_orm(column_type = "Text")]
    pub purchase_external_id: String,
    /// The customer of the purchase after the commit that recorded this refund.
    pub customer_id: CustomerId,
    /// When the refund was made. It decides only whether a running sum includes the refund.
    pub refunded_at: i64,
    /// When the server recorded the refund.
    pub recorded_at: i64,
    /// The amount as given, or the sum of the lines. `None`: the total of the purchase.
    pub amount: Option<i64>,
    /// JSON: an array of the engine's `RefundLine`s. Stored as plain text, because no SQL looks into it and most readers read
    /// many rows.
    #[sea_orm(column_type = "Text")]
    pub lines: String,
    /// The campaign-set revision at its commit.
    pub set_revision: i64,
    /// The customer's version after the commit that recorded this refund.
    pub version: i64,
    /// The ISO 4217 code of the currency of the amounts. `None`: an earlier release recorded the refund without lines, with an amount
    /// equal to the total of the purchase. It is unknown whether the shop gave that amount.
    #[sea_orm(column_type = "Text", nullable)]
    pub currency: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
