//! The mutations that record purchases.

use async_graphql::{Context, InputObject, Object};

use crate::app::error::Error;
use crate::app::purchase as app;
use crate::graphql::error::ApiError;
use crate::graphql::recorded::RecordPurchasePayload;
use crate::graphql::scalar::{Count, CurrencyCode, DateTime, Decimal};
use crate::graphql::session::ContextExt;

/// The maximum number of purchases in one `recordPurchases`.
const MAX_INPUTS: usize = 500;

/// A purchase to record, or an edit of a recorded one. The same `externalId` and `revision` with the same content, lines in any
/// order, changes nothing; with different content, the error is `IDEMPOTENCY_CONFLICT`. The content with the highest `revision`
/// counts as if the purchase had been so from the start, whatever came first. It can change everything but the `externalId`: a
/// `total` of 0 cancels the purchase, and another customer takes it over.
#[derive(InputObject)]
pub struct RecordPurchaseInput {
    /// The shop's id of the purchase, 1 to 200 bytes, unique among purchases.
    external_id: String,
    /// The shop's id of the customer, 1 to 200 bytes. A customer that does not exist is created.
    customer_external_id: String,
    /// When the purchase was made. This alone decides in which windows the purchase counts. Not before 1970, and at
    /// most 5 minutes ahead of the server's clock (`PURCHASED_IN_FUTURE`).
    purchased_at: DateTime,
    /// The total that was paid, in major units of `currency`: at least 0, at most 10¹³ minor units, with no more
    /// decimals than the currency has. A purchase with a total of 0 is recorded but never counts.
    total: Decimal,
    /// The currency of `total`, of `refunded` and of the amounts of all lines.
    currency: CurrencyCode,
    /// A running sum of all that was taken back of the purchase: at least 0, at most 10¹³ minor units. Null states none. The sum
    /// of the highest revision that states one counts. Refunds with a `refundedAt` after `refundedUntil` are added to it. If all
    /// refunds together exceed the result, they count instead.
    refunded: Option<Decimal>,
    /// Up to when `refunded` was counted, such as the instant of an export. Null: no refund is added to `refunded`. At most 5
    /// minutes ahead of the server's clock, and not without `refunded` (`INVALID`).
    refunded_until: Option<DateTime>,
    /// The shop's name for the sales channel, 1 to 200 bytes. Campaigns can filter by it.
    channel: Option<String>,
    /// The lines of the purchase, at most 500. Their amounts need not sum to `total`.
    lines: Option<Vec<PurchaseLineInput>>,
    /// The shop's number of this content. A revision carries the total and the amounts before refunds; what was taken back goes
    /// into `refunded` or into refunds. From 0 to 2⁵³ − 1. A purchase has at most 1 000 different contents (`OUT_OF_RANGE`).
    #[graphql(default_with = "Count(0)")]
    revision: Count,
}

/// A line of a purchase to record: one article.
#[derive(InputObject)]
pub struct PurchaseLineInput {
    /// The shop's article number, 1 to 200 bytes. Campaigns can filter by it, and refunds name it.
    sku: String,
    /// The shop's category of the article, 1 to 200 bytes. Campaigns can filter by it.
    category: Option<String>,
    /// The number of pieces, at least 1. The goal `units` counts it.
    #[graphql(default = 1)]
    quantity: i32,
    /// The amount of the whole line, for all pieces together and after discounts, in major units of the purchase's currency: at
    /// least 0, at most 10¹³ minor units. Send shipping and gift cards as lines of their own, so that campaigns can exclude them.
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
            refunded: input.refunded.map(String::from),
            refunded_until: input.refunded_until.map(String::from),
            revision: input.revision.0,
            channel: input.channel,
            lines: input.lines.map(|lines| lines.into_iter().map(line).collect()),
        }
    }
}

/// The part of [`crate::graphql::Mutation`] that records purchases.
#[derive(Default)]
pub struct PurchaseMutation;

#[Object]
impl PurchaseMutation {
    /// Records a purchase and, in the same commit, gives the awards that it reaches. Requires a storefront or admin
    /// token (`FORBIDDEN`).
    async fn record_purchase(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The purchase to record.")] input: RecordPurchaseInput,
    ) -> Result<RecordPurchasePayload, ApiError> {
        let shop = ctx.viewer().require_shop()?;
        let purchase = input.external_id.clone();
        let mut recorded = app::record(ctx.app(), &shop, vec![(vec!["input".to_owned()], input.into())]).await?;
        let recorded = recorded.pop().unwrap_or(Err(Error::Unavailable));
        RecordPurchasePayload::new(recorded, purchase)
    }

    /// Records several purchases and returns one payload for each, in the order of the inputs. The server admits all
    /// purchases or none (`OVERLOADED`). Each admitted purchase is recorded or refused by itself, with its own
    /// `userErrors`. If a purchase fails for another reason, such as `UNAVAILABLE`, the field fails as a whole although
    /// other purchases may be recorded: send all of them again. Requires a storefront or admin token (`FORBIDDEN`).
    async fn record_purchases(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The purchases, at most 500; else `BAD_USER_INPUT`.")] inputs: Vec<RecordPurchaseInput>,
    ) -> Result<Vec<RecordPurchasePayload>, ApiError> {
        let shop = ctx.viewer().require_shop()?;
        if inputs.len() > MAX_INPUTS {
            return Err(Error::BadUserInput(format!("`inputs` must have at most {MAX_INPUTS} entries")).into());
        }
        let purchases: Vec<String> = inputs.iter().map(|input| input.external_id.clone()).collect();
        let placed =
            |(index, input): (usize, RecordPurchaseInput)| (vec!["inputs".to_owned(), index.to_string()], input.into());
        let recorded = app::record(ctx.app(), &shop, inputs.into_iter().enumerate().map(placed).collect()).await?;
        let answers = recorded.into_iter().zip(purchases);
        answers.map(|(recorded, purchase)| RecordPurchasePayload::new(recorded, purchase)).collect()
    }
}
