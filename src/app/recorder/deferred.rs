//! Folding on from a mark, in commits that are bounded in rows and bytes.
//!
//! A customer's history may be longer than one commit should take: a campaign is activated over its past, say. The running state
//! then carries a *mark* (`app::running`): up to it the history is evaluated, and what lies after it waits. [`load_waiting`] loads
//! what this batch folds on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use entity::CustomerId;
use sea_orm::FromQueryResult;

use super::batch::{Batch, Customers, Touched};
use super::folding::Recorded;
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::history::{self, Lines, Span};
use crate::app::rows::{Kind, Rows, first_of_each};
use crate::engine::evaluate::{Append, Range, Tail};
use crate::engine::purchase::Key;
use crate::engine::time::Instant;

/// Purchases that each customer folds on by, at the least, where many of them share what one commit may take.
const MIN_PURCHASES: usize = 16;
/// Bytes of purchases' lines that all customers of one batch fold on by. Each gets an equal part, and one purchase at the least.
const MAX_LINES_BYTES: usize = 16 << 20;

/// How far a customer is folded on in this batch: to this key; none: to the end of its history.
type Stretches = HashMap<CustomerId, Option<Key>>;

/// Where the campaign's evaluation of the customer stands, if something of it is deferred.
pub(super) fn mark(customer: &Touched, campaign: &Campaign) -> Option<Key> {
    if is_unevaluated(customer, campaign) {
        return Some(Key::before(campaign.life.period.starts_at));
    }
    customer.running.get(campaign.id())?.mark.clone()
}

/// The campaign was activated after the customer was last evaluated.
pub(super) fn is_unevaluated(customer: &Touched, campaign: &Campaign) -> bool {
    campaign.row.activated_revision > Some(customer.row.evaluated_revision)
}

/// What is deferred of one customer.
struct Deferred {
    customer: CustomerId,
    /// The earliest mark.
    after: Key,
    /// The latest end of the campaigns' periods.
    until: Instant,
    lines: Lines,
    campaigns: usize,
}

/// How far each customer is folded on of whom something is deferred: those that a job asks for, and those that meet a campaign
/// for the first time.
async fn load_stretches(batch: &Batch<'_>, customers: &Customers) -> Result<Stretches, Error> {
    let deferred: Vec<Deferred> = customers.values().filter_map(|customer| deferred(batch, customer)).collect();
    if deferred.is_empty() {
        return Ok(Stretches::new());
    }
    // All of them together, each campaign counted by itself, take what one commit may take.
    let campaigns: usize = deferred.iter().map(|one| one.campaigns).sum();
    let limit = (batch.fold_purchases / campaigns).max(MIN_PURCHASES.min(batch.fold_purchases));
    let max_bytes = i64::try_from(MAX_LINES_BYTES / deferred.len()).unwrap_or(i64::MAX);
    let mut sizes = load_sizes(batch, &deferred, limit).await?;
    let ends = deferred.iter().map(|one| {
        let sizes = sizes.remove(&one.customer).unwrap_or_default();
        (one.customer, end(&sizes, limit, max_bytes, one.lines))
    });
    Ok(ends.collect())
}

/// What waits behind the marks and is folded in by this batch.
pub(super) struct Waiting {
    stretches: Stretches,
    history: HashMap<(CustomerId, Lines), Vec<Recorded>>,
}

/// Loads it, each customer's once with lines and once without, as the campaigns need it.
pub(super) async fn load_waiting(batch: &Batch<'_>, customers: &Customers) -> Result<Waiting, Error> {
    let stretches = load_stretches(batch, customers).await?;
    let mut spans: HashMap<Lines, HashMap<CustomerId, Span>> = HashMap::new();
    for customer in customers.values() {
        let Some(end) = stretches.get(&customer.row.id) else { continue };
        for campaign in batch.campaigns.counting() {
            let Some(mark) = mark(customer, campaign) else { continue };
            let spans = spans.entry(Lines::of(&campaign.rule)).or_default();
            let span = spans.entry(customer.row.id).or_insert_with(|| (mark.clone(), end.clone()));
            span.0 = span.0.clone().min(mark);
        }
    }
    let mut history: HashMap<(CustomerId, Lines), Vec<Recorded>> = HashMap::new();
    for (lines, spans) in spans {
        let rows = history::purchases(batch.tx, spans, lines).await?;
        let refunds = history::refunds(batch.tx, rows.iter().map(|row| row.external_id.clone())).await?;
        for row in rows {
            let of_row = refunds.get(&row.external_id).map(Vec::as_slice).unwrap_or_default();
            history.entry((row.customer_id, lines)).or_default().push(Recorded::of(&row, of_row)?);
        }
    }
    Ok(Waiting { stretches, history })
}

