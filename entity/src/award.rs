//! A goal that a customer reached. Moves and reversals update it; its points move in the ledger.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{AwardStatus, CampaignId, CustomerId};

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "award")]
pub struct Model {
    /// Whose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    /// 1, 2, 3 … for each customer.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    /// Of which campaign.
    pub campaign_id: CampaignId,
    /// The purchase that reached it.
    #[sea_orm(column_type = "Text")]
    pub purchase_external_id: String,
    /// n-th of the awards that this purchase reached at once, from 1.
    pub nth: i32,
    /// Among the window's awards before caps, from 1.
    pub ordinal: i64,
    /// What it is worth.
    pub points: i64,
    /// Whether its points stand.
    pub status: AwardStatus,
    /// The reaching purchase's `purchased_at`, µs.
    pub earned_at: i64,
    /// Of the window, unclipped, µs.
    pub opens_at: i64,
    /// Of the window, unclipped, µs; none: none.
    pub closes_at: Option<i64>,
    /// First purchase of the evidence: its `purchased_at`, µs. The last is the reaching purchase.
    pub evidence_from_at: i64,
    /// First purchase of the evidence: its external id.
    #[sea_orm(column_type = "Text")]
    pub evidence_from_external_id: String,
    /// The customer's version that last changed it. REVERSED: its evidence is that of the facts before this version.
    pub version: i64,
}

impl ActiveModelBehavior for ActiveModel {}
