//! How many points of a campaign may stand at the same time. A table of its own, because every commit that changes awards
//! of a campaign with a budget locks the row.

use sea_orm::entity::prelude::*;

use crate::CampaignId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "budget")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: CampaignId,
    /// `None`: the campaign has no budget, or it was removed.
    pub points_limit: Option<i64>,
    /// The points of the standing awards. Not kept up to date while there is no limit.
    pub points_used: i64,
    /// The number of the last decision, or 0 if there is none.
    pub decision_no: i64,
}

impl ActiveModelBehavior for ActiveModel {}
