//! Reads the purchases of customers in order, each with its refunds.

use std::collections::HashMap;

use entity::{CustomerId, purchase, refund};
use sea_orm::sea_query::Value;
use sea_orm::{ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter};

use super::pages::{Customers, Pages, Row};
use crate::app::error::Error;
use crate::app::rows::{Kind, any};
use crate::app::stored::purchase::{key, with_refunds};
use crate::engine::purchase::{Key, Purchase};

/// The row of a purchase, and an estimate of the memory that its refunds take.
#[derive(FromQueryResult)]
struct Bought {
    #[sea_orm(nested)]
    row: purchase::Model,
    refund_bytes: i64,
}

impl Row for Bought {
    const SELECT: &'static str = "s.*, (SELECT CAST(COALESCE(SUM(octet_length(r.lines) + 512), 0) AS bigint) \
        FROM refund AS r WHERE r.purchase_external_id = s.external_id) AS refund_bytes";
    const FROM: &'static str = "purchase AS s";
    const ORDER: &'static [(&'static str, Kind)] =
        &[("customer_id", Kind::Int), ("purchased_at", Kind::Int), ("external_id", Kind::Text)];

    fn position(&self) -> Vec<Value> {
        position(self.row.customer_id, &key(&self.row))
    }

    fn customer(&self) -> CustomerId {
        self.row.customer_id
    }

    fn bytes(&self) -> usize {
        512 + self.row.lines.len() + usize::try_from(self.refund_bytes).unwrap_or_default()
    }
}

fn position(customer: CustomerId, key: &Key) -> Vec<Value> {
    vec![customer.0.into(), key.at.0.into(), key.external_id.clone().into()]
}

/// A purchase and all its refunds, as recorded.
pub(super) struct Fact {
    pub(super) row: purchase::Model,
    pub(super) refunds: Vec<refund::Model>,
}

impl Fact {
    pub(super) fn key(&self) -> Key {
        key(&self.row)
    }

    pub(super) fn purchase(&self) -> Result<Purchase, Error> {
        with_refunds(&self.row, &self.refunds)
    }
}

/// The purchases that have not been handed out yet, with their refunds.
pub(super) struct History<'a> {
    snapshot: &'a DatabaseTransaction,
    purchases: Pages<'a, Bought>,
    /// The refunds of the purchases in memory, by the external id of the purchase.
    refunds: HashMap<String, Vec<refund::Model>>,
}

impl<'a> History<'a> {
    /// Reads all purchases of these customers.
    pub(super) fn of(snapshot: &'a DatabaseTransaction, customers: Customers) -> Self {
        Self { snapshot, purchases: Pages::of(snapshot, customers), refunds: HashMap::new() }
    }

    /// Reads the purchases of this customer after this key.
    pub(super) fn after(snapshot: &'a DatabaseTransaction, customer: CustomerId, after: &Key) -> Self {
        let purchases = Pages::after(snapshot, position(customer, after), customer);
        Self { snapshot, purchases, refunds: HashMap::new() }
    }

    /// Returns the next purchase, if it belongs to this customer and is before this key.
    pub(super) async fn next(&mut self, customer: CustomerId, before: Option<&Key>) -> Result<Option<Fact>, Error> {
        if self.purchases.fill().await? {
            self.load_refunds().await?;
        }
        let precedes = |bought: &Bought| before.is_none_or(|before| key(&bought.row) < *before);
        let Some(bought) = self.purchases.next_if(customer, precedes).await? else { return Ok(None) };
        let refunds = self.refunds.remove(&bought.row.external_id).unwrap_or_default();
        Ok(Some(Fact { row: bought.row, refunds }))
    }

    /// Loads the refunds of a page of purchases. The limit in bytes of the page includes them.
    async fn load_refunds(&mut self) -> Result<(), Error> {
        let refunded = self.purchases.page().iter().filter(|bought| bought.refund_bytes > 0);
        let refunded: Vec<String> = refunded.map(|bought| bought.row.external_id.clone()).collect();
        if refunded.is_empty() {
            return Ok(());
        }
        let of_page = any(self.snapshot.get_database_backend(), refund::Column::PurchaseExternalId, refunded);
        for row in refund::Entity::find().filter(of_page).all(self.snapshot).await? {
            self.refunds.entry(row.purchase_external_id.clone()).or_default().push(row);
        }
        Ok(())
    }
}
