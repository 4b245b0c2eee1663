//! Points by hand.

use std::sync::Arc;

use async_graphql::{Context, Description, InputObject, Object};

use super::ContextExt;
use super::customer::{Balance, Customer};
use super::error::{ApiError, UserError, payload};
use super::ledger::LedgerEntry;
use super::scalar::Points;
use crate::app::adjustment as app;
use crate::app::recorder::fact::AdjustPoints;
use crate::app::recorder::fact::Recorded;

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

/// What `adjustPoints` answers.
#[derive(Description)]
pub struct AdjustPointsPayload {
    recorded: Option<Recorded>,
    user_errors: Vec<UserError>,
}

#[Object(use_type_description)]
impl AdjustPointsPayload {
    /// What was posted; null: it was refused.
    async fn entry(&self) -> Option<LedgerEntry> {
        let entry = self.recorded.as_ref()?.entry.clone()?;
        Some(LedgerEntry::of(self.whose()?, Arc::new(entry)))
    }

    /// Whose points, of the same version as the balance; null: it was refused.
    async fn customer(&self) -> Option<Customer> {
        self.whose()
    }

    /// The customer's points as they are now.
    async fn balance(&self, ctx: &Context<'_>) -> Option<Balance> {
        self.recorded.as_ref().map(|recorded| Balance::of(ctx, &recorded.customer))
    }

    /// Whether it had been recorded before, so that nothing changed.
    async fn replayed(&self) -> bool {
        self.recorded.as_ref().is_some_and(|recorded| recorded.replayed)
    }

    /// Why it was refused; empty: it was not.
    async fn user_errors(&self) -> Vec<UserError> {
        self.user_errors.clone()
    }
}

impl AdjustPointsPayload {
    fn whose(&self) -> Option<Customer> {
        Some(Arc::new(self.recorded.as_ref()?.customer.clone()).into())
    }
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
        let (recorded, user_errors) = payload(recorded)?;
        Ok(AdjustPointsPayload { recorded, user_errors })
    }
}
