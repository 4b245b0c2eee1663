//! Rewards: what customers redeem points for.

use std::sync::Arc;

use async_graphql::{Context, Description, ID, InputObject, MaybeUndefined, Object, SimpleObject};

use super::error::{ApiError, UserError, payload};
use super::loaders::{FindReward, UnitsOf};
use super::page::Connection;
use super::scalar::{Count, DateTime, Points};
use super::session::ContextExt;
use crate::app::global_id::GlobalId;
use crate::app::model::{self, RewardId};
use crate::app::reading::page::{Listed, PageArgs};
use crate::app::reward as app;
use crate::engine::reward::Units;
use crate::engine::time::Instant;

/// Something that customers redeem points for.
#[derive(Clone, Description)]
pub struct Reward(pub Arc<model::Reward>);

#[Object(use_type_description)]
impl Reward {
    /// An opaque id, unique across all types.
    pub(super) async fn id(&self) -> ID {
        GlobalId::Reward(self.0.id).into()
    }

    /// The name that customers see.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// A description for customers.
    async fn description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    /// The address of an image.
    async fn image_url(&self) -> Option<&str> {
        self.0.image_url.as_deref()
    }

    /// The points of one unit.
    async fn cost(&self) -> Points {
        Points(self.0.cost)
    }

    /// How many units can be redeemed now: those of the stock that are neither redeemed nor reserved, and with codes at most the unused
    /// codes. Null if the number is unlimited.
    async fn left(&self, ctx: &Context<'_>) -> Result<Option<Count>, ApiError> {
        Ok(self.units(ctx).await?.left(self.0.stock).map(Count))
    }

    /// How many units a customer may have redeemed or reserved at a time. A cancelled unit does not count.
    async fn max_per_customer(&self) -> Option<i32> {
        self.0.max_per_customer.and_then(|most| i32::try_from(most).ok())
    }

    /// The reward is offered from this instant on. Null if it always was.
    async fn starts_at(&self) -> Option<DateTime> {
        self.0.starts_at.map(|at| Instant(at).into())
    }

    /// The reward is no longer offered from this instant on. Null if there is no end.
    async fn ends_at(&self) -> Option<DateTime> {
        self.0.ends_at.map(|at| Instant(at).into())
    }

    /// Whether the reward is offered at all.
    async fn active(&self) -> bool {
        self.0.active
    }

    /// Whether a customer may redeem the reward for itself.
    async fn self_service(&self) -> bool {
        self.0.self_service
    }

    /// The number of edits, from 1. Pass it as `ifRevision` to `updateReward`.
    async fn revision(&self) -> Count {
        Count(self.0.revision)
    }

    /// How many units there are in all, redeemed and reserved ones included. Null if the number is unlimited, and for everyone but
    /// admins.
    async fn stock(&self, ctx: &Context<'_>) -> Option<Count> {
        ctx.viewer().require_admin().ok()?;
        self.0.stock.map(Count)
    }

