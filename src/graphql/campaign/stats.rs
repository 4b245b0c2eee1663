//! The totals of what a campaign has awarded, as a query and as a subscription.

use std::sync::Arc;

use async_graphql::{Context, ID, SimpleObject, Subscription};
use futures_util::{Stream, StreamExt};

use crate::app::allowance::Allowance;
use crate::app::campaign::set;
use crate::app::error::Error;
use crate::app::global_id::GlobalId;
use crate::app::reading::recent_stats::Stats;
use crate::app::stats::follow;
use crate::graphql::error::ApiError;
use crate::graphql::loaders::{BudgetOf, StatsOf};
use crate::graphql::scalar::{Count, Points};
use crate::graphql::session::{ContextExt, session};

/// The totals of what a campaign has awarded so far, over all customers.
#[derive(Clone, Debug, SimpleObject)]
pub struct CampaignStats {
    /// The number of `STANDING` awards.
    awards: Count,
    /// The number of customers with at least one `STANDING` award.
    customers: Count,
    /// The sum of the points of all `STANDING` awards.
    points_standing: Points,
    /// The sum of the points that the `DECLINED` awards would have been worth.
    points_declined: Points,
    /// The number of points that still fit the budget; never below 0. Null if the campaign has no budget.
    budget_left: Option<Points>,
}

impl CampaignStats {
    pub(super) async fn load(ctx: &Context<'_>, campaign: &set::Campaign) -> Result<Self, ApiError> {
        let totals = ctx.loaders().load_one(StatsOf(campaign.id())).await?.unwrap_or_default();
        let budget = match campaign.budget_limit {
            Some(_) => ctx.loaders().load_one(BudgetOf(campaign.id())).await?,
            None => None,
        };
        Ok((totals, budget).into())
    }
}

impl From<Stats> for CampaignStats {
    fn from((totals, budget): Stats) -> Self {
        Self {
            awards: Count(totals.awards),
            customers: Count(totals.customers),
            points_standing: Points(totals.points_standing),
            points_declined: Points(totals.points_declined),
            budget_left: budget.map(|budget| Points(budget.left())),
        }
    }
}

/// The part of [`crate::graphql::Subscription`] that follows the totals of a campaign.
#[derive(Default)]
pub struct CampaignStatsSubscription;

#[Subscription]
impl CampaignStatsSubscription {
    /// Follows the totals of one campaign: sends them immediately, and again when they have changed, at most about once
    /// a second. Requires an admin token (`FORBIDDEN`). The subscription ends with `NOT_FOUND` if the campaign does not
    /// exist or is deleted, and with `UNAUTHENTICATED` when the token expires.
    async fn campaign_stats(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the campaign.")] id: ID,
    ) -> Result<impl Stream<Item = Result<CampaignStats, ApiError>>, ApiError> {
        let session = session(ctx);
        let admin = session.viewer.require_admin()?;
        let campaign = GlobalId::campaign(&id).ok_or(Error::NotFound)?;
        let stats = follow(Arc::clone(&session.app), &admin, campaign, session.expires_at);
        let allowance = session.allowance.clone();
        let stats = stats.map(move |stats| {
            allowance.as_ref().map_or(Ok(()), Allowance::check)?;
            stats
        });
        // The stream ends with its first error.
        let stats = stats.scan(false, |failed, stats| {
            let stats = (!*failed).then_some(stats);
            *failed = stats.as_ref().is_some_and(Result::is_err);
            std::future::ready(stats)
        });
        Ok(stats.map(|stats| stats.map(CampaignStats::from).map_err(ApiError::from)))
    }
}
