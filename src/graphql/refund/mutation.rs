//! The mutation that records refunds.

use async_graphql::{Context, InputObject, Object};

use crate::app::refund as app;
use crate::graphql::error::ApiError;
use crate::graphql::recorded::RecordRefundPayload;
use crate::graphql::scalar::{DateTime, Decimal};
use crate::graphql::session::ContextExt;

/// A refund to record. The same `externalId` with the same content changes nothing; with different content, the error
/// is `IDEMPOTENCY_CONFLICT`.
#[derive(InputObject)]
pub struct RecordRefundInput {
    /// The shop's id of the refund, 1 to 200 bytes, unique among refunds.
    external_id: String,
    /// The shop's id of the refunded purchase. If the purchase is not recorded yet, the error is `PURCHASE_NOT_FOUND`.
    /// A purchase has at most 100 refunds (`OUT_OF_RANGE`).
    purchase_external_id: String,
    /// When the refund was made, at most 5 minutes ahead of the server's clock (`REFUNDED_IN_FUTURE`). It decides only whether a
    /// running sum (`refunded` of `recordPurchase`) includes the refund.
    refunded_at: DateTime,
    /// The refunded amount in major units of the purchase's currency: above 0, at most the `total` of the purchase
    /// (`REFUND_TOO_LARGE`). Null with lines stands for their sum, and any other amount must equal it (`INVALID`). Null
    /// without lines stands for the whole `total`, also after an edit. A purchase that was edited allows what one of its contents
    /// allows.
    amount: Option<Decimal>,
    /// The refunded articles, if they are known; at most 500 lines. Lines with the same sku are added up. Without
    /// lines, the refund reduces all lines of the purchase in proportion.
    lines: Option<Vec<RefundLineInput>>,
}

/// A line of a refund: the refunded amount of one article.
#[derive(InputObject)]
pub struct RefundLineInput {
    /// The sku of at least one line of the purchase (`SKU_NOT_IN_PURCHASE`).
    sku: String,
    /// The refunded amount in major units: above 0, at most what the purchase's lines of this sku amount to
    /// (`REFUND_TOO_LARGE`).
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

/// The part of [`crate::graphql::Mutation`] that records refunds.
#[derive(Default)]
pub struct RefundMutation;

#[Object]
impl RefundMutation {
    /// Records a refund of all or part of a purchase. It acts as if the purchase had been smaller from the start: in
    /// the same commit, awards that are no longer reached are reversed, and others may move or shrink. Requires a
    /// storefront or admin token (`FORBIDDEN`).
    async fn record_refund(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The refund to record.")] input: RecordRefundInput,
    ) -> Result<RecordRefundPayload, ApiError> {
        let shop = ctx.viewer().require_shop()?;
        let purchase = input.purchase_external_id.clone();
        let recorded = app::record(ctx.app(), &shop, vec!["input".to_owned()], input.into()).await;
        RecordRefundPayload::new(recorded, purchase)
    }
}
