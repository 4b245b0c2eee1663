//! The numbered decisions of a budget, which `audit` replays. They are never updated or deleted.

use sea_orm::entity::prelude::*;

use crate::{BudgetDecisionKind, CampaignId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "budget_decision")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: CampaignId,
    /// Numbered 1, 2, 3 … for each campaign.
    #[sea_orm(primary_key, auto_increment = false)]
    pub decision_no: i64,
    pub kind: BudgetDecisionKind,
    /// The customer whose award was decided or released. `None` for a decision about the limit.
    pub customer_id: Option<i64>,
    /// The number of that customer's award.
    pub award_number: Option<i64>,
    /// The points of the award, the points that were released, or the new limit (−1 for no limit).
    pub points: i64,
    /// The `points_used` of the budget after the decision.
    pub points_used: i64,
}

impl ActiveModelBehavior for ActiveModel {}
