//! Inserting facts once: what was recorded before is compared, whole, and answered as a replay or a conflict.

use std::collections::{BTreeMap, HashMap, HashSet};

use entity::{idempotency_key, ledger_entry, purchase, refund};
use sea_orm::{EntityTrait, ExprTrait, QueryFilter};

use super::fact::{AdjustPoints, Fact, MAX_REFUNDS, NewPurchase, NewRefund, Refusal};
use super::touched::{Batch, Customers, Touched};
use crate::app::error::{Error, UserErrorCode};
use crate::app::rows::{any, insert_new};
use crate::app::stored::purchase::to_row;
use crate::engine::purchase::{Line, RefundLine};

/// What became of a fact.
pub(super) enum Verdict {
    Accepted,
    /// With the entry that the adjustment posted then.
    Replayed(Option<ledger_entry::Model>),
    Refused(Refusal),
}

const CONFLICT: Refusal = Refusal {
    code: UserErrorCode::IdempotencyConflict,
    path: "externalId",
    message: "was used before for something else",
};
const KEY_CONFLICT: Refusal = Refusal { path: "idempotencyKey", ..CONFLICT };
const TOO_MANY_REFUNDS: Refusal = Refusal {
    code: UserErrorCode::OutOfRange,
    path: "purchaseExternalId",
    message: "the purchase has 100 refunds already",
};
const BALANCE_TOO_LARGE: Refusal =
    Refusal { code: UserErrorCode::OutOfRange, path: "points", message: "would take the balance past ±10^15" };

/// Inserts the facts that are new and hands them to their customers; one verdict each, in order.
pub(super) async fn record(
    batch: &Batch<'_>,
    facts: &[&Fact],
    customers: &mut Customers,
) -> Result<Vec<Verdict>, Error> {
    let mut verdicts: Vec<Verdict> = facts.iter().map(|_| Verdict::Accepted).collect();
    let mut purchases = Vec::new();
    let mut refunds = Vec::new();
    let mut adjustments = Vec::new();
    for (index, fact) in facts.iter().enumerate() {
        match fact {
            Fact::Purchase(purchase) => purchases.push((index, purchase)),
            Fact::Refund(refund) => refunds.push((index, refund)),
            Fact::Adjustment(adjustment) => adjustments.push((index, adjustment)),
            Fact::Evaluation(_) | Fact::Repair(_) => {}
        }
    }
    record_purchases(batch, purchases, customers, &mut verdicts).await?;
    record_refunds(batch, refunds, customers, &mut verdicts).await?;
    record_adjustments(batch, adjustments, customers, &mut verdicts).await?;
    for customer in customers.values_mut() {
        let facts = customer.purchases.len() + customer.refunds.len() + customer.adjustments.len();
        customer.changed |= facts > 0;
    }
    Ok(verdicts)
}

async fn record_purchases(
    batch: &Batch<'_>,
    new: Vec<(usize, &NewPurchase)>,
    customers: &mut Customers,
    verdicts: &mut [Verdict],
) -> Result<(), Error> {
    // The first of each external id is inserted, in external id order; the others are compared with it.
    let mut known: BTreeMap<String, purchase::Model> = BTreeMap::new();
    let mut asked = Vec::with_capacity(new.len());
    for (index, new) in new {
        let customer = locked(customers, &new.customer_external_id)?;
        let (id, version) = (customer.row.id, customer.next_version());
        let row = to_row(&new.purchase, id, batch.now, batch.campaigns.revision.number, version)?;
        known.entry(row.external_id.clone()).or_insert_with(|| row.clone());
        asked.push((index, &new.customer_external_id, row));
    }
    let models: Vec<purchase::Model> = known.values().cloned().collect();
    let inserted = insert_new::<purchase::Entity>(batch.tx, &models, &[], purchase::Column::ExternalId).await?;
    let mut inserted: HashSet<String> = inserted.into_iter().collect();
    let earlier: Vec<String> = known.keys().filter(|id| !inserted.contains(*id)).cloned().collect();
    if !earlier.is_empty() {
        let earlier = any(batch.backend(), purchase::Column::ExternalId, earlier);
        let rows = purchase::Entity::find().filter(earlier).all(batch.tx).await?;
        known.extend(rows.into_iter().map(|row| (row.external_id.clone(), row)));
    }
    for (index, customer, row) in asked {
        if inserted.remove(&row.external_id) {
            locked(customers, customer)?.purchases.push(row);
        } else if known.get(&row.external_id).is_some_and(|known| same_purchase(known, &row)) {
            verdicts[index] = Verdict::Replayed(None);
        } else {
            verdicts[index] = Verdict::Refused(CONFLICT);
        }
    }
    Ok(())
}

