//! Awards and their evidence.

use std::sync::Arc;

use async_graphql::{Context, Description, Enum, ID, Object};

use super::campaign::Campaign;
use super::customer::Customer;
use super::error::ApiError;
use super::loaders::{CustomerOf, EvidenceOf, FindCampaign};
use super::purchase_revision::{PurchaseConnection, evidence_edge};
use super::scalar::{Count, DateTime, Points};
use super::session::ContextExt;
use super::window::Window;
use crate::app::award::Status;
use crate::app::error::Error;
use crate::app::global_id::GlobalId;
use crate::app::model;
use crate::app::reading::evidence;
use crate::app::reading::page::PageArgs;
use crate::app::stored::award::{points_before_cap, window};
use crate::engine::time::Instant;

/// One time that a customer reached the goal of a campaign, with its points and its evidence.
#[derive(Clone, Description)]
pub struct Award(pub Arc<model::Award>);

#[Object(use_type_description)]
impl Award {
    /// An opaque id, unique across all types. It stays the same when a late purchase or a refund moves the award.
    pub(super) async fn id(&self) -> ID {
        GlobalId::Award(self.0.customer_id, self.0.number).into()
    }

    /// The campaign that gave the award.
    async fn campaign(&self, ctx: &Context<'_>) -> Result<Campaign, ApiError> {
        campaign(self, ctx).await
    }

    /// The customer who reached the goal.
    async fn customer(&self, ctx: &Context<'_>) -> Result<Customer, ApiError> {
        let customer = ctx.loaders().load_one(CustomerOf(self.0.customer_id)).await?;
        Ok(customer.ok_or_else(|| Error::Internal("an award's customer was not found".to_owned()))?.into())
    }

    /// The window in which the goal was reached, clipped to the period of the campaign as it is now.
    async fn window(&self, ctx: &Context<'_>) -> Result<Window, ApiError> {
        let Campaign(campaign) = campaign(self, ctx).await?;
        Ok(window(&self.0).clip(campaign.life.period.interval()).into())
    }

    /// The position of the award among the awards of its window, before caps are applied: 1, 2, 3 … Always 1 for
    /// `everyPurchase`, `rolling` and `streak`.
    async fn ordinal(&self) -> Count {
        Count(self.0.ordinal)
    }

    /// The points of the award, above 0. For a `DECLINED` award, the points that it would have been worth; for a
    /// `REVERSED` award, the points that it had last.
    async fn points(&self) -> Points {
        Points(self.0.points)
    }

    /// What the goal gave before the caps in points (`maxPointsPerWindow`, `maxPointsPerCustomer`) left less of it.
    async fn points_before_cap(&self) -> Points {
        Points(points_before_cap(&self.0))
    }

    /// Whether the points of the award are in the ledger.
    async fn status(&self) -> AwardStatus {
        Status::from(self.0.status).into()
    }

    /// The `purchasedAt` of the purchase that reached the goal. It changes if the award moves to another purchase.
    async fn earned_at(&self) -> DateTime {
        Instant(self.0.earned_at).into()
    }

    /// The instant from which the points can be spent, which follows from `earnedAt` and the campaign's `holdFor`. Null if they can be spent
    /// immediately.
    async fn available_at(&self) -> Option<DateTime> {
        self.0.available_at.map(|at| Instant(at).into())
    }

    /// The instant from which the points can no longer be spent, which follows from the campaign's `expiresAfter`. Null if they never
    /// expire.
    async fn expires_at(&self) -> Option<DateTime> {
        self.0.expires_at.map(|at| Instant(at).into())
    }

    /// The evidence: the purchases that the award is based on, the earliest `purchasedAt` first. The last of them
    /// reached the goal. A `REVERSED` award keeps the evidence that it had last. Purchases are shown as they are now; `counted` of
    /// their edges shows what counted. For a customer token, purchases that belong to another customer now are left out.
    async fn purchases(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
    ) -> Result<PurchaseConnection, ApiError> {
        let page = evidence::LIST.page(PageArgs { first, after, last, before })?;
        let slice = ctx.loaders().load_one(EvidenceOf(Arc::clone(&self.0), page.clone())).await?;
        let slice = slice.unwrap_or_else(|| page.cut(Vec::new()));
        Ok(PurchaseConnection::with_edges(slice, evidence_edge))
    }
}

async fn campaign(award: &Award, ctx: &Context<'_>) -> Result<Campaign, ApiError> {
    let campaign = ctx.loaders().load_one(FindCampaign(award.0.campaign_id)).await?;
    Ok(Campaign(campaign.ok_or_else(|| Error::Internal("an award's campaign was not found".to_owned()))?))
}

/// Whether an award counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "Status")]
pub enum AwardStatus {
    /// The goal is reached, and the points of the award are in the ledger.
    Standing,
    /// The goal is no longer reached: a refund or a late purchase undid the award. A reversed award never changes
    /// again.
    Reversed,
    /// The goal is reached, but the campaign's budget had no room for the points. Nothing was posted to the ledger. The
    /// award is not decided again when points become free.
    Declined,
}
