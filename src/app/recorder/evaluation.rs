//! Loading what a batch's facts can change, and folding it: for each customer and campaign, the recorded awards and
//! the reached ones meet in a [`Diff`]. Reads only. Its number of statements grows with neither the batch nor (but
//! for the logarithm of a late change's reach) the customers' histories.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use entity::{CampaignId, CustomerId, award, checkpoint, purchase, refund};
use sea_orm::{EntityTrait, FromQueryResult, QueryFilter};

use super::batch::{Batch, Customers, Touched};
use super::deferred::{self, Stretches};
use super::repair::restore_points;
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::history::{Lines, Span};
use crate::app::rows::{Kind, Rows, any, join};
use crate::app::{award as awards, history, purchase as purchases, refund as refunds};
use crate::engine::diff::{Diff, diff};
use crate::engine::evaluate::{Append, Change, Outcome, Plan, Range, Refold, Tail, plan};
use crate::engine::purchase::{Key, Purchase};
use crate::engine::rule::Eligible;
use crate::engine::state::State;
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

/// A fold under way.
struct Job<'a> {
    customer: &'a str,
    customer_id: CustomerId,
    campaign: &'a Arc<Campaign>,
    fold: Fold<'a>,
    /// What lies after it is deferred, and not looked at.
    until: Option<Key>,
    /// Up to where the history is evaluated once this is done; none: all of it is.
    mark: Option<Key>,
    /// The customer meets the campaign for the first time.
    first: bool,
}

enum Fold<'a> {
    Append(Box<Append<'a>>),
    Refold(Box<Refold<'a>>),
    Done(Box<Outcome>),
}

/// Evaluates every customer of the batch, in customer, then activation order.
pub(super) async fn evaluate(batch: &Batch<'_>, customers: &Customers) -> Result<Vec<Evaluated>, Error> {
    let refunded = load_refunded(batch, customers).await?;
    let mut jobs = plan_jobs(batch, customers, &refunded).await?;
    while fold_what_is_loaded(batch, &mut jobs).await? {}
    let mut recorded = load_recorded(batch, &jobs).await?;
    let evaluated = jobs.into_iter().filter_map(|job| {
        let Fold::Done(outcome) = job.fold else { return None };
        let rows = recorded.remove(&(job.customer_id, job.campaign.id())).unwrap_or_default();
        let repair = customers.get(job.customer).is_some_and(|customer| customer.repair.is_some());
        let evaluated = compare(job.customer.to_owned(), Arc::clone(job.campaign), *outcome, rows, repair);
        Some(Evaluated { mark: job.mark, first: job.first, ..evaluated })
    });
    Ok(evaluated.collect())
}

/// The recorded awards of the folded stretch against those that the fold reached.
fn compare(
    customer: String,
    campaign: Arc<Campaign>,
    mut outcome: Outcome,
    rows: Vec<award::Model>,
    repair: bool,
) -> Evaluated {
    let in_stretch = |key: &Key| {
        outcome.from.as_ref().is_none_or(|from| key > from) && outcome.to.as_ref().is_none_or(|to| key <= to)
    };
    let mut rows: Vec<award::Model> = rows.into_iter().filter(|row| in_stretch(&awards::reaching_key(row))).collect();
    let restored = if repair { restore_points(&mut rows, &outcome.awards) } else { Vec::new() };
    let recorded = rows.iter().map(awards::recorded).collect();
    let timed = campaign.rule.hold_for.is_some() || campaign.rule.expires_after.is_some();
    let diff = diff(recorded, std::mem::take(&mut outcome.awards), timed);
    let recorded = rows.into_iter().map(|row| (row.number, row)).collect();
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
struct Touch {
    before: Option<Purchase>,
    after: Purchase,
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
        touches.push(Touch { before: None, after: purchases::from_row(row, Vec::new())? });
    }
    for name in named {
        let Some((row, all)) = refunded.get(name) else { continue };
        let is_new = |refund: &refund::Model| customer.refunds.iter().any(|new| new.external_id == refund.external_id);
        let net = |counted: &mut dyn Iterator<Item = &refund::Model>| {
            let refunds = counted.map(refunds::from_row).collect::<Result<_, _>>()?;
            purchases::from_row(row, refunds)
        };
        let before = net(&mut all.iter().filter(|refund| !is_new(refund)))?;
        touches.push(Touch { before: (!new.contains(name)).then_some(before), after: net(&mut all.iter())? });
    }
    Ok(touches)
}

/// What must be folded, for each customer and campaign.
async fn plan_jobs<'a>(
    batch: &'a Batch<'_>,
    customers: &'a Customers,
    refunded: &HashMap<String, (purchase::Model, Vec<refund::Model>)>,
) -> Result<Vec<Job<'a>>, Error> {
    let waiting = load_waiting(batch, customers).await?;
    let mut jobs = Vec::new();
    let mut late = Vec::new();
    for (name, customer) in customers.iter().filter(|(_, customer)| customer.is_evaluated()) {
        let touches = touches(customer, refunded)?;
        // A repair looks at settled campaigns too.
        let evaluated =
            |campaign: &&Arc<Campaign>| campaign.counts() || (customer.repair.is_some() && campaign.life.activated);
        for campaign in batch.campaigns.all().iter().filter(evaluated) {
            let Some(planned) = plan_one(customer, campaign, &touches, &waiting) else { continue };
            let Planned { fold, until, mark, refold } = planned;
            late.extend(refold.map(|(first, last)| (jobs.len(), first, last)));
            let first = deferred::is_unevaluated(customer, campaign);
            jobs.push(Job { customer: name, customer_id: customer.row.id, campaign, fold, until, mark, first });
        }
    }
    let pairs = late.iter().map(|(index, ..)| (jobs[*index].customer_id, jobs[*index].campaign.id())).collect();
    let mut checkpoints = load_checkpoints(batch, pairs).await?;
    for (index, first, last) in late {
        let job = &mut jobs[index];
        let stored = checkpoints.remove(&(job.customer_id, job.campaign.id())).unwrap_or_default();
        job.fold = Fold::Refold(Box::new(Refold::new(job.campaign.engine(), stored, &first, &last)));
    }
    Ok(jobs)
}

