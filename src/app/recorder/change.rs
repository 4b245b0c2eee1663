//! How a batch changes purchases, and which of these changes each campaign sees.

use std::collections::{BTreeSet, HashMap, HashSet};

use entity::{purchase, refund};
use sea_orm::{EntityTrait, QueryFilter};

use super::touched::{Batch, Customers, Touch, Touched};
use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::app::rows::any;
use crate::app::stored::{history, purchase as purchases};
use crate::engine::evaluate::Change;
use crate::engine::purchase::{Key, Purchase};

/// A purchase that was recorded before, with its refunds before and after the batch.
pub(super) struct Stored {
    row: purchase::Model,
    earlier: Vec<refund::Model>,
    refunds: Vec<refund::Model>,
}

/// The purchases that the batch refunds or revises, by external id.
pub(super) type StoredPurchases = HashMap<String, Stored>;

/// Loads the purchases that the batch refunds or revises, as they are now.
pub(super) async fn load_stored(batch: &Batch<'_>, customers: &Customers) -> Result<StoredPurchases, Error> {
    let new_refunds = || customers.values().flat_map(|customer| &customer.refunds);
    let refunded = new_refunds().map(|refund| refund.purchase_external_id.as_str());
    let revised = customers.values().flat_map(|customer| &customer.revised);
    let named: BTreeSet<&str> = refunded.chain(revised.map(|revised| revised.after.external_id.as_str())).collect();
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let filter = any(batch.backend(), purchase::Column::ExternalId, named.into_iter().map(str::to_owned));
    let rows = purchase::Entity::find().filter(filter).all(batch.tx).await?;
    let mut refunds = history::refunds(batch.tx, rows.iter().map(|row| row.external_id.clone())).await?;
    let new: HashSet<&str> = new_refunds().map(|refund| refund.external_id.as_str()).collect();
    let stored = |row: purchase::Model| {
        let refunds = refunds.remove(&row.external_id).unwrap_or_default();
        let earlier = refunds.iter().filter(|refund| !new.contains(refund.external_id.as_str())).cloned().collect();
        (row.external_id.clone(), Stored { row, earlier, refunds })
    };
    Ok(rows.into_iter().map(stored).collect())
}

/// Returns the changes of the customer's history: at most one at each place, because the engine compares the history before and
/// after the whole batch.
pub(super) fn touches(customer: &Touched, stored: &StoredPurchases) -> Result<Vec<Touch>, Error> {
    let refunded = customer.refunds.iter().map(|refund| refund.purchase_external_id.as_str());
    let revised = customer.revised.iter().map(|revised| revised.after.external_id.as_str());
    let named: BTreeSet<&str> = refunded.chain(revised).collect();
    let new: BTreeSet<&str> = customer.purchases.iter().map(|new| new.key.external_id.as_str()).collect();
    let mut touches = Vec::new();
    for purchase in customer.purchases.iter().filter(|new| !named.contains(new.key.external_id.as_str())) {
        touches.push(Touch { before: None, after: Some(purchase.clone()) });
    }
    for name in named {
        let Some(Stored { row, earlier, refunds }) = stored.get(name) else { continue };
        let before = match customer.revised.iter().find(|revised| revised.after.external_id == name) {
            Some(revised) => revised.before.as_ref(),
            None => Some(row).filter(|_| !new.contains(name)),
        };
        let is_own = |row: &&purchase::Model| row.customer_id == customer.row.id;
        let before = before.filter(is_own).map(|row| purchases::with_refunds(row, earlier)).transpose()?;
        let after = Some(row).filter(is_own).map(|row| purchases::with_refunds(row, refunds)).transpose()?;
        match (before, after) {
            (Some(before), Some(after)) if before.key != after.key => {
                touches.push(Touch { before: Some(before), after: None });
                touches.push(Touch { before: None, after: Some(after) });
            }
            // The purchase went through the hands of this customer within the batch.
            (None, None) => {}
            (before, after) => touches.push(Touch { before, after }),
        }
    }
    Ok(touches)
}

/// Returns the changes up to the mark, as the campaign sees them.
pub(super) fn changes(campaign: &Campaign, touches: &[Touch], mark: Option<&Key>) -> Vec<Change> {
    let eligible = |purchase: &Option<Purchase>| campaign.engine().eligible(purchase.as_ref()?);
    let evaluated = touches.iter().filter(|touch| mark.is_none_or(|mark| touch.key() <= mark));
    let change = |touch: &Touch| Change { before: eligible(&touch.before), after: eligible(&touch.after) };
    evaluated.map(change).collect()
}
