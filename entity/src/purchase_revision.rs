//! A recorded content of a purchase that does not count now, because another one has a higher revision. The row is never updated or
//! deleted. The content that counts is in `purchase`; a purchase with one content has no row here.

use sea_orm::entity::prelude::*;

use crate::CustomerId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "purchase_revision")]
pub struct Model {
    /// The shop's id of the purchase.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub external_id: String,
    /// The shop's number of this content.
    #[sea_orm(primary_key, auto_increment = false)]
    pub revision: i64,
    /// The customer that this content names. If it never counted, this customer may not exist.
    #[sea_orm(column_type = "Text")]
    pub customer_external_id: String,
    /// The customer of the purchase after the commit that recorded this content.
    pub customer_id: CustomerId,
    pub purchased_at: i64,
    /// When the server recorded this content.
    pub recorded_at: i64,
    pub total: i64,
    #[sea_orm(column_type = "Text")]
    pub currency: String,
    #[sea_orm(column_type = "Text", nullable)]
    pub channel: Option<String>,
    /// JSON: an array of the engine's `Line`s.
    #[sea_orm(column_type = "Text")]
    pub lines: String,
    /// The running sum that this content states, in minor units of `currency`.
    pub refunded: Option<i64>,
    /// The instant up to which the running sum was counted.
    pub refunded_until: Option<i64>,
    /// The campaign-set revision of the commit that recorded this content.
    pub set_revision: i64,
    /// The version of the customer `customer_id` after that commit.
    pub version: i64,
    /// The campaign-set revision of the commit in which this content stopped counting. `None`: it never counted.
    pub ended_set_revision: Option<i64>,
    /// The version of the customer `customer_id` after that commit. `None`: the content never counted.
    pub ended_version: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
