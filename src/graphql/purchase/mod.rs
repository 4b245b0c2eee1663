//! Purchases: how they are read. [`mutation`] records them.

pub mod mutation;

use std::sync::Arc;

use async_graphql::{Context, Description, ID, Object, OneofObject, SimpleObject};

use crate::app::award::Reaching;
use crate::app::error::Error;
use crate::app::global_id::GlobalId;
use crate::app::model;
use crate::app::purchase::{Net, net};
use crate::app::reading::page::PageArgs;
use crate::app::reading::purchase_revision as revisions;
use crate::app::stored::purchase::{currency, key};
use crate::engine::external_id::ExternalId;
use crate::engine::money::Currency;
use crate::engine::purchase::Line;
use crate::engine::time::Instant;
use crate::graphql::award::Award;
use crate::graphql::customer::Customer;
use crate::graphql::error::ApiError;
use crate::graphql::loaders::{AwardsReachedBy, CustomerOf, FindPurchase, RefundsOf, RevisionsOf};
use crate::graphql::money::Money;
use crate::graphql::page::Connection;
use crate::graphql::purchase_revision::PurchaseRevision;
use crate::graphql::refund::Refund;
use crate::graphql::scalar::{Count, DateTime};
use crate::graphql::session::ContextExt;

/// An order by one customer, as the shop recorded it.
#[derive(Clone, Description)]
pub struct Purchase(pub Arc<model::Purchase>);

#[Object(use_type_description)]
impl Purchase {
    /// An opaque id, unique across all types.
    pub(super) async fn id(&self) -> ID {
        GlobalId::Purchase(ExternalId::stored(&self.0.external_id)).into()
    }

    /// The shop's id of the purchase, unique among purchases.
    async fn external_id(&self) -> &str {
        &self.0.external_id
    }

    /// The customer who made the purchase.
    async fn customer(&self, ctx: &Context<'_>) -> Result<Customer, ApiError> {
        let customer = ctx.loaders().load_one(CustomerOf(self.0.customer_id)).await?;
        Ok(customer.ok_or_else(|| Error::Internal("a purchase's customer was not found".to_owned()))?.into())
    }

    /// When the purchase was made. This alone decides in which windows the purchase counts; the time of its arrival
    /// does not.
    async fn purchased_at(&self) -> DateTime {
        Instant(self.0.purchased_at).into()
    }

    /// When the content that counts was recorded, by the server's clock.
    async fn recorded_at(&self) -> DateTime {
        Instant(self.0.recorded_at).into()
    }

    /// The total that was paid, before refunds.
    async fn total(&self) -> Result<Money, ApiError> {
        Ok(Money::new(self.0.total, currency(&self.0)?))
    }

    /// What is left of `total` after what was taken back; never below 0.
    async fn net(&self, ctx: &Context<'_>) -> Result<Money, ApiError> {
        let net = self.settled(ctx).await?;
        Ok(Money::new(net.total, net.currency))
    }

    /// The shop's number of the content that counts; 0 if none was given.
    async fn revision(&self) -> Count {
        Count(self.0.revision)
    }

    /// What was taken back in all: by refunds, and by running sums that the shop stated (`refunded` of `recordPurchase`).
    async fn refunded(&self, ctx: &Context<'_>) -> Result<Money, ApiError> {
        let net = self.settled(ctx).await?;
        Ok(Money::new(i64::try_from(net.refunded).unwrap_or(i64::MAX), net.currency))
    }

    /// The shop's name for the sales channel. Null if none was given.
    async fn channel(&self) -> Option<&str> {
        self.0.channel.as_deref()
    }

    /// The lines of the purchase, in the order in which they were sent. Empty if none were sent.
    async fn lines(&self, ctx: &Context<'_>) -> Result<Vec<PurchaseLine>, ApiError> {
        let Net { lines, currency, .. } = self.settled(ctx).await?;
        Ok(lines.into_iter().map(|(line, left)| PurchaseLine::new(line, left, currency)).collect())
    }

    /// All refunds of the purchase, at most 100, the latest `refundedAt` first.
    async fn refunds(&self, ctx: &Context<'_>) -> Result<Vec<Refund>, ApiError> {
        let rows = self.refund_rows(ctx).await?;
        let Net { refunds, currency, .. } = net(&self.0, &rows)?;
        let amount = |minor: i128| Money::new(i64::try_from(minor).unwrap_or(i64::MAX), currency);
        Ok(rows.iter().zip(refunds).map(|(row, minor)| Refund::new(row, amount(minor))).collect())
    }

