//! Loading what a batch's facts can change, and folding it: for each customer and campaign, the recorded awards and
//! the reached ones meet in a [`Diff`]. Reads only. Its number of statements grows with neither the batch nor (but
//! for what `folding` says of long stretches) the customers' histories.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use entity::{CustomerId, award, purchase, refund};
use sea_orm::{EntityTrait, FromQueryResult, QueryFilter};

use super::batch::{Batch, Customers, Touched};
use super::capping;
use super::folding::{self, Fold, Job};
use super::repair::restore_points;
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, any, join};
use crate::app::{award as awards, history, purchase as purchases, refund as refunds};
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
}

impl Folded<'_> {
    /// How many awards of the customer are recorded in the campaign.
    pub(super) fn recorded_in_all(&self, customers: &Customers) -> usize {
        let standing = customers.get(self.customer).and_then(|customer| customer.running.get(self.campaign.id()));
        standing.map_or(0, |standing| usize::try_from(standing.reached()).unwrap_or_default())
    }
}

/// Evaluates every customer of the batch, in customer, then activation order.
pub(super) async fn evaluate(batch: &Batch<'_>, customers: &Customers) -> Result<Vec<Evaluated>, Error> {
    let refunded = load_refunded(batch, customers).await?;
    let mut jobs = plan_jobs(batch, customers, &refunded)?;
    folding::run(batch, &mut jobs).await?;
    let mut folded: Vec<Folded<'_>> = jobs.into_iter().filter_map(finish).collect();
    load_recorded(batch, &mut folded).await?;
    capping::cap(batch, customers, &mut folded).await?;
    let repaired = |name: &str| customers.get(name).is_some_and(|customer| customer.repair.is_some());
    Ok(folded.into_iter().map(|one| compare(repaired(one.customer), one)).collect())
}

fn finish(job: Job<'_>) -> Option<Folded<'_>> {
    let Job { customer, customer_id, campaign, fold } = job;
    let outcome = match fold {
        Fold::Append(append) => append.finish(),
        Fold::Refold(refold) => refold.finish(),
        Fold::Further(_) => return None,
    };
    Some(Folded { customer, customer_id, campaign, outcome, recorded: Vec::new() })
}

/// The recorded awards against those that are reached.
fn compare(repair: bool, folded: Folded<'_>) -> Evaluated {
    let Folded { customer, campaign, mut outcome, recorded: mut rows, .. } = folded;
    let restored = if repair { restore_points(&mut rows, &outcome.awards) } else { Vec::new() };
    let recorded = rows.iter().map(awards::recorded).collect();
    let timed = campaign.rule.hold_for.is_some() || campaign.rule.expires_after.is_some();
    let diff = diff(recorded, std::mem::take(&mut outcome.awards), timed);
    let recorded = rows.into_iter().map(|row| (row.number, row)).collect();
    Evaluated { customer: customer.to_owned(), campaign: Arc::clone(campaign), diff, recorded, outcome, restored }
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
fn plan_jobs<'a>(
    batch: &'a Batch<'_>,
    customers: &'a Customers,
    refunded: &HashMap<String, (purchase::Model, Vec<refund::Model>)>,
) -> Result<Vec<Job<'a>>, Error> {
    let mut jobs = Vec::new();
    for (name, customer) in customers.iter().filter(|(_, customer)| customer.is_evaluated()) {
        let touches = touches(customer, refunded)?;
        // A repair looks at settled campaigns too.
        let evaluated =
            |campaign: &&Arc<Campaign>| campaign.counts() || (customer.repair.is_some() && campaign.life.activated);
        for campaign in batch.campaigns.all().iter().filter(evaluated) {
            if let Some(fold) = plan_fold(customer, campaign, &touches) {
                jobs.push(Job { customer: name, customer_id: customer.row.id, campaign, fold });
            }
        }
    }
    Ok(jobs)
}

/// What must be folded of a customer in a campaign; none: nothing.
fn plan_fold<'a>(customer: &Touched, campaign: &'a Campaign, touches: &[Touch]) -> Option<Fold<'a>> {
    let unevaluated = campaign.row.activated_revision > Some(customer.row.evaluated_revision);
    if unevaluated || customer.repair.is_some() {
        return Some(Fold::Refold(Box::new(Refold::whole(campaign.engine()))));
    }
    let eligible = |purchase: &Purchase| campaign.engine().eligible(purchase);
    let change =
        |touch: &Touch| Change { before: touch.before.as_ref().and_then(eligible), after: eligible(&touch.after) };
    let tail = customer.running.of(campaign.id()).tail();
    match plan(campaign.engine(), &tail, touches.iter().map(change).collect()) {
        Plan::Unaffected => None,
        Plan::Append(append) => Some(Fold::Append(append)),
        Plan::Refold { first, last } => Some(Fold::Refold(Box::new(Refold::new(campaign.engine(), &first, &last)))),
    }
}

/// Loads the recorded awards of the stretches that were folded again.
async fn load_recorded(batch: &Batch<'_>, folded: &mut [Folded<'_>]) -> Result<(), Error> {
    let columns =
        [("customer_id", Kind::Int), ("campaign_id", Kind::Int), ("from_at", Kind::Int), ("to_at", Kind::Int)];
    let mut rows = Rows::new(batch.backend(), &columns);
    let mut places = HashMap::new();
    // After the tail nothing is recorded.
    for (index, one) in folded.iter().enumerate().filter(|(_, one)| !one.outcome.appended) {
        let at = |key: &Option<Key>, default: Instant| key.as_ref().map_or(default, |key| key.at).0;
        rows.push(vec![
            one.customer_id.0.into(),
            one.campaign.id().0.into(),
            at(&one.outcome.from, Instant::EPOCH).into(),
            at(&one.outcome.to, Instant::FOREVER).into(),
        ]);
        places.insert((one.customer_id, one.campaign.id()), index);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let on = "t.customer_id = r.customer_id AND t.campaign_id = r.campaign_id \
        AND t.earned_at >= r.from_at AND t.earned_at <= r.to_at AND t.status <> 'reversed'";
    for row in join(batch.tx, "t.*", "award", rows, on, "").await? {
        let row = award::Model::from_query_result(&row, "")?;
        let Some(Folded { outcome, recorded, .. }) =
            places.get(&(row.customer_id, row.campaign_id)).map(|index| &mut folded[*index])
        else {
            continue;
        };
        let stretch = Range { after: outcome.from.clone(), to: outcome.to.clone() };
        if stretch.contains(&awards::reaching_key(&row)) {
            recorded.push(row);
        }
    }
    Ok(())
}
