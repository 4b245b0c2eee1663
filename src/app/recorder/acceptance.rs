//! Accepts facts: purchases, then refunds, then acts, each kind in the order in which its facts came in. A new fact is
//! stored and added to its customer. If a fact was sent before, its whole content is compared with the stored content: it is
//! either a duplicate or a conflict. `revising` decides about further contents of a purchase.
//!
//! The customer of a recorded purchase is known only once the purchase is read. If it is not locked, nothing can be accepted: the
//! batch must be repeated with that customer locked too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use entity::{CustomerId, idempotency_key, ledger_entry, purchase, redemption, refund};
use sea_orm::{EntityTrait, ExprTrait, QueryFilter};

use super::act::Act;
use super::conflict;
use super::erased;
use super::fact::{Done, Fact, MAX_REFUNDS, NewPurchase, NewRefund, Refusal, Verdict};
use super::insertion::{Insertion, insert_once};
use super::locking::Unlocked;
use super::revising::{Again, revise};
use super::touched::{Batch, Customers, Touched};
use crate::app::error::{Error, UserErrorCode};
use crate::app::rows::any;
use crate::app::stored::customer::load_by_ids;
use crate::app::stored::history::{self, Lines};
use crate::app::stored::{
    purchase as purchases, purchase_revision as revisions, redemption as redemptions, refund as refunds,
};
use crate::engine::external_id::is_erased;
use crate::engine::purchase::Purchase;

/// The decisions about the facts of a batch.
pub(super) struct Accepted {
    /// One verdict per fact, in order.
    pub(super) verdicts: Vec<Verdict>,
    /// The customers of purchases that do not belong to the customer that a fact names.
    pub(super) owners: HashMap<String, CustomerId>,
}

fn too_many_refunds() -> Refusal {
    Refusal::new(UserErrorCode::OutOfRange, "purchaseExternalId", "the purchase already has 100 refunds")
}

/// Accepts the new facts, unless a customer of theirs is not locked.
pub(super) async fn accept(
    batch: &Batch<'_>,
    facts: &[&Fact],
    customers: &mut Customers,
) -> Result<Result<Accepted, Unlocked>, Error> {
    let erased = erased::find(batch, facts).await?;
    let unlocked = erased.unlocked(batch, customers).await?;
    if !unlocked.is_empty() {
        return Ok(Err(unlocked));
    }
    let mut verdicts: Vec<Verdict> = facts.iter().map(|_| Verdict::Accepted { superseded: false }).collect();
    let mut purchases = Vec::new();
    let mut refunds = Vec::new();
    let mut acts = Vec::new();
    for (index, fact) in facts.iter().enumerate() {
        if let Some(verdict) = erased.decide(fact) {
            verdicts[index] = verdict;
            continue;
        }
        match fact {
            Fact::Purchase(purchase) => purchases.push((index, purchase)),
            Fact::Refund(refund) => refunds.push((index, refund)),
            _ => acts.extend(Act::of(fact).map(|act| (index, act))),
        }
    }
    let mut owners = erased.purchases;
    if let Err(unlocked) = accept_purchases(batch, purchases, customers, &mut verdicts, &mut owners).await? {
        return Ok(Err(unlocked));
    }
    if let Err(unlocked) = accept_refunds(batch, refunds, customers, &mut verdicts, &mut owners).await? {
        return Ok(Err(unlocked));
    }
    accept_acts(batch, acts, customers, &mut verdicts).await?;
    for customer in customers.values_mut() {
        // Acts are decided when everything else is posted.
        let facts = customer.purchases.len() + customer.revised.len() + customer.refunds.len();
        customer.changed |= facts > 0;
    }
    Ok(Ok(Accepted { verdicts, owners }))
}

