//! Accepts facts: purchases, then refunds, then adjustments, each kind in the order in which its facts came in. A new fact is
//! stored and added to its customer. If a fact was sent before, its whole content is compared with the stored content: it is
//! either a duplicate or a conflict.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use entity::{idempotency_key, ledger_entry, purchase, refund};
use sea_orm::{EntityTrait, ExprTrait, QueryFilter};

use super::fact::{Fact, MAX_REFUNDS, NewAdjustment, NewPurchase, NewRefund, Refusal};
use super::insertion::{Insertion, insert_once};
use super::touched::{Batch, Customers, Touched};
use crate::app::error::{Error, UserErrorCode};
use crate::app::rows::any;
use crate::app::stored::{purchase as purchases, refund as refunds};
use crate::engine::purchase::{Line, Purchase, RefundLine};

/// The decision about one fact.
pub(super) enum Verdict {
    Accepted,
    /// The fact is a duplicate. For an adjustment, contains the ledger entry that it posted originally.
    Replayed(Option<Arc<ledger_entry::Model>>),
    Refused(Refusal),
}

impl Verdict {
    fn of(insertion: Insertion, conflict: Refusal) -> Self {
        match insertion {
            Insertion::New => Self::Accepted,
            Insertion::Same => Self::Replayed(None),
            Insertion::Different => Self::Refused(conflict),
        }
    }
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
    message: "the purchase already has 100 refunds",
};
const BALANCE_TOO_LARGE: Refusal =
    Refusal { code: UserErrorCode::OutOfRange, path: "points", message: "would take the balance past ±10^15" };

/// Accepts the new facts. Returns one verdict per fact, in order.
pub(super) async fn accept(
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
    accept_purchases(batch, purchases, customers, &mut verdicts).await?;
    accept_refunds(batch, refunds, customers, &mut verdicts).await?;
    accept_adjustments(batch, adjustments, customers, &mut verdicts).await?;
    for customer in customers.values_mut() {
        let facts = customer.purchases.len() + customer.refunds.len() + customer.adjustments.len();
        customer.changed |= facts > 0;
    }
    Ok(verdicts)
}

async fn accept_purchases(
    batch: &Batch<'_>,
    sent: Vec<(usize, &NewPurchase)>,
    customers: &mut Customers,
    verdicts: &mut [Verdict],
) -> Result<(), Error> {
    let mut rows = Vec::with_capacity(sent.len());
    for (_, new) in &sent {
        let customer = locked(customers, &new.customer_external_id)?;
        let (id, version) = (customer.row.id, customer.next_version());
        rows.push(purchases::to_row(&new.purchase, id, batch.now, batch.campaigns.revision.number, version)?);
    }
    let key = purchase::Column::ExternalId;
    let mut inserted = insert_once::<purchase::Entity>(batch, key, |row| &row.external_id, Vec::new(), &rows).await?;
    for ((index, new), row) in sent.into_iter().zip(&rows) {
        let insertion = inserted.claim(&row.external_id, |stored| same_purchase(stored, row));
        verdicts[index] = Verdict::of(insertion, CONFLICT);
        if insertion == Insertion::New {
            let purchase = Purchase { set_revision: row.set_revision, ..new.purchase.clone() };
            locked(customers, &new.customer_external_id)?.purchases.push(purchase);
        }
    }
    Ok(())
}

/// Whether two purchases have the same content: everything that the shop sent, with the lines in any order.
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

async fn accept_refunds(
    batch: &Batch<'_>,
    sent: Vec<(usize, &NewRefund)>,
    customers: &mut Customers,
    verdicts: &mut [Verdict],
) -> Result<(), Error> {
    if sent.is_empty() {
        return Ok(());
    }
    let stored = load_refunds(batch, &sent).await?;
    let admitted = within_limit(sent.iter().map(|(_, refund)| *refund), &stored);
    let mut accepted = Vec::with_capacity(sent.len());
    let mut rows = Vec::with_capacity(sent.len());
    for ((index, new), admitted) in sent.into_iter().zip(admitted) {
        if admitted {
            let customer = locked(customers, &new.customer_external_id)?;
            let (id, version) = (customer.row.id, customer.next_version());
            rows.push(refunds::to_row(new, id, batch.now, batch.campaigns.revision.number, version)?);
            accepted.push((index, new));
        } else {
            verdicts[index] = Verdict::Refused(TOO_MANY_REFUNDS);
        }
    }
    let key = refund::Column::ExternalId;
    let mut inserted = insert_once::<refund::Entity>(batch, key, |row| &row.external_id, stored, &rows).await?;
    for ((index, new), row) in accepted.into_iter().zip(&rows) {
        let insertion = inserted.claim(&row.external_id, |stored| same_refund(stored, row));
        verdicts[index] = Verdict::of(insertion, CONFLICT);
        if insertion == Insertion::New {
            locked(customers, &new.customer_external_id)?.refunds.push(row.clone());
        }
    }
    Ok(())
}

/// Loads all stored refunds of the purchases that these refunds name, and the stored refunds with the ids of these refunds.
async fn load_refunds(batch: &Batch<'_>, sent: &[(usize, &NewRefund)]) -> Result<Vec<refund::Model>, Error> {
    let of = |column, values: Vec<String>| any(batch.backend(), column, values);
    let purchases = sent.iter().map(|(_, refund)| refund.purchase_external_id.to_string()).collect();
    let ids = sent.iter().map(|(_, refund)| refund.external_id.to_string()).collect();
    let either = of(refund::Column::PurchaseExternalId, purchases).or(of(refund::Column::ExternalId, ids));
    Ok(refund::Entity::find().filter(either).all(batch.tx).await?)
}

