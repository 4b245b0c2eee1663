//! The mutations that create, change and delete campaigns, and their transitions. All of them require an admin token.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, SimpleObject};

use super::Campaign;
use super::input::{CampaignInput, CampaignUpdateInput};
use crate::app::campaign::{self as app, set};
use crate::app::error::Error;
use crate::app::global_id::GlobalId;
use crate::app::model::CampaignId;
use crate::graphql::error::{ApiError, UserError, payload};
use crate::graphql::session::ContextExt;

/// The result of a mutation of a campaign.
#[derive(SimpleObject)]
pub struct CampaignPayload {
    /// The campaign after the mutation. Null if the mutation was refused.
    campaign: Option<Campaign>,
    /// The reasons why the mutation was refused. Empty if it was accepted.
    user_errors: Vec<UserError>,
}

impl CampaignPayload {
    fn new(changed: Result<Arc<set::Campaign>, Error>) -> Result<Self, ApiError> {
        let (campaign, user_errors) = payload(changed)?;
        Ok(Self { campaign: campaign.map(Campaign), user_errors })
    }
}

/// The result of `deleteCampaign`.
#[derive(SimpleObject)]
pub struct DeleteCampaignPayload {
    /// The `id` of the deleted campaign. Null if the deletion was refused.
    deleted_id: Option<ID>,
    /// The reasons why the mutation was refused. Empty if it was accepted.
    user_errors: Vec<UserError>,
}

/// Decodes the argument `id`. An id that names no campaign becomes the key 0, which no campaign has: the use case refuses it.
fn campaign_id(id: &ID) -> CampaignId {
    GlobalId::campaign(id).unwrap_or(CampaignId(0))
}

/// The part of [`super::super::Mutation`] that changes campaigns.
#[derive(Default)]
pub struct CampaignMutation;

#[Object]
impl CampaignMutation {
    /// Creates a campaign as a draft. Without an `idempotencyKey`, each request creates another draft. Requires an
    /// admin token (`FORBIDDEN`).
    async fn create_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The campaign to create.")] input: CampaignInput,
        #[graphql(
            desc = "A key chosen by the caller, 1 to 200 bytes. The same key with the same input returns the campaign \
            that was created with it, as it is now, or `NOT_FOUND` if that campaign was deleted. If the key was used \
            for anything else, the error is `IDEMPOTENCY_CONFLICT`."
        )]
        idempotency_key: Option<String>,
    ) -> Result<CampaignPayload, ApiError> {
        let actor = ctx.actor()?;
        CampaignPayload::new(app::create(ctx.app(), &actor, input.into(), idempotency_key).await)
    }

    /// Changes a campaign. A draft can be changed in every field; after the activation, only `name`, `description`,
    /// `budget` and `endsAt` can be changed (`CAMPAIGN_NOT_EDITABLE`). Requires an admin token (`FORBIDDEN`).
    async fn update_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the campaign.")] id: ID,
        #[graphql(desc = "The fields to change.")] input: CampaignUpdateInput,
    ) -> Result<CampaignPayload, ApiError> {
        let actor = ctx.actor()?;
        CampaignPayload::new(app::update(ctx.app(), &actor, campaign_id(&id), input.into()).await)
    }

    /// Creates a draft with a new name and the description, rule, period and budget of another campaign, whatever the
    /// status of that campaign. Requires an admin token (`FORBIDDEN`).
    async fn clone_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the campaign to clone.")] id: ID,
        #[graphql(desc = "The name of the new campaign, 1 to 200 bytes.")] name: String,
        #[graphql(
            desc = "A key chosen by the caller, 1 to 200 bytes. The same key with the same `id` and `name` returns the \
            campaign that was created with it, as it is now, or `NOT_FOUND` if that campaign was deleted. If the key \
            was used for anything else, the error is `IDEMPOTENCY_CONFLICT`."
        )]
        idempotency_key: Option<String>,
    ) -> Result<CampaignPayload, ApiError> {
        let actor = ctx.actor()?;
        CampaignPayload::new(app::clone(ctx.app(), &actor, campaign_id(&id), name, idempotency_key).await)
    }

    /// Deletes a draft. In any other status, the error is `ILLEGAL_TRANSITION`. Requires an admin token (`FORBIDDEN`).
    async fn delete_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the campaign.")] id: ID,
    ) -> Result<DeleteCampaignPayload, ApiError> {
        let actor = ctx.actor()?;
        let (deleted, user_errors) = payload(app::delete(ctx.app(), &actor, campaign_id(&id)).await)?;
        Ok(DeleteCampaignPayload { deleted_id: deleted.map(|()| id), user_errors })
    }

    /// Activates a draft. From now on its rule is fixed. If `startsAt` is in the past, purchases that are already
    /// recorded count too: a background job evaluates them (`Campaign.backfill`). The error is `ILLEGAL_TRANSITION` if
    /// the campaign is not a draft, `BOUNDARY_IN_PAST` if `endsAt + lateness` has passed, and `UNSUPPORTED_COMBINATION`
    /// if the campaign has `holdFor` or `expiresAfter`. Requires an admin token (`FORBIDDEN`).
    async fn activate_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the campaign.")] id: ID,
    ) -> Result<CampaignPayload, ApiError> {
        let actor = ctx.actor()?;
        CampaignPayload::new(app::activate(ctx.app(), &actor, campaign_id(&id)).await)
    }

    /// Pauses an `ACTIVE` campaign until it is resumed; in any other status, the error is `ILLEGAL_TRANSITION`.
    /// Purchases made during the pause never count. The pause begins at the latest of three instants: now, 1 µs after
    /// the latest `purchasedAt` recorded of any customer, and the previous pause, resume or end. So the pause does not
    /// change what was already counted. Requires an admin token (`FORBIDDEN`).
    async fn pause_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the campaign.")] id: ID,
    ) -> Result<CampaignPayload, ApiError> {
        let actor = ctx.actor()?;
        CampaignPayload::new(app::pause(ctx.app(), &actor, campaign_id(&id)).await)
    }

    /// Resumes a `PAUSED` campaign; in any other status, the error is `ILLEGAL_TRANSITION`. Purchases count again from
    /// the instant at which a pause would begin now: see `pauseCampaign`. Requires an admin token (`FORBIDDEN`).
    async fn resume_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the campaign.")] id: ID,
    ) -> Result<CampaignPayload, ApiError> {
        let actor = ctx.actor()?;
        CampaignPayload::new(app::resume(ctx.app(), &actor, campaign_id(&id)).await)
    }

    /// Ends a `SCHEDULED`, `ACTIVE` or `PAUSED` campaign; in any other status, the error is `ILLEGAL_TRANSITION`.
    /// `endsAt` becomes the instant at which a pause would begin now (see `pauseCampaign`), unless it is earlier
    /// already. Awards stay, and late purchases and refunds still count. Requires an admin token (`FORBIDDEN`).
    async fn end_campaign(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the campaign.")] id: ID,
    ) -> Result<CampaignPayload, ApiError> {
        let actor = ctx.actor()?;
        CampaignPayload::new(app::end(ctx.app(), &actor, campaign_id(&id)).await)
    }
}
