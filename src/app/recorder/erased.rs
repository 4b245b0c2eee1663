//! Facts about customers that were erased, and the commit that erases a customer.
//!
//! An order of an erased customer is recognised for ever: whoever sends it again, revises it or refunds it, the fact counts as
//! recorded, and nothing changes. The same applies while its purchase is not deleted yet. Nothing else can be recorded of an erased
//! customer.

use std::collections::{HashMap, HashSet};

use entity::{CustomerId, purchase_revision};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::act::Act;
use super::fact::{Fact, Refusal, Verdict};
use super::locking::Unlocked;
use super::touched::{Batch, Customers};
use crate::app::error::{Error, UserErrorCode};
use crate::app::stored::customer::load_by_ids;
use crate::app::stored::erased_name::{self, ErasureKey, Named};
use crate::engine::external_id::is_erased;

/// What the facts of a batch name of erased customers.
#[derive(Default)]
pub(super) struct Erased {
    /// The customers of orders, by the external id of the purchase.
    pub(super) purchases: HashMap<String, CustomerId>,
    keys: HashSet<String>,
}

/// Looks up the names in the facts. Costs nothing if no customer was ever erased.
pub(super) async fn find(batch: &Batch<'_>, facts: &[&Fact]) -> Result<Erased, Error> {
    let Some(key) = &batch.campaigns.erasure_key else { return Ok(Erased::default()) };
    let acts: Vec<Act> = facts.iter().filter_map(|fact| Act::of(fact)).collect();
    let purchases = facts.iter().filter_map(|fact| fact.purchase()).map(|name| hashed(key, Named::Purchase, name));
    let keys = acts.iter().filter_map(|act| act.key()).map(|(name, _)| hashed(key, Named::IdempotencyKey, name));
    let (purchases, keys): (HashMap<String, &str>, HashMap<String, &str>) = (purchases.collect(), keys.collect());
    let found = erased_name::load(batch.tx, purchases.keys().chain(keys.keys()).cloned()).await?;
    let customer = |(hash, name): (String, &str)| Some((name.to_owned(), *found.get(&hash)?));
    Ok(Erased {
        purchases: purchases.into_iter().filter_map(customer).collect(),
        keys: keys.into_iter().filter_map(customer).map(|(name, _)| name).collect(),
    })
}

fn hashed<'a>(key: &ErasureKey, named: Named, name: &'a str) -> (String, &'a str) {
    (key.stored_hash(named, name), name)
}

impl Erased {
    /// Decides about a fact that names something of an erased customer. Returns `None` if it does not.
    pub(super) fn decide(&self, fact: &Fact) -> Option<Verdict> {
        if fact.purchase().is_some_and(|id| self.purchases.contains_key(id)) {
            return Some(Verdict::replayed(false));
        }
        let gone =
            |field| Some(Verdict::Refused(Refusal::new(UserErrorCode::NotFound, field, "the customer was erased")));
        let named = is_erased(fact.customer());
        match fact {
            Fact::RedemptionStep(_) if named => return gone("id"),
            Fact::Purchase(_) | Fact::Adjustment(_) | Fact::Redemption(_) if named => {
                return gone("customerExternalId");
            }
            // The customer is that of the purchase.
            _ => {}
        }
        let act = Act::of(fact)?;
        let (key, _) = act.key()?;
        self.keys.contains(key).then(|| Verdict::Refused(used_key()))
    }

    /// Returns the erased customers that are not locked.
    pub(super) async fn unlocked(&self, batch: &Batch<'_>, customers: &Customers) -> Result<Unlocked, Error> {
        let locked: HashSet<CustomerId> = customers.values().map(|customer| customer.row.id).collect();
        let missing = || self.purchases.iter().filter(|(_, customer)| !locked.contains(customer));
        let mut unlocked = Unlocked::new();
        if missing().next().is_none() {
            return Ok(unlocked);
        }
        let rows = load_by_ids(batch.tx, missing().map(|(_, customer)| *customer).collect()).await?;
        for (purchase, customer) in missing() {
            let row = rows.get(customer).ok_or_else(|| Error::Internal("an erased customer is missing".to_owned()))?;
            unlocked.entry(row.external_id.clone()).or_default().insert(purchase.clone());
        }
        Ok(unlocked)
    }
}

/// Returns the refusal of an act whose key was used for an erased customer.
pub(super) fn used_key() -> Refusal {
    let message = "was used before for a customer that was erased: choose another key";
    Refusal::new(UserErrorCode::IdempotencyConflict, "idempotencyKey", message)
}

/// Replaces the names of the customers that the batch erases in the contents of purchases. The job has replaced most of them before.
pub(super) async fn rename_contents(batch: &Batch<'_>, customers: &Customers) -> Result<(), Error> {
    use purchase_revision::Column::CustomerExternalId;
    for (name, customer) in customers.iter().filter(|(_, customer)| customer.erased_as.is_some()) {
        purchase_revision::Entity::update_many()
            .col_expr(CustomerExternalId, Expr::value(customer.row.external_id.clone()))
            .filter(CustomerExternalId.eq(name.as_str()))
            .exec(batch.tx)
            .await?;
    }
    Ok(())
}