/// What a batch means for one customer and campaign.
struct Planned<'a> {
    fold: Fold<'a>,
    /// See [`Job::until`].
    until: Option<Key>,
    /// See [`Job::mark`].
    mark: Option<Key>,
    /// The first and the last key to fold again from checkpoints, which are still to be loaded.
    refold: Option<(Key, Key)>,
}

/// None: nothing can differ.
fn plan_one<'a>(
    customer: &Touched,
    campaign: &'a Arc<Campaign>,
    touches: &[Touch],
    waiting: &Waiting,
) -> Option<Planned<'a>> {
    let whole = || Fold::Refold(Box::new(Refold::whole(campaign.engine())));
    if customer.repair.is_some() {
        return Some(Planned { fold: whole(), until: None, mark: None, refold: None });
    }
    let mark = deferred::mark(customer, campaign);
    let tail = customer.running.of(campaign.id()).tail();
    let up_to_mark = |fold, refold| Some(Planned { fold, until: mark.clone(), mark: mark.clone(), refold });
    match plan(campaign.engine(), &tail, changes(campaign, touches, mark.as_ref())) {
        Plan::Append(append) => up_to_mark(Fold::Append(append), None),
        Plan::Refold { first, last } => up_to_mark(whole(), Some((first, last))),
        Plan::Unaffected => match waiting.fold_on(customer, campaign, tail) {
            Some((append, mark)) => {
                Some(Planned { fold: Fold::Append(Box::new(append)), until: None, mark, refold: None })
            }
            // The mark is stored from now on.
            None if deferred::is_unevaluated(customer, campaign) => {
                up_to_mark(Fold::Done(Box::new(Outcome::unchanged())), None)
            }
            None => None,
        },
    }
}

/// The changes as the campaign sees them, as far as its mark.
fn changes(campaign: &Campaign, touches: &[Touch], mark: Option<&Key>) -> Vec<Change> {
    let eligible = |purchase: &Purchase| campaign.engine().eligible(purchase);
    let evaluated = touches.iter().filter(|touch| mark.is_none_or(|mark| touch.after.key <= *mark));
    let change =
        |touch: &Touch| Change { before: touch.before.as_ref().and_then(eligible), after: eligible(&touch.after) };
    evaluated.map(change).collect()
}

/// What waits behind the marks and is folded in by this batch.
struct Waiting {
    stretches: Stretches,
    history: HashMap<(CustomerId, Lines), Vec<Recorded>>,
}

async fn load_waiting(batch: &Batch<'_>, customers: &Customers) -> Result<Waiting, Error> {
    let stretches = deferred::stretches(batch, customers).await?;
    let mut ranges = Vec::new();
    for customer in customers.values() {
        let Some(end) = stretches.get(&customer.row.id) else { continue };
        for campaign in batch.campaigns.counting() {
            let Some(mark) = deferred::mark(customer, campaign) else { continue };
            ranges.push((customer.row.id, campaign, Range { after: Some(mark), to: end.clone() }));
        }
    }
    let wanted = ranges.iter().map(|(customer, campaign, range)| (*customer, *campaign, range));
    let history = load_history(batch, wanted).await?;
    Ok(Waiting { stretches, history })
}

