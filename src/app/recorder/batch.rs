//! Commits one batch in one transaction: lock, insert the facts, load and fold, decide and post, commit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use entity::{award, customer};
use sea_orm::{EntityTrait, FromQueryResult as _, QueryFilter};

use super::acceptance::Accepted;
use super::changed::ChangedAwards;
use super::context::{Commit, Context};
use super::erased;
use super::evaluation::Evaluation;
use super::fact::{Done, Fact, Recorded, Refusal, Verdict};
use super::locking::{self, Locked, Unlocked};
use super::prepared::{Preparation, TooLong};
use super::purses::Opening;
use super::recount::Repair;
use super::touched::{Batch, Customers, Revised, Touched};
use super::turns::Turn;
use super::{acceptance, evaluation, posting, purses, repair, telling};
use crate::app::error::{Error, UserErrorCode};
use crate::app::jobs::request::{Wanted, request};
use crate::app::rows::{any, insert_new};
use crate::app::stored::customer::blank;
use crate::app::stored::running::Running;
use crate::app::trail;

/// The outcome of a batch.
pub(super) enum Committed {
    /// The batch was committed. Contains one result per fact, in order.
    Answers(Vec<Result<Recorded, Refusal>>),
    /// Nothing was written, because a change of this customer must be prepared first.
    TooLong(TooLong),
    /// Nothing was written, because so much of this customer is due that it must be posted first.
    TooManyDue(String),
    /// Nothing was written, because another node created one of the customers or changed a reward meanwhile, or because a reservation ended.
    /// The batch can be repeated.
    Overtaken,
    /// Nothing was written, because purchases of the facts belong to these customers. The batch must be repeated with them.
    Unlocked(Unlocked),
}

/// Commits the facts, unless one of their changes is too long and is not prepared. `others` are customers to lock in addition to those
/// that the facts name. Takes what is prepared out of `preparation`. Ends the turn at the COMMIT.
pub(super) async fn commit(
    context: &Context,
    shard: i32,
    facts: &[&Fact],
    others: &Unlocked,
    preparation: &mut Preparation,
    turn: &mut Turn,
) -> Result<Committed, Error> {
    let tx = context.database.begin().await?;
    context.job_turns.note_batch();
    let Locked { campaigns, rows, now } = locking::lock(context, &tx, facts, others).await?;
    let batch = Batch {
        tx: &tx,
        campaigns,
        now,
        clock: context.clock.clone(),
        shard,
        fold_purchases: context.fold_purchases,
        most_refolded: preparation.may_be_repeated().then_some(context.fold_purchases),
        unrecorded: HashMap::new(),
    };
    let Some(mut customers) = customers(&batch, facts, rows).await? else { return Ok(Committed::Overtaken) };
    telling::begin(&batch, &mut customers);
    let mut prepared = preparation.prepared.take();
    let unprepared = customers.iter().find(|(_, customer)| customer.repair.is_some() && prepared.is_none());
    if let Some((name, _)) = unprepared.filter(|_| batch.most_refolded.is_some()) {
        return Ok(Committed::TooLong(TooLong { customer: name.clone(), touches: Vec::new(), repair: true }));
    }
    let accepted = match acceptance::accept(&batch, facts, &mut customers).await? {
        Ok(accepted) => accepted,
        Err(unlocked) => {
            // The repeated batch needs it.
            preparation.prepared = prepared;
            return Ok(Committed::Unlocked(unlocked));
        }
    };
    repair::begin(&batch, &mut customers, prepared.as_mut()).await?;
    let evaluated = match evaluation::evaluate(&batch, &customers, prepared).await? {
        Evaluation::Done(evaluated) => evaluated,
        Evaluation::TooLong(too_long) => return Ok(Committed::TooLong(too_long)),
    };
    let purses = match purses::open(&batch, &customers, &evaluated).await? {
        Opening::Done(purses) => purses,
        Opening::TooManyDue(customer) => return Ok(Committed::TooManyDue(customer)),
    };
    let Some(writes) = posting::post(&batch, &mut customers, evaluated, purses).await? else {
        return Ok(Committed::Overtaken);
    };
    close_customers(&batch, &mut customers).await?;
    let events = telling::close(&mut customers)?;
    writes.save(&batch, &customers, &events).await?;
    erased::rename_contents(&batch, &customers).await?;
    add_to_trail(&batch, facts, &customers).await?;
    let deferred = request_jobs(&batch, &customers).await?;
    let keeps_facts = batch.campaigns.keeps_facts;
    *turn = None;
    tx.commit().await?;
    if keeps_facts {
        context.woken.wake(contents(facts, &accepted));
    }
    if deferred {
        context.job_wanted.notify_one();
    }
    if !events.is_empty() {
        context.events_kept.notify_one();
    }
    let written: BTreeMap<String, Written> =
        customers.into_iter().map(|(name, customer)| (name, written(context, customer))).collect();
    Ok(Committed::Answers(answer(facts, accepted, &written)))
}

