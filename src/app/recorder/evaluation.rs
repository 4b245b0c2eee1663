//! Loads what the facts of a batch can change, folds it, and compares the recorded awards with the reached awards. The result for
//! each customer and campaign is a [`Diff`]. This module only reads. The number of its statements does not grow with the batch.
//! It does not grow with the histories of the customers either, except for long stretches (see `folding`).

use std::collections::HashMap;
use std::sync::Arc;

use entity::award;

use super::change::{StoredPurchases, changes, load_stored, touches};
use super::deferred::{self, Waiting};
use super::folded::{Folded, finish, load_recorded};
use super::folding::{Fold, Job};
use super::prepared::{Prepared, PreparedFold, TooLong};
use super::repair::restore_points;
use super::touched::{Batch, Customers, Touch, Touched};
use super::{capping, folding};
use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::app::stored::award as awards;
use crate::app::stored::running::CampaignState;
use crate::engine::cap::Sum;
use crate::engine::diff::{Diff, diff};
use crate::engine::evaluate::{Change, Outcome, Plan, Refold, plan};
use crate::engine::purchase::Key;
use crate::engine::time::Instant;

/// The effect of a batch on one customer in one campaign.
pub(super) struct Evaluated {
    /// The external id of the customer.
    pub(super) customer: String,
    pub(super) campaign: Arc<Campaign>,
    pub(super) diff: Diff,
    /// The rows of the recorded awards that were compared, by number. They include all awards that the difference names.
    pub(super) recorded: HashMap<i64, award::Model>,
    /// The result of the fold, without its awards.
    pub(super) outcome: Box<Outcome>,
    /// The rows of recorded awards whose points a repair has corrected.
    pub(super) restored: Vec<award::Model>,
    /// The sum over the reached awards of the folded stretch. For a repair, that is the whole campaign.
    pub(super) reached: Sum,
    /// The key up to which the history is now evaluated. `None` if all of it is.
    pub(super) mark: Option<Key>,
    /// The customer is evaluated in this campaign for the first time.
    pub(super) first: bool,
}

/// The outcome of the evaluation of a batch.
pub(super) enum Evaluation {
    /// The effects, ordered by customer, then by campaign.
    Done(Vec<Evaluated>),
    /// A change must be prepared first.
    TooLong(TooLong),
}

/// Evaluates the customers of the batch by external id, and for each customer the campaigns in activation order.
pub(super) async fn evaluate(
    batch: &Batch<'_>,
    customers: &Customers,
    prepared: Option<Prepared>,
) -> Result<Evaluation, Error> {
    let stored = load_stored(batch, customers).await?;
    let waiting = deferred::load_waiting(batch, customers).await?;
    let (mut jobs, marks) = plan_jobs(batch, customers, &stored, &waiting, prepared)?;
    if let Some(index) = folding::run(batch, &mut jobs).await? {
        let name = jobs[index].customer.to_owned();
        let customer = customers.get(&name);
        let touches = customer.map(|customer| touches(customer, &stored)).transpose()?.unwrap_or_default();
        let repair = customer.is_some_and(|customer| customer.repair.is_some());
        return Ok(Evaluation::TooLong(TooLong { customer: name, touches, repair }));
    }
    let mut folded: Vec<Folded<'_>> = jobs.into_iter().map(finish).collect();
    // Nothing is recorded where the running state counts no award.
    folded.iter_mut().filter(|one| one.recorded_in_all(customers).awards == 0).for_each(|one| one.unloaded = None);
    load_recorded(batch, &mut folded).await?;
    capping::cap(batch, customers, &mut folded).await?;
    let repaired = |name: &str| customers.get(name).is_some_and(|customer| customer.repair.is_some());
    let evaluated = folded.into_iter().zip(marks).map(|(one, (mark, first))| {
        let now = customers.get(one.customer).map_or(batch.now, |customer| customer.now);
        let evaluated = compare(repaired(one.customer), one, now);
        Evaluated { mark, first, ..evaluated }
    });
    Ok(Evaluation::Done(evaluated.collect()))
}

/// Compares the recorded awards with the reached awards.
fn compare(repair: bool, folded: Folded<'_>, now: Instant) -> Evaluated {
    let Folded { customer, campaign, mut outcome, recorded: mut rows, .. } = folded;
    let restored = if repair { restore_points(&mut rows, &outcome.awards) } else { Vec::new() };
    let reached = Sum::of(&outcome.awards);
    let recorded = rows.iter().map(awards::recorded).collect();
    let diff = diff(recorded, std::mem::take(&mut outcome.awards), now);
    let recorded = rows.into_iter().map(|row| (row.number, row)).collect();
    let (customer, campaign) = (customer.to_owned(), Arc::clone(campaign));
    Evaluated { customer, campaign, diff, recorded, outcome, restored, reached, mark: None, first: false }
}

/// For each job, [`Evaluated::mark`] and [`Evaluated::first`].
type Marks = Vec<(Option<Key>, bool)>;