/// Returns for each refund whether it is already stored or its purchase has room for another refund.
fn within_limit<'a>(sent: impl Iterator<Item = &'a NewRefund>, stored: &'a [refund::Model]) -> Vec<bool> {
    let mut known: HashSet<&str> = stored.iter().map(|row| row.external_id.as_str()).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for row in stored {
        *counts.entry(&row.purchase_external_id).or_default() += 1;
    }
    let mut admit = |refund: &'a NewRefund| {
        if known.contains(&*refund.external_id) {
            return true;
        }
        let count = counts.entry(&refund.purchase_external_id).or_default();
        let has_room = *count < MAX_REFUNDS;
        if has_room {
            *count += 1;
            known.insert(&refund.external_id);
        }
        has_room
    };
    sent.map(&mut admit).collect()
}

/// Whether two refunds have the same content: everything that the shop sent, with defaults filled in and lines added up by sku.
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

async fn accept_adjustments(
    batch: &Batch<'_>,
    sent: Vec<(usize, &NewAdjustment)>,
    customers: &mut Customers,
    verdicts: &mut [Verdict],
) -> Result<(), Error> {
    if sent.is_empty() {
        return Ok(());
    }
    let keys = sent.iter().map(|(_, adjustment)| adjustment.idempotency_key.clone());
    let known = any(batch.backend(), idempotency_key::Column::Key, keys);
    let stored = idempotency_key::Entity::find().filter(known).all(batch.tx).await?;
    let posted = load_entries(batch, &stored).await?;
    let fits = within_balance(sent.iter().map(|(_, adjustment)| *adjustment), &stored, customers);
    let mut accepted = Vec::with_capacity(sent.len());
    let mut rows = Vec::with_capacity(sent.len());
    for ((index, adjustment), fits) in sent.into_iter().zip(fits) {
        if fits {
            rows.push(key_row(adjustment, locked(customers, &adjustment.customer_external_id)?));
            accepted.push((index, adjustment));
        } else {
            // A refusal leaves no trace, so the key stays free.
            verdicts[index] = Verdict::Refused(BALANCE_TOO_LARGE);
        }
    }
    let key = idempotency_key::Column::Key;
    let mut inserted = insert_once::<idempotency_key::Entity>(batch, key, |row| &row.key, stored, &rows).await?;
    for ((index, adjustment), row) in accepted.into_iter().zip(&rows) {
        let insertion = inserted.claim(&row.key, |stored| stored.request == row.request);
        verdicts[index] = match Verdict::of(insertion, KEY_CONFLICT) {
            Verdict::Replayed(_) => Verdict::Replayed(posted.get(&row.key).cloned()),
            other => other,
        };
        if insertion == Insertion::New {
            locked(customers, &adjustment.customer_external_id)?.adjustments.push(adjustment.clone());
        }
    }
    Ok(())
}

/// Returns for each adjustment whether it is already stored or allowed for the balance of its customer. The balance includes the
/// adjustments before it.
fn within_balance<'a>(
    sent: impl Iterator<Item = &'a NewAdjustment>,
    stored: &'a [idempotency_key::Model],
    customers: &Customers,
) -> Vec<bool> {
    let mut known: HashSet<&str> = stored.iter().map(|row| row.key.as_str()).collect();
    let mut balances: HashMap<&str, i64> = HashMap::new();
    let mut admit = |adjustment: &'a NewAdjustment| {
        if known.contains(adjustment.idempotency_key.as_str()) {
            return true;
        }
        let name = &*adjustment.customer_external_id;
        let recorded = customers.get(name).map_or(0, |customer| customer.row.balance);
        let balance = balances.entry(name).or_insert(recorded);
        let fits = adjustment.fits(*balance);
        if fits {
            *balance = balance.saturating_add(adjustment.points);
            known.insert(&adjustment.idempotency_key);
        }
        fits
    };
    sent.map(&mut admit).collect()
}

/// Returns the row of the idempotency key. Its `sequence` is set when the adjustment is posted.
fn key_row(adjustment: &NewAdjustment, customer: &Touched) -> idempotency_key::Model {
    idempotency_key::Model {
        key: adjustment.idempotency_key.clone(),
        request: adjustment.request(),
        campaign_id: None,
        customer_id: Some(customer.row.id.0),
        sequence: None,
    }
}

/// Loads the ledger entries that were posted under these keys, by key.
async fn load_entries(
    batch: &Batch<'_>,
    keys: &[idempotency_key::Model],
) -> Result<HashMap<String, Arc<ledger_entry::Model>>, Error> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let customers = keys.iter().filter_map(|key| key.customer_id);
    let sequences = keys.iter().filter_map(|key| key.sequence);
    // This loads all combinations of these customers and sequences, which may be a few more entries than needed.
    let entries: Vec<_> = ledger_entry::Entity::find()
        .filter(any(batch.backend(), ledger_entry::Column::CustomerId, customers))
        .filter(any(batch.backend(), ledger_entry::Column::Sequence, sequences))
        .all(batch.tx)
        .await?
        .into_iter()
        .map(Arc::new)
        .collect();
    let entry_of = |key: &idempotency_key::Model| {
        let posted = |entry: &&Arc<ledger_entry::Model>| {
            (Some(entry.customer_id.0), Some(entry.sequence)) == (key.customer_id, key.sequence)
        };
        Some((key.key.clone(), entries.iter().find(posted)?.clone()))
    };
    Ok(keys.iter().filter_map(entry_of).collect())
}

fn locked<'a>(customers: &'a mut Customers, name: &str) -> Result<&'a mut Touched, Error> {
    customers.get_mut(name).ok_or_else(|| Error::Internal("a fact's customer was not locked".to_owned()))
}
