//! Folds under way, and what they are fed with. In each round all that they ask for is loaded in one go, so that the
//! number of statements grows with neither the batch nor (but for the logarithm of a change's reach, as long as it
//! fits one round) the customers' histories. A round is bounded in rows: a fold that asks for more goes on in the next.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{CampaignId, CustomerId, checkpoint};
use sea_orm::FromQueryResult;

use super::prepared::PreparedFold;
use super::touched::Batch;
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, first_of_each};
use crate::app::stored::history;
use crate::app::stored::history::{Bounds, Lines};
use crate::app::stored::recorded::{Recorded, with_refunds};
use crate::engine::cap::Further;
use crate::engine::evaluate::{Append, Checkpoints, Load, Range, Refold};
use crate::engine::purchase::Key;
use crate::engine::rule::Eligible;
use crate::engine::state::State;

/// The most purchases that a round loads without lines, over all spans.
const ROUND_PURCHASES: usize = 4_096;
/// And with lines, which may have many times the bytes.
const ROUND_PURCHASES_WITH_LINES: usize = 512;
/// Bytes of lines that a round loads, over all spans.
const ROUND_BYTES: usize = 16 << 20;
/// But of each span so many purchases: the local change of each customer of a large batch fits one round.
const SPAN_PURCHASES: usize = 64;

/// A fold of one customer's purchases through one campaign.
pub(super) struct Job<'a> {
    /// External id.
    pub(super) customer: &'a str,
    pub(super) customer_id: CustomerId,
    pub(super) campaign: &'a Arc<Campaign>,
    pub(super) fold: Fold<'a>,
    /// What lies after this key is deferred, and not looked at.
    pub(super) until: Option<Key>,
    /// What was found before this transaction began; the fold goes on from there.
    pub(super) prepared: Option<PreparedFold>,
    /// The fold stops once it was fed more purchases than this; none: it runs to its end.
    pub(super) most_purchases: Option<usize>,
}

impl Job<'_> {
    /// The range as far as it may be looked at.
    fn clipped(&self, range: Range) -> Range {
        let to = match (range.to, self.until.clone()) {
            (Some(to), Some(until)) => Some(to.min(until)),
            (to, until) => to.or(until),
        };
        Range { to, ..range }
    }
}

/// What kind of fold.
pub(super) enum Fold<'a> {
    /// Nothing is left to do.
    Through,
    Append(Box<Append<'a>>),
    Refold(Box<Refold<'a>>),
    Further(Box<Further<'a>>),
}

impl Fold<'_> {
    fn load(&mut self) -> Option<Load> {
        match self {
            Self::Through => None,
            Self::Append(append) => append.load().map(Load::Purchases),
            Self::Refold(refold) => refold.load(),
            Self::Further(further) => further.load(),
        }
    }

    fn feed_checkpoints(&mut self, before: Option<State>, ahead: Vec<State>) {
        match self {
            Self::Through | Self::Append(_) => {}
            Self::Refold(refold) => refold.feed_checkpoints(before, ahead),
            Self::Further(further) => further.feed_checkpoints(before, ahead),
        }
    }

    fn feed(&mut self, purchases: Vec<Eligible>, to: Option<Key>) {
        match self {
            Self::Through => {}
            Self::Append(append) => append.feed(purchases, to),
            Self::Refold(refold) => refold.feed(purchases, to),
            Self::Further(further) => further.feed(purchases, to),
        }
    }
}

/// Runs all folds to their ends, unless one needs more purchases than it may have: returns the index of that one.
pub(super) async fn run(batch: &Batch<'_>, jobs: &mut [Job<'_>]) -> Result<Option<usize>, Error> {
    let mut fed = vec![0; jobs.len()];
    loop {
        let mut checkpoints = Vec::new();
        let mut ranges = Vec::new();
        for (index, job) in jobs.iter_mut().enumerate() {
            match job.fold.load() {
                Some(Load::Checkpoints(asked)) => checkpoints.push((index, asked)),
                Some(Load::Purchases(range)) => ranges.push((index, job.clipped(range))),
                None => {}
            }
        }
        if checkpoints.is_empty() && ranges.is_empty() {
            return Ok(None);
        }
        let too_long = |index: usize| jobs[index].most_purchases.is_some_and(|most| fed[index] > most);
        if let Some(index) = (0..jobs.len()).find(|index| too_long(*index)) {
            return Ok(Some(index));
        }
        feed_checkpoints(batch, jobs, checkpoints).await?;
        for (index, purchases) in feed_purchases(batch, jobs, ranges).await? {
            fed[index] += purchases;
        }
    }
}

