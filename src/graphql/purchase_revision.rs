//! The contents of a purchase that were recorded.

use std::sync::Arc;

use async_graphql::{Context, Description, Object, SimpleObject};

use super::purchase::{Purchase, PurchaseLine};
use crate::app::model;
use crate::app::reading::evidence::{self, Evidence};
use crate::app::reading::page::Listed as _;
use crate::app::reading::purchase_revision::Content;
use crate::engine::time::Instant;
use crate::graphql::customer::Customer;
use crate::graphql::error::ApiError;
use crate::graphql::loaders::{CustomerNamed, CustomerOf};
use crate::graphql::money::Money;
use crate::graphql::page::Connection;
use crate::graphql::scalar::{Count, DateTime};
use crate::graphql::session::ContextExt;

/// A content of a purchase: the purchase as one revision stated it.
#[derive(Clone, Description)]
pub struct PurchaseRevision {
    content: Arc<Content>,
    /// The content counts now or did once.
    counted: bool,
}

impl PurchaseRevision {
    /// Converts a content of this purchase.
    pub fn new(content: Content, purchase: &model::Purchase) -> Self {
        Self { counted: content.counted(purchase), content: Arc::new(content) }
    }
}

#[Object(use_type_description)]
impl PurchaseRevision {
    /// The shop's number of this content. Of all contents of a purchase, the one with the highest number counts.
    async fn revision(&self) -> Count {
        Count(self.content.row.revision)
    }

    /// When the content was recorded, by the server's clock.
    async fn recorded_at(&self) -> DateTime {
        Instant(self.content.row.recorded_at).into()
    }

    /// The shop's id of the customer that the content names.
    async fn customer_external_id(&self) -> &str {
        &self.content.row.customer_external_id
    }

    /// The customer that the content names. Null if it never counted and nothing else created the customer.
    async fn customer(&self, ctx: &Context<'_>) -> Result<Option<Customer>, ApiError> {
        let row = &self.content.row;
        let customer = if self.counted {
            ctx.loaders().load_one(CustomerOf(row.customer_id)).await?
        } else {
            ctx.loaders().load_one(CustomerNamed(row.customer_external_id.clone())).await?
        };
        Ok(customer.map(Customer::from))
    }

    /// When the purchase was made, as the content states it.
    async fn purchased_at(&self) -> DateTime {
        Instant(self.content.row.purchased_at).into()
    }

    /// The total, before refunds.
    async fn total(&self) -> Money {
        Money::new(self.content.row.total, self.content.currency)
    }

    /// The running sum of what was taken back, as the content states it. Null if it states none.
    async fn refunded(&self) -> Option<Money> {
        Some(Money::new(self.content.row.refunded?, self.content.currency))
    }

    /// The instant up to which `refunded` was counted. Null if the content states none.
    async fn refunded_until(&self) -> Option<DateTime> {
        Some(Instant(self.content.row.refunded_until?).into())
    }

    /// The sales channel. Null if none was given.
    async fn channel(&self) -> Option<&str> {
        self.content.row.channel.as_deref()
    }

    /// The lines, in the order in which they were sent. Their `net` is what all refunds of the purchase would leave of this content.
    async fn lines(&self) -> Vec<PurchaseLine> {
        let Content { lines, currency, .. } = &*self.content;
        lines.iter().map(|(line, left)| PurchaseLine::new(line.clone(), *left, *currency)).collect()
    }
}

/// An item of a list of purchases.
#[derive(Clone, SimpleObject)]
pub struct PurchaseEdge {
    /// An opaque cursor for the position of this item. Pass it as `after` or `before` to the same list.
    cursor: String,
    /// The purchase as it is now.
    node: Purchase,
    /// The content that counted, if the list is the evidence of an award. Else null.
    counted: Option<PurchaseRevision>,
}

/// A page of purchases.
pub type PurchaseConnection = Connection<Purchase, PurchaseEdge>;

/// Converts a purchase of a list that is not evidence.
pub fn edge(row: model::Purchase) -> (String, Purchase, PurchaseEdge) {
    let (cursor, node) = (row.cursor(), Purchase(Arc::new(row)));
    (cursor.clone(), node.clone(), PurchaseEdge { cursor, node, counted: None })
}

/// Converts a purchase of the evidence of an award.
pub fn evidence_edge(evidence: Evidence) -> (String, Purchase, PurchaseEdge) {
    let cursor = evidence::cursor(&evidence);
    let Evidence { purchase, counted } = evidence;
    let counted = Some(PurchaseRevision::new(counted, &purchase));
    let node = Purchase(purchase);
    (cursor.clone(), node.clone(), PurchaseEdge { cursor, node, counted })
}