    /// Every content that was recorded, the highest revision first. The first one counts. Empty for a customer token.
    async fn revisions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
    ) -> Result<Connection<PurchaseRevision>, ApiError> {
        let page = revisions::LIST.page(PageArgs { first, after, last, before })?;
        let slice = match ctx.viewer().require_shop() {
            Ok(_) => ctx.loaders().load_one(RevisionsOf(Arc::clone(&self.0), page.clone())).await?,
            Err(_) => None,
        };
        let slice = slice.unwrap_or_else(|| page.cut(Vec::new()));
        Ok(Connection::new(slice, revisions::cursor, |content| PurchaseRevision::new(content, &self.0)))
    }

    /// The `STANDING` and `DECLINED` awards whose goal this purchase reached, the most recently created first.
    async fn awards(&self, ctx: &Context<'_>) -> Result<Vec<Award>, ApiError> {
        reached_by(ctx, &self.0).await
    }
}

impl Purchase {
    async fn refund_rows(&self, ctx: &Context<'_>) -> Result<Arc<[model::Refund]>, Error> {
        let refunds = ctx.loaders().load_one(RefundsOf(self.0.external_id.clone())).await?;
        Ok(refunds.unwrap_or_default())
    }

    async fn settled(&self, ctx: &Context<'_>) -> Result<Net, Error> {
        net(&self.0, &self.refund_rows(ctx).await?)
    }
}

/// Returns the `STANDING` and `DECLINED` awards that the purchase reached, the most recently created first.
pub(super) async fn reached_by(ctx: &Context<'_>, purchase: &model::Purchase) -> Result<Vec<Award>, ApiError> {
    let is_revised = purchase.revision > 0;
    let reaching = Reaching { customer: purchase.customer_id, key: key(purchase), is_revised };
    let awards = ctx.loaders().load_one(AwardsReachedBy(reaching)).await?;
    Ok(awards.unwrap_or_default().into_iter().map(Award).collect())
}

/// A line of a purchase: one article.
#[derive(Clone, Debug, SimpleObject)]
pub struct PurchaseLine {
    /// The shop's article number (stock keeping unit).
    sku: String,
    /// The shop's category of the article. Null if none was given.
    category: Option<String>,
    /// The number of pieces, at least 1. The goal `units` counts it.
    quantity: i32,
    /// The amount of the whole line, for all pieces together, before refunds.
    amount: Money,
    /// What is left of `amount` after refunds. A refund with lines reduces the lines with its skus. A refund without
    /// lines reduces all lines in proportion, rounded down.
    net: Money,
}

impl PurchaseLine {
    /// Converts a line of which this is left, in minor units.
    pub(super) fn new(line: Line, left: i64, currency: Currency) -> Self {
        Self {
            sku: line.sku,
            category: line.category,
            quantity: line.quantity,
            amount: Money::new(line.amount, currency),
            net: Money::new(left, currency),
        }
    }
}

/// Identifies a purchase, by exactly one of these.
#[derive(OneofObject)]
pub enum PurchaseBy {
    /// The opaque `id` of the purchase.
    Id(ID),
    /// The shop's id of the purchase.
    ExternalId(String),
}

/// The part of [`crate::graphql::Query`] that reads purchases.
#[derive(Default)]
pub struct PurchaseQuery;

#[Object]
impl PurchaseQuery {
    /// A purchase. Null if it is not recorded or the caller may not see it.
    async fn purchase(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The purchase to read.")] by: PurchaseBy,
    ) -> Option<Result<Purchase, ApiError>> {
        if let Err(error) = ctx.viewer().require_reader() {
            return Some(Err(error.into()));
        }
        let name = match by {
            PurchaseBy::ExternalId(external_id) => ExternalId::parse(external_id).ok()?,
            PurchaseBy::Id(id) => match GlobalId::parse(&id)? {
                GlobalId::Purchase(external_id) => external_id,
                _ => return None,
            },
        };
        let purchase = ctx.loaders().load_one(FindPurchase(name.into())).await;
        purchase.map(|purchase| purchase.map(Purchase)).map_err(ApiError::from).transpose()
    }
}