impl Waiting {
    /// What of the customer's stretch lies behind the campaign's mark, folded into the tail, with the mark that this leaves; none:
    /// nothing of the campaign waits here. Where the stretch ends before the mark, the mark stays, and nothing is folded.
    pub(super) fn fold_on<'a>(
        &self,
        customer: &Touched,
        campaign: &'a Campaign,
        tail: Tail,
    ) -> Option<(Append<'a>, Option<Key>)> {
        let end = self.stretches.get(&customer.row.id)?;
        let mark = mark(customer, campaign)?;
        let end = end.clone().map(|end| end.max(mark.clone()));
        let stretch = Range { after: Some(mark), to: end.clone() };
        let history = self.history.get(&(customer.row.id, Lines::of(&campaign.rule)));
        let waiting = history.into_iter().flatten().filter(|recorded| stretch.contains(&recorded.purchase.key));
        let purchases = waiting.filter_map(|recorded| recorded.eligible_for(campaign)).collect();
        Some((Append::new(campaign.engine(), tail, purchases), end))
    }
}

fn deferred(batch: &Batch<'_>, customer: &Touched) -> Option<Deferred> {
    let counting = || batch.campaigns.counting();
    let meets_one = customer.is_evaluated() && counting().any(|campaign| is_unevaluated(customer, campaign));
    if customer.repair.is_some() || !(customer.is_asked_for() || meets_one) {
        return None;
    }
    let marked: Vec<(&Arc<Campaign>, Key)> =
        counting().filter_map(|campaign| Some((campaign, mark(customer, campaign)?))).collect();
    let ends = marked.iter().map(|(campaign, _)| campaign.life.period.ends_at.unwrap_or(Instant::FOREVER));
    let reads_lines = marked.iter().any(|(campaign, _)| Lines::of(&campaign.rule) == Lines::Loaded);
    Some(Deferred {
        customer: customer.row.id,
        until: ends.max()?,
        lines: if reads_lines { Lines::Loaded } else { Lines::LeftOut },
        campaigns: marked.len(),
        after: marked.into_iter().map(|(_, mark)| mark).min()?,
    })
}

/// A purchase that waits to be folded in, and the bytes of its lines.
#[derive(FromQueryResult)]
struct Size {
    customer_id: i64,
    purchased_at: i64,
    external_id: String,
    lines_bytes: i64,
}

/// The next purchases of each customer, in order.
async fn load_sizes(
    batch: &Batch<'_>,
    deferred: &[Deferred],
    limit: usize,
) -> Result<HashMap<CustomerId, BTreeMap<Key, i64>>, Error> {
    let columns =
        [("customer_id", Kind::Int), ("after_at", Kind::Int), ("after_id", Kind::Text), ("until_at", Kind::Int)];
    let mut rows = Rows::new(batch.backend(), &columns);
    for one in deferred {
        let (at, external_id) = (one.after.at.0, one.after.external_id.clone());
        rows.push(vec![one.customer.0.into(), at.into(), external_id.into(), one.until.0.into()]);
    }
    let what = "t.customer_id, t.purchased_at, t.external_id, CAST(LENGTH(t.lines) AS BIGINT) AS lines_bytes";
    let conditions = "s.customer_id = r.customer_id AND s.purchased_at >= r.after_at AND s.purchased_at < r.until_at \
        AND (s.purchased_at > r.after_at OR s.external_id > COALESCE(r.after_id, ''))";
    let order = "s.purchased_at, s.external_id";
    let mut sizes: HashMap<CustomerId, BTreeMap<Key, i64>> = HashMap::new();
    for row in first_of_each(batch.tx, what, "purchase", rows, conditions, order, limit).await? {
        let Size { customer_id, purchased_at, external_id, lines_bytes } = Size::from_query_result(&row, "")?;
        let key = Key { at: Instant(purchased_at), external_id };
        sizes.entry(CustomerId(customer_id)).or_default().insert(key, lines_bytes);
    }
    Ok(sizes)
}

/// The last of these purchases that fits; none: they are all that there are, and they fit.
fn end(sizes: &BTreeMap<Key, i64>, limit: usize, max_bytes: i64, lines: Lines) -> Option<Key> {
    let mut bytes = 0;
    let mut last = None;
    for (key, lines_bytes) in sizes {
        bytes += if lines == Lines::Loaded { *lines_bytes } else { 0 };
        if bytes > max_bytes && last.is_some() {
            return last;
        }
        last = Some(key.clone());
    }
    last.filter(|_| sizes.len() >= limit)
}