async fn accept_purchases(
    batch: &Batch<'_>,
    sent: Vec<(usize, &NewPurchase)>,
    customers: &mut Customers,
    verdicts: &mut [Verdict],
    owners: &mut HashMap<String, CustomerId>,
) -> Result<Result<(), Unlocked>, Error> {
    let mut row_of = |new: &NewPurchase| -> Result<purchase::Model, Error> {
        let customer = locked(customers, &new.customer_external_id)?;
        let (id, version) = (customer.row.id, customer.next_version());
        purchases::to_row(new, id, batch.now, batch.campaigns.revision.number, version)
    };
    let (ahead, sent): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(_, new)| !new.ahead.is_empty());
    let rows = sent.iter().map(|(_, new)| row_of(new)).collect::<Result<Vec<_>, _>>()?;
    let ahead_rows = ahead.iter().map(|(_, new)| row_of(new)).collect::<Result<Vec<_>, _>>()?;
    let key = purchase::Column::ExternalId;
    let mut inserted =
        insert_once::<purchase::Entity>(batch, key, |row| &row.external_id, unused_columns(&rows), Vec::new(), &rows)
            .await?;
    let mut again = Vec::new();
    let mut stored = BTreeMap::new();
    let mut new_ids = HashSet::new();
    for ((index, new), row) in sent.into_iter().zip(&rows) {
        match inserted.claim(&row.external_id) {
            Some(Insertion::New) => {
                new_ids.insert(row.external_id.as_str());
                let purchase = Purchase { set_revision: row.set_revision, ..new.purchase.clone() };
                locked(customers, &new.customer_external_id)?.purchases.push(purchase);
            }
            Some(Insertion::Stored(stored_row)) => {
                again.push(Again { index, new, row });
                let is_new = new_ids.contains(row.external_id.as_str());
                stored.entry(row.external_id.clone()).or_insert_with(|| (stored_row.clone(), is_new));
            }
            None => return Err(Error::Internal("a purchase was neither inserted nor found".to_owned())),
        }
    }
    if !ahead.is_empty() {
        let named = any(batch.backend(), key, ahead_rows.iter().map(|row| row.external_id.clone()));
        for row in purchase::Entity::find().filter(named).all(batch.tx).await? {
            let is_new = new_ids.contains(row.external_id.as_str());
            stored.entry(row.external_id.clone()).or_insert((row, is_new));
        }
    }
    for ((index, new), row) in ahead.into_iter().zip(&ahead_rows) {
        if stored.contains_key(&row.external_id) {
            again.push(Again { index, new, row });
        } else {
            verdicts[index] = Verdict::Refused(Refusal::of(new.ahead.clone()));
        }
    }
    again.sort_by_key(|again| again.index);
    if again.is_empty() {
        return Ok(Ok(()));
    }
    let unlocked = unlocked(batch, stored.values().map(|(row, _)| row), customers).await?;
    if !unlocked.is_empty() {
        return Ok(Err(unlocked));
    }
    owners.extend(revise(batch, again, stored, customers, verdicts).await?);
    Ok(Ok(()))
}

/// Returns the columns in which none of the rows has a value: those of revisions, which most shops never send.
fn unused_columns(rows: &[purchase::Model]) -> &'static [purchase::Column] {
    use purchase::Column::{Refunded, RefundedRevision, RefundedUntil, Revision};
    let is_plain = |row: &purchase::Model| row.revision == 0 && row.refunded.is_none();
    if rows.iter().all(is_plain) { &[Revision, Refunded, RefundedUntil, RefundedRevision] } else { &[] }
}

/// Returns the customers of these purchases that are not locked.
async fn unlocked<'a>(
    batch: &Batch<'_>,
    rows: impl Iterator<Item = &'a purchase::Model>,
    customers: &Customers,
) -> Result<Unlocked, Error> {
    let locked: HashSet<CustomerId> = customers.values().map(|customer| customer.row.id).collect();
    let missing: Vec<&purchase::Model> = rows.filter(|row| !locked.contains(&row.customer_id)).collect();
    if missing.is_empty() {
        return Ok(Unlocked::new());
    }
    let owners = load_by_ids(batch.tx, missing.iter().map(|row| row.customer_id).collect()).await?;
    let mut unlocked = Unlocked::new();
    for row in missing {
        let owner = owners.get(&row.customer_id);
        let owner = owner.ok_or_else(|| Error::Internal(format!("purchase {}: no such customer", row.external_id)))?;
        unlocked.entry(owner.external_id.clone()).or_default().insert(row.external_id.clone());
    }
    Ok(unlocked)
}