impl Waiting {
    /// What of the customer's stretch lies behind the campaign's mark, folded into the tail, with the mark that this leaves.
    fn fold_on<'a>(&self, customer: &Touched, campaign: &'a Campaign, tail: Tail) -> Option<(Append<'a>, Option<Key>)> {
        let end = self.stretches.get(&customer.row.id)?;
        let mark = deferred::mark(customer, campaign)?;
        if end.as_ref().is_some_and(|end| *end <= mark) {
            return None;
        }
        let stretch = Range { after: Some(mark), to: end.clone() };
        let history = self.history.get(&(customer.row.id, Lines::of(&campaign.rule)));
        let purchases = eligible_in(campaign, history, &stretch, None);
        Some((Append::new(campaign.engine(), tail, purchases), end.clone()))
    }
}

/// The purchases of the range that count for the campaign, as far as its mark.
fn eligible_in(
    campaign: &Campaign,
    history: Option<&Vec<Recorded>>,
    range: &Range,
    until: Option<&Key>,
) -> Vec<Eligible> {
    let history = history.map(Vec::as_slice).unwrap_or_default();
    let inside = |recorded: &&Recorded| {
        let key = &recorded.purchase.key;
        range.contains(key) && until.is_none_or(|until| key <= until)
    };
    let eligible = |recorded: &Recorded| campaign.engine().eligible(recorded.counted_by(campaign)?.as_ref());
    history.iter().filter(inside).filter_map(eligible).collect()
}

/// Stored states by customer and campaign, in the customer's order.
async fn load_checkpoints(
    batch: &Batch<'_>,
    wanted: Vec<(CustomerId, CampaignId)>,
) -> Result<HashMap<(CustomerId, CampaignId), Vec<State>>, Error> {
    let mut pairs = Rows::new(batch.backend(), &[("customer_id", Kind::Int), ("campaign_id", Kind::Int)]);
    for (customer, campaign) in wanted {
        pairs.push(vec![customer.0.into(), campaign.0.into()]);
    }
    let mut checkpoints: HashMap<_, Vec<State>> = HashMap::new();
    if pairs.is_empty() {
        return Ok(checkpoints);
    }
    let on = "t.customer_id = r.customer_id AND t.campaign_id = r.campaign_id";
    let order = "ORDER BY t.purchased_at, t.external_id";
    for row in join(batch.tx, "t.*", "checkpoint", pairs, on, order).await? {
        let row = checkpoint::Model::from_query_result(&row, "")?;
        let state = serde_json::from_str(&row.state)
            .map_err(|error| Error::Internal(format!("checkpoint of customer {}: {error}", row.customer_id.0)))?;
        checkpoints.entry((row.customer_id, row.campaign_id)).or_default().push(state);
    }
    Ok(checkpoints)
}

/// Loads, in one go, what all folds ask for, and folds it in. False: all are done.
async fn fold_what_is_loaded(batch: &Batch<'_>, jobs: &mut [Job<'_>]) -> Result<bool, Error> {
    let wanted: Vec<Option<Range>> = jobs.iter().map(Job::load).collect();
    let ranges =
        jobs.iter().zip(&wanted).filter_map(|(job, range)| Some((job.customer_id, job.campaign, range.as_ref()?)));
    let history = load_history(batch, ranges).await?;
    let mut more = false;
    for (job, range) in jobs.iter_mut().zip(wanted) {
        let loaded = range.map(|range| {
            let history = history.get(&(job.customer_id, Lines::of(&job.campaign.rule)));
            eligible_in(job.campaign, history, &range, job.until.as_ref())
        });
        more |= job.fold.feed(loaded);
    }
    Ok(more)
}

impl Job<'_> {
    /// What is to be loaded: nothing that lies behind the mark.
    fn load(&self) -> Option<Range> {
        let range = self.fold.load()?;
        let to = match (range.to, self.until.clone()) {
            (Some(to), Some(until)) => Some(to.min(until)),
            (to, until) => to.or(until),
        };
        Some(Range { to, ..range })
    }
}

impl Fold<'_> {
    fn load(&self) -> Option<Range> {
        match self {
            Self::Append(append) => append.load(),
            Self::Refold(refold) => refold.load(),
            Self::Done(_) => None,
        }
    }

    /// Folds in what it asked for; false: it is done.
    fn feed(&mut self, loaded: Option<Vec<Eligible>>) -> bool {
        match (&mut *self, loaded) {
            (Self::Append(append), Some(loaded)) => append.feed(loaded),
            (Self::Refold(refold), Some(loaded)) => refold.feed(loaded),
            (Self::Done(_), _) | (_, None) => {
                *self = match std::mem::replace(self, Self::Done(Box::default())) {
                    Self::Append(append) => Self::Done(Box::new(append.finish())),
                    Self::Refold(refold) => Self::Done(Box::new(refold.finish())),
                    done @ Self::Done(_) => done,
                };
                return false;
            }
        }
        true
    }
}

