//! Purchases: reading and recording them.

use std::sync::Arc;

use async_graphql::{Context, Description, ID, InputObject, Object, OneofObject, SimpleObject};

use super::ContextExt;
use super::award::Award;
use super::customer::{Balance, Customer};
use super::error::{ApiError, UserError, payload};
use super::loaders::{AwardsReachedBy, CustomerOf, FindPurchase, PurchaseOf, RefundsOf};
use super::money::Money;
use super::node::GlobalId;
use super::refund::Refund;
use super::scalar::{Count, CurrencyCode, DateTime, Decimal};
use crate::app::error::Error;
use crate::app::model;
use crate::app::purchase as app;
use crate::app::purchase::Net;
use crate::app::purchase::net;
use crate::app::recorder::MAX_CHANGED_AWARDS;
use crate::app::recorder::fact::Recorded;
use crate::app::stored::purchase::key;
use crate::engine::money::Currency;
use crate::engine::time::Instant;

/// The most purchases of one `recordPurchases`.
const MAX_INPUTS: usize = 500;

/// An order by one customer.
#[derive(Clone, Description)]
pub struct Purchase(pub Arc<model::Purchase>);

#[Object(use_type_description)]
impl Purchase {
    /// Opaque; of everything, not only of purchases.
    pub(super) async fn id(&self) -> ID {
        GlobalId::Purchase(self.0.external_id.clone()).into()
    }

    /// The shop's id of this purchase.
    async fn external_id(&self) -> &str {
        &self.0.external_id
    }

    /// Who bought.
    async fn customer(&self, ctx: &Context<'_>) -> Result<Customer, ApiError> {
        let customer = ctx.loaders().load_one(CustomerOf(self.0.customer_id)).await?;
        Ok(customer.ok_or_else(|| Error::Internal("a purchase's customer is not there".to_owned()))?.into())
    }

    /// When it was made: what decides which windows it counts in.
    async fn purchased_at(&self) -> DateTime {
        Instant(self.0.purchased_at).into()
    }

    /// When it was recorded, by the server's clock.
    async fn recorded_at(&self) -> DateTime {
        Instant(self.0.recorded_at).into()
    }

    /// What was paid.
    async fn total(&self) -> Result<Money, ApiError> {
        Ok(Money::new(self.0.total, self.currency()?))
    }

    /// What is left of the total after all refunds.
    async fn net(&self, ctx: &Context<'_>) -> Result<Money, ApiError> {
        let net = self.settled(ctx).await?;
        Ok(Money::new(net.total, net.currency))
    }

    /// Where it was made, as the shop calls it.
    async fn channel(&self) -> Option<&str> {
        self.0.channel.as_deref()
    }

    /// Its lines, in the order given.
    async fn lines(&self, ctx: &Context<'_>) -> Result<Vec<PurchaseLine>, ApiError> {
        let Net { lines, currency, .. } = self.settled(ctx).await?;
        let line = |(line, left): (crate::engine::purchase::Line, i64)| PurchaseLine {
            sku: line.sku,
            category: line.category,
            quantity: line.quantity,
            amount: Money::new(line.amount, currency),
            net: Money::new(left, currency),
        };
        Ok(lines.into_iter().map(line).collect())
    }

    /// What was taken back of it, newest first.
    async fn refunds(&self, ctx: &Context<'_>) -> Result<Vec<Refund>, ApiError> {
        let currency = self.currency()?;
        Ok(self.refund_rows(ctx).await?.iter().map(|row| Refund::new(row, currency)).collect())
    }

    /// The awards that this purchase reached: STANDING and DECLINED only. Newest first.
    async fn awards(&self, ctx: &Context<'_>) -> Result<Vec<Award>, ApiError> {
        reached_by(ctx, &self.0).await
    }
}

impl Purchase {
    fn currency(&self) -> Result<Currency, Error> {
        let broken = |error| Error::Internal(format!("purchase {}: {error}", self.0.external_id));
        Currency::parse(&self.0.currency).map_err(broken)
    }

    async fn refund_rows(&self, ctx: &Context<'_>) -> Result<Arc<[model::Refund]>, Error> {
        let refunds = ctx.loaders().load_one(RefundsOf(self.0.external_id.clone())).await?;
        Ok(refunds.unwrap_or_default())
    }

    async fn settled(&self, ctx: &Context<'_>) -> Result<Net, Error> {
        net(&self.0, &self.refund_rows(ctx).await?)
    }
}

