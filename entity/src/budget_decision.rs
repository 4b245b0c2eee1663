//! What moved a budget, in order: what `audit` replays. Never updated or deleted.

use sea_orm::entity::prelude::*;

use crate::{BudgetDecisionKind, CampaignId};

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "budget_decision")]
pub struct Model {
    /// Of which campaign.
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: CampaignId,
    /// 1, 2, 3 … for each campaign.
    #[sea_orm(primary_key, auto_increment = false)]
    pub decision_no: i64,
    /// What happened.
    pub kind: BudgetDecisionKind,
    /// Whose award; none: the limit was set.
    pub customer_id: Option<i64>,
    /// Which award.
    pub award_number: Option<i64>,
    /// Of the award, or given back, or the new limit (−1: none).
    pub points: i64,
    /// Points that stand afterwards.
    pub points_used: i64,
}

impl ActiveModelBehavior for ActiveModel {}
