//! Refunds.

use async_graphql::{Context, Description, InputObject, Object, SimpleObject};

use super::ContextExt;
use super::award::Award;
use super::customer::{Balance, Customer};
use super::error::{ApiError, UserError};
use super::money::Money;
use super::purchase::{Answer, Purchase};
use super::scalar::{Count, DateTime, Decimal};
use crate::app::model;
use crate::app::refund as app;
use crate::engine::money::Currency;
use crate::engine::time::Instant;

/// What was taken back of a purchase.
#[derive(Clone, Debug, SimpleObject)]
pub struct Refund {
    /// The shop's id of this refund.
    external_id: String,
    /// How much: as given, or the sum of its lines, or the whole purchase.
    amount: Money,
    /// When it was made.
    refunded_at: DateTime,
}

impl Refund {
    /// Of a purchase in this currency.
    pub fn new(row: &model::Refund, currency: Currency) -> Self {
        Self {
            external_id: row.external_id.clone(),
            amount: Money::new(row.amount, currency),
            refunded_at: Instant(row.refunded_at).into(),
        }
    }
}

/// A refund to record. Sent again with the same content it changes nothing.
#[derive(InputObject)]
pub struct RecordRefundInput {
    /// The shop's id of this refund, 1 to 200 bytes.
    external_id: String,
    /// The shop's id of the purchase, which must have been recorded.
    purchase_external_id: String,
    /// When it was made.
    refunded_at: DateTime,
    /// How much, in major units. Null beside lines: their sum. Null without lines: the whole purchase.
    amount: Option<Decimal>,
    /// Which articles, where that is known. Several of one sku are added.
    lines: Option<Vec<RefundLineInput>>,
}

/// The part of a refund that names an article.
#[derive(InputObject)]
pub struct RefundLineInput {
    /// An article of the purchase.
    sku: String,
    /// How much, in major units; above zero.
    amount: Decimal,
}

impl From<RecordRefundInput> for app::RecordRefund {
    fn from(input: RecordRefundInput) -> Self {
        let line = |line: RefundLineInput| app::RecordRefundLine { sku: line.sku, amount: line.amount.into() };
        Self {
            external_id: input.external_id,
            purchase_external_id: input.purchase_external_id,
            refunded_at: input.refunded_at.into(),
            amount: input.amount.map(String::from),
            lines: input.lines.map(|lines| lines.into_iter().map(line).collect()),
        }
    }
}

/// What `recordRefund` answers.
#[derive(Description)]
pub struct RecordRefundPayload(Answer);

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

/// See [`super::Mutation`].
#[derive(Default)]
pub struct RefundMutation;

#[Object]
impl RefundMutation {
    /// Takes back all or part of a purchase, as if it had been smaller from the start, and takes back the awards that it no
    /// longer reaches. For storefronts and admins.
    async fn record_refund(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The refund.")] input: RecordRefundInput,
    ) -> Result<RecordRefundPayload, ApiError> {
        let shop = ctx.viewer().require_shop()?;
        let purchase = input.purchase_external_id.clone();
        let recorded = app::record(ctx.app(), &shop, vec!["input".to_owned()], input.into()).await;
        Ok(RecordRefundPayload(Answer::new(recorded, purchase)?))
    }
}