async fn accept_refunds(
    batch: &Batch<'_>,
    sent: Vec<(usize, &NewRefund)>,
    customers: &mut Customers,
    verdicts: &mut [Verdict],
    owners: &mut HashMap<String, CustomerId>,
) -> Result<Result<(), Unlocked>, Error> {
    if sent.is_empty() {
        return Ok(Ok(()));
    }
    let named = sent.iter().map(|(_, refund)| refund.purchase_external_id.to_string());
    let refunded = any(batch.backend(), purchase::Column::ExternalId, named);
    let refunded = purchase::Entity::find().filter(refunded).all(batch.tx).await?;
    let unlocked = unlocked(batch, refunded.iter(), customers).await?;
    if !unlocked.is_empty() {
        return Ok(Err(unlocked));
    }
    let refunded: HashMap<String, purchase::Model> =
        refunded.into_iter().map(|row| (row.external_id.clone(), row)).collect();
    let names: HashMap<CustomerId, String> =
        customers.iter().map(|(name, customer)| (customer.row.id, name.clone())).collect();
    let owner_of = |new: &NewRefund| -> Result<&String, Error> {
        let owner = refunded.get(&*new.purchase_external_id).and_then(|row| names.get(&row.customer_id));
        owner.ok_or_else(|| Error::Internal("a refund's purchase was not found".to_owned()))
    };
    let mut kept = Vec::with_capacity(sent.len());
    for (index, new) in sent {
        let owner = owner_of(new)?;
        if is_erased(owner) {
            owners.insert(new.purchase_external_id.to_string(), locked(customers, owner)?.row.id);
            verdicts[index] = Verdict::replayed(false);
        } else {
            kept.push((index, new));
        }
    }
    let sent = kept;
    let stored = load_refunds(batch, &sent).await?;
    let totals = load_totals(batch, &sent, &stored, &refunded).await?;
    let (ahead, sent): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(_, new)| {
        !new.ahead.is_empty() && !stored.iter().any(|stored| *stored.external_id == *new.external_id)
    });
    for (index, new) in ahead {
        verdicts[index] = Verdict::Refused(Refusal::of(new.ahead.clone()));
    }
    let admitted = within_limit(sent.iter().map(|(_, refund)| *refund), &stored);
    let mut accepted = Vec::with_capacity(sent.len());
    let mut rows = Vec::with_capacity(sent.len());
    for ((index, new), admitted) in sent.into_iter().zip(admitted) {
        if admitted {
            let owner = owner_of(new)?;
            let customer = locked(customers, owner)?;
            let (id, version) = (customer.row.id, customer.next_version());
            if **owner != *new.customer_external_id {
                owners.insert(new.purchase_external_id.to_string(), id);
            }
            rows.push(refunds::to_row(new, id, batch.now, batch.campaigns.revision.number, version)?);
            accepted.push((index, new));
        } else {
            verdicts[index] = Verdict::Refused(too_many_refunds());
        }
    }
    let key = refund::Column::ExternalId;
    let mut inserted = insert_once::<refund::Entity>(batch, key, |row| &row.external_id, &[], stored, &rows).await?;
    for ((index, new), row) in accepted.into_iter().zip(&rows) {
        match inserted.claim(&row.external_id) {
            Some(Insertion::New) => locked(customers, owner_of(new)?)?.refunds.push(row.clone()),
            Some(Insertion::Stored(stored)) => {
                let totals = totals.get(&stored.purchase_external_id).map(Vec::as_slice).unwrap_or_default();
                let differences = conflict::of_refunds(row, stored, totals)?;
                verdicts[index] = differences.into_conflict().map_or(Verdict::replayed(false), Verdict::Refused);
            }
            None => return Err(Error::Internal("a refund was neither inserted nor found".to_owned())),
        }
    }
    Ok(Ok(()))
}

/// Loads all stored refunds of the purchases that these refunds name, and the stored refunds with the ids of these refunds.
async fn load_refunds(batch: &Batch<'_>, sent: &[(usize, &NewRefund)]) -> Result<Vec<refund::Model>, Error> {
    let of = |column, values: Vec<String>| any(batch.backend(), column, values);
    let purchases = sent.iter().map(|(_, refund)| refund.purchase_external_id.to_string()).collect();
    let ids = sent.iter().map(|(_, refund)| refund.external_id.to_string()).collect();
    let either = of(refund::Column::PurchaseExternalId, purchases).or(of(refund::Column::ExternalId, ids));
    Ok(refund::Entity::find().filter(either).all(batch.tx).await?)
}

