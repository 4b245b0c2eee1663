//! Recording purchases.

use async_graphql::{Context, InputObject, Object};

use crate::app::error::Error;
use crate::app::purchase as app;
use crate::graphql::error::ApiError;
use crate::graphql::recorded::RecordPurchasePayload;
use crate::graphql::scalar::{CurrencyCode, DateTime, Decimal};
use crate::graphql::session::ContextExt;

/// The most purchases of one `recordPurchases`.
const MAX_INPUTS: usize = 500;

/// A purchase to record. Sent again with the same content it changes nothing.
#[derive(InputObject)]
pub struct RecordPurchaseInput {
    /// The shop's id of this purchase, 1 to 200 bytes.
    external_id: String,
    /// The shop's id of the customer, 1 to 200 bytes.
    customer_external_id: String,
    /// When it was made: at most 5 minutes ahead of the server. What decides which windows it counts in.
    purchased_at: DateTime,
    /// What was paid, in major units; not negative.
    total: Decimal,
    /// Of the total and all amounts.
    currency: CurrencyCode,
    /// Where it was made, as the shop calls it. Campaigns can filter by it.
    channel: Option<String>,
    /// At most 500. They need not sum to the total.
    lines: Option<Vec<PurchaseLineInput>>,
}

/// One article of a purchase to record.
#[derive(InputObject)]
pub struct PurchaseLineInput {
    /// The shop's article number. Campaigns can filter by it, and refunds name it.
    sku: String,
    /// The shop's category. Campaigns can filter by it.
    category: Option<String>,
    /// How many.
    #[graphql(default = 1)]
    quantity: i32,
    /// For all of them together, in major units; not negative.
    amount: Decimal,
}

impl From<RecordPurchaseInput> for app::RecordPurchase {
    fn from(input: RecordPurchaseInput) -> Self {
        let line = |line: PurchaseLineInput| app::PurchaseLine {
            sku: line.sku,
            category: line.category,
            quantity: line.quantity,
            amount: line.amount.into(),
        };
        Self {
            external_id: input.external_id,
            customer_external_id: input.customer_external_id,
            purchased_at: input.purchased_at.into(),
            total: input.total.into(),
            currency: input.currency.into(),
            channel: input.channel,
            lines: input.lines.map(|lines| lines.into_iter().map(line).collect()),
        }
    }
}

/// See [`crate::graphql::Mutation`].
#[derive(Default)]
pub struct PurchaseMutation;

#[Object]
impl PurchaseMutation {
    /// Records a purchase, and awards what it reaches in the same commit. For storefronts and admins.
    async fn record_purchase(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The purchase.")] input: RecordPurchaseInput,
    ) -> Result<RecordPurchasePayload, ApiError> {
        let shop = ctx.viewer().require_shop()?;
        let purchase = input.external_id.clone();
        let mut recorded = app::record(ctx.app(), &shop, vec![(vec!["input".to_owned()], input.into())]).await?;
        let recorded = recorded.pop().unwrap_or(Err(Error::Unavailable));
        RecordPurchasePayload::new(recorded, purchase)
    }

    /// Records purchases: admitted all or none (OVERLOADED), then each answered on its own, in input order. For storefronts
    /// and admins.
    async fn record_purchases(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The purchases, at most 500.")] inputs: Vec<RecordPurchaseInput>,
    ) -> Result<Vec<RecordPurchasePayload>, ApiError> {
        let shop = ctx.viewer().require_shop()?;
        if inputs.len() > MAX_INPUTS {
            return Err(Error::BadUserInput(format!("`inputs` must be at most {MAX_INPUTS}")).into());
        }
        let purchases: Vec<String> = inputs.iter().map(|input| input.external_id.clone()).collect();
        let placed =
            |(index, input): (usize, RecordPurchaseInput)| (vec!["inputs".to_owned(), index.to_string()], input.into());
        let recorded = app::record(ctx.app(), &shop, inputs.into_iter().enumerate().map(placed).collect()).await?;
        let answers = recorded.into_iter().zip(purchases);
        answers.map(|(recorded, purchase)| RecordPurchasePayload::new(recorded, purchase)).collect()
    }
}
