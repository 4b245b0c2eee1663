//! How many points of a campaign may stand at once. A row of its own: every commit that awards locks it.

use sea_orm::entity::prelude::*;

use crate::CampaignId;

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "budget")]
pub struct Model {
    /// Of which campaign.
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: CampaignId,
    /// None: no budget (any more).
    pub points_limit: Option<i64>,
    /// Points that stand; kept while there is a limit.
    pub points_used: i64,
    /// Number of the last decision; 0: none.
    pub decision_no: i64,
}

impl ActiveModelBehavior for ActiveModel {}
