//! What mutations that record a fact return.

use std::sync::Arc;

use async_graphql::{Context, Description, Object};

use super::award::Award;
use super::customer::{Balance, Customer};
use super::error::{ApiError, UserError, payload};
use super::ledger::LedgerEntry;
use super::loaders::PurchaseOf;
use super::purchase::{Purchase, reached_by};
use super::scalar::Count;
use super::session::ContextExt;
use crate::app::error::Error;
use crate::app::recorder::MAX_CHANGED_AWARDS;
use crate::app::recorder::fact::Recorded;

/// What recording a fact about a purchase answers.
struct RecordedFact {
    recorded: Option<Recorded>,
    purchase: String,
    user_errors: Vec<UserError>,
}

impl RecordedFact {
    /// `purchase`: which purchase the fact is about.
    fn new(recorded: Result<Recorded, Error>, purchase: String) -> Result<Self, ApiError> {
        let (recorded, user_errors) = payload(recorded)?;
        Ok(Self { recorded, purchase, user_errors })
    }

    /// Null where it was refused.
    async fn purchase(&self, ctx: &Context<'_>) -> Result<Option<Purchase>, ApiError> {
        if self.recorded.is_none() {
            return Ok(None);
        }
        Ok(ctx.loaders().load_one(PurchaseOf(self.purchase.clone())).await?.map(Purchase))
    }

    /// The newest that the commit changed; on a replay those that the purchase reached.
    async fn awards(&self, ctx: &Context<'_>) -> Result<Vec<Award>, ApiError> {
        let Some(recorded) = &self.recorded else { return Ok(Vec::new()) };
        if recorded.replayed {
            let mut reached = self.reached(ctx).await?;
            reached.truncate(MAX_CHANGED_AWARDS);
            return Ok(reached);
        }
        Ok(recorded.awards.iter().map(|row| Award(Arc::new(row.clone()))).collect())
    }

    /// How many there are.
    async fn awards_changed(&self, ctx: &Context<'_>) -> Result<Count, ApiError> {
        match &self.recorded {
            Some(recorded) if recorded.replayed => {
                Ok(Count(i64::try_from(self.reached(ctx).await?.len()).unwrap_or(i64::MAX)))
            }
            recorded => Ok(Count(recorded.as_ref().map_or(0, |recorded| recorded.awards_changed))),
        }
    }

    async fn reached(&self, ctx: &Context<'_>) -> Result<Vec<Award>, ApiError> {
        match self.purchase(ctx).await? {
            Some(Purchase(purchase)) => reached_by(ctx, &purchase).await,
            None => Ok(Vec::new()),
        }
    }

    /// Of the same version as the balance. Null where it was refused.
    fn customer(&self) -> Option<Customer> {
        Some(Arc::new(self.recorded.as_ref()?.customer.clone()).into())
    }

    /// Null where it was refused.
    fn balance(&self, ctx: &Context<'_>) -> Option<Balance> {
        self.recorded.as_ref().map(|recorded| Balance::of(ctx, &recorded.customer))
    }

    /// Whether it had been recorded before.
    fn replayed(&self) -> bool {
        self.recorded.as_ref().is_some_and(|recorded| recorded.replayed)
    }

    /// Why it was refused.
    fn user_errors(&self) -> Vec<UserError> {
        self.user_errors.clone()
    }
}

/// What `recordPurchase` answers.
#[derive(Description)]
pub struct RecordPurchasePayload(RecordedFact);

#[Object(use_type_description)]
impl RecordPurchasePayload {
    /// The purchase; null: it was refused.
    async fn purchase(&self, ctx: &Context<'_>) -> Option<Result<Purchase, ApiError>> {
        self.0.purchase(ctx).await.transpose()
    }

    /// The newest 100 awards of this customer that the commit which recorded it created, changed in any way or reversed; on a
    /// replay those that it reached. Newest first.
    async fn awards(&self, ctx: &Context<'_>) -> Result<Vec<Award>, ApiError> {
        self.0.awards(ctx).await
    }

    /// How many there are; on a replay, how many it reached.
    async fn awards_changed(&self, ctx: &Context<'_>) -> Result<Count, ApiError> {
        self.0.awards_changed(ctx).await
    }

    /// Whose purchase, of the same version as the balance; null: it was refused.
    async fn customer(&self) -> Option<Customer> {
        self.0.customer()
    }

    /// The customer's points as they are now.
    async fn balance(&self, ctx: &Context<'_>) -> Option<Balance> {
        self.0.balance(ctx)
    }

    /// Whether it had been recorded before, so that nothing changed.
    async fn replayed(&self) -> bool {
        self.0.replayed()
    }

    /// Why it was refused; empty: it was not.
    async fn user_errors(&self) -> Vec<UserError> {
        self.0.user_errors()
    }
}

impl RecordPurchasePayload {
    /// `purchase`: which purchase the fact is about.
    pub fn new(recorded: Result<Recorded, Error>, purchase: String) -> Result<Self, ApiError> {
        RecordedFact::new(recorded, purchase).map(Self)
    }
}

/// What `recordRefund` answers.
#[derive(Description)]
pub struct RecordRefundPayload(RecordedFact);

#[Object(use_type_description)]
impl RecordRefundPayload {
    /// The purchase as it is now; null: the refund was refused.
    async fn purchase(&self, ctx: &Context<'_>) -> Option<Result<Purchase, ApiError>> {
        self.0.purchase(ctx).await.transpose()
    }

    /// The newest 100 awards of this customer that the commit which recorded it created, changed in any way or reversed; on a
    /// replay those that the purchase reached. Newest first.
    async fn awards(&self, ctx: &Context<'_>) -> Result<Vec<Award>, ApiError> {
        self.0.awards(ctx).await
    }

    /// How many there are; on a replay, how many the purchase reached.
    async fn awards_changed(&self, ctx: &Context<'_>) -> Result<Count, ApiError> {
        self.0.awards_changed(ctx).await
    }

    /// Whose purchase, of the same version as the balance; null: the refund was refused.
    async fn customer(&self) -> Option<Customer> {
        self.0.customer()
    }

    /// The customer's points as they are now.
    async fn balance(&self, ctx: &Context<'_>) -> Option<Balance> {
        self.0.balance(ctx)
    }

    /// Whether it had been recorded before, so that nothing changed.
    async fn replayed(&self) -> bool {
        self.0.replayed()
    }

    /// Why it was refused; empty: it was not.
    async fn user_errors(&self) -> Vec<UserError> {
        self.0.user_errors()
    }
}

impl RecordRefundPayload {
    /// `purchase`: which purchase the fact is about.
    pub fn new(recorded: Result<Recorded, Error>, purchase: String) -> Result<Self, ApiError> {
        RecordedFact::new(recorded, purchase).map(Self)
    }
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
    /// What became of an adjustment.
    pub fn new(recorded: Result<Recorded, Error>) -> Result<Self, ApiError> {
        let (recorded, user_errors) = payload(recorded)?;
        Ok(Self { recorded, user_errors })
    }

    fn whose(&self) -> Option<Customer> {
        Some(Arc::new(self.recorded.as_ref()?.customer.clone()).into())
    }
}