async fn reached_by(ctx: &Context<'_>, purchase: &model::Purchase) -> Result<Vec<Award>, ApiError> {
    let awards = ctx.loaders().load_one(AwardsReachedBy(purchase.customer_id, key(purchase))).await?;
    Ok(awards.unwrap_or_default().into_iter().map(Award).collect())
}

/// One article of a purchase.
#[derive(Clone, Debug, SimpleObject)]
pub struct PurchaseLine {
    /// The shop's article number.
    sku: String,
    /// The shop's category.
    category: Option<String>,
    /// How many.
    quantity: i32,
    /// For all of them together.
    amount: Money,
    /// What is left of it after refunds.
    net: Money,
}

/// How a purchase is named.
#[derive(OneofObject)]
pub enum PurchaseBy {
    /// By its `id`.
    Id(ID),
    /// By the shop's own id.
    ExternalId(String),
}

/// See [`super::Query`].
#[derive(Default)]
pub struct PurchaseQuery;

#[Object]
impl PurchaseQuery {
    /// A purchase; null: it has not been recorded, or may not be seen.
    async fn purchase(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] by: PurchaseBy,
    ) -> Option<Result<Purchase, ApiError>> {
        if let Err(error) = ctx.viewer().require_reader() {
            return Some(Err(error.into()));
        }
        let name = match by {
            PurchaseBy::ExternalId(external_id) => external_id,
            PurchaseBy::Id(id) => match GlobalId::parse(&id)? {
                GlobalId::Purchase(external_id) => external_id,
                _ => return None,
            },
        };
        let purchase = ctx.loaders().load_one(FindPurchase(name)).await;
        purchase.map(|purchase| purchase.map(Purchase)).map_err(ApiError::from).transpose()
    }
}

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

/// What recording a fact about a purchase answers.
pub struct Answer {
    recorded: Option<Recorded>,
    purchase: String,
    user_errors: Vec<UserError>,
}

impl Answer {
    /// `purchase`: which purchase the fact is about.
    pub fn new(recorded: Result<Recorded, Error>, purchase: String) -> Result<Self, ApiError> {
        let (recorded, user_errors) = payload(recorded)?;
        Ok(Self { recorded, purchase, user_errors })
    }

    /// Null where it was refused.
    pub async fn purchase(&self, ctx: &Context<'_>) -> Result<Option<Purchase>, ApiError> {
        if self.recorded.is_none() {
            return Ok(None);
        }
        Ok(ctx.loaders().load_one(PurchaseOf(self.purchase.clone())).await?.map(Purchase))
    }

    /// The newest that the commit changed; on a replay those that the purchase reached.
    pub async fn awards(&self, ctx: &Context<'_>) -> Result<Vec<Award>, ApiError> {
        let Some(recorded) = &self.recorded else { return Ok(Vec::new()) };
        if recorded.replayed {
            let mut reached = self.reached(ctx).await?;
            reached.truncate(MAX_CHANGED_AWARDS);
            return Ok(reached);
        }
        Ok(recorded.awards.iter().map(|row| Award(Arc::new(row.clone()))).collect())
    }

    /// How many there are.
    pub async fn awards_changed(&self, ctx: &Context<'_>) -> Result<Count, ApiError> {
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
    pub fn customer(&self) -> Option<Customer> {
        Some(Arc::new(self.recorded.as_ref()?.customer.clone()).into())
    }

    /// Null where it was refused.
    pub fn balance(&self, ctx: &Context<'_>) -> Option<Balance> {
        self.recorded.as_ref().map(|recorded| Balance::of(ctx, &recorded.customer))
    }

    /// Whether it had been recorded before.
    pub fn replayed(&self) -> bool {
        self.recorded.as_ref().is_some_and(|recorded| recorded.replayed)
    }

    /// Why it was refused.
    pub fn user_errors(&self) -> Vec<UserError> {
        self.user_errors.clone()
    }
}

/// What `recordPurchase` answers.
#[derive(Description)]
pub struct RecordPurchasePayload(Answer);

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

/// See [`super::Mutation`].
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
        Ok(RecordPurchasePayload(Answer::new(recorded, purchase)?))
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
        answers.map(|(recorded, purchase)| Ok(RecordPurchasePayload(Answer::new(recorded, purchase)?))).collect()
    }
}
