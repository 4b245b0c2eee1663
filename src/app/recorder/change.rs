//! How a batch changes purchases, and which of these changes each campaign sees.

use std::collections::{BTreeSet, HashMap};

use entity::{purchase, refund};
use sea_orm::{EntityTrait, QueryFilter};

use super::touched::{Batch, Customers, Touched};
use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::app::rows::any;
use crate::app::stored::{history, purchase as purchases, refund as refunds};
use crate::engine::evaluate::Change;
use crate::engine::purchase::{Key, Purchase};

/// Purchases with all their refunds, by external id.
pub(super) type Refunded = HashMap<String, (purchase::Model, Vec<refund::Model>)>;

/// Loads the purchases that the refunds of the batch name, with all their refunds.
pub(super) async fn load_refunded(batch: &Batch<'_>, customers: &Customers) -> Result<Refunded, Error> {
    let named = customers.values().flat_map(|customer| &customer.refunds);
    let named: Vec<String> = named.map(|refund| refund.purchase_external_id.clone()).collect();
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let filter = any(batch.backend(), purchase::Column::ExternalId, named);
    let rows = purchase::Entity::find().filter(filter).all(batch.tx).await?;
    let mut refunds = history::refunds(batch.tx, rows.iter().map(|row| row.external_id.clone())).await?;
    let with_refunds = |row: purchase::Model| {
        let refunds = refunds.remove(&row.external_id).unwrap_or_default();
        (row.external_id.clone(), (row, refunds))
    };
    Ok(rows.into_iter().map(with_refunds).collect())
}

/// A purchase before and after the batch. `before` is `None` if the purchase is new.
pub(super) struct Touch {
    before: Option<Purchase>,
    pub(super) after: Purchase,
}

/// Returns the purchases of the customer that the batch changes.
pub(super) fn touches(customer: &Touched, refunded: &Refunded) -> Result<Vec<Touch>, Error> {
    let named: BTreeSet<&str> = customer.refunds.iter().map(|refund| refund.purchase_external_id.as_str()).collect();
    let new: BTreeSet<&str> = customer.purchases.iter().map(|new| new.key.external_id.as_str()).collect();
    let mut touches = Vec::new();
    // At most one per purchase, because the engine compares the purchase before and after the whole batch.
    for purchase in customer.purchases.iter().filter(|new| !named.contains(new.key.external_id.as_str())) {
        touches.push(Touch { before: None, after: purchase.clone() });
    }
    for name in named {
        let Some((row, all)) = refunded.get(name) else { continue };
        let is_new = |refund: &refund::Model| customer.refunds.iter().any(|new| new.external_id == refund.external_id);
        let earlier = all.iter().filter(|refund| !is_new(refund)).map(refunds::from_row).collect::<Result<_, _>>()?;
        let before = purchases::from_row(row, earlier)?;
        touches
            .push(Touch { before: (!new.contains(name)).then_some(before), after: purchases::with_refunds(row, all)? });
    }
    Ok(touches)
}

/// Returns the changes up to the mark, as the campaign sees them.
pub(super) fn changes(campaign: &Campaign, touches: &[Touch], mark: Option<&Key>) -> Vec<Change> {
    let eligible = |purchase: &Purchase| campaign.engine().eligible(purchase);
    let evaluated = touches.iter().filter(|touch| mark.is_none_or(|mark| touch.after.key <= *mark));
    let change =
        |touch: &Touch| Change { before: touch.before.as_ref().and_then(eligible), after: eligible(&touch.after) };
    evaluated.map(change).collect()
}