/// Plans the folds of all customers and campaigns.
fn plan_jobs<'a>(
    batch: &'a Batch<'_>,
    customers: &'a Customers,
    stored: &StoredPurchases,
    waiting: &Waiting,
    mut prepared: Option<Prepared>,
) -> Result<(Vec<Job<'a>>, Marks), Error> {
    let mut jobs = Vec::new();
    let mut marks = Vec::new();
    for (name, customer) in customers.iter().filter(|(_, customer)| customer.is_evaluated()) {
        let touches = touches(customer, stored)?;
        for campaign in batch.campaigns.all().iter().filter(|campaign| is_evaluated_in(customer, campaign)) {
            let Some(planned) = plan_fold(batch, customer, campaign, &touches, waiting, prepared.as_mut()) else {
                continue;
            };
            let Planned { fold, until, mark, prepared, most_purchases } = planned;
            jobs.push(Job {
                customer: name,
                customer_id: customer.row.id,
                campaign,
                fold,
                until,
                has_checkpoints: customer.running.has_checkpoints(campaign.id()),
                prepared,
                most_purchases,
            });
            marks.push((mark, deferred::is_unevaluated(customer, campaign)));
        }
    }
    Ok((jobs, marks))
}

/// The planned fold of one customer in one campaign.
pub(super) struct Planned<'a> {
    pub(super) fold: Fold<'a>,
    /// The same as [`Job::until`].
    pub(super) until: Option<Key>,
    /// The key up to which the history is evaluated after the fold. `None` if all of it is.
    mark: Option<Key>,
    /// The same as [`Job::prepared`].
    prepared: Option<Box<PreparedFold>>,
    /// The same as [`Job::most_purchases`].
    most_purchases: Option<usize>,
}

impl<'a> Planned<'a> {
    /// Plans a fold that looks at nothing after the mark.
    fn up_to(mark: Option<Key>, fold: Fold<'a>) -> Self {
        Self { fold, until: mark.clone(), mark, prepared: None, most_purchases: None }
    }
}

/// Whether the customer is evaluated in the campaign. A repair also evaluates settled campaigns. The purchases of an erased customer
/// are gone, and its awards stay.
pub(super) fn is_evaluated_in(customer: &Touched, campaign: &Campaign) -> bool {
    !customer.is_erased() && (campaign.counts() || (customer.repair.is_some() && campaign.life.activated))
}

/// Returns the changes of the customer as the campaign sees them. A repair also looks beyond the mark.
pub(super) fn changes_in(customer: &Touched, campaign: &Campaign, touches: &[Touch]) -> Vec<Change> {
    let mark = if customer.repair.is_some() { None } else { deferred::mark(customer, campaign) };
    changes(campaign, touches, mark.as_ref())
}

/// Plans what must be folded of a customer in a campaign. Returns `None` if nothing must be folded.
pub(super) fn plan_fold<'a>(
    batch: &Batch<'_>,
    customer: &Touched,
    campaign: &'a Campaign,
    touches: &[Touch],
    waiting: &Waiting,
    prepared: Option<&mut Prepared>,
) -> Option<Planned<'a>> {
    let changes = changes_in(customer, campaign, touches);
    let prepared = prepared.and_then(|prepared| prepared.take(batch, customer, campaign, &changes));
    let onward = || prepared.and_then(|prepared| go_on(customer, campaign, prepared));
    if customer.repair.is_some() {
        let fold = Fold::Refold(Box::new(Refold::whole(campaign.engine())));
        let whole = || Planned { most_purchases: batch.most_refolded, ..Planned::up_to(None, fold) };
        return Some(onward().unwrap_or_else(whole));
    }
    let mark = deferred::mark(customer, campaign);
    let standing = customer.running.get(campaign.id());
    let tail = || standing.map(CampaignState::tail).unwrap_or_default();
    match plan(campaign.engine(), tail(), changes) {
        Plan::Append(append) => Some(Planned::up_to(mark, Fold::Append(append))),
        Plan::Refold { first, last } => {
            let refold = || {
                let fold = Fold::Refold(Box::new(Refold::new(campaign.engine(), &first, &last)));
                // Without a version, it could not be checked later whether a prepared fold is still valid. So none is prepared.
                let history_version = standing.and_then(|standing| standing.history_version);
                let most_purchases = history_version.and(batch.most_refolded);
                Planned { most_purchases, ..Planned::up_to(mark, fold) }
            };
            Some(onward().unwrap_or_else(refold))
        }
        Plan::Unaffected => {
            let (append, mark) = waiting.fold_on(customer, campaign, tail)?;
            Some(Planned { until: None, ..Planned::up_to(mark, Fold::Append(Box::new(append))) })
        }
    }
}

/// Continues a prepared fold over the purchases that were recorded since. Returns `None` if it has no state to continue from.
fn go_on<'a>(customer: &Touched, campaign: &'a Campaign, mut prepared: PreparedFold) -> Option<Planned<'a>> {
    let fold = match &prepared.seen {
        None => Fold::Through,
        Some(seen) => Fold::Refold(Box::new(Refold::onward(campaign.engine(), prepared.outcome.rewind(seen)?))),
    };
    let mark = match &customer.repair {
        None => deferred::mark(customer, campaign),
        Some(repair) => {
            // The prepared rows were loaded before the statuses were restored.
            for row in &mut prepared.recorded {
                row.status = repair.restored.get(&row.number).copied().unwrap_or(row.status);
            }
            None
        }
    };
    Some(Planned { prepared: Some(Box::new(prepared)), ..Planned::up_to(mark, fold) })
}
