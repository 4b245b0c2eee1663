//! The progress of customers in running campaigns.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, SimpleObject};

use super::campaign::Campaign;
use super::error::ApiError;
use super::loaders::ProgressOf;
use super::scalar::{Count, Decimal};
use super::session::ContextExt;
use super::window::Window;
use crate::app::global_id::GlobalId;
use crate::app::model;
use crate::app::reading::progress as app;
use crate::app::reading::snapshot::View;
use crate::engine::progress::{Standing, Unit};

/// Where a customer stands in a running campaign at the current instant. Only eligible purchases are counted. The
/// budget does not affect progress.
#[derive(Clone, SimpleObject)]
pub struct CampaignProgress {
    /// Whether the campaign's backfill has not completed this customer yet. Until then, the other fields show what has
    /// been evaluated so far.
    evaluating: bool,
    /// The campaign, which is `ACTIVE` or `PAUSED`.
    campaign: Campaign,
    /// The window that is counted now, clipped to the period of the campaign. Null if no window is open. For a
    /// `rolling` window it begins at the oldest unused purchase and lasts for `duration`.
    window: Option<Window>,
    /// The next occurrence of a `recurring` window, clipped to the period of the campaign. Null if a window is open
    /// now, if the period ends before the next occurrence, and for all other windows.
    next_window: Option<Window>,
    /// A summary of the progress.
    state: ProgressState,
    /// The unit of `current` and `target`.
    unit: ProgressUnit,
    /// How much of `target` is reached, in `unit`; never above `target`. With `repeat`, it starts again each time the
    /// goal is reached. Always 0 for `everyPurchase`.
    current: Decimal,
    /// How much the goal requires, in `unit`.
    target: Decimal,
    /// The number of the customer's `STANDING` and `DECLINED` awards in this campaign.
    awards_earned: Count,
    /// The number of further awards that the customer can earn in this campaign, by `maxPerCustomer` or because the
    /// goal can be reached only once. Null if there is no bound; 0 if `state` is `EXHAUSTED`.
    awards_left: Option<Count>,
}

impl CampaignProgress {
    /// Returns the progress of the customer in each running campaign, or only in `campaign_id`. Empty if that campaign
    /// is not running or the id names no campaign.
    pub async fn load(
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
        let known = view.and_then(|view| app::of_view(view, campaign, ctx.now()));
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
            Unit::Purchases | Unit::Distinct | Unit::Units | Unit::Windows => counted.into(),
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

/// A summary of a customer's progress in a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "Standing")]
pub enum ProgressState {
    /// No window is open at the current instant.
    NotStarted,
    /// A window is open and can still give an award. It may have no purchases yet. Or a streak over `recurring` windows is alive,
    /// and its next window is not open yet.
    InProgress,
    /// The open window can give no further award: its goal is reached and does not repeat, or it has `maxPerWindow`
    /// awards.
    Reached,
    /// The customer can earn no further award in the campaign. This takes precedence over `REACHED`.
    Exhausted,
}

/// The unit in which progress is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "Unit")]
pub enum ProgressUnit {
    /// Eligible purchases. Goals: `everyPurchase` and `purchases`.
    Purchases,
    /// Money, in major units of the campaign's currency. Goal: `spend`.
    Money,
    /// Different skus or categories. Goal: `distinct`.
    Distinct,
    /// Units of the matching lines. Goal: `units`.
    Units,
    /// Complete windows in a row. Goal: `streak`.
    Windows,
}
