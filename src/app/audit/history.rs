//! Reads the contents of customers' purchases in order, each with what was taken back: those that count now, and those that counted
//! once. Campaigns that were settled meanwhile count the latter.

use std::collections::HashMap;

use entity::{CustomerId, purchase, purchase_revision, refund};
use sea_orm::sea_query::Value;
use sea_orm::{DatabaseTransaction, FromQueryResult};

use super::pages::{Customers, Pages, Row};
use crate::app::error::Error;
use crate::app::rows::Kind;
use crate::app::stored::history::{self, Lines, TakenBack};
use crate::app::stored::{purchase as purchases, purchase_revision as revisions};
use crate::engine::purchase::{Key, Purchase};

/// The row of a purchase, an estimate of the memory that its refunds take, and the number of its other contents.
#[derive(FromQueryResult)]
struct Bought {
    #[sea_orm(nested)]
    row: purchase::Model,
    refund_bytes: i64,
    others: i64,
}

impl Row for Bought {
    const SELECT: &'static str = "s.*, (SELECT CAST(COALESCE(SUM(octet_length(r.lines) + 512), 0) AS bigint) \
        FROM refund AS r WHERE r.purchase_external_id = s.external_id) AS refund_bytes, \
        (SELECT COUNT(*) FROM purchase_revision AS v WHERE v.external_id = s.external_id) AS others";
    const FROM: &'static str = "purchase AS s";
    const ORDER: &'static [(&'static str, Kind)] =
        &[("customer_id", Kind::Int), ("purchased_at", Kind::Int), ("external_id", Kind::Text)];

    fn position(&self) -> Vec<Value> {
        position(self.row.customer_id, &purchases::key(&self.row))
    }

    fn customer(&self) -> CustomerId {
        self.row.customer_id
    }

    fn bytes(&self) -> usize {
        let others = 512 * usize::try_from(self.others).unwrap_or_default();
        512 + self.row.lines.len() + usize::try_from(self.refund_bytes).unwrap_or_default() + others
    }
}

impl Row for purchase_revision::Model {
    const SELECT: &'static str = "s.*";
    /// Only contents that counted once.
    const FROM: &'static str = "(SELECT * FROM purchase_revision WHERE ended_version IS NOT NULL) AS s";
    const ORDER: &'static [(&'static str, Kind)] = &[
        ("customer_id", Kind::Int),
        ("purchased_at", Kind::Int),
        ("external_id", Kind::Text),
        ("revision", Kind::Int),
    ];

    fn position(&self) -> Vec<Value> {
        let mut position = position(self.customer_id, &revisions::key(self));
        position.push(self.revision.into());
        position
    }

    fn customer(&self) -> CustomerId {
        self.customer_id
    }

    fn bytes(&self) -> usize {
        512 + self.lines.len()
    }
}

fn position(customer: CustomerId, key: &Key) -> Vec<Value> {
    vec![customer.0.into(), key.at.0.into(), key.external_id.clone().into()]
}

/// A content of a purchase, with what was taken back.
pub(super) struct Fact {
    pub(super) purchase: Purchase,
    /// The version of the customer in which the content was recorded or, if it does not count now, ended.
    pub(super) version: i64,
    /// The refunds of the purchase, and whether the purchase belonged to the customer of each. Empty for a content that does not count
    /// now.
    pub(super) refunds: Vec<(refund::Model, bool)>,
}

/// The contents that have not been handed out yet.
pub(super) struct History<'a> {
    snapshot: &'a DatabaseTransaction,
    current: Pages<'a, Bought>,
    replaced: Pages<'a, purchase_revision::Model>,
    /// What was taken back of the purchases in memory.
    of_current: TakenBack,
    of_replaced: TakenBack,
}

impl<'a> History<'a> {
    /// Reads all contents of these customers.
    pub(super) fn of(snapshot: &'a DatabaseTransaction, customers: Customers) -> Self {
        Self::new(snapshot, Pages::of(snapshot, customers), Pages::of(snapshot, customers))
    }

    /// Reads the contents of this customer after this key.
    pub(super) fn after(snapshot: &'a DatabaseTransaction, customer: CustomerId, after: &Key) -> Self {
        let position = position(customer, after);
        let after_all = [position.clone(), vec![i64::MAX.into()]].concat();
        Self::new(snapshot, Pages::after(snapshot, position, customer), Pages::after(snapshot, after_all, customer))
    }

    fn new(
        snapshot: &'a DatabaseTransaction,
        current: Pages<'a, Bought>,
        replaced: Pages<'a, purchase_revision::Model>,
    ) -> Self {
        Self { snapshot, current, replaced, of_current: TakenBack::default(), of_replaced: TakenBack::default() }
    }

    /// Returns the next content, if it belongs to this customer and is before this key.
    pub(super) async fn next(&mut self, customer: CustomerId, before: Option<&Key>) -> Result<Option<Fact>, Error> {
        if self.current.fill().await? {
            self.load_current().await?;
        }
        if self.replaced.fill().await? {
            let ids = self.replaced.page().iter().map(|row| row.external_id.clone()).collect();
            self.of_replaced = TakenBack::load(self.snapshot, ids).await?;
        }
        let current = self.current.page().front().filter(|bought| bought.row.customer_id == customer);
        let current = current.map(|bought| purchases::key(&bought.row));
        let precedes = |key: &Key| before.is_none_or(|before| key < before);
        let is_next = |row: &purchase_revision::Model| {
            let key = revisions::key(row);
            precedes(&key) && current.as_ref().is_none_or(|current| key <= *current)
        };
        if let Some(row) = self.replaced.next_if(customer, is_next).await? {
            let (purchase, version) =
                (self.of_replaced.replaced(&row)?, row.version.max(row.ended_version.unwrap_or(0)));
            return Ok(Some(Fact { purchase, version, refunds: Vec::new() }));
        }
        let bought = self.current.next_if(customer, |bought| precedes(&purchases::key(&bought.row))).await?;
        let Some(Bought { row, .. }) = bought else { return Ok(None) };
        let others = self.of_current.contents(&row.external_id);
        let had = |id: CustomerId| id == row.customer_id || others.iter().any(|other| other.customer_id == id);
        let refunds = self.of_current.refunds(&row.external_id).iter();
        let refunds = refunds.map(|refund| (refund.clone(), had(refund.customer_id))).collect();
        Ok(Some(Fact { purchase: self.of_current.purchase(&row)?, version: row.version, refunds }))
    }

    /// Loads what was taken back of a page of purchases. The limit in bytes of the page includes it.
    async fn load_current(&mut self) -> Result<(), Error> {
        let ids = |has: fn(&Bought) -> bool| {
            let of_page = self.current.page().iter().filter(move |bought| has(bought));
            of_page.map(|bought| bought.row.external_id.clone()).collect::<Vec<String>>()
        };
        let (refunded, revised) = (ids(|bought| bought.refund_bytes > 0), ids(|bought| bought.others > 0));
        let refunds = history::refunds(self.snapshot, refunded).await?;
        let contents = if revised.is_empty() {
            HashMap::new()
        } else {
            history::contents(self.snapshot, revised, Lines::LeftOut).await?
        };
        self.of_current = TakenBack::new(refunds, contents);
        Ok(())
    }
}
