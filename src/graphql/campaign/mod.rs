//! Campaigns: how they are read. [`rule`] has the parts of a campaign, [`input`] the types that clients send,
//! [`mutation`] the changes and transitions, [`stats`] the totals of what was awarded, and [`backfill`] the progress of
//! a backfill.

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
use crate::app::campaign::set;
use crate::app::global_id::GlobalId;
use crate::app::reading::page::PageArgs;
use crate::app::stats::is_exhausted;
use crate::engine::lifecycle::Status;
use crate::graphql::page::{Edge, PageInfo};
use crate::graphql::session::ContextExt;

/// A rule over a period. The rule says which purchases count (`filter`), how they are grouped (`window`), what must be
/// reached (`goal`) and what reaching it is worth (`award`).
#[derive(Clone, Description)]
pub struct Campaign(pub Arc<set::Campaign>);

#[Object(use_type_description)]
impl Campaign {
    /// An opaque id, unique across all types.
    pub(in crate::graphql) async fn id(&self) -> ID {
        GlobalId::Campaign(self.0.id()).into()
    }

    /// The name that people see.
    async fn name(&self) -> &str {
        &self.0.row.name
    }

    /// The description that people see. Null if there is none.
    async fn description(&self) -> Option<&str> {
        self.0.row.description.as_deref()
    }

    /// The status at the current instant. It follows from the recorded transitions and the clock.
    async fn status(&self, ctx: &Context<'_>) -> CampaignStatus {
        self.0.life.status(ctx.now()).into()
    }

    /// The first instant at which purchases count.
    async fn starts_at(&self) -> DateTime {
        self.0.life.period.starts_at.into()
    }

    /// The first instant at which purchases no longer count. Null if the campaign has no end.
    async fn ends_at(&self) -> Option<DateTime> {
        self.0.life.period.ends_at.map(DateTime::from)
    }

    /// The time zone of the calendar units, weekdays and local times of the window.
    async fn time_zone(&self) -> TimeZone {
        TimeZone(self.0.rule.time_zone.name().to_owned())
    }

    /// The currency of all amounts of the campaign. A purchase in another currency does not count.
    async fn currency(&self) -> CurrencyCode {
        self.0.rule.currency.into()
    }

    /// Which purchases count. Null if there is no filter.
    async fn filter(&self) -> Option<PurchaseFilter> {
        PurchaseFilter::of(&self.0.rule)
    }

    /// How the eligible purchases of a customer are grouped.
    async fn window(&self) -> WindowRule {
        WindowRule::of(&self.0)
    }

    /// What a customer must reach in a window.
    async fn goal(&self) -> Goal {
        Goal::of(&self.0.rule)
    }

    /// What reaching the goal is worth.
    async fn award(&self) -> AwardRule {
        AwardRule::of(&self.0.rule)
    }

    /// The maximum number of awards of one customer in the campaign, `DECLINED` awards included. Null if there is no
    /// maximum.
    async fn max_per_customer(&self) -> Option<i32> {
        self.0.rule.max_per_customer
    }

    /// The maximum number of awards of one customer in one window, `DECLINED` awards included. Null if there is no
    /// maximum.
    async fn max_per_window(&self) -> Option<i32> {
        self.0.rule.max_per_window
    }

    /// The maximum number of points of one customer's awards in the campaign, `DECLINED` awards included. The award that exceeds it
    /// gets what is left. Null if there is no maximum.
    async fn max_points_per_customer(&self) -> Option<Points> {
        self.0.rule.max_points_per_customer.map(Points)
    }

    /// The maximum number of points of one customer's awards in one window, `DECLINED` awards included. The award that exceeds it gets
    /// what is left. Null if there is no maximum.
    async fn max_points_per_window(&self) -> Option<Points> {
        self.0.rule.max_points_per_window.map(Points)
    }

    /// How long after `endsAt` late purchases and refunds still count. Then the campaign is settled.
    async fn lateness(&self) -> Duration {
        Duration(self.0.rule.lateness.as_str().to_owned())
    }

    /// How long points are pending after `earnedAt`. Null if they can be spent immediately. A campaign with `holdFor`
    /// cannot be activated.
    async fn hold_for(&self) -> Option<Duration> {
        self.0.rule.hold_for.as_ref().map(|span| Duration(span.as_str().to_owned()))
    }

    /// How long points can be spent. Null if they never expire. A campaign with `expiresAfter` cannot be activated.
    async fn expires_after(&self) -> Option<Duration> {
        self.0.rule.expires_after.as_ref().map(|span| Duration(span.as_str().to_owned()))
    }

