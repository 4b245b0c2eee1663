//! Redemptions: points that customers spend on rewards, or set aside for them.

use std::sync::Arc;

use async_graphql::{Context, Description, Enum, ID, InputObject, Object};

use super::customer::{Balance, Customer};
use super::error::{ApiError, UserError, payload};
use super::loaders::{CodesOf, CustomerOf, RewardOf};
use super::reward::Reward;
use super::scalar::{DateTime, Duration, Points};
use super::session::ContextExt;
use crate::app::error::Error;
use crate::app::global_id::GlobalId;
use crate::app::model::{self, CustomerId};
use crate::app::recorder::fact::Recorded;
use crate::app::redemption::{self as app, RedeemReward, State};
use crate::engine::time::Instant;

/// Points that a customer spent on a reward, or set aside for one.
#[derive(Clone, Description)]
pub struct Redemption(pub Arc<model::Redemption>);

#[Object(use_type_description)]
impl Redemption {
    /// An opaque id, unique across all types.
    pub(super) async fn id(&self) -> ID {
        GlobalId::Redemption(self.0.customer_id, self.0.number).into()
    }

    /// The reward, as it is now.
    async fn reward(&self, ctx: &Context<'_>) -> Result<Reward, ApiError> {
        let reward = ctx.loaders().load_one(RewardOf(self.0.reward_id)).await?;
        Ok(Reward(reward.ok_or_else(|| Error::Internal("a redemption's reward was not found".to_owned()))?))
    }

    /// The customer whose points they are.
    async fn customer(&self, ctx: &Context<'_>) -> Result<Customer, ApiError> {
        let customer = ctx.loaders().load_one(CustomerOf(self.0.customer_id)).await?;
        Ok(customer.ok_or_else(|| Error::Internal("a redemption's customer was not found".to_owned()))?.into())
    }

    /// The number of units.
    async fn quantity(&self) -> i32 {
        i32::try_from(self.0.quantity).unwrap_or(i32::MAX)
    }

    /// The cost times the quantity, as it was when the redemption was made.
    async fn points(&self) -> Points {
        Points(self.0.points)
    }

    /// What became of it by now.
    async fn state(&self, ctx: &Context<'_>) -> RedemptionState {
        self.at(ctx).into()
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        Instant(self.0.created_at).into()
    }

    /// When the reservation is over, or would have been. Null if the points were spent at once.
    async fn reserved_until(&self) -> Option<DateTime> {
        self.0.reserved_until.map(|at| Instant(at).into())
    }

    /// When the points were spent. Null if they never were.
    async fn redeemed_at(&self) -> Option<DateTime> {
        self.0.redeemed_at.map(|at| Instant(at).into())
    }

    /// When it was cancelled or the reservation was over. One that was never redeemed was a reservation.
    async fn ended_at(&self, ctx: &Context<'_>) -> Option<DateTime> {
        let lapsed_at = self.0.reserved_until.filter(|_| self.at(ctx) == State::Lapsed);
        self.0.ended_at.or(lapsed_at).map(|at| Instant(at).into())
    }

    /// The coupon codes, once the points are spent.
    async fn codes(&self, ctx: &Context<'_>) -> Result<Vec<String>, ApiError> {
        if self.0.redeemed_at.is_none() {
            return Ok(Vec::new());
        }
        let codes = ctx.loaders().load_one(CodesOf(self.0.customer_id, self.0.number)).await?;
        Ok(codes.unwrap_or_default())
    }

    /// Why it was cancelled, as it was given.
    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }
}

impl Redemption {
    fn at(&self, ctx: &Context<'_>) -> State {
        State::at(&self.0, ctx.now())
    }
}

/// What became of a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "State")]
pub enum RedemptionState {
    /// The points are set aside until `reservedUntil`.
    Reserved,
    /// The points are spent.
    Redeemed,
    /// The points were given back.
    Cancelled,
    /// The reservation was over before it was committed. The points were given back.
    Lapsed,
}

/// A reward to redeem at once.
#[derive(InputObject)]
pub struct RedeemRewardInput {
    /// The `id` of the reward.
    reward_id: ID,
    /// The shop's id of the customer. Null: the customer that the token belongs to. With any other token, it is required.
    customer_external_id: Option<String>,
    /// The number of units, at least 1. All of them cost at most 10¹² points.
    #[graphql(default = 1)]
    quantity: i32,
    /// A key chosen by the caller, 1 to 200 bytes. The same key with the same input changes nothing and returns the redemption as it is
    /// now. With another input, the error is `IDEMPOTENCY_CONFLICT`. A refused request does not use up its key.
    idempotency_key: String,
}

/// A reward to set points aside for.
#[derive(InputObject)]
pub struct ReserveRewardInput {
    /// The `id` of the reward.
    reward_id: ID,
    /// The shop's id of the customer. Null: the customer that the token belongs to. With any other token, it is required.
    customer_external_id: Option<String>,
    /// The number of units, at least 1. All of them cost at most 10¹² points.
    #[graphql(default = 1)]
    quantity: i32,
    /// A key chosen by the caller, as in `RedeemRewardInput`.
    idempotency_key: String,
    /// How long the points are set aside, above zero and at most `P7D`. Then the reservation is over, and the customer has them back.
    #[graphql(default_with = "Duration(\"PT15M\".to_owned())")]
    reserve_for: Duration,
}

