//! Campaign statistics. Each writer has its own counters, which are summed when they are read. Statistics that are followed live
//! are at most one second old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use entity::{AwardStatus, CampaignId, award, budget, campaign_stat};
use futures_util::Stream;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, QuerySelect};

use super::App;
use super::campaign::set::Campaign;
use super::error::Error;
use super::reading::recent_stats::{ByCampaign, Stats};
use super::rows::any;
use super::stored;
use super::viewer::Admin;
use crate::engine::account::Totals;
use crate::engine::budget::Budget;
use crate::engine::time::Instant;

/// How often a subscription checks for changes, and how old its statistics may be.
const PERIOD: Duration = Duration::from_secs(1);

/// Returns the statistics of all campaigns. Reads them at most once a second, however many subscriptions there are.
async fn recent(app: &App) -> Result<ByCampaign, Error> {
    let now = app.clock.now();
    let oldest = now.minus(i64::try_from(PERIOD.as_micros()).unwrap_or(i64::MAX));
    app.recent_stats.get(oldest, now, async || all(app).await).await
}

async fn all(app: &App) -> Result<HashMap<CampaignId, Stats>, Error> {
    let mut totals = by_campaign(app).await?;
    let set = app.campaigns().await?;
    let mut budgets = budgets(app, set.all().iter().map(|campaign| campaign.id()).collect()).await?;
    let stats = |campaign: &Arc<Campaign>| {
        let id = campaign.id();
        (id, (totals.remove(&id).unwrap_or_default(), budgets.remove(&id)))
    };
    Ok(set.all().iter().map(stats).collect())
}

/// Returns the statistics of a campaign, now and whenever they change, at most about once a second. Ends with the first error,
/// for example when the token expires or the campaign is deleted.
pub fn follow(
    app: Arc<App>,
    _: &Admin,
    campaign: CampaignId,
    expires_at: Instant,
) -> impl Stream<Item = Result<Stats, Error>> + Send + use<> {
    let feed = StatsFeed { app, campaign, expires_at, shown: None };
    futures_util::stream::unfold(Some(feed), |feed| async move {
        let mut feed = feed?;
        match feed.next().await {
            Ok(stats) => Some((Ok(stats), Some(feed))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

struct StatsFeed {
    app: Arc<App>,
    campaign: CampaignId,
    expires_at: Instant,
    shown: Option<Stats>,
}

impl StatsFeed {
    async fn next(&mut self) -> Result<Stats, Error> {
        let mut wait = self.shown.is_some();
        loop {
            if wait {
                tokio::select! {
                    () = tokio::time::sleep(PERIOD) => {}
                    () = self.app.clock.sleep_until(self.expires_at) => return Err(Error::Unauthenticated),
                }
            }
            wait = true;
            // A task of its own: otherwise, a client that disconnects during a statement would cost the pool a connection.
            let app = Arc::clone(&self.app);
            let read = tokio::spawn(async move { recent(&app).await }).await;
            let read = read.map_err(|error| Error::Internal(format!("reading statistics: {error}")))??;
            let stats = *read.get(&self.campaign).ok_or(Error::NotFound)?;
            if self.shown.replace(stats) != Some(stats) {
                return Ok(stats);
            }
        }
    }
}

/// Returns the totals of every campaign that has awarded anything.
pub async fn by_campaign(app: &App) -> Result<HashMap<CampaignId, Totals>, Error> {
    counters(app.database.read()).await
}

/// Returns the totals of every campaign according to the counters.
pub(super) async fn counters(db: &impl ConnectionTrait) -> Result<HashMap<CampaignId, Totals>, Error> {
    Ok(sum(campaign_stat::Entity::find().all(db).await?))
}

/// Computes the totals of every campaign from its awards. The counters should have the same values.
pub(super) async fn counted(db: &impl ConnectionTrait) -> Result<HashMap<CampaignId, Totals>, Error> {
    let mut totals: HashMap<CampaignId, Totals> = HashMap::new();
    for (campaign, status, awards, customers, points) in by_status(db).await? {
        let total = totals.entry(campaign).or_default();
        match status {
            AwardStatus::Standing => {
                (total.awards, total.customers, total.points_standing) = (awards, customers, points);
            }
            AwardStatus::Declined => total.points_declined = points,
            AwardStatus::Reversed => {}
        }
    }
    Ok(totals)
}

/// Returns for each campaign and status the number of awards, the number of their customers and the sum of their points. Reads
/// every award once.
async fn by_status(db: &impl ConnectionTrait) -> Result<Vec<(CampaignId, AwardStatus, i64, i64, i64)>, Error> {
    let rows = award::Entity::find()
        .select_only()
        .column(award::Column::CampaignId)
        .column(award::Column::Status)
        .column_as(award::Column::Number.count(), "awards")
        .column_as(Expr::col(award::Column::CustomerId).count_distinct(), "customers")
        .column_as(award::Column::Points.sum().cast_as("bigint"), "points")
        .group_by(award::Column::CampaignId)
        .group_by(award::Column::Status)
        .into_tuple()
        .all(db)
        .await?;
    Ok(rows)
}

/// Returns the totals of these campaigns. A campaign that has awarded nothing is missing.
pub async fn load(app: &App, _: &Admin, campaigns: Vec<CampaignId>) -> Result<HashMap<CampaignId, Totals>, Error> {
    let keyed = any(app.database.backend(), campaign_stat::Column::CampaignId, campaigns.into_iter().map(|id| id.0));
    Ok(sum(campaign_stat::Entity::find().filter(keyed).all(app.database.read()).await?))
}

fn sum(shards: Vec<campaign_stat::Model>) -> HashMap<CampaignId, Totals> {
    let mut totals: HashMap<CampaignId, Totals> = HashMap::new();
    for shard in shards {
        *totals.entry(shard.campaign_id).or_default() += stored::campaign_stat::from_row(&shard);
    }
    totals
}

/// Returns the budgets of these campaigns. A campaign without a limit is missing.
pub async fn budgets(app: &App, campaigns: Vec<CampaignId>) -> Result<HashMap<CampaignId, Budget>, Error> {
    let keyed = any(app.database.backend(), budget::Column::CampaignId, campaigns.into_iter().map(|id| id.0));
    let rows = budget::Entity::find().filter(keyed).all(app.database.read()).await?;
    let limited = |row: budget::Model| Some((row.campaign_id, stored::budget::from_row(&row)?));
    Ok(rows.into_iter().filter_map(limited).collect())
}

/// Whether not even the smallest award of the campaign fits into the budget.
pub fn is_exhausted(campaign: &Campaign, budget: Option<Budget>) -> bool {
    budget.is_some_and(|budget| budget.left() < campaign.rule.least_points())
}
