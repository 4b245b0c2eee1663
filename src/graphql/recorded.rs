//! The payloads of mutations that record a purchase, a refund or an adjustment.

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

/// What the payloads of purchases and refunds share. Their descriptions say what each field returns.
struct RecordedFact {
    recorded: Option<Recorded>,
    purchase: String,
    user_errors: Vec<UserError>,
}

impl RecordedFact {
    /// `purchase` is the external id of the recorded or refunded purchase.
    fn new(recorded: Result<Recorded, Error>, purchase: String) -> Result<Self, ApiError> {
        let (recorded, user_errors) = payload(recorded)?;
        Ok(Self { recorded, purchase, user_errors })
    }

    async fn purchase(&self, ctx: &Context<'_>) -> Result<Option<Purchase>, ApiError> {
        if self.recorded.is_none() {
            return Ok(None);
        }
        Ok(ctx.loaders().load_one(PurchaseOf(self.purchase.clone())).await?.map(Purchase))
    }

    async fn awards(&self, ctx: &Context<'_>) -> Result<Vec<Award>, ApiError> {
        let Some(recorded) = &self.recorded else { return Ok(Vec::new()) };
        if recorded.replayed {
            let mut reached = self.reached(ctx).await?;
            reached.truncate(MAX_CHANGED_AWARDS);
            return Ok(reached);
        }
        Ok(recorded.awards.iter().cloned().map(Award).collect())
    }

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

    fn customer(&self) -> Option<Customer> {
        Some(Arc::clone(&self.recorded.as_ref()?.customer).into())
    }

    async fn balance(&self, ctx: &Context<'_>) -> Option<Result<Balance, ApiError>> {
        Some(Balance::of(ctx, &self.recorded.as_ref()?.customer, None).await)
    }

    fn replayed(&self) -> bool {
        self.recorded.as_ref().is_some_and(|recorded| recorded.replayed)
    }

    fn superseded(&self) -> bool {
        self.recorded.as_ref().is_some_and(|recorded| recorded.superseded)
    }

    fn user_errors(&self) -> Vec<UserError> {
        self.user_errors.clone()
    }
}

/// The result of recording one purchase.
#[derive(Description)]
pub struct RecordPurchasePayload(RecordedFact);

#[Object(use_type_description)]
impl RecordPurchasePayload {
    /// The recorded purchase. Null if it was refused.
    async fn purchase(&self, ctx: &Context<'_>) -> Option<Result<Purchase, ApiError>> {
        self.0.purchase(ctx).await.transpose()
    }

    /// The customer's awards that the commit created, changed in any way or reversed: at most 100, the latest
    /// `earnedAt` first. If the purchase went from one customer to another, those of both. The commit can contain further
    /// purchases and refunds of the customer, and their awards are included. If `replayed` is true, the `STANDING` and
    /// `DECLINED` awards that the purchase reaches now, at most 100, the most recently created first. Empty if the purchase
    /// was refused.
    async fn awards(&self, ctx: &Context<'_>) -> Result<Vec<Award>, ApiError> {
        self.0.awards(ctx).await
    }

    /// The number of all awards of which `awards` returns at most 100.
    async fn awards_changed(&self, ctx: &Context<'_>) -> Result<Count, ApiError> {
        self.0.awards_changed(ctx).await
    }

    /// The purchase's customer after the commit, of the same version as `balance`. Null if the purchase was refused.
    async fn customer(&self) -> Option<Customer> {
        self.0.customer()
    }

    /// The points of the purchase's customer after the commit. Null if the purchase was refused.
    async fn balance(&self, ctx: &Context<'_>) -> Option<Result<Balance, ApiError>> {
        self.0.balance(ctx).await
    }

    /// Whether the same purchase had already been recorded, so that this request changed nothing. The payload then
    /// returns the current state.
    async fn replayed(&self) -> bool {
        self.0.replayed()
    }

    /// Whether a higher revision of the purchase is recorded. The content is kept. It changes nothing, unless it states a `refunded`
    /// and no higher revision does.
    async fn superseded(&self) -> bool {
        self.0.superseded()
    }

    /// The reasons why the purchase was refused. Empty if it was accepted.
    async fn user_errors(&self) -> Vec<UserError> {
        self.0.user_errors()
    }
}