/// The result of a mutation of a redemption.
#[derive(Description)]
pub struct RedemptionPayload {
    recorded: Option<Recorded>,
    user_errors: Vec<UserError>,
}

#[Object(use_type_description)]
impl RedemptionPayload {
    /// The redemption after the mutation. Null if the mutation was refused.
    async fn redemption(&self) -> Option<Redemption> {
        self.recorded.as_ref()?.redemption.clone().map(Redemption)
    }

    /// The customer after the mutation, of the same version as `balance`. Null if the mutation was refused.
    async fn customer(&self) -> Option<Customer> {
        Some(Arc::clone(&self.recorded.as_ref()?.customer).into())
    }

    /// The customer's points after the mutation. Null if the mutation was refused.
    async fn balance(&self, ctx: &Context<'_>) -> Option<Result<Balance, ApiError>> {
        Some(Balance::of(ctx, &self.recorded.as_ref()?.customer, None).await)
    }

    /// Whether the same had already been done, so that this request changed nothing.
    async fn replayed(&self) -> bool {
        self.recorded.as_ref().is_some_and(|recorded| recorded.replayed)
    }

    /// The reasons why the mutation was refused. Empty if it was accepted.
    async fn user_errors(&self) -> Vec<UserError> {
        self.user_errors.clone()
    }
}

impl RedemptionPayload {
    fn new(recorded: Result<Recorded, Error>) -> Result<Self, ApiError> {
        let (recorded, user_errors) = payload(recorded)?;
        Ok(Self { recorded, user_errors })
    }
}

/// The part of [`super::Mutation`] that redeems rewards.
#[derive(Default)]
pub struct RedemptionMutation;

#[Object]
impl RedemptionMutation {
    /// Spends points on a reward. Refused with the first that holds of `NOT_FOUND` (no such reward, not active, or outside its period),
    /// `LIMIT_REACHED`, `OUT_OF_STOCK` and `INSUFFICIENT_POINTS`. A customer may redeem for itself if the reward says so
    /// (`FORBIDDEN`).
    async fn redeem_reward(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The reward, the customer and the quantity.")] input: RedeemRewardInput,
    ) -> Result<RedemptionPayload, ApiError> {
        let redeem = RedeemReward {
            reward: GlobalId::reward(&input.reward_id),
            customer_external_id: input.customer_external_id,
            quantity: input.quantity.into(),
            idempotency_key: input.idempotency_key,
            reserve_for: None,
        };
        RedemptionPayload::new(app::redeem(ctx.app(), ctx.viewer(), vec!["input".to_owned()], redeem).await)
    }

    /// Sets points and units aside, for a checkout. Refused like `redeemReward`. The price, the period and the stock are looked at now and
    /// not when the reservation is committed. A customer may reserve for itself if the reward says so (`FORBIDDEN`).
    async fn reserve_reward(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The reward, the customer, the quantity and the time.")] input: ReserveRewardInput,
    ) -> Result<RedemptionPayload, ApiError> {
        let redeem = RedeemReward {
            reward: GlobalId::reward(&input.reward_id),
            customer_external_id: input.customer_external_id,
            quantity: input.quantity.into(),
            idempotency_key: input.idempotency_key,
            reserve_for: Some(input.reserve_for.0),
        };
        RedemptionPayload::new(app::redeem(ctx.app(), ctx.viewer(), vec!["input".to_owned()], redeem).await)
    }

    /// Spends the points of a reservation before it is over. Repeating it changes nothing. Of a cancelled reservation or one that is over,
    /// it is refused with `ILLEGAL_TRANSITION`. A customer may commit its own.
    async fn commit_redemption(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the redemption.")] id: ID,
    ) -> Result<RedemptionPayload, ApiError> {
        RedemptionPayload::new(app::commit(ctx.app(), ctx.viewer(), redemption(&id)).await)
    }

    /// Gives the points of a reservation or a redemption back. Repeating it changes nothing. Of a reservation that is over, it is refused
    /// with `ILLEGAL_TRANSITION`. A customer may cancel its own reservation, but not what is redeemed (`ILLEGAL_TRANSITION`).
    async fn cancel_redemption(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the redemption.")] id: ID,
        #[graphql(desc = "Why, 1 to 200 bytes.")] reason: Option<String>,
    ) -> Result<RedemptionPayload, ApiError> {
        RedemptionPayload::new(app::cancel(ctx.app(), ctx.viewer(), redemption(&id), reason).await)
    }
}

fn redemption(id: &ID) -> Option<(CustomerId, i64)> {
    match GlobalId::parse(id) {
        Some(GlobalId::Redemption(customer, number)) => Some((customer, number)),
        _ => None,
    }
}
