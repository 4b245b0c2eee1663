//! Campaigns: reading them. `rule` is what they consist of, `input` how they are sent, `mutation` their life,
//! `stats` what they have awarded, `backfill` how far their past is counted.

pub mod backfill;
pub mod input;
pub mod mutation;
pub mod rule;
pub mod stats;

use std::sync::Arc;

use async_graphql::{Context, Description, Enum, ID, Object, SimpleObject};
use backfill::Progress;
use rule::{AwardRule, Goal, PurchaseFilter, WindowRule};
use stats::CampaignStats;

use super::error::ApiError;
use super::loaders::{BudgetOf, FindCampaign};
use super::page::Connection;
use super::scalar::{Count, CurrencyCode, DateTime, Duration, Points, TimeZone};
use crate::app::campaign::list::{LIST, cursor, list};
use crate::app::campaign::status;
use crate::app::campaigns;
use crate::app::reading::page::PageArgs;
use crate::app::stats::is_exhausted;
use crate::engine::lifecycle::Status;
use crate::graphql::id::GlobalId;
use crate::graphql::page::{Edge, PageInfo};
use crate::graphql::session::ContextExt;

/// A rule over a period: which purchases count, how they are grouped, what must be reached, what that is worth.
#[derive(Clone, Description)]
pub struct Campaign(pub Arc<campaigns::Campaign>);

#[Object(use_type_description)]
impl Campaign {
    /// Opaque; of everything, not only of campaigns.
    pub(in crate::graphql) async fn id(&self) -> ID {
        GlobalId::Campaign(self.0.id()).into()
    }

    /// For people.
    async fn name(&self) -> &str {
        &self.0.row.name
    }

    /// For people.
    async fn description(&self) -> Option<&str> {
        self.0.row.description.as_deref()
    }

    /// Where it stands in its life now.
    async fn status(&self, ctx: &Context<'_>) -> CampaignStatus {
        status(ctx.app(), &self.0).into()
    }

    /// The first instant at which purchases count.
    async fn starts_at(&self) -> DateTime {
        self.0.life.period.starts_at.into()
    }

    /// The first instant at which purchases no longer count; null: it is open-ended.
    async fn ends_at(&self) -> Option<DateTime> {
        self.0.life.period.ends_at.map(DateTime::from)
    }

    /// In which days, weeks and local times are meant.
    async fn time_zone(&self) -> TimeZone {
        TimeZone(self.0.rule.time_zone.name().to_owned())
    }

    /// A purchase in another one does not count.
    async fn currency(&self) -> CurrencyCode {
        self.0.rule.currency.into()
    }

    /// Which purchases count; null: all.
    async fn filter(&self) -> Option<PurchaseFilter> {
        PurchaseFilter::of(&self.0.rule)
    }

    /// How a customer's purchases are grouped.
    async fn window(&self) -> WindowRule {
        WindowRule::of(&self.0)
    }

    /// What must be reached in a window.
    async fn goal(&self) -> Goal {
        Goal::of(&self.0.rule)
    }

    /// What reaching it is worth.
    async fn award(&self) -> AwardRule {
        AwardRule::of(&self.0.rule)
    }

    /// How many awards a customer can have in all; null: any number.
    async fn max_per_customer(&self) -> Option<i32> {
        self.0.rule.max_per_customer
    }

    /// How many awards a customer can have in one window; null: any number.
    async fn max_per_window(&self) -> Option<i32> {
        self.0.rule.max_per_window
    }

    /// For how long after the end late purchases and refunds still count.
    async fn lateness(&self) -> Duration {
        Duration(self.0.rule.lateness.as_str().to_owned())
    }

    /// For how long points are pending after they were earned; null: they can be spent at once.
    async fn hold_for(&self) -> Option<Duration> {
        self.0.rule.hold_for.as_ref().map(|span| Duration(span.as_str().to_owned()))
    }

    /// For how long points can be spent; null: for ever.
    async fn expires_after(&self) -> Option<Duration> {
        self.0.rule.expires_after.as_ref().map(|span| Duration(span.as_str().to_owned()))
    }