/// The customers' purchases in these ranges, with their refunds: each customer's once with lines and once without, as
/// the campaigns need them.
async fn load_history<'a>(
    batch: &Batch<'_>,
    ranges: impl Iterator<Item = (CustomerId, &'a Arc<Campaign>, &'a Range)>,
) -> Result<HashMap<(CustomerId, Lines), Vec<Recorded>>, Error> {
    // One span a customer: from the earliest start to the latest end that any of its campaigns asks for.
    let mut spans: HashMap<Lines, HashMap<CustomerId, Span>> = HashMap::new();
    for (customer, campaign, range) in ranges {
        let after = range.after.clone().unwrap_or_else(|| Key::before(campaign.life.period.starts_at));
        let spans = spans.entry(Lines::of(&campaign.rule)).or_default();
        let span = spans.entry(customer).or_insert_with(|| (after.clone(), range.to.clone()));
        span.0 = after.min(span.0.clone());
        span.1 = span.1.take().zip(range.to.clone()).map(|(a, b)| a.max(b));
    }
    let mut history: HashMap<(CustomerId, Lines), Vec<Recorded>> = HashMap::new();
    for (lines, spans) in spans {
        let rows = history::purchases(batch.tx, spans, lines).await?;
        let mut refunds = history::refunds(batch.tx, rows.iter().map(|row| row.external_id.clone())).await?;
        for row in rows {
            let of_row = refunds.remove(&row.external_id).unwrap_or_default();
            let refund_revisions = of_row.iter().map(|refund| refund.revision).collect();
            let of_row = of_row.iter().map(refunds::from_row).collect::<Result<_, _>>()?;
            let purchase = purchases::from_row(&row, of_row)?;
            let recorded = Recorded { purchase, revision: row.revision, refund_revisions };
            history.entry((row.customer_id, lines)).or_default().push(recorded);
        }
    }
    Ok(history)
}

/// A purchase with the campaign-set revisions of its commit and of its refunds'.
struct Recorded {
    purchase: Purchase,
    revision: i64,
    refund_revisions: Vec<i64>,
}

impl Recorded {
    /// The purchase as the campaign sees it: once it settled, without what was recorded since.
    fn counted_by(&self, campaign: &Campaign) -> Option<Cow<'_, Purchase>> {
        let Some(settled) = campaign.row.settled_revision else { return Some(Cow::Borrowed(&self.purchase)) };
        if self.revision >= settled {
            return None;
        }
        let mut purchase = self.purchase.clone();
        let mut revisions = self.refund_revisions.iter();
        purchase.refunds.retain(|_| revisions.next().is_some_and(|revision| *revision < settled));
        Some(Cow::Owned(purchase))
    }
}

/// The recorded awards of the stretches that were folded again.
async fn load_recorded(
    batch: &Batch<'_>,
    jobs: &[Job<'_>],
) -> Result<HashMap<(CustomerId, CampaignId), Vec<award::Model>>, Error> {
    let columns =
        [("customer_id", Kind::Int), ("campaign_id", Kind::Int), ("from_at", Kind::Int), ("to_at", Kind::Int)];
    let mut rows = Rows::new(batch.backend(), &columns);
    for job in jobs {
        let Fold::Done(outcome) = &job.fold else { continue };
        // After the tail nothing is recorded.
        if outcome.appended {
            continue;
        }
        let at = |key: &Option<Key>, default: Instant| key.as_ref().map_or(default, |key| key.at).0;
        rows.push(vec![
            job.customer_id.0.into(),
            job.campaign.id().0.into(),
            at(&outcome.from, Instant::EPOCH).into(),
            at(&outcome.to, Instant::FOREVER).into(),
        ]);
    }
    let mut recorded: HashMap<_, Vec<award::Model>> = HashMap::new();
    if rows.is_empty() {
        return Ok(recorded);
    }
    let on = "t.customer_id = r.customer_id AND t.campaign_id = r.campaign_id \
        AND t.earned_at >= r.from_at AND t.earned_at <= r.to_at AND t.status <> 'reversed'";
    for row in join(batch.tx, "t.*", "award", rows, on, "").await? {
        let row = award::Model::from_query_result(&row, "")?;
        recorded.entry((row.customer_id, row.campaign_id)).or_default().push(row);
    }
    Ok(recorded)
}