/// Returns the totals that the contents of purchases have, for refunds that an earlier release recorded with such a total as their
/// amount. Loads nothing if none of them is sent again with an amount.
async fn load_totals(
    batch: &Batch<'_>,
    sent: &[(usize, &NewRefund)],
    stored: &[refund::Model],
    refunded: &HashMap<String, purchase::Model>,
) -> Result<HashMap<String, Vec<conflict::Amount>>, Error> {
    let is_compared = |row: &&refund::Model| {
        let again = |new: &NewRefund| *new.external_id == *row.external_id && new.refund.amount.is_some();
        row.currency.is_none() && sent.iter().any(|(_, new)| again(new))
    };
    let compared: Vec<String> = stored.iter().filter(is_compared).map(|row| row.purchase_external_id.clone()).collect();
    let mut totals: HashMap<String, Vec<conflict::Amount>> = HashMap::new();
    if compared.is_empty() {
        return Ok(totals);
    }
    for (id, contents) in history::contents(batch.tx, compared.iter().cloned(), Lines::LeftOut).await? {
        for content in contents {
            let total = (content.total, revisions::currency(&content)?);
            totals.entry(id.clone()).or_default().push(total);
        }
    }
    for row in compared.iter().filter_map(|id| refunded.get(id)) {
        totals.entry(row.external_id.clone()).or_default().push((row.total, purchases::currency(row)?));
    }
    Ok(totals)
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

async fn accept_acts(
    batch: &Batch<'_>,
    sent: Vec<(usize, Act)>,
    customers: &mut Customers,
    verdicts: &mut [Verdict],
) -> Result<(), Error> {
    let mut rows = Vec::new();
    for (_, act) in &sent {
        if let Some((key, request)) = act.key() {
            rows.push(blank_key(key, request, locked(customers, act.customer())?.row.id));
        }
    }
    let stored = if rows.is_empty() {
        Vec::new()
    } else {
        let known = any(batch.backend(), idempotency_key::Column::Key, rows.iter().map(|row| row.key.clone()));
        idempotency_key::Entity::find().filter(known).all(batch.tx).await?
    };
    let entries = load_entries(batch, &stored).await?;
    let redemptions = load_redemptions(batch, &stored).await?;
    let key = idempotency_key::Column::Key;
    let mut inserted = if rows.is_empty() {
        None
    } else {
        Some(insert_once::<idempotency_key::Entity>(batch, key, |row| &row.key, &[], stored, &rows).await?)
    };
    let mut firsts: HashMap<String, usize> = HashMap::new();
    for (index, act) in sent {
        let claimed = act.key().and_then(|(key, _)| inserted.as_mut()?.claim(key));
        match claimed {
            Some(Insertion::Stored(stored)) => {
                // Until the erasure of a customer is done, its keys are here.
                let of_erased = stored.customer_id != Some(locked(customers, act.customer())?.row.id.0);
                let conflict = conflict_of(&act, &stored.request).or_else(|| of_erased.then(erased::used_key));
                let key = stored.key.clone();
                verdicts[index] = match conflict {
                    Some(conflict) => Verdict::Refused(conflict),
                    None => match firsts.get(&key) {
                        Some(first) => Verdict::SameAs(*first),
                        None => {
                            let (entry, redemption) = (entries.get(&key).cloned(), redemptions.get(&key).cloned());
                            Verdict::Replayed { superseded: false, done: Done { entry, redemption, replayed: true } }
                        }
                    },
                };
            }
            Some(Insertion::New) | None => {
                firsts.extend(act.key().map(|(key, _)| (key.to_owned(), index)));
                locked(customers, act.customer())?.acts.push((index, act));
            }
        }
    }
    Ok(())
}

/// Returns the refusal of an act whose key was used before with this request, unless the request is the same.
fn conflict_of(act: &Act, request: &str) -> Option<Refusal> {
    match act {
        Act::Adjust(adjustment) => conflict::of_adjustments(adjustment, request).into_conflict(),
        Act::Redeem(redemption) if redemption.request() != request => {
            let message = "was used before for a different request: choose another key";
            Some(Refusal::new(UserErrorCode::IdempotencyConflict, "idempotencyKey", message))
        }
        Act::Redeem(_) | Act::Step(_) => None,
    }
}

/// Returns the row of an idempotency key. What the act did is added when it is decided.
fn blank_key(key: &str, request: String, customer: CustomerId) -> idempotency_key::Model {
    idempotency_key::Model {
        key: key.to_owned(),
        request,
        campaign_id: None,
        customer_id: Some(customer.0),
        sequence: None,
        reward_id: None,
        redemption_number: None,
    }
}

/// Loads the redemptions that were made under these keys, by key.
async fn load_redemptions(
    batch: &Batch<'_>,
    keys: &[idempotency_key::Model],
) -> Result<HashMap<String, Arc<redemption::Model>>, Error> {
    let named = |key: &idempotency_key::Model| Some((CustomerId(key.customer_id?), key.redemption_number?));
    let found = redemptions::load(batch.tx, keys.iter().filter_map(named)).await?;
    let mut by_name: HashMap<(CustomerId, i64), Arc<redemption::Model>> = HashMap::new();
    by_name.extend(found.into_iter().map(|row| ((row.customer_id, row.number), Arc::new(row))));
    let of_key = |key: &idempotency_key::Model| Some((key.key.clone(), Arc::clone(by_name.get(&named(key)?)?)));
    Ok(keys.iter().filter_map(of_key).collect())
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