impl RecordPurchasePayload {
    /// `purchase` is the external id of the recorded purchase.
    pub fn new(recorded: Result<Recorded, Error>, purchase: String) -> Result<Self, ApiError> {
        RecordedFact::new(recorded, purchase).map(Self)
    }
}

/// The result of recording one refund.
#[derive(Description)]
pub struct RecordRefundPayload(RecordedFact);

#[Object(use_type_description)]
impl RecordRefundPayload {
    /// The refunded purchase, with all its refunds. Null if the refund was refused.
    async fn purchase(&self, ctx: &Context<'_>) -> Option<Result<Purchase, ApiError>> {
        self.0.purchase(ctx).await.transpose()
    }

    /// The customer's awards that the commit created, changed in any way or reversed: at most 100, the latest
    /// `earnedAt` first. The commit can contain further purchases and refunds of the customer, and their awards are
    /// included. If `replayed` is true, the `STANDING` and `DECLINED` awards that the refunded purchase reaches now, at
    /// most 100, the most recently created first. Empty if the refund was refused.
    async fn awards(&self, ctx: &Context<'_>) -> Result<Vec<Award>, ApiError> {
        self.0.awards(ctx).await
    }

    /// The number of all awards of which `awards` returns at most 100.
    async fn awards_changed(&self, ctx: &Context<'_>) -> Result<Count, ApiError> {
        self.0.awards_changed(ctx).await
    }

    /// The customer after the commit, of the same version as `balance`. Null if the refund was refused.
    async fn customer(&self) -> Option<Customer> {
        self.0.customer()
    }

    /// The customer's points after the commit. Null if the refund was refused.
    async fn balance(&self, ctx: &Context<'_>) -> Option<Result<Balance, ApiError>> {
        self.0.balance(ctx).await
    }

    /// Whether the same refund had already been recorded, so that this request changed nothing. The payload then
    /// returns the current state.
    async fn replayed(&self) -> bool {
        self.0.replayed()
    }

    /// The reasons why the refund was refused. Empty if it was accepted.
    async fn user_errors(&self) -> Vec<UserError> {
        self.0.user_errors()
    }
}

impl RecordRefundPayload {
    /// `purchase` is the external id of the refunded purchase.
    pub fn new(recorded: Result<Recorded, Error>, purchase: String) -> Result<Self, ApiError> {
        RecordedFact::new(recorded, purchase).map(Self)
    }
}

/// The result of adjusting points.
#[derive(Description)]
pub struct AdjustPointsPayload {
    recorded: Option<Recorded>,
    user_errors: Vec<UserError>,
}

#[Object(use_type_description)]
impl AdjustPointsPayload {
    /// The ledger entry of the adjustment. Null if the adjustment was refused.
    async fn entry(&self) -> Option<LedgerEntry> {
        Some(LedgerEntry::of(self.whose()?, self.recorded.as_ref()?.entry.clone()?))
    }

    /// The customer after the commit, of the same version as `balance`. Null if the adjustment was refused.
    async fn customer(&self) -> Option<Customer> {
        self.whose()
    }

    /// The customer's points after the commit. Null if the adjustment was refused.
    async fn balance(&self, ctx: &Context<'_>) -> Option<Result<Balance, ApiError>> {
        Some(Balance::of(ctx, &self.recorded.as_ref()?.customer, None).await)
    }

    /// Whether the same adjustment had already been recorded, so that this request changed nothing. The payload then
    /// returns the current state.
    async fn replayed(&self) -> bool {
        self.recorded.as_ref().is_some_and(|recorded| recorded.replayed)
    }

    /// The reasons why the adjustment was refused. Empty if it was accepted.
    async fn user_errors(&self) -> Vec<UserError> {
        self.user_errors.clone()
    }
}

impl AdjustPointsPayload {
    /// Converts the result of the adjustment.
    pub fn new(recorded: Result<Recorded, Error>) -> Result<Self, ApiError> {
        let (recorded, user_errors) = payload(recorded)?;
        Ok(Self { recorded, user_errors })
    }

    fn whose(&self) -> Option<Customer> {
        Some(Arc::clone(&self.recorded.as_ref()?.customer).into())
    }
}
