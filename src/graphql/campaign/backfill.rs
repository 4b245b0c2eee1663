//! The progress of a backfill: evaluating what was recorded before a campaign was activated.

use async_graphql::{Context, SimpleObject};

use crate::app::model::CampaignId;
use crate::graphql::error::ApiError;
use crate::graphql::loaders::BackfillOf;
use crate::graphql::scalar::Count;
use crate::graphql::session::ContextExt;

/// How far a backfill has come, in customers.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct Progress {
    /// The number of customers whose history has been evaluated.
    done: Count,
    /// The number of customers to evaluate. 0 until the background job has counted them.
    total: Count,
}

impl Progress {
    pub(in crate::graphql) fn new(done: i64, total: i64) -> Self {
        Self { done: Count(done), total: Count(total) }
    }

    pub(super) async fn of_backfill(ctx: &Context<'_>, campaign: CampaignId) -> Result<Option<Self>, ApiError> {
        let backfill = ctx.loaders().load_one(BackfillOf(campaign)).await?;
        Ok(backfill.map(|(done, total)| Self::new(done, total)))
    }
}