async fn feed_checkpoints(
    batch: &Batch<'_>,
    jobs: &mut [Job<'_>],
    asked: Vec<(usize, Checkpoints)>,
) -> Result<(), Error> {
    let before = asked.iter().filter_map(|(index, asked)| Some((*index, asked.before.as_ref()?)));
    let mut before = load_checkpoints(batch, jobs, before, Side::Before, 1).await?;
    let after = asked.iter().filter(|(_, asked)| asked.count > 0).map(|(index, asked)| (*index, &asked.after));
    let most = asked.iter().map(|(_, asked)| asked.count).max().unwrap_or_default();
    let mut after = load_checkpoints(batch, jobs, after, Side::After, most).await?;
    for (index, asked) in asked {
        let before = before.remove(&index).and_then(|mut states| states.pop());
        let mut ahead = after.remove(&index).unwrap_or_default();
        ahead.truncate(asked.count);
        jobs[index].fold.feed_checkpoints(before, ahead);
    }
    Ok(())
}

/// On which side of a key checkpoints lie.
#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

/// For each job the checkpoints next to a key, so many at the most, in the customer's order.
async fn load_checkpoints<'a>(
    batch: &Batch<'_>,
    jobs: &[Job<'_>],
    keys: impl Iterator<Item = (usize, &'a Key)>,
    side: Side,
    most: usize,
) -> Result<HashMap<usize, Vec<State>>, Error> {
    let columns = [("customer_id", Kind::Int), ("campaign_id", Kind::Int), ("at", Kind::Int), ("id", Kind::Text)];
    let mut rows = Rows::new(batch.backend(), &columns);
    let mut wanted: HashMap<(CustomerId, CampaignId), usize> = HashMap::new();
    for (index, key) in keys {
        let Job { customer_id, campaign, .. } = jobs[index];
        wanted.insert((customer_id, campaign.id()), index);
        rows.push(vec![customer_id.0.into(), campaign.id().0.into(), key.at.0.into(), key.external_id.clone().into()]);
    }
    let mut found: HashMap<usize, Vec<State>> = HashMap::new();
    if rows.is_empty() {
        return Ok(found);
    }
    let (compare, direction) = match side {
        Side::Before => ("<", "DESC"),
        Side::After => (">", "ASC"),
    };
    // The bare bound on purchased_at is what the index is searched by.
    let conditions = format!(
        "s.customer_id = r.customer_id AND s.campaign_id = r.campaign_id AND s.purchased_at {compare}= r.at \
        AND (s.purchased_at {compare} r.at OR s.external_id {compare} COALESCE(r.id, ''))"
    );
    let order = format!("s.purchased_at {direction}, s.external_id {direction}");
    for row in first_of_each(batch.tx, "t.*", "checkpoint", rows, &conditions, &order, most).await? {
        let row = checkpoint::Model::from_query_result(&row, "")?;
        let state = serde_json::from_str(&row.state)
            .map_err(|error| Error::Internal(format!("checkpoint of customer {}: {error}", row.customer_id.0)))?;
        if let Some(index) = wanted.get(&(row.customer_id, row.campaign_id)) {
            found.entry(*index).or_default().push(state);
        }
    }
    found.values_mut().for_each(|states| states.sort_by(|a: &State, b| a.last.cmp(&b.last)));
    Ok(found)
}

/// Returns how many purchases each fold was fed.
async fn feed_purchases(
    batch: &Batch<'_>,
    jobs: &mut [Job<'_>],
    ranges: Vec<(usize, Range)>,
) -> Result<Vec<(usize, usize)>, Error> {
    let mut fed = Vec::with_capacity(ranges.len());
    let asked = ranges.iter().map(|(index, range)| (&jobs[*index], range));
    let history = load_history(batch, asked).await?;
    for (index, range) in ranges {
        let Job { customer_id, campaign, ref mut fold, .. } = jobs[index];
        let stretches = history.get(&(customer_id, Lines::of(&campaign.rule)));
        let after = span(campaign, &range).0;
        let stretch = stretches.and_then(|all| all.iter().rfind(|stretch| stretch.span.0 <= after));
        let Some(Stretch { recorded, cut_at, .. }) = stretch else { continue };
        // Others asked for what comes before: its turn is in a later round.
        if cut_at.as_ref().is_some_and(|cut_at| *cut_at <= after) {
            continue;
        }
        let inside = recorded.iter().filter(|recorded| range.contains(&recorded.purchase.key));
        fed.push((index, inside.clone().count()));
        let to = cut_at.clone().filter(|cut_at| range.to.as_ref().is_none_or(|to| cut_at < to));
        fold.feed(inside.filter_map(|recorded| recorded.eligible_for(campaign)).collect(), to);
    }
    Ok(fed)
}

/// Purchases that a fold asks for, `(after, to]`; no end: all that follow.
type Span = (Key, Option<Key>);

/// A stretch of a customer's history that is loaded.
struct Stretch {
    span: Span,
    /// In order.
    recorded: Vec<Recorded>,
    /// Nothing after this key is loaded; none: all of the span is.
    cut_at: Option<Key>,
}

/// Purchases of one customer in order of their spans.
type History = HashMap<(CustomerId, Lines), Vec<Stretch>>;

/// What the folds ask for, with refunds: each customer's once with lines and once without, as the campaigns need them.
async fn load_history<'a>(
    batch: &Batch<'_>,
    asked: impl Iterator<Item = (&'a Job<'a>, &'a Range)>,
) -> Result<History, Error> {
    let mut spans: HashMap<Lines, HashMap<CustomerId, Vec<Span>>> = HashMap::new();
    for (job, range) in asked {
        let of_customer = spans.entry(Lines::of(&job.campaign.rule)).or_default();
        of_customer.entry(job.customer_id).or_default().push(span(job.campaign, range));
    }
    let mut history = History::new();
    for (lines, spans) in spans {
        let spans = spans.into_iter().flat_map(|(id, spans)| disjoint(spans).into_iter().map(move |span| (id, span)));
        let spans: Vec<(CustomerId, Span)> = spans.collect();
        let asked = spans.iter().map(|(customer, (after, to))| history::Stretch {
            customer: *customer,
            after: after.clone(),
            to: to.clone(),
        });
        let bounds = Bounds { rows: most_purchases(spans.len(), lines), bytes: ROUND_BYTES / spans.len().max(1) };
        let first = history::first_rows(batch.tx, &asked.collect::<Vec<_>>(), lines, bounds).await?;
        for ((customer, span), (mut recorded, cut_at)) in spans.into_iter().zip(with_refunds(batch.tx, first).await?) {
            let end = cut_at.clone().or(span.1.clone());
            batch.add_unrecorded(customer, &mut recorded, &Range { after: Some(span.0.clone()), to: end });
            history.entry((customer, lines)).or_default().push(Stretch { span, recorded, cut_at });
        }
    }
    Ok(history)
}

fn span(campaign: &Campaign, range: &Range) -> Span {
    let after = range.after.clone().unwrap_or_else(|| Key::before(campaign.life.period.starts_at));
    (after, range.to.clone())
}

/// The spans in order, with those that overlap or touch as one. What lies between others is not loaded.
fn disjoint(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort();
    let mut disjoint: Vec<Span> = Vec::new();
    for (after, to) in spans {
        match disjoint.last_mut() {
            Some((_, last_to)) if last_to.as_ref().is_none_or(|last_to| after <= *last_to) => {
                *last_to = last_to.take().zip(to).map(|(a, b)| a.max(b));
            }
            _ => disjoint.push((after, to)),
        }
    }
    disjoint
}

/// How many purchases of each of so many spans a round loads: a power of two, so that there are few statements of this
/// kind.
fn most_purchases(spans: usize, lines: Lines) -> usize {
    let round = match lines {
        Lines::Loaded => ROUND_PURCHASES_WITH_LINES,
        Lines::LeftOut => ROUND_PURCHASES,
    };
    let each = round / spans.max(1);
    if each <= SPAN_PURCHASES { SPAN_PURCHASES } else { 1 << each.ilog2() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::Instant;

    fn key(at: i64) -> Key {
        Key::before(Instant(at))
    }

    #[test]
    fn only_spans_that_overlap_or_touch_are_one() {
        let span = |after, to: Option<i64>| (key(after), to.map(key));
        let spans = vec![span(50, Some(60)), span(0, Some(10)), span(10, Some(20)), span(52, Some(55)), span(70, None)];
        assert_eq!(disjoint(spans), [span(0, Some(20)), span(50, Some(60)), span(70, None)]);
        assert_eq!(disjoint(vec![span(0, None), span(5, Some(9)), span(20, None)]), [span(0, None)]);
    }

    #[test]
    fn a_round_is_bounded_however_many_spans_it_has() {
        for lines in [Lines::Loaded, Lines::LeftOut] {
            for spans in [1, 3, 50] {
                let most = most_purchases(spans, lines);
                assert!(most >= SPAN_PURCHASES && most.is_power_of_two());
                assert!(most * spans <= ROUND_PURCHASES.max(SPAN_PURCHASES * spans));
            }
        }
        assert_eq!(most_purchases(1, Lines::LeftOut), ROUND_PURCHASES);
    }
}
