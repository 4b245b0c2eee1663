//! Recording refunds.

use async_graphql::{Context, InputObject, Object};

use crate::app::refund as app;
use crate::graphql::error::ApiError;
use crate::graphql::recorded::RecordRefundPayload;
use crate::graphql::scalar::{DateTime, Decimal};
use crate::graphql::session::ContextExt;

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

/// See [`crate::graphql::Mutation`].
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
        RecordRefundPayload::new(recorded, purchase)
    }
}
