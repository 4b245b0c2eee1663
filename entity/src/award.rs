//! One time that a customer reached the goal of a campaign. Moves and reversals update the row. The ledger records the points.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{AwardStatus, CampaignId, CustomerId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "award")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    /// Numbered 1, 2, 3 … for each customer.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    pub campaign_id: CampaignId,
    /// The external id of the reaching purchase.
    #[sea_orm(column_type = "Text")]
    pub purchase_external_id: String,
    /// The position, from 1, among the awards of the campaign that this purchase reached at once.
    pub nth: i32,
    /// The position, from 1, among the awards of the window before caps are applied.
    pub ordinal: i64,
    /// What the award is worth. If it was declined, what it would have been worth.
    pub points: i64,
    /// What the goal gave before the caps in points. `None`: the same as `points`.
    pub points_before_cap: Option<i64>,
    pub status: AwardStatus,
    /// The `purchased_at` of the reaching purchase.
    pub earned_at: i64,
    /// The instant at which the window opens, not clipped to the period.
    pub opens_at: i64,
    /// The instant at which the window closes, not clipped to the period. `None`: the window has no end.
    pub closes_at: Option<i64>,
    /// The `purchased_at` of the first purchase of the evidence. Its last purchase is the reaching purchase.
    pub evidence_from_at: i64,
    /// The external id of the first purchase of the evidence.
    #[sea_orm(column_type = "Text")]
    pub evidence_from_external_id: String,
    /// When the points become available. `None`: when they are posted.
    pub available_at: Option<i64>,
    /// When the points expire. `None`: never.
    pub expires_at: Option<i64>,
    /// The customer's version that last changed this row. The evidence of a reversed award comes from the facts before this
    /// version.
    pub version: i64,
}

impl ActiveModelBehavior for ActiveModel {}
