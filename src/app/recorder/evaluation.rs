//! Loading what a batch's facts can change, and folding it: for each customer and campaign, the recorded awards and
//! the reached ones meet in a [`Diff`]. Reads only. Its number of statements grows with neither the batch nor (but
//! for what `folding` says of long stretches) the customers' histories.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use entity::{CustomerId, award, purchase, refund};
use sea_orm::{EntityTrait, FromQueryResult, QueryFilter, QueryResult};

use super::batch::{Batch, Customers, Touched};
use super::capping;
use super::deferred::{self, Waiting};
use super::folding::{self, Fold, Job, Recorded};
use super::prepared::{Prepared, PreparedFold, TooLong};
use super::repair::{Repair, restore_points};
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, any, join_each};
use crate::app::stored::award as awards;
use crate::app::stored::history;
use crate::app::stored::purchase as purchases;
use crate::app::stored::refund as refunds;
use crate::engine::diff::{Diff, diff};
use crate::engine::evaluate::{Change, Outcome, Plan, Range, Refold, plan};
use crate::engine::purchase::{Key, Purchase};
use crate::engine::time::Instant;

/// What one customer's changes mean in one campaign.
pub(super) struct Evaluated {
    /// The customer's external id.
    pub(super) customer: String,
    pub(super) campaign: Arc<Campaign>,
    pub(super) diff: Diff,
    /// The rows of the recorded awards that the difference names, by number.
    pub(super) recorded: HashMap<i64, award::Model>,
    /// What is to be stored of the fold.
    pub(super) outcome: Outcome,
    /// Rows of recorded awards that a repair gave their points back.
    pub(super) restored: Vec<award::Model>,
    /// Up to where the history is evaluated now; none: all of it is.
    pub(super) mark: Option<Key>,
    /// The customer meets the campaign for the first time.
    pub(super) first: bool,
}

/// What an evaluation came to.
pub(super) enum Evaluation {
    /// By customer, then campaign.
    Done(Vec<Evaluated>),
    /// A change is to be prepared first.
    TooLong(TooLong),
}

/// What a fold found, with what is recorded of it.
pub(super) struct Folded<'a> {
    /// External id.
    pub(super) customer: &'a str,
    pub(super) customer_id: CustomerId,
    pub(super) campaign: &'a Arc<Campaign>,
    pub(super) outcome: Outcome,
    /// The recorded awards of the folded stretch.
    pub(super) recorded: Vec<award::Model>,
    /// Where recorded awards are still to be loaded.
    unloaded: Option<Range>,
    /// See [`Job::until`].
    pub(super) until: Option<Key>,
}

impl Folded<'_> {
    /// How many awards of the customer are recorded in the campaign.
    pub(super) fn recorded_in_all(&self, customers: &Customers) -> usize {
        let standing = customers.get(self.customer).and_then(|customer| customer.running.get(self.campaign.id()));
        standing.map_or(0, |standing| usize::try_from(standing.reached()).unwrap_or_default())
    }
}

/// Evaluates every customer of the batch, in customer, then activation order.
pub(super) async fn evaluate(
    batch: &Batch<'_>,
    customers: &Customers,
    prepared: Option<Prepared>,
) -> Result<Evaluation, Error> {
    let refunded = load_refunded(batch, customers).await?;
    let waiting = deferred::load_waiting(batch, customers).await?;
    let (mut jobs, marks) = plan_jobs(batch, customers, &refunded, &waiting, prepared)?;
    if let Some(index) = folding::run(batch, &mut jobs).await? {
        let name = jobs[index].customer.to_owned();
        let customer = customers.get(&name);
        let touches = customer.map(|customer| touches(customer, &refunded)).transpose()?.unwrap_or_default();
        let repair = customer.is_some_and(|customer| customer.repair.is_some());
        return Ok(Evaluation::TooLong(TooLong { customer: name, touches, repair }));
    }
    let mut folded: Vec<Folded<'_>> = jobs.into_iter().map(finish).collect();
    load_recorded(batch, &mut folded).await?;
    capping::cap(batch, customers, &mut folded).await?;
    let repaired = |name: &str| customers.get(name).is_some_and(|customer| customer.repair.is_some());
    let evaluated = folded.into_iter().zip(marks).map(|(one, (mark, first))| {
        let evaluated = compare(repaired(one.customer), one);
        Evaluated { mark, first, ..evaluated }
    });
    Ok(Evaluation::Done(evaluated.collect()))
}

