//! The ledger: an append-only list of the point movements of each customer.

use std::sync::Arc;

use async_graphql::{Context, Description, Enum, ID, Object};

use super::award::Award;
use super::customer::Customer;
use super::error::ApiError;
use super::loaders::{AwardOf, CustomerOf, FindRedemption, PurchaseOf};
use super::purchase::Purchase;
use super::redemption::Redemption;
use super::scalar::{Count, DateTime, Points};
use super::session::ContextExt;
use crate::app::error::Error;
use crate::app::global_id::GlobalId;
use crate::app::model;
use crate::engine::time::Instant;

/// One movement of a customer's points. Entries are never updated or deleted. The balance of a customer is the sum of
/// its entries.
#[derive(Clone, Description)]
pub struct LedgerEntry {
    row: Arc<model::LedgerEntry>,
    /// The customer as the rest of the response shows it. `None` if the entry was read by itself.
    customer: Option<Customer>,
}

/// An entry that was read by itself: its customer is loaded when it is selected.
impl From<Arc<model::LedgerEntry>> for LedgerEntry {
    fn from(row: Arc<model::LedgerEntry>) -> Self {
        Self { row, customer: None }
    }
}

impl LedgerEntry {
    /// An entry together with its customer, so that every place of the response shows the same version of the customer.
    pub fn of(customer: Customer, row: Arc<model::LedgerEntry>) -> Self {
        Self { row, customer: Some(customer) }
    }
}

#[Object(use_type_description)]
impl LedgerEntry {
    /// An opaque id, unique across all types.
    pub(super) async fn id(&self) -> ID {
        GlobalId::LedgerEntry(self.row.customer_id, self.row.sequence).into()
    }

    /// The customer whose points moved.
    async fn customer(&self, ctx: &Context<'_>) -> Result<Customer, ApiError> {
        if let Some(customer) = &self.customer {
            return Ok(customer.clone());
        }
        let customer = ctx.loaders().load_one(CustomerOf(self.row.customer_id)).await?;
        Ok(customer.ok_or_else(|| Error::Internal("a ledger entry's customer was not found".to_owned()))?.into())
    }

    /// The position of the entry in the customer's ledger: 1, 2, 3 … without gaps.
    async fn sequence(&self) -> Count {
        Count(self.row.sequence)
    }

    /// What kind of event moved the points.
    async fn kind(&self) -> LedgerEntryKind {
        match self.row.kind {
            model::LedgerEntryKind::Award => LedgerEntryKind::Award,
            model::LedgerEntryKind::Reversal => LedgerEntryKind::Reversal,
            model::LedgerEntryKind::Adjustment => LedgerEntryKind::Adjustment,
            model::LedgerEntryKind::Expiry => LedgerEntryKind::Expiry,
            model::LedgerEntryKind::Redemption => LedgerEntryKind::Redemption,
            model::LedgerEntryKind::Cancellation => LedgerEntryKind::Cancellation,
        }
    }

    /// The number of points, never 0. Negative if points were taken.
    async fn points(&self) -> Points {
        Points(self.row.points)
    }

    /// The sum of the `points` of all entries up to and including this one.
    async fn balance_after(&self) -> Points {
        Points(self.row.balance_after)
    }

    /// Of an `AWARD`, the instant from which its points can be spent, as it was when the entry was posted. Null if they can be spent
    /// immediately, and for other kinds.
    async fn available_at(&self) -> Option<DateTime> {
        self.row.available_at.map(|at| Instant(at).into())
    }

    /// The instant from which the points can no longer be spent: of an `AWARD` as it was when the entry was posted, of an `ADJUSTMENT`
    /// as it was given. Of an `EXPIRY`, the instant at which the points expired. Null if the points never expire, and for other kinds.
    async fn expires_at(&self) -> Option<DateTime> {
        self.row.expires_at.map(|at| Instant(at).into())
    }

    /// The award of an `AWARD` or `REVERSAL`, as it is now. Null for other kinds.
    async fn award(&self, ctx: &Context<'_>) -> Option<Result<Award, ApiError>> {
        let number = self.row.award_number?;
        let award = ctx.loaders().load_one(AwardOf(self.row.customer_id, number)).await;
        award.map(|award| award.map(Award)).map_err(ApiError::from).transpose()
    }

    /// The redemption of a `REDEMPTION` or `CANCELLATION`, as it is now. Null for other kinds.
    async fn redemption(&self, ctx: &Context<'_>) -> Option<Result<Redemption, ApiError>> {
        let number = self.row.redemption_number?;
        let redemption = ctx.loaders().load_one(FindRedemption(self.row.customer_id, number)).await;
        redemption.map(|row| row.map(Redemption)).map_err(ApiError::from).transpose()
    }

    /// The purchase that reached the award of an `AWARD` or `REVERSAL` when the entry was posted, as it is now. Null for other kinds,
    /// and for a customer token if the purchase belongs to another customer now.
    async fn purchase(&self, ctx: &Context<'_>) -> Option<Result<Purchase, ApiError>> {
        let name = self.row.purchase_external_id.clone()?;
        let purchase = match ctx.loaders().load_one(PurchaseOf(name)).await {
            Ok(purchase) => purchase?,
            Err(error) => return Some(Err(error.into())),
        };
        let is_own = purchase.customer_id == self.row.customer_id;
        (is_own || ctx.viewer().require_shop().is_ok()).then_some(Ok(Purchase(purchase)))
    }

    /// The reason of an `ADJUSTMENT` or a `CANCELLATION`, as it was given. `audit repair` for an entry that `windfall audit --repair`
    /// posted. Null otherwise.
    async fn reason(&self) -> Option<&str> {
        self.row.reason.as_deref()
    }

    /// When the entry was posted, by the server's clock.
    async fn created_at(&self) -> DateTime {
        Instant(self.row.created_at).into()
    }
}

/// The kind of event that moved points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum LedgerEntryKind {
    /// An award became `STANDING`. The points are positive.
    Award,
    /// A `STANDING` award became `REVERSED` or smaller. The points are negative.
    Reversal,
    /// `adjustPoints` gave or took points by hand.
    Adjustment,
    /// Points were spent on a reward.
    Redemption,
    /// A redemption was cancelled, and its points were given back.
    Cancellation,
    /// Points were not spent in time. Positive points were given back because their award was reversed or its dates changed; the entry
    /// that takes them follows.
    Expiry,
}
