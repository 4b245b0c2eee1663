//! Points by hand.

use async_graphql::{Context, InputObject, Object};

use super::error::ApiError;
use super::recorded::AdjustPointsPayload;
use super::scalar::Points;
use super::session::ContextExt;
use crate::app::adjustment as app;
use crate::app::recorder::fact::AdjustPoints;

/// Points to give or take by hand.
#[derive(InputObject)]
pub struct AdjustPointsInput {
    /// The shop's id of the customer, 1 to 200 bytes. One that was never heard of is made.
    customer_external_id: String,
    /// How many; negative: taken. Not zero.
    points: Points,
    /// Why, for people; 1 to 200 bytes.
    reason: String,
    /// Chosen by the caller, 1 to 200 bytes: sent again with the same content it changes nothing.
    idempotency_key: String,
}

/// See [`super::Mutation`].
#[derive(Default)]
pub struct AdjustmentMutation;

#[Object]
impl AdjustmentMutation {
    /// Gives or takes points by hand: a welcome, an apology, a correction. For admins.
    async fn adjust_points(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whose points, how many, why.")] input: AdjustPointsInput,
    ) -> Result<AdjustPointsPayload, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        let adjustment = AdjustPoints {
            customer_external_id: input.customer_external_id,
            points: input.points.0,
            reason: input.reason,
            idempotency_key: input.idempotency_key,
        };
        let recorded = app::record(ctx.app(), &admin, vec!["input".to_owned()], adjustment).await;
        AdjustPointsPayload::new(recorded)
    }
}
