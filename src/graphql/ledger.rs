//! The ledger: every movement of points.

use std::sync::Arc;

use async_graphql::{Context, Description, Enum, ID, Object};

use super::award::Award;
use super::customer::Customer;
use super::error::ApiError;
use super::id::GlobalId;
use super::loaders::{AwardOf, CustomerOf, PurchaseOf};
use super::purchase::Purchase;
use super::scalar::{Count, DateTime, Points};
use super::session::ContextExt;
use crate::app::error::Error;
use crate::app::model;
use crate::engine::time::Instant;

/// One movement of a customer's points. It never changes; the balance is their sum.
#[derive(Clone, Description)]
pub struct LedgerEntry {
    row: Arc<model::LedgerEntry>,
    /// As the rest of the answer shows it; none: the entry is shown alone.
    customer: Option<Customer>,
}

/// Shown alone.
impl From<Arc<model::LedgerEntry>> for LedgerEntry {
    fn from(row: Arc<model::LedgerEntry>) -> Self {
        Self { row, customer: None }
    }
}

impl LedgerEntry {
    /// Shown with its customer: both are of one version then, wherever in the answer they are asked for.
    pub fn of(customer: Customer, row: Arc<model::LedgerEntry>) -> Self {
        Self { row, customer: Some(customer) }
    }
}

#[Object(use_type_description)]
impl LedgerEntry {
    /// Opaque; of everything, not only of ledger entries.
    pub(super) async fn id(&self) -> ID {
        GlobalId::LedgerEntry(self.row.customer_id, self.row.sequence).into()
    }

    /// Whose points moved.
    async fn customer(&self, ctx: &Context<'_>) -> Result<Customer, ApiError> {
        if let Some(customer) = &self.customer {
            return Ok(customer.clone());
        }
        let customer = ctx.loaders().load_one(CustomerOf(self.row.customer_id)).await?;
        Ok(customer.ok_or_else(|| Error::Internal("a ledger entry's customer is not there".to_owned()))?.into())
    }

    /// 1, 2, 3 … for each customer, without gaps.
    async fn sequence(&self) -> Count {
        Count(self.row.sequence)
    }

    /// Why points moved.
    async fn kind(&self) -> LedgerEntryKind {
        match self.row.kind {
            model::LedgerEntryKind::Award => LedgerEntryKind::Award,
            model::LedgerEntryKind::Reversal => LedgerEntryKind::Reversal,
            model::LedgerEntryKind::Adjustment => LedgerEntryKind::Adjustment,
        }
    }

    /// How many; negative: taken.
    async fn points(&self) -> Points {
        Points(self.row.points)
    }

    /// The sum of all entries up to this one.
    async fn balance_after(&self) -> Points {
        Points(self.row.balance_after)
    }

    /// From when on the points can be spent; null: at once.
    async fn available_at(&self) -> Option<DateTime> {
        None
    }

    /// From when on they can no longer be spent; null: never.
    async fn expires_at(&self) -> Option<DateTime> {
        None
    }

    /// AWARD, REVERSAL: the award, as it is now; else null.
    async fn award(&self, ctx: &Context<'_>) -> Option<Result<Award, ApiError>> {
        let number = self.row.award_number?;
        let award = ctx.loaders().load_one(AwardOf(self.row.customer_id, number)).await;
        award.map(|award| award.map(Award)).map_err(ApiError::from).transpose()
    }

    /// AWARD, REVERSAL: the purchase that reached the award at that time; else null.
    async fn purchase(&self, ctx: &Context<'_>) -> Option<Result<Purchase, ApiError>> {
        let name = self.row.purchase_external_id.clone()?;
        let purchase = ctx.loaders().load_one(PurchaseOf(name)).await;
        purchase.map(|purchase| purchase.map(Purchase)).map_err(ApiError::from).transpose()
    }

    /// What was given as the reason of an adjustment.
    async fn reason(&self) -> Option<&str> {
        self.row.reason.as_deref()
    }

    /// When it was posted, by the server's clock.
    async fn created_at(&self) -> DateTime {
        Instant(self.row.created_at).into()
    }
}

/// Why points moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum LedgerEntryKind {
    /// An award's points.
    Award,
    /// Points of an award that is no longer reached, or has become smaller.
    Reversal,
    /// By hand.
    Adjustment,
    /// Points that were spent.
    Redemption,
    /// Spent points that came back.
    Cancellation,
    /// Points that were not spent in time; positive: given back because their award was reversed.
    Expiry,
}