/// Returns the external ids of the purchases of which the batch has recorded a content.
fn contents(facts: &[&Fact], accepted: &Accepted) -> impl Iterator<Item = String> {
    let recorded =
        facts.iter().zip(&accepted.verdicts).filter(|(_, verdict)| matches!(verdict, Verdict::Accepted { .. }));
    recorded.filter_map(|(fact, _)| match fact {
        Fact::Purchase(new) => Some(new.purchase.key.external_id.clone()),
        _ => None,
    })
}

/// A customer after the commit. A batch may contain many facts of one customer, so what their results contain is shared.
struct Written {
    row: Arc<customer::Model>,
    awards: Arc<[Arc<award::Model>]>,
    awards_changed: i64,
    revised: Vec<Arc<Revised>>,
    done: HashMap<usize, Result<Done, Refusal>>,
    deferred: bool,
}

/// Announces the changes of a customer to its subscribers, and returns what the results of its facts contain.
fn written(context: &Context, customer: Touched) -> Written {
    let Touched { row, before, running, revised, done, awards, entries, changed, .. } = customer;
    let row = Arc::new(row);
    let commit = Commit { before, customer: Arc::clone(&row), entries };
    if changed {
        context.tell(&commit);
    }
    let (awards_changed, deferred) = (awards.count(), running.has_deferred());
    Written { row, awards: awards.newest().into(), awards_changed, revised, done, deferred }
}

