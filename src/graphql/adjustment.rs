//! The mutation that gives or takes points by hand.

use async_graphql::{Context, InputObject, Object};

use super::error::ApiError;
use super::recorded::AdjustPointsPayload;
use super::scalar::{DateTime, Points};
use super::session::ContextExt;
use crate::app::adjustment::{self as app, AdjustPoints};

/// An adjustment: points to give to a customer or to take from a customer by hand.
#[derive(InputObject)]
pub struct AdjustPointsInput {
    /// The shop's id of the customer, 1 to 200 bytes. A customer that does not exist is created.
    customer_external_id: String,
    /// The number of points; negative to take points. Not 0. A positive adjustment must not raise `available` above
    /// 10¹⁵, and a negative one must not lower it below −10¹⁵ (`OUT_OF_RANGE`).
    points: Points,
    /// The reason, which the ledger entry shows; 1 to 200 bytes.
    reason: String,
    /// A key chosen by the caller, 1 to 200 bytes. The same key with the same content changes nothing and returns the
    /// entry that was posted. With different content, the error is `IDEMPOTENCY_CONFLICT`. A key is recognised for
    /// ever; `createCampaign` and `cloneCampaign` share these keys.
    idempotency_key: String,
    /// The instant from which added points are gone, unless they are spent before. It must lie ahead (`BOUNDARY_IN_PAST`). Null: they never
    /// expire. Only points that are added can expire (`INVALID`).
    expires_at: Option<DateTime>,
    /// Whether the adjustment may take more points than are available. If it may not and does, it is refused with
    /// `INSUFFICIENT_POINTS`.
    #[graphql(default = true)]
    allow_negative: bool,
}

/// The part of [`super::Mutation`] that adjusts points.
#[derive(Default)]
pub struct AdjustmentMutation;

#[Object]
impl AdjustmentMutation {
    /// Gives or takes points by hand: a welcome, an apology, a correction. Requires an admin token (`FORBIDDEN`).
    async fn adjust_points(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The customer, the points and the reason.")] input: AdjustPointsInput,
    ) -> Result<AdjustPointsPayload, ApiError> {
        let actor = ctx.actor()?;
        let adjustment = AdjustPoints {
            customer_external_id: input.customer_external_id,
            points: input.points.0,
            reason: input.reason,
            idempotency_key: input.idempotency_key,
            expires_at: input.expires_at.map(|at| at.0),
            allow_negative: input.allow_negative,
        };
        let recorded = app::record(ctx.app(), &actor, vec!["input".to_owned()], adjustment).await;
        AdjustPointsPayload::new(recorded)
    }
}