    /// Whether the budget has no room for a further award, however small.
    async fn budget_exhausted(&self, ctx: &Context<'_>) -> Result<bool, ApiError> {
        if self.0.budget_limit.is_none() {
            return Ok(false);
        }
        let budget = ctx.loaders().load_one(BudgetOf(self.0.id())).await?;
        Ok(is_exhausted(&self.0, budget))
    }

    /// How far the counting of its past is, in customers; null: the past is counted. Until a customer is counted, its progress says
    /// `evaluating`.
    async fn backfill(&self, ctx: &Context<'_>) -> Option<Result<Progress, ApiError>> {
        Progress::of_backfill(ctx, self.0.id()).await.transpose()
    }

    /// Grows with every change of the campaign: `updateCampaign(input: {ifRevision})` takes it.
    async fn revision(&self) -> Count {
        Count(self.0.row.revision)
    }

    /// How many points may stand at once, over all customers; null: any number. Admin; null for others.
    async fn budget(&self, ctx: &Context<'_>) -> Option<Points> {
        ctx.viewer().require_admin().ok()?;
        self.0.budget_limit.map(Points)
    }

    /// What it has awarded so far. Admin; null for others. At most one second old.
    async fn stats(&self, ctx: &Context<'_>) -> Option<Result<CampaignStats, ApiError>> {
        ctx.viewer().require_admin().ok()?;
        Some(CampaignStats::of(ctx, &self.0).await)
    }
}

/// Where a campaign stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "Status")]
pub enum CampaignStatus {
    /// Not activated yet: it counts nothing, and can be edited freely.
    Draft,
    /// Activated, but its start is ahead.
    Scheduled,
    /// Counting.
    Active,
    /// Not counting, until it is resumed.
    Paused,
    /// Over; late purchases and refunds still count.
    Ended,
    /// Nothing counts any more.
    Settled,
}

/// See [`super::Query`].
#[derive(Default)]
pub struct CampaignQuery;

#[Object]
impl CampaignQuery {
    /// A campaign; null: there is no such campaign, or it may not be seen.
    async fn campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its `id`.")] id: ID,
    ) -> Option<Result<Campaign, ApiError>> {
        if let Err(error) = ctx.viewer().require_reader() {
            return Some(Err(error.into()));
        }
        let campaign = ctx.loaders().load_one(FindCampaign(GlobalId::campaign(&id)?)).await;
        campaign.map(|campaign| campaign.map(Campaign)).map_err(ApiError::from).transpose()
    }

    /// All campaigns, the latest made first. Customers see no drafts.
    async fn campaigns(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only those with one of these statuses.")] status: Option<Vec<CampaignStatus>>,
        #[graphql(desc = "The first so many, at most 100. Without `first` and `last`: 20.")] first: Option<i32>,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "The last so many, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Only what precedes this cursor.")] before: Option<String>,
    ) -> Result<CampaignConnection, ApiError> {
        let reader = ctx.viewer().require_reader()?;
        let page = LIST.page(PageArgs { first, after, last, before })?;
        let statuses = status.map(|statuses| statuses.into_iter().map(Status::from).collect());
        let (slice, count) = list(ctx.app(), reader, &page, statuses).await?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        Ok(CampaignConnection::new(Connection::new(slice, |campaign| cursor(campaign), Campaign), Count(count)))
    }
}

/// A page of the campaigns.
#[derive(Clone, SimpleObject)]
pub struct CampaignConnection {
    /// The page's campaigns with their cursors.
    edges: Vec<Edge<Campaign>>,
    /// The page's campaigns alone.
    nodes: Vec<Campaign>,
    /// Where the page lies.
    page_info: PageInfo,
    /// Campaigns in the whole list.
    total_count: Count,
}

impl CampaignConnection {
    /// A page, and how many campaigns there are in all.
    pub fn new(page: Connection<Campaign>, total_count: Count) -> Self {
        let Connection { edges, nodes, page_info } = page;
        Self { edges, nodes, page_info, total_count }
    }
}
