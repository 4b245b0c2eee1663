//! Awards, and why they were given.

use std::sync::Arc;

use async_graphql::{Context, Description, Enum, ID, Object};

use super::campaign::Campaign;
use super::customer::Customer;
use super::error::ApiError;
use super::id::GlobalId;
use super::loaders::{CustomerOf, EvidenceOf, FindCampaign};
use super::page::Connection;
use super::purchase::Purchase;
use super::scalar::{Count, DateTime, Points};
use super::session::ContextExt;
use super::window::Window;
use crate::app::award::Status;
use crate::app::error::Error;
use crate::app::model;
use crate::app::reading::evidence;
use crate::app::reading::page::PageArgs;
use crate::app::stored::award::window;
use crate::engine::time::Instant;

/// A goal that a customer reached in a campaign, and its points.
#[derive(Clone, Description)]
pub struct Award(pub Arc<model::Award>);

#[Object(use_type_description)]
impl Award {
    /// Opaque; of everything, not only of awards. It stays when late purchases or refunds move the award.
    pub(super) async fn id(&self) -> ID {
        GlobalId::Award(self.0.customer_id, self.0.number).into()
    }

    /// Which campaign gave it.
    async fn campaign(&self, ctx: &Context<'_>) -> Result<Campaign, ApiError> {
        campaign(self, ctx).await
    }

    /// Whose it is.
    async fn customer(&self, ctx: &Context<'_>) -> Result<Customer, ApiError> {
        let customer = ctx.loaders().load_one(CustomerOf(self.0.customer_id)).await?;
        Ok(customer.ok_or_else(|| Error::Internal("an award's customer is not there".to_owned()))?.into())
    }

    /// The window in which the goal was reached, within the campaign's period as it is now.
    async fn window(&self, ctx: &Context<'_>) -> Result<Window, ApiError> {
        let Campaign(campaign) = campaign(self, ctx).await?;
        Ok(window(&self.0).clip(campaign.life.period.interval()).into())
    }

    /// 1, 2 … among the awards of its window.
    async fn ordinal(&self) -> Count {
        Count(self.0.ordinal)
    }

    /// What it is worth. Of a DECLINED award: what it would have been.
    async fn points(&self) -> Points {
        Points(self.0.points)
    }

    /// Whether its points stand.
    async fn status(&self) -> AwardStatus {
        Status::from(self.0.status).into()
    }

    /// When the purchase was made that reached the goal.
    async fn earned_at(&self) -> DateTime {
        Instant(self.0.earned_at).into()
    }

    /// Why: the purchases that were counted, the last of which reached the goal. Oldest first. A REVERSED award shows those
    /// it last had.
    async fn purchases(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many, at most 100. Without `first` and `last`: 20.")] first: Option<i32>,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "The last so many, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Only what precedes this cursor.")] before: Option<String>,
    ) -> Result<Connection<Purchase>, ApiError> {
        let page = evidence::LIST.page(PageArgs { first, after, last, before })?;
        let slice = ctx.loaders().load_one(EvidenceOf(Arc::clone(&self.0), page.clone())).await?;
        let slice = slice.unwrap_or_else(|| page.cut(Vec::new()));
        Ok(Connection::new(slice, evidence::cursor, |row| Purchase(Arc::new(row))))
    }
}

async fn campaign(award: &Award, ctx: &Context<'_>) -> Result<Campaign, ApiError> {
    let campaign = ctx.loaders().load_one(FindCampaign(award.0.campaign_id)).await?;
    Ok(Campaign(campaign.ok_or_else(|| Error::Internal("an award's campaign is not there".to_owned()))?))
}

/// Whether an award's points stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "Status")]
pub enum AwardStatus {
    /// Its points are in the ledger.
    Standing,
    /// No longer reached: refunds or late purchases undid it.
    Reversed,
    /// Reached, but the campaign's budget had no room.
    Declined,
}
