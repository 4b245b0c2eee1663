//! Campaign statistics: counters sharded by writer, summed when read. At most one second old.

use std::collections::HashMap;

use entity::{AwardStatus, CampaignId, award, budget, campaign_stat};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, QuerySelect};

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
    counters(app.database.read()).await
}

/// Totals of every campaign, as the counters have them.
pub(super) async fn counters(db: &impl ConnectionTrait) -> Result<HashMap<CampaignId, Totals>, Error> {
    Ok(sum(campaign_stat::Entity::find().all(db).await?))
}

/// Totals of every campaign, counted from the awards: what the counters should have.
pub(super) async fn counted(db: &impl ConnectionTrait) -> Result<HashMap<CampaignId, Totals>, Error> {
    let mut totals: HashMap<CampaignId, Totals> = HashMap::new();
    for (campaign, awards, customers, points) in by_status(db, AwardStatus::Standing).await? {
        let total = totals.entry(campaign).or_default();
        (total.awards, total.customers, total.points_standing) = (awards, customers, points);
    }
    for (campaign, _, _, points) in by_status(db, AwardStatus::Declined).await? {
        totals.entry(campaign).or_default().points_declined = points;
    }
    Ok(totals)
}

/// Awards of a status, their customers and their points, by campaign.
async fn by_status(db: &impl ConnectionTrait, status: AwardStatus) -> Result<Vec<(CampaignId, i64, i64, i64)>, Error> {
    let rows = award::Entity::find()
        .select_only()
        .column(award::Column::CampaignId)
        .column_as(award::Column::Number.count(), "awards")
        .column_as(Expr::col(award::Column::CustomerId).count_distinct(), "customers")
        .column_as(award::Column::Points.sum().cast_as("bigint"), "points")
        .filter(award::Column::Status.eq(status))
        .group_by(award::Column::CampaignId)
        .into_tuple()
        .all(db)
        .await?;
    Ok(rows)
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