    /// Whether the smallest award that the campaign can give no longer fits the budget. False if there is no budget.
    async fn budget_exhausted(&self, ctx: &Context<'_>) -> Result<bool, ApiError> {
        if self.0.budget_limit.is_none() {
            return Ok(false);
        }
        let budget = ctx.loaders().load_one(BudgetOf(self.0.id())).await?;
        Ok(is_exhausted(&self.0, budget))
    }

    /// How far the backfill has come. The backfill evaluates the purchases that were recorded before the activation.
    /// Null if the backfill is complete or none was needed. Until the backfill has completed a customer,
    /// `CampaignProgress.evaluating` is true for that customer.
    async fn backfill(&self, ctx: &Context<'_>) -> Option<Result<Progress, ApiError>> {
        Progress::of_backfill(ctx, self.0.id()).await.transpose()
    }

    /// The revision of the campaign. It grows with every change, transition and settlement, not always by one. Pass it
    /// as `ifRevision` to `updateCampaign`.
    async fn revision(&self) -> Count {
        Count(self.0.row.set_revision)
    }

    /// The maximum number of points of `STANDING` awards at the same time, over all customers. Null if there is no
    /// maximum, and for everyone but admins.
    async fn budget(&self, ctx: &Context<'_>) -> Option<Points> {
        ctx.viewer().require_admin().ok()?;
        self.0.budget_limit.map(Points)
    }

    /// The totals of what the campaign has awarded so far, at most one second old. Null for everyone but admins.
    async fn stats(&self, ctx: &Context<'_>) -> Option<Result<CampaignStats, ApiError>> {
        ctx.viewer().require_admin().ok()?;
        Some(CampaignStats::load(ctx, &self.0).await)
    }
}

/// The status of a campaign. A campaign goes from `DRAFT` through `SCHEDULED`, `ACTIVE` and `ENDED` to `SETTLED`. An
/// `ACTIVE` campaign can be paused and resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "Status")]
pub enum CampaignStatus {
    /// The campaign is not activated. Every field can be changed, and customers do not see the campaign.
    Draft,
    /// The campaign is activated, and `startsAt` is ahead.
    Scheduled,
    /// The campaign is running: eligible purchases count.
    Active,
    /// The campaign is paused: purchases made during the pause do not count, even if they are recorded later.
    Paused,
    /// `endsAt` has passed or the campaign was ended. Late purchases and refunds still count.
    Ended,
    /// `lateness` is over too: purchases and refunds that are recorded from now on no longer count.
    Settled,
}

/// The part of [`super::Query`] that reads campaigns.
#[derive(Default)]
pub struct CampaignQuery;

#[Object]
impl CampaignQuery {
    /// A campaign. Null if it does not exist or the caller may not see it: customers do not see drafts.
    async fn campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the campaign.")] id: ID,
    ) -> Option<Result<Campaign, ApiError>> {
        if let Err(error) = ctx.viewer().require_reader() {
            return Some(Err(error.into()));
        }
        let campaign = ctx.loaders().load_one(FindCampaign(GlobalId::campaign(&id)?)).await;
        campaign.map(|campaign| campaign.map(Campaign)).map_err(ApiError::from).transpose()
    }

    /// All campaigns that the caller may see, the most recently created first. Customers do not see drafts.
    async fn campaigns(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only campaigns with one of these statuses.")] status: Option<Vec<CampaignStatus>>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
    ) -> Result<CampaignConnection, ApiError> {
        let reader = ctx.viewer().require_reader()?;
        let page = LIST.page(PageArgs { first, after, last, before })?;
        let statuses = status.map(|statuses| statuses.into_iter().map(Status::from).collect());
        let (slice, count) = list(ctx.app(), reader, &page, statuses).await?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        Ok(CampaignConnection::new(Connection::new(slice, |campaign| cursor(campaign), Campaign), Count(count)))
    }
}

/// A page of the list of campaigns, with the length of the whole list.
#[derive(Clone, SimpleObject)]
pub struct CampaignConnection {
    /// The campaigns of the page, each with its cursor.
    edges: Vec<Edge<Campaign>>,
    /// The campaigns of the page, without cursors.
    nodes: Vec<Campaign>,
    /// The cursors at both ends of the page, and whether the list goes on beyond them.
    page_info: PageInfo,
    /// The number of campaigns in the whole list: those that the caller may see and that have one of the given
    /// statuses.
    total_count: Count,
}

impl CampaignConnection {
    /// Adds the length of the whole list to a page.
    pub fn new(page: Connection<Campaign>, total_count: Count) -> Self {
        let Connection { edges, nodes, page_info } = page;
        Self { edges, nodes, page_info, total_count }
    }
}
