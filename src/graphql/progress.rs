//! Where a customer stands in a campaign.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, SimpleObject};

use super::campaign::Campaign;
use super::error::ApiError;
use super::id::GlobalId;
use super::loaders::ProgressOf;
use super::scalar::{Count, Decimal};
use super::session::ContextExt;
use super::window::Window;
use crate::app::model;
use crate::app::reading::progress as app;
use crate::app::reading::snapshot::View;
use crate::engine::progress::{Standing, Unit};

/// Where a customer stands in a running campaign.
#[derive(Clone, SimpleObject)]
pub struct CampaignProgress {
    /// The past is still being counted for this customer.
    evaluating: bool,
    /// In which.
    campaign: Campaign,
    /// The window that is counted now; null: none is open.
    window: Option<Window>,
    /// The next window, where none is open now and the calendar alone says when one will be.
    next_window: Option<Window>,
    /// In one word.
    state: ProgressState,
    /// What `current` and `target` count.
    unit: ProgressUnit,
    /// What is reached of the target; never above it.
    current: Decimal,
    /// What the next award takes.
    target: Decimal,
    /// The customer's awards in this campaign, those included that its budget had no room for.
    awards_earned: Count,
    /// How many more the customer can earn; null: no bound. 0 when it is EXHAUSTED.
    awards_left: Option<Count>,
}

impl CampaignProgress {
    /// Where the customer stands in each running campaign, or in the one that is named.
    pub async fn of(
        ctx: &Context<'_>,
        customer: &Arc<model::Customer>,
        view: Option<&View>,
        campaign_id: Option<ID>,
    ) -> Result<Vec<Self>, ApiError> {
        let campaign = match &campaign_id {
            Some(id) => match GlobalId::campaign(id) {
                Some(campaign) => Some(campaign),
                None => return Ok(Vec::new()),
            },
            None => None,
        };
        let known = view.and_then(|view| app::of_view(view, campaign, ctx.app().clock.now()));
        if let Some(progress) = known {
            return Ok(progress.into_iter().map(Self::from).collect());
        }
        let progress = ctx.loaders().load_one(ProgressOf(Arc::clone(customer), campaign)).await?;
        Ok(progress.unwrap_or_default().into_iter().map(Self::from).collect())
    }
}

impl From<app::CampaignProgress> for CampaignProgress {
    fn from(app::CampaignProgress { campaign, progress, evaluating }: app::CampaignProgress) -> Self {
        let amount = |counted: i64| match progress.unit {
            Unit::Money => Decimal(campaign.rule.currency.format(i128::from(counted))),
            Unit::Purchases | Unit::Distinct | Unit::Windows => counted.into(),
        };
        Self {
            evaluating,
            window: progress.window.map(Window::from),
            next_window: progress.next_window.map(Window::from),
            state: progress.standing.into(),
            unit: progress.unit.into(),
            current: amount(progress.current),
            target: amount(progress.target),
            awards_earned: Count(progress.awards_earned),
            awards_left: progress.awards_left.map(Count),
            campaign: Campaign(Arc::clone(&campaign)),
        }
    }
}

/// A customer's progress in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "Standing")]
pub enum ProgressState {
    /// No window is open.
    NotStarted,
    /// A window is open that can give an award.
    InProgress,
    /// The open window can give no further award.
    Reached,
    /// This customer can earn no further award in the campaign.
    Exhausted,
}

/// What progress counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "Unit")]
pub enum ProgressUnit {
    /// Purchases.
    Purchases,
    /// Money, in major units of the campaign's currency.
    Money,
    /// Different skus or categories.
    Distinct,
    /// Completed windows of a streak.
    Windows,
}
