//! The life of campaigns. For admins.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, SimpleObject};

use super::Campaign;
use super::input::{CampaignInput, CampaignUpdateInput};
use crate::app::error::{Error, UserErrorCode};
use crate::app::model::CampaignId;
use crate::app::{campaign as app, campaigns};
use crate::graphql::error::{ApiError, UserError, payload};
use crate::graphql::id::GlobalId;
use crate::graphql::session::ContextExt;

/// What a change of a campaign answers.
#[derive(SimpleObject)]
pub struct CampaignPayload {
    /// The campaign as it is now; null: the change was refused.
    campaign: Option<Campaign>,
    /// Why it was refused; empty: it was not.
    user_errors: Vec<UserError>,
}

impl CampaignPayload {
    fn new(changed: Result<Arc<campaigns::Campaign>, Error>) -> Result<Self, ApiError> {
        let (campaign, user_errors) = payload(changed)?;
        Ok(Self { campaign: campaign.map(Campaign), user_errors })
    }
}

/// What `deleteCampaign` answers.
#[derive(SimpleObject)]
pub struct DeleteCampaignPayload {
    /// Of the campaign that is no more; null: it was refused.
    deleted_id: Option<ID>,
    /// Why it was refused; empty: it was not.
    user_errors: Vec<UserError>,
}

/// The campaign that the argument `id` names.
fn campaign_id(id: &ID) -> Result<CampaignId, Error> {
    let unknown = || Error::refused(&["id"], UserErrorCode::NotFound, "no such campaign");
    GlobalId::campaign(id).ok_or_else(unknown)
}

/// See [`super::super::Mutation`].
#[derive(Default)]
pub struct CampaignMutation;

#[Object]
impl CampaignMutation {
    /// Makes a campaign, as a draft. For admins.
    async fn create_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The campaign.")] input: CampaignInput,
        #[graphql(
            desc = "Chosen by the caller: sent again with the same input, the campaign that it made is answered."
        )]
        idempotency_key: Option<String>,
    ) -> Result<CampaignPayload, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        CampaignPayload::new(app::create(ctx.app(), &admin, input.into(), idempotency_key).await)
    }

    /// Edits a campaign. For admins.
    async fn update_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which campaign.")] id: ID,
        #[graphql(desc = "What to change.")] input: CampaignUpdateInput,
    ) -> Result<CampaignPayload, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        CampaignPayload::new(match campaign_id(&id) {
            Ok(id) => app::update(ctx.app(), &admin, id, input.into()).await,
            Err(unknown) => Err(unknown),
        })
    }

    /// Makes a draft with another campaign's rule, period and budget. For admins.
    async fn clone_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which campaign.")] id: ID,
        #[graphql(desc = "Of the new one, 1 to 200 bytes.")] name: String,
        #[graphql(
            desc = "Chosen by the caller: sent again with the same name, the campaign that it made is answered."
        )]
        idempotency_key: Option<String>,
    ) -> Result<CampaignPayload, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        CampaignPayload::new(match campaign_id(&id) {
            Ok(id) => app::clone(ctx.app(), &admin, id, name, idempotency_key).await,
            Err(unknown) => Err(unknown),
        })
    }

    /// Deletes a draft. For admins.
    async fn delete_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which campaign.")] id: ID,
    ) -> Result<DeleteCampaignPayload, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        let deleted = match campaign_id(&id) {
            Ok(campaign) => app::delete(ctx.app(), &admin, campaign).await,
            Err(unknown) => Err(unknown),
        };
        let (deleted, user_errors) = payload(deleted)?;
        Ok(DeleteCampaignPayload { deleted_id: deleted.map(|()| id), user_errors })
    }

    /// Puts a draft into effect. With a start in the past, what was recorded since is counted from now on. For admins.
    async fn activate_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which campaign.")] id: ID,
    ) -> Result<CampaignPayload, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        CampaignPayload::new(match campaign_id(&id) {
            Ok(id) => app::activate(ctx.app(), &admin, id).await,
            Err(unknown) => Err(unknown),
        })
    }

    /// Stops an ACTIVE campaign's counting, until it is resumed. Purchases made meanwhile never count in it. For admins.
    async fn pause_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which campaign.")] id: ID,
    ) -> Result<CampaignPayload, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        CampaignPayload::new(match campaign_id(&id) {
            Ok(id) => app::pause(ctx.app(), &admin, id).await,
            Err(unknown) => Err(unknown),
        })
    }

    /// Makes a PAUSED campaign count again. For admins.
    async fn resume_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which campaign.")] id: ID,
    ) -> Result<CampaignPayload, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        CampaignPayload::new(match campaign_id(&id) {
            Ok(id) => app::resume(ctx.app(), &admin, id).await,
            Err(unknown) => Err(unknown),
        })
    }

    /// Ends a campaign before its time. What was earned stays. For admins.
    async fn end_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which campaign.")] id: ID,
    ) -> Result<CampaignPayload, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        CampaignPayload::new(match campaign_id(&id) {
            Ok(id) => app::end(ctx.app(), &admin, id).await,
            Err(unknown) => Err(unknown),
        })
    }
}