/// The same content: everything that the shop sent, the lines in any order.
fn same_purchase(a: &purchase::Model, b: &purchase::Model) -> bool {
    a.customer_id == b.customer_id
        && a.purchased_at == b.purchased_at
        && a.total == b.total
        && a.currency == b.currency
        && a.channel == b.channel
        && (a.lines == b.lines || same_lines(&a.lines, &b.lines))
}

fn same_lines(a: &str, b: &str) -> bool {
    let sorted = |text: &str| {
        let mut lines: Vec<Line> = serde_json::from_str(text).ok()?;
        lines.sort_by(|one, other| one.order().cmp(&other.order()));
        Some(lines)
    };
    sorted(a).is_some_and(|lines| Some(lines) == sorted(b))
}

async fn record_refunds(
    batch: &Batch<'_>,
    new: Vec<(usize, &NewRefund)>,
    customers: &mut Customers,
    verdicts: &mut [Verdict],
) -> Result<(), Error> {
    if new.is_empty() {
        return Ok(());
    }
    let purchases: Vec<String> = new.iter().map(|(_, refund)| refund.purchase_external_id.clone()).collect();
    let of_purchases = any(batch.backend(), refund::Column::PurchaseExternalId, purchases);
    let of_ids =
        any(batch.backend(), refund::Column::ExternalId, new.iter().map(|(_, refund)| refund.external_id.clone()));
    let mut known: BTreeMap<String, refund::Model> = BTreeMap::new();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for row in refund::Entity::find().filter(of_purchases.or(of_ids)).all(batch.tx).await? {
        *counts.entry(row.purchase_external_id.clone()).or_default() += 1;
        known.insert(row.external_id.clone(), row);
    }
    let mut rows: BTreeMap<String, refund::Model> = BTreeMap::new();
    let mut asked = Vec::with_capacity(new.len());
    for (index, new) in new {
        let customer = locked(customers, &new.customer_external_id)?;
        let row = refund_row(batch, new, customer)?;
        if !known.contains_key(&row.external_id) && !rows.contains_key(&row.external_id) {
            let count = counts.entry(row.purchase_external_id.clone()).or_default();
            if *count >= MAX_REFUNDS {
                verdicts[index] = Verdict::Refused(TOO_MANY_REFUNDS);
                continue;
            }
            *count += 1;
            rows.insert(row.external_id.clone(), row.clone());
        }
        asked.push((index, &new.customer_external_id, row));
    }
    let models: Vec<refund::Model> = rows.values().cloned().collect();
    let inserted = insert_new::<refund::Entity>(batch.tx, &models, &[], refund::Column::ExternalId).await?;
    let mut inserted: HashSet<String> = inserted.into_iter().collect();
    // An id that was not free is another purchase's refund.
    let taken: Vec<String> = rows.keys().filter(|id| !inserted.contains(*id)).cloned().collect();
    known.extend(rows);
    if !taken.is_empty() {
        let taken = any(batch.backend(), refund::Column::ExternalId, taken);
        let rows = refund::Entity::find().filter(taken).all(batch.tx).await?;
        known.extend(rows.into_iter().map(|row| (row.external_id.clone(), row)));
    }
    for (index, customer, row) in asked {
        if inserted.remove(&row.external_id) {
            locked(customers, customer)?.refunds.push(row);
        } else if known.get(&row.external_id).is_some_and(|known| same_refund(known, &row)) {
            verdicts[index] = Verdict::Replayed(None);
        } else {
            verdicts[index] = Verdict::Refused(CONFLICT);
        }
    }
    Ok(())
}

fn refund_row(batch: &Batch<'_>, new: &NewRefund, customer: &Touched) -> Result<refund::Model, Error> {
    Ok(refund::Model {
        external_id: new.external_id.clone(),
        purchase_external_id: new.purchase_external_id.clone(),
        customer_id: customer.row.id,
        refunded_at: new.refunded_at.0,
        recorded_at: batch.now.0,
        amount: new.refund.amount,
        lines: serde_json::to_string(&new.refund.lines).map_err(|error| Error::Internal(error.to_string()))?,
        revision: batch.campaigns.revision.number,
        version: customer.next_version(),
    })
}

/// The same content: everything that the shop sent, defaults filled in, the lines added by sku.
fn same_refund(a: &refund::Model, b: &refund::Model) -> bool {
    a.purchase_external_id == b.purchase_external_id
        && a.refunded_at == b.refunded_at
        && a.amount == b.amount
        && (a.lines == b.lines || same_refund_lines(&a.lines, &b.lines))
}

