//! How far the counting of a campaign's past is.

use async_graphql::{Context, SimpleObject};

use crate::app::model::CampaignId;
use crate::graphql::error::ApiError;
use crate::graphql::loaders::BackfillOf;
use crate::graphql::scalar::Count;
use crate::graphql::session::ContextExt;

/// How far something is that takes long.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct Progress {
    /// How much is done.
    done: Count,
    /// How much there is to do.
    total: Count,
}

impl Progress {
    pub(super) async fn of_backfill(ctx: &Context<'_>, campaign: CampaignId) -> Result<Option<Self>, ApiError> {
        let backfill = ctx.loaders().load_one(BackfillOf(campaign)).await?;
        Ok(backfill.map(|(done, total)| Self { done: Count(done), total: Count(total) }))
    }
}
