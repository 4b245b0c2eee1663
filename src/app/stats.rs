//! Campaign statistics: counters sharded by writer, summed when read. At most one second old.

use std::collections::HashMap;

use entity::{CampaignId, budget, campaign_stat};
use sea_orm::{EntityTrait, QueryFilter};

use super::App;
use super::campaigns::Campaign;
use super::error::Error;
use super::rows::any;
use super::viewer::Admin;
use crate::engine::budget::Budget;

/// A campaign's totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Standing awards.
    pub awards: i64,
    /// Customers with a standing award.
    pub customers: i64,
    /// Points of the standing awards.
    pub points_standing: i64,
    /// Points that declined awards would have.
    pub points_declined: i64,
}

/// Totals of every campaign that awarded anything.
pub async fn by_campaign(app: &App) -> Result<HashMap<CampaignId, Totals>, Error> {
    Ok(sum(campaign_stat::Entity::find().all(app.database.read()).await?))
}

/// Totals of these campaigns; one that awarded nothing has none.
pub async fn of(app: &App, _: &Admin, campaigns: Vec<CampaignId>) -> Result<HashMap<CampaignId, Totals>, Error> {
    let keyed = any(app.database.backend(), campaign_stat::Column::CampaignId, campaigns.into_iter().map(|id| id.0));
    Ok(sum(campaign_stat::Entity::find().filter(keyed).all(app.database.read()).await?))
}

fn sum(shards: Vec<campaign_stat::Model>) -> HashMap<CampaignId, Totals> {
    let mut totals: HashMap<CampaignId, Totals> = HashMap::new();
    for shard in shards {
        let total = totals.entry(shard.campaign_id).or_default();
        total.awards += shard.awards;
        total.customers += shard.customers;
        total.points_standing += shard.points_standing;
        total.points_declined += shard.points_declined;
    }
    totals
}

/// The budgets of these campaigns; one without a limit has none.
pub async fn budgets(app: &App, campaigns: Vec<CampaignId>) -> Result<HashMap<CampaignId, Budget>, Error> {
    let keyed = any(app.database.backend(), budget::Column::CampaignId, campaigns.into_iter().map(|id| id.0));
    let rows = budget::Entity::find().filter(keyed).all(app.database.read()).await?;
    let limited =
        |row: budget::Model| Some((row.campaign_id, Budget { limit: row.points_limit?, used: row.points_used }));
    Ok(rows.into_iter().filter_map(limited).collect())
}

/// Whether no further award fits, however small.
pub fn is_exhausted(campaign: &Campaign, budget: Option<Budget>) -> bool {
    budget.is_some_and(|budget| budget.left() < campaign.rule.award.least())
}
