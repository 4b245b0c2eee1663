//! Counters of a campaign, sharded by writer and summed when read: no hot row.

use sea_orm::entity::prelude::*;

use crate::CampaignId;

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "campaign_stat")]
pub struct Model {
    /// Of which campaign.
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: CampaignId,
    /// The writer's.
    #[sea_orm(primary_key, auto_increment = false)]
    pub shard: i32,
    /// Standing awards.
    pub awards: i64,
    /// Customers with a standing award.
    pub customers: i64,
    /// Points of the standing awards.
    pub points_standing: i64,
    /// Points that declined awards would have.
    pub points_declined: i64,
}

impl ActiveModelBehavior for ActiveModel {}
