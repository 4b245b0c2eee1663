//! Purchases: reading and recording them.

pub mod mutation;

use std::sync::Arc;

use async_graphql::{Context, Description, ID, Object, OneofObject, SimpleObject};

use crate::app::error::Error;
use crate::app::model;
use crate::app::purchase::{Net, net};
use crate::app::stored::purchase::key;
use crate::engine::money::Currency;
use crate::engine::time::Instant;
use crate::graphql::award::Award;
use crate::graphql::customer::Customer;
use crate::graphql::error::ApiError;
use crate::graphql::id::GlobalId;
use crate::graphql::loaders::{AwardsReachedBy, CustomerOf, FindPurchase, RefundsOf};
use crate::graphql::money::Money;
use crate::graphql::refund::Refund;
use crate::graphql::scalar::DateTime;
use crate::graphql::session::ContextExt;

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

/// The awards that the purchase reached.
pub(super) async fn reached_by(ctx: &Context<'_>, purchase: &model::Purchase) -> Result<Vec<Award>, ApiError> {
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

/// See [`crate::graphql::Query`].
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