fn same_refund_lines(a: &str, b: &str) -> bool {
    let by_sku = |text: &str| {
        let lines: Vec<RefundLine> = serde_json::from_str(text).ok()?;
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for line in lines {
            *sums.entry(line.sku).or_default() += line.amount;
        }
        Some(sums)
    };
    by_sku(a).is_some_and(|sums| Some(sums) == by_sku(b))
}

async fn record_adjustments(
    batch: &Batch<'_>,
    new: Vec<(usize, &AdjustPoints)>,
    customers: &mut Customers,
    verdicts: &mut [Verdict],
) -> Result<(), Error> {
    if new.is_empty() {
        return Ok(());
    }
    let mut known: BTreeMap<String, idempotency_key::Model> = BTreeMap::new();
    let mut asked = Vec::with_capacity(new.len());
    for (index, adjustment) in new {
        let customer = locked(customers, &adjustment.customer_external_id)?;
        let request = adjustment.request();
        known.entry(adjustment.idempotency_key.clone()).or_insert_with(|| idempotency_key::Model {
            key: adjustment.idempotency_key.clone(),
            request: request.clone(),
            campaign_id: None,
            customer_id: Some(customer.row.id.0),
            sequence: None,
        });
        asked.push((index, adjustment, request));
    }
    let models: Vec<idempotency_key::Model> = known.values().cloned().collect();
    let inserted = insert_new::<idempotency_key::Entity>(batch.tx, &models, &[], idempotency_key::Column::Key).await?;
    let mut inserted: HashSet<String> = inserted.into_iter().collect();
    let earlier: Vec<String> = known.keys().filter(|key| !inserted.contains(*key)).cloned().collect();
    let mut posted = HashMap::new();
    if !earlier.is_empty() {
        let earlier = any(batch.backend(), idempotency_key::Column::Key, earlier);
        let rows = idempotency_key::Entity::find().filter(earlier).all(batch.tx).await?;
        posted = entries_of(batch, &rows).await?;
        known.extend(rows.into_iter().map(|row| (row.key.clone(), row)));
    }
    let mut refused = HashSet::new();
    for (index, adjustment, request) in asked {
        let key = &adjustment.idempotency_key;
        let customer = locked(customers, &adjustment.customer_external_id)?;
        if inserted.remove(key) {
            let pending: i64 = customer.adjustments.iter().map(|accepted| accepted.points).sum();
            if !adjustment.fits(customer.row.balance.saturating_add(pending)) {
                verdicts[index] = Verdict::Refused(BALANCE_TOO_LARGE);
                refused.insert(key.clone());
                // Free for the next of this batch that has it.
                inserted.insert(key.clone());
                continue;
            }
            refused.remove(key);
            customer.adjustments.push(adjustment.clone());
        } else if known.get(key).is_some_and(|known| known.request == request) {
            verdicts[index] = Verdict::Replayed(posted.get(key).cloned());
        } else {
            verdicts[index] = Verdict::Refused(KEY_CONFLICT);
        }
    }
    if !refused.is_empty() {
        // A refusal changes nothing: the key stays free.
        let keys = any(batch.backend(), idempotency_key::Column::Key, refused);
        idempotency_key::Entity::delete_many().filter(keys).exec(batch.tx).await?;
    }
    Ok(())
}

/// The ledger entries that these keys posted, by key.
async fn entries_of(
    batch: &Batch<'_>,
    keys: &[idempotency_key::Model],
) -> Result<HashMap<String, ledger_entry::Model>, Error> {
    let customers = keys.iter().filter_map(|key| key.customer_id);
    let sequences = keys.iter().filter_map(|key| key.sequence);
    // A few more than asked for: all combinations of these customers and sequences.
    let entries = ledger_entry::Entity::find()
        .filter(any(batch.backend(), ledger_entry::Column::CustomerId, customers))
        .filter(any(batch.backend(), ledger_entry::Column::Sequence, sequences))
        .all(batch.tx)
        .await?;
    let entry_of = |key: &idempotency_key::Model| {
        let posted = |entry: &&ledger_entry::Model| {
            (Some(entry.customer_id.0), Some(entry.sequence)) == (key.customer_id, key.sequence)
        };
        Some((key.key.clone(), entries.iter().find(posted)?.clone()))
    };
    Ok(keys.iter().filter_map(entry_of).collect())
}

fn locked<'a>(customers: &'a mut Customers, name: &str) -> Result<&'a mut Touched, Error> {
    customers.get_mut(name).ok_or_else(|| Error::Internal("a fact's customer was not locked".to_owned()))
}