    /// The pool of coupon codes. Null if the reward has none, and for everyone but admins.
    async fn codes(&self, ctx: &Context<'_>) -> Option<Result<RewardCodes, ApiError>> {
        ctx.viewer().require_admin().ok()?;
        match self.units(ctx).await {
            Ok(Units { codes_unused: 0, codes_given: 0, .. }) => None,
            Ok(units) => Some(Ok(RewardCodes { unused: Count(units.codes_unused), given: Count(units.codes_given) })),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Reward {
    async fn units(&self, ctx: &Context<'_>) -> Result<Units, ApiError> {
        Ok(ctx.loaders().load_one(UnitsOf(self.0.id)).await?.unwrap_or_default())
    }
}

/// The coupon codes of a reward. A code is given when a redemption takes effect, and never given again.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct RewardCodes {
    /// The number of codes that were not given yet.
    unused: Count,
    /// The number of codes that were given.
    given: Count,
}

/// A reward to create.
#[derive(InputObject)]
pub struct RewardInput {
    /// The name that customers see, 1 to 200 bytes.
    name: String,
    /// A description for customers, 1 to 200 bytes.
    description: Option<String>,
    /// The address of an image, with `https` or `http`; at most 2000 bytes.
    image_url: Option<String>,
    /// The points of one unit, 1 to 10¹².
    cost: Points,
    /// How many units there are in all. Null: unlimited.
    stock: Option<Count>,
    /// How many units a customer may have redeemed or reserved at a time, at least 1. Null: unlimited.
    max_per_customer: Option<i32>,
    /// The reward is offered from this instant on. Null: from now on.
    starts_at: Option<DateTime>,
    /// The reward is no longer offered from this instant on; it must be after `startsAt`. Null: there is no end.
    ends_at: Option<DateTime>,
    /// Whether the reward is offered at all.
    #[graphql(default = true)]
    active: bool,
    /// Whether a customer may redeem the reward for itself.
    #[graphql(default)]
    self_service: bool,
}

/// The fields of a reward to change. An absent field stays as it is, and null removes the value. What was redeemed or reserved before
/// stays as it is.
#[derive(InputObject)]
pub struct RewardUpdateInput {
    /// The `revision` that the change is based on. If the reward has another one, the error is `STALE_REVISION`.
    if_revision: Count,
    /// As in `RewardInput`; not null.
    name: MaybeUndefined<String>,
    /// As in `RewardInput`.
    description: MaybeUndefined<String>,
    /// As in `RewardInput`.
    image_url: MaybeUndefined<String>,
    /// As in `RewardInput`; not null.
    cost: MaybeUndefined<Points>,
    /// As in `RewardInput`. A lower stock takes nothing back.
    stock: MaybeUndefined<Count>,
    /// As in `RewardInput`.
    max_per_customer: MaybeUndefined<i32>,
    /// As in `RewardInput`.
    starts_at: MaybeUndefined<DateTime>,
    /// As in `RewardInput`.
    ends_at: MaybeUndefined<DateTime>,
    /// As in `RewardInput`; not null.
    active: MaybeUndefined<bool>,
    /// As in `RewardInput`; not null.
    self_service: MaybeUndefined<bool>,
}

impl From<RewardInput> for app::RewardInput {
    fn from(input: RewardInput) -> Self {
        Self {
            name: input.name,
            description: input.description,
            image_url: input.image_url,
            cost: input.cost.0,
            stock: input.stock.map(|stock| stock.0),
            max_per_customer: input.max_per_customer.map(i64::from),
            starts_at: input.starts_at.map(|at| at.0),
            ends_at: input.ends_at.map(|at| at.0),
            active: input.active,
            self_service: input.self_service,
        }
    }
}

impl From<RewardUpdateInput> for app::RewardUpdate {
    fn from(input: RewardUpdateInput) -> Self {
        Self {
            if_revision: input.if_revision.0,
            name: patch(input.name, |name| name),
            description: patch(input.description, |text| text),
            image_url: patch(input.image_url, |url| url),
            cost: patch(input.cost, |points| points.0),
            stock: patch(input.stock, |stock| stock.0),
            max_per_customer: patch(input.max_per_customer, i64::from),
            starts_at: patch(input.starts_at, |at| at.0),
            ends_at: patch(input.ends_at, |at| at.0),
            active: patch(input.active, |active| active),
            self_service: patch(input.self_service, |allowed| allowed),
        }
    }
}

fn patch<T, U>(value: MaybeUndefined<T>, convert: impl FnOnce(T) -> U) -> Option<Option<U>> {
    match value {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(convert(value))),
    }
}

/// The result of a mutation of a reward.
#[derive(SimpleObject)]
pub struct RewardPayload {
    /// The reward after the mutation. Null if the mutation was refused.
    reward: Option<Reward>,
    /// The reasons why the mutation was refused. Empty if it was accepted.
    user_errors: Vec<UserError>,
}

/// The result of adding codes.
#[derive(SimpleObject)]
pub struct AddRewardCodesPayload {
    /// The reward with its codes. Null if the mutation was refused.
    reward: Option<Reward>,
    /// How many codes were added.
    added: Count,
    /// How many codes were skipped, because the reward has them or they were sent twice.
    known: Count,
    /// The reasons why the mutation was refused. Empty if it was accepted.
    user_errors: Vec<UserError>,
}

/// The part of [`super::Query`] that reads rewards.
#[derive(Default)]
pub struct RewardQuery;

#[Object]
impl RewardQuery {
    /// The rewards, newest first. Customers see those that are offered now.
    async fn rewards(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only rewards that are active, or only those that are not.")] active: Option<bool>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
    ) -> Result<Connection<Reward>, ApiError> {
        let reader = ctx.viewer().require_reader()?;
        let page = model::Reward::LIST.page(PageArgs { first, after, last, before })?;
        let slice = app::list(ctx.app(), reader, &page, active).await?;
        Ok(Connection::new(slice, Listed::cursor, |row| Reward(Arc::new(row))))
    }