/// What the fold found, with what was found before it.
pub(super) fn finish(job: Job<'_>) -> Folded<'_> {
    let Job { customer, customer_id, campaign, fold, until, prepared, .. } = job;
    let found = match fold {
        Fold::Append(append) => Some(append.finish()),
        Fold::Refold(refold) => Some(refold.finish()),
        // `capping` searches, and nothing is planned so.
        Fold::Through | Fold::Further(_) => None,
    };
    let Some(prepared) = prepared else {
        let outcome = found.unwrap_or_else(Outcome::unchanged);
        // After the tail nothing is recorded.
        let unloaded = (!outcome.appended).then(|| Range { after: outcome.from.clone(), to: outcome.to.clone() });
        return Folded { customer, customer_id, campaign, outcome, recorded: Vec::new(), unloaded, until };
    };
    let unloaded = prepared.loaded_to().map(|loaded_to| Range { after: Some(loaded_to.clone()), to: None });
    let PreparedFold { outcome, recorded, .. } = prepared;
    let outcome = if let Some(found) = found { outcome.followed_by(found) } else { outcome };
    Folded { customer, customer_id, campaign, outcome, recorded, unloaded, until }
}

/// The recorded awards against those that are reached.
fn compare(repair: bool, folded: Folded<'_>) -> Evaluated {
    let Folded { customer, campaign, mut outcome, recorded: mut rows, .. } = folded;
    let restored = if repair { restore_points(&mut rows, &outcome.awards) } else { Vec::new() };
    let recorded = rows.iter().map(awards::recorded).collect();
    let timed = campaign.rule.hold_for.is_some() || campaign.rule.expires_after.is_some();
    let diff = diff(recorded, std::mem::take(&mut outcome.awards), timed);
    let recorded = rows.into_iter().map(|row| (row.number, row)).collect();
    let (customer, campaign) = (customer.to_owned(), Arc::clone(campaign));
    Evaluated { customer, campaign, diff, recorded, outcome, restored, mark: None, first: false }
}

/// The purchases that the batch's refunds name, with all their refunds.
async fn load_refunded(
    batch: &Batch<'_>,
    customers: &Customers,
) -> Result<HashMap<String, (purchase::Model, Vec<refund::Model>)>, Error> {
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

/// A purchase before and after the batch; before: none where it is new.
pub(super) struct Touch {
    before: Option<Purchase>,
    pub(super) after: Recorded,
}

fn touches(
    customer: &Touched,
    refunded: &HashMap<String, (purchase::Model, Vec<refund::Model>)>,
) -> Result<Vec<Touch>, Error> {
    let named: BTreeSet<&str> = customer.refunds.iter().map(|refund| refund.purchase_external_id.as_str()).collect();
    let new: BTreeSet<&str> = customer.purchases.iter().map(|row| row.external_id.as_str()).collect();
    let mut touches = Vec::new();
    // One a purchase: the engine compares before and after.
    for row in customer.purchases.iter().filter(|row| !named.contains(row.external_id.as_str())) {
        touches.push(Touch { before: None, after: Recorded::of(row, &[])? });
    }
    for name in named {
        let Some((row, all)) = refunded.get(name) else { continue };
        let is_new = |refund: &refund::Model| customer.refunds.iter().any(|new| new.external_id == refund.external_id);
        let earlier = all.iter().filter(|refund| !is_new(refund)).map(refunds::from_row).collect::<Result<_, _>>()?;
        let before = purchases::from_row(row, earlier)?;
        touches.push(Touch { before: (!new.contains(name)).then_some(before), after: Recorded::of(row, all)? });
    }
    Ok(touches)
}

/// What a job means for how far the campaign is evaluated: the mark that it leaves, and whether the customer meets the campaign for the
/// first time.
type Marks = Vec<(Option<Key>, bool)>;

/// What must be folded, for each customer and campaign.
fn plan_jobs<'a>(
    batch: &'a Batch<'_>,
    customers: &'a Customers,
    refunded: &HashMap<String, (purchase::Model, Vec<refund::Model>)>,
    waiting: &Waiting,
    mut prepared: Option<Prepared>,
) -> Result<(Vec<Job<'a>>, Marks), Error> {
    let mut jobs = Vec::new();
    let mut marks = Vec::new();
    for (name, customer) in customers.iter().filter(|(_, customer)| customer.is_evaluated()) {
        let touches = touches(customer, refunded)?;
        // A repair looks at settled campaigns too.
        let evaluated =
            |campaign: &&Arc<Campaign>| campaign.counts() || (customer.repair.is_some() && campaign.life.activated);
        for campaign in batch.campaigns.all().iter().filter(evaluated) {
            let Some(planned) = plan_fold(batch, customer, campaign, &touches, waiting, prepared.as_mut()) else {
                continue;
            };
            let Planned { fold, until, mark, prepared, most_purchases } = planned;
            let customer_id = customer.row.id;
            jobs.push(Job { customer: name, customer_id, campaign, fold, until, prepared, most_purchases });
            marks.push((mark, deferred::is_unevaluated(customer, campaign)));
        }
    }
    Ok((jobs, marks))
}

/// What a batch means for one customer and campaign.
struct Planned<'a> {
    fold: Fold<'a>,
    /// See [`Job::until`].
    until: Option<Key>,
    /// Up to where the history is evaluated once this is done; none: all of it is.
    mark: Option<Key>,
    /// See [`Job::prepared`].
    prepared: Option<PreparedFold>,
    /// See [`Job::most_purchases`].
    most_purchases: Option<usize>,
}

impl<'a> Planned<'a> {
    /// Up to a mark.
    fn up_to(mark: Option<Key>, fold: Fold<'a>) -> Self {
        Self { fold, until: mark.clone(), mark, prepared: None, most_purchases: None }
    }
}

