//! The statistics of a campaign. Each writer of a node has a row of its own, so that these writers do not wait for each other.
//! Readers sum the rows.

use sea_orm::entity::prelude::*;

use crate::CampaignId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "campaign_stat")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: CampaignId,
    /// The number of the writer on its node. Nodes share these numbers.
    #[sea_orm(primary_key, auto_increment = false)]
    pub shard: i32,
    /// The number of standing awards.
    pub awards: i64,
    /// The number of customers with a standing award.
    pub customers: i64,
    /// The points of the standing awards.
    pub points_standing: i64,
    /// The points that the declined awards would have been worth.
    pub points_declined: i64,
}

impl ActiveModelBehavior for ActiveModel {}