    /// A reward. Null if it does not exist or the caller may not see it.
    async fn reward(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the reward.")] id: ID,
    ) -> Option<Result<Reward, ApiError>> {
        if let Err(error) = ctx.viewer().require_reader() {
            return Some(Err(error.into()));
        }
        let found = ctx.loaders().load_one(FindReward(GlobalId::reward(&id)?)).await;
        found.map(|row| row.map(Reward)).map_err(ApiError::from).transpose()
    }
}

/// The part of [`super::Mutation`] that changes rewards.
#[derive(Default)]
pub struct RewardMutation;

#[Object]
impl RewardMutation {
    /// Creates a reward. Without an `idempotencyKey`, each request creates another reward. Requires an admin token (`FORBIDDEN`).
    async fn create_reward(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The reward to create.")] input: RewardInput,
        #[graphql(
            desc = "A key chosen by the caller, 1 to 200 bytes. The same key with the same input returns the reward that \
            was created with it, as it is now. If the key was used for anything else, the error is \
            `IDEMPOTENCY_CONFLICT`."
        )]
        idempotency_key: Option<String>,
    ) -> Result<RewardPayload, ApiError> {
        let actor = ctx.actor()?;
        RewardPayload::new(app::create(ctx.app(), &actor, input.into(), idempotency_key).await)
    }

    /// Changes a reward. Requires an admin token (`FORBIDDEN`).
    async fn update_reward(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the reward.")] id: ID,
        #[graphql(desc = "The fields to change.")] input: RewardUpdateInput,
    ) -> Result<RewardPayload, ApiError> {
        let actor = ctx.actor()?;
        RewardPayload::new(app::update(ctx.app(), &actor, GlobalId::reward(&id), input.into()).await)
    }

    /// Adds coupon codes to a reward. Each unit that is redeemed from then on gets one, and the unused codes bound the stock. Codes that
    /// the reward has are skipped and counted. Requires an admin token (`FORBIDDEN`).
    async fn add_reward_codes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the reward.")] reward_id: ID,
        #[graphql(desc = "1 to 10 000 codes of 1 to 200 bytes each.")] codes: Vec<String>,
    ) -> Result<AddRewardCodesPayload, ApiError> {
        let actor = ctx.actor()?;
        let added = app::add_codes(ctx.app(), &actor, GlobalId::reward(&reward_id), codes).await;
        let (done, user_errors) = payload(added)?;
        let (added, known) = done.as_ref().map_or((0, 0), |done| (done.added, done.known));
        let reward = done.map(|done| Reward(Arc::new(done.reward)));
        Ok(AddRewardCodesPayload { reward, added: Count(added), known: Count(known), user_errors })
    }
}

impl RewardPayload {
    fn new(changed: Result<model::Reward, crate::app::error::Error>) -> Result<Self, ApiError> {
        let (reward, user_errors) = payload(changed)?;
        Ok(Self { reward: reward.map(|row| Reward(Arc::new(row))), user_errors })
    }
}

impl GlobalId {
    /// Decodes the id of a reward. Returns `None` for any other id.
    pub(in crate::graphql) fn reward(id: &ID) -> Option<RewardId> {
        match Self::parse(id) {
            Some(Self::Reward(id)) => Some(id),
            _ => None,
        }
    }
}