/// Creates the customers that do not exist yet. Returns `None` if another node has created one of them meanwhile: locking it now
/// would break the order, and could end in a deadlock.
async fn customers(
    batch: &Batch<'_>,
    facts: &[&Fact],
    mut rows: Vec<customer::Model>,
) -> Result<Option<Customers>, Error> {
    let known: HashSet<&str> = rows.iter().map(|row| row.external_id.as_str()).collect();
    // These do not create their customer.
    let making = facts.iter().filter(|fact| !fact.is_of_job());
    let making: BTreeSet<&str> = making.map(|fact| fact.customer()).filter(|name| !known.contains(name)).collect();
    let blanks = making.iter().map(|name| customer::Model {
        recorded_at: batch.now.0,
        evaluated_revision: batch.campaigns.revision.number,
        ..blank(name)
    });
    let blanks: Vec<customer::Model> = blanks.collect();
    let made = insert_new::<customer::Entity>(batch.tx, &blanks, &[customer::Column::Id], "*").await?;
    if made.len() < blanks.len() {
        return Ok(None);
    }
    let made = made.iter().map(|row| customer::Model::from_query_result(row, "")).collect::<Result<Vec<_>, _>>()?;
    let new: BTreeSet<String> = made.iter().map(|row| row.external_id.clone()).collect();
    rows.extend(made);
    let named_by = |kind: fn(&Fact) -> bool| -> BTreeSet<&str> {
        facts.iter().filter(|fact| kind(fact)).map(|fact| fact.customer()).collect()
    };
    let repaired = named_by(|fact| matches!(fact, Fact::Repair(_)));
    let evaluated = named_by(|fact| matches!(fact, Fact::Evaluation(_) | Fact::Erasure { .. }));
    let expiring = named_by(|fact| matches!(fact, Fact::Expiry(_)));
    let erased_as: HashMap<&str, &str> = facts.iter().filter_map(|fact| fact.erasure()).collect();
    rows.into_iter()
        .map(|row| {
            let repair = repaired.contains(row.external_id.as_str());
            let running = Running::parse(&row.head);
            // A repair computes the running states again, so it also accepts states that cannot be parsed.
            let running = if repair { running.unwrap_or_default() } else { running? };
            let touched = Touched {
                new: new.contains(&row.external_id),
                repair: repair.then(|| Repair::of(running.clone())),
                asked_for: evaluated.contains(row.external_id.as_str()),
                posts_due: expiring.contains(row.external_id.as_str()),
                erased_as: erased_as.get(row.external_id.as_str()).map(|name| (*name).to_owned()),
                ..Touched::of(row, running, batch.now)
            };
            Ok((touched.row.external_id.clone(), touched))
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Completes the rows of the customers that changed. Deletes a customer that was created in this batch if all its facts were refused,
/// because a refusal leaves no trace.
async fn close_customers(batch: &Batch<'_>, customers: &mut Customers) -> Result<(), Error> {
    let mut unmade = Vec::new();
    for customer in customers.values_mut() {
        if customer.new && !customer.changed {
            unmade.push(customer.row.id.0);
            continue;
        }
        // Nothing of an erased customer waits for an evaluation, so this revision of the campaign set is done with it.
        customer.changed |= customer.asked_for && customer.is_erased();
        if !customer.changed {
            continue;
        }
        customer.row.evaluated_revision = batch.campaigns.revision.number;
        customer.row.version = customer.next_version();
        customer.row.stamp = telling::stamp(customer);
        if let Some(erased_as) = &customer.erased_as {
            customer.row.external_id.clone_from(erased_as);
        }
        if customer.is_erased() {
            customer.running.settle_all();
        } else {
            customer.running.retain_counting(&batch.campaigns);
        }
        customer.row.head = customer.running.to_head()?;
    }
    if !unmade.is_empty() {
        let unmade = any(batch.backend(), customer::Column::Id, unmade);
        customer::Entity::delete_many().filter(unmade).exec(batch.tx).await?;
    }
    Ok(())
}

/// Adds an entry to the trail for each adjustment that an admin sent.
async fn add_to_trail(batch: &Batch<'_>, facts: &[&Fact], customers: &Customers) -> Result<(), Error> {
    let mut entries = Vec::new();
    let mut acts: Vec<_> = customers.values().flat_map(|customer| &customer.done).collect();
    acts.sort_by_key(|(index, _)| **index);
    for (index, done) in acts {
        let Some(posted) = done.as_ref().ok().and_then(|done| done.entry.as_ref()) else { continue };
        if let Some(Fact::Adjustment(adjustment)) = facts.get(*index) {
            entries.extend(adjustment.trail_entry(posted)?);
        }
    }
    trail::add(batch.tx, &entries).await
}

/// Requests a job for each customer for which this batch is the first to defer something. Returns whether there are any.
async fn request_jobs(batch: &Batch<'_>, customers: &Customers) -> Result<bool, Error> {
    let newly = customers.values().filter(|customer| customer.running.has_deferred() && !customer.was_deferred);
    let wanted: Vec<Wanted> = newly.map(|customer| Wanted::Customer(customer.row.id)).collect();
    request(batch.tx, &wanted, batch.now).await?;
    Ok(!wanted.is_empty())
}

fn answer(
    facts: &[&Fact],
    accepted: Accepted,
    customers: &BTreeMap<String, Written>,
) -> Vec<Result<Recorded, Refusal>> {
    // This happens only to facts that do not create their customer.
    let gone = || Refusal::new(UserErrorCode::NotFound, "customerExternalId", "no such customer");
    let Accepted { verdicts, owners } = accepted;
    let answer = |(index, (fact, verdict)): (usize, (&&Fact, Verdict))| {
        let (replayed, superseded, earlier) = match verdict {
            Verdict::Refused(refusal) => return Err(refusal),
            Verdict::Replayed { superseded, done } => (true, superseded, Some(done)),
            Verdict::Accepted { superseded } => (false, superseded, None),
            Verdict::SameAs(first) => (true, false, done(customers, first).transpose()?),
        };
        let owner = fact.purchase().and_then(|purchase| owners.get(purchase));
        let customer = match owner {
            Some(owner) => customers.values().find(|customer| customer.row.id == *owner),
            None => customers.get(fact.customer()),
        };
        let customer = customer.ok_or_else(gone)?;
        let (awards, awards_changed) =
            if replayed { (Arc::default(), 0) } else { changed_awards(fact, customer, customers) };
        let act = match earlier {
            Some(earlier) => earlier,
            None => done(customers, index).transpose()?.unwrap_or_default(),
        };
        Ok(Recorded {
            replayed: replayed || act.replayed,
            superseded,
            customer: Arc::clone(&customer.row),
            awards,
            awards_changed,
            entry: act.entry,
            redemption: act.redemption,
            deferred: customer.deferred,
        })
    };
    facts.iter().zip(verdicts).enumerate().map(answer).collect()
}

/// Returns the newest awards that the commit changed, and how many it changed: those of the customer, and of the customers that had the
/// purchase of the fact before.
fn changed_awards(
    fact: &Fact,
    customer: &Written,
    customers: &BTreeMap<String, Written>,
) -> (Arc<[Arc<award::Model>]>, i64) {
    let has_revised = |other: &&Written| {
        let is_its = |revised: &Arc<Revised>| fact.purchase() == Some(revised.after.external_id.as_str());
        other.row.id != customer.row.id && other.revised.iter().any(is_its)
    };
    let mut with_others = customers.values().filter(has_revised).peekable();
    if with_others.peek().is_none() {
        return (Arc::clone(&customer.awards), customer.awards_changed);
    }
    let mut changed = ChangedAwards::default();
    for written in with_others.chain([customer]) {
        changed.add(&written.awards, written.awards_changed);
    }
    let count = changed.count();
    (changed.newest().into(), count)
}

/// Returns what became of the act of the fact with this index.
fn done(customers: &BTreeMap<String, Written>, index: usize) -> Option<Result<Done, Refusal>> {
    customers.values().find_map(|customer| customer.done.get(&index)).cloned()
}