/// What must be folded of a customer in a campaign; none: nothing.
fn plan_fold<'a>(
    batch: &Batch<'_>,
    customer: &Touched,
    campaign: &'a Campaign,
    touches: &[Touch],
    waiting: &Waiting,
    prepared: Option<&mut Prepared>,
) -> Option<Planned<'a>> {
    if let Some(repair) = &customer.repair {
        return Some(plan_repair(batch, customer, repair, campaign, touches, prepared));
    }
    let mark = deferred::mark(customer, campaign);
    let standing = customer.running.of(campaign.id());
    let changes = changes(campaign, touches, mark.as_ref());
    let prepared = prepared.and_then(|prepared| prepared.take(batch, customer, campaign, &changes));
    match plan(campaign.engine(), &standing.tail(), changes) {
        Plan::Append(append) => Some(Planned::up_to(mark, Fold::Append(append))),
        Plan::Refold { first, last } => {
            let onward = prepared.and_then(|mut prepared| Some((prepared.onward(campaign)?, prepared)));
            if let Some((fold, prepared)) = onward {
                return Some(Planned { prepared: Some(prepared), ..Planned::up_to(mark, fold) });
            }
            let fold = Fold::Refold(Box::new(Refold::new(campaign.engine(), &first, &last)));
            // Without a version it cannot be told later whether what is prepared still holds.
            let most_purchases = standing.history_version.and(batch.most_refolded);
            Some(Planned { most_purchases, ..Planned::up_to(mark, fold) })
        }
        Plan::Unaffected => {
            let (append, mark) = waiting.fold_on(customer, campaign, standing.tail())?;
            Some(Planned { until: None, ..Planned::up_to(mark, Fold::Append(Box::new(append))) })
        }
    }
}

/// A repair folds everything again.
fn plan_repair<'a>(
    batch: &Batch<'_>,
    customer: &Touched,
    repair: &Repair,
    campaign: &'a Campaign,
    touches: &[Touch],
    prepared: Option<&mut Prepared>,
) -> Planned<'a> {
    let changes = changes(campaign, touches, None);
    let prepared = prepared.and_then(|prepared| prepared.take(batch, customer, campaign, &changes));
    let onward = prepared.and_then(|mut prepared| Some((prepared.onward(campaign)?, prepared)));
    if let Some((fold, mut prepared)) = onward {
        for row in &mut prepared.recorded {
            row.status = repair.restored.get(&row.number).copied().unwrap_or(row.status);
        }
        return Planned { prepared: Some(prepared), ..Planned::up_to(None, fold) };
    }
    let fold = Fold::Refold(Box::new(Refold::whole(campaign.engine())));
    Planned { most_purchases: batch.most_refolded, ..Planned::up_to(None, fold) }
}

/// The changes as the campaign sees them, as far as its mark.
pub(super) fn changes(campaign: &Campaign, touches: &[Touch], mark: Option<&Key>) -> Vec<Change> {
    let eligible = |purchase: &Purchase| campaign.engine().eligible(purchase);
    let evaluated = touches.iter().filter(|touch| mark.is_none_or(|mark| touch.after.purchase.key <= *mark));
    let change = |touch: &Touch| Change {
        before: touch.before.as_ref().and_then(eligible),
        after: eligible(&touch.after.purchase),
    };
    evaluated.map(change).collect()
}

/// Loads the recorded awards of the stretches that were folded again.
pub(super) async fn load_recorded(batch: &Batch<'_>, folded: &mut [Folded<'_>]) -> Result<(), Error> {
    let columns =
        [("customer_id", Kind::Int), ("campaign_id", Kind::Int), ("from_at", Kind::Int), ("to_at", Kind::Int)];
    let mut rows = Rows::new(batch.backend(), &columns);
    let mut places = HashMap::new();
    for (index, one) in folded.iter().enumerate() {
        let Some(stretch) = &one.unloaded else { continue };
        let at = |key: &Option<Key>, default: Instant| key.as_ref().map_or(default, |key| key.at).0;
        rows.push(vec![
            one.customer_id.0.into(),
            one.campaign.id().0.into(),
            at(&stretch.after, Instant::EPOCH).into(),
            at(&stretch.to, Instant::FOREVER).into(),
        ]);
        places.insert((one.customer_id, one.campaign.id()), index);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let on = "t.customer_id = r.customer_id AND t.campaign_id = r.campaign_id \
        AND t.earned_at >= r.from_at AND t.earned_at <= r.to_at AND t.status <> 'reversed'";
    let take = |row: QueryResult| {
        let row = award::Model::from_query_result(&row, "")?;
        let place = places.get(&(row.customer_id, row.campaign_id));
        let Some(Folded { unloaded, recorded, .. }) = place.map(|index| &mut folded[*index]) else { return Ok(()) };
        if unloaded.as_ref().is_some_and(|stretch| stretch.contains(&awards::reaching_key(&row))) {
            recorded.push(row);
        }
        Ok(())
    };
    Ok(join_each(batch.tx, "t.*", "award", rows, on, take).await?)
}
