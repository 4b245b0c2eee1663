//! Runs folds, and loads the checkpoints and purchases that they ask for.
//!
//! Folds run in rounds. A round loads what all folds ask for together, so the number of statements does not grow with the
//! batch. It does not grow with the histories of the customers either, except with the logarithm of the reach of a change, as
//! long as the reach fits one round. A round is bounded in rows and bytes. A fold that asks for more continues in the next
//! round.

use std::collections::HashMap;
use std::sync::Arc;

use entity::CustomerId;

use super::prepared::PreparedFold;
use super::touched::Batch;
use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::app::rows::first_of_each;
use crate::app::stored::checkpoint;
use crate::app::stored::history::{self, Bounds, Lines, Page, View};
use crate::app::stored::stretches::{Ends, INDEX, Stored, Stretches, index, lies_in};
use crate::engine::cap::Further;
use crate::engine::evaluate::{Append, Checkpoints, Load, Refold};
use crate::engine::purchase::{Key, Purchase};
use crate::engine::rule::Eligible;
use crate::engine::state::State;
use crate::engine::stretch::Stretch;

/// The maximum number of purchases without lines that a round loads, over all stretches.
const ROUND_PURCHASES: usize = 4_096;
/// The maximum number of purchases with lines that a round loads. With lines, a purchase may be many times as large.
const ROUND_PURCHASES_WITH_LINES: usize = 512;
/// The maximum number of bytes of lines that a round loads, over all stretches.
const ROUND_BYTES: usize = 16 << 20;
/// The minimum number of purchases that a round may load of each stretch, even if their sum is above the other limits. It lets
/// the small changes of many customers in a large batch fit one round.
const STRETCH_PURCHASES: usize = 64;

/// A fold of the purchases of one customer in one campaign.
pub(super) struct Job<'a> {
    /// The external id of the customer.
    pub(super) customer: &'a str,
    pub(super) customer_id: CustomerId,
    pub(super) campaign: &'a Arc<Campaign>,
    pub(super) fold: Fold<'a>,
    /// The purchases after this key are deferred and are not loaded.
    pub(super) until: Option<Key>,
    /// Whether checkpoints may be stored. Otherwise they are not loaded.
    pub(super) has_checkpoints: bool,
    /// The result that was prepared before this transaction. The fold continues it.
    pub(super) prepared: Option<Box<PreparedFold>>,
    /// The fold stops when it has been fed more purchases than this. `None` if there is no limit.
    pub(super) most_purchases: Option<usize>,
}

impl Job<'_> {
    /// Returns what must be loaded to continue the fold, or `None` if it is complete.
    fn load(&mut self) -> Option<Load> {
        let load = self.fold.load()?;
        if self.has_checkpoints || !matches!(load, Load::Checkpoints(_)) {
            return Some(load);
        }
        self.fold.feed_checkpoints(None, Vec::new());
        self.fold.load()
    }

    /// Returns the stretch with a defined beginning and without deferred purchases.
    fn bounded(&self, stretch: Stretch) -> Stretch {
        stretch.from_start(self.campaign.life.period.starts_at).clipped(self.until.as_ref())
    }
}

pub(super) enum Fold<'a> {
    /// A complete prepared fold, to which nothing is added.
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

/// Runs all folds to their end. If a fold needs more than its [`Job::most_purchases`], stops and returns the index of its job.
pub(super) async fn run(batch: &Batch<'_>, jobs: &mut [Job<'_>]) -> Result<Option<usize>, Error> {
    let mut fed = vec![0; jobs.len()];
    loop {
        let mut checkpoints = Vec::new();
        let mut stretches = Vec::new();
        for (index, job) in jobs.iter_mut().enumerate() {
            match job.load() {
                Some(Load::Checkpoints(asked)) => checkpoints.push((index, asked)),
                Some(Load::Purchases(stretch)) => stretches.push((index, job.bounded(stretch))),
                None => {}
            }
        }
        if checkpoints.is_empty() && stretches.is_empty() {
            return Ok(None);
        }
        let too_long = |index: usize| jobs[index].most_purchases.is_some_and(|most| fed[index] > most);
        if let Some(index) = (0..jobs.len()).find(|index| too_long(*index)) {
            return Ok(Some(index));
        }
        feed_checkpoints(batch, jobs, checkpoints).await?;
        for (index, purchases) in feed_purchases(batch, jobs, stretches).await? {
            fed[index] += purchases;
        }
    }
}

async fn feed_checkpoints(
    batch: &Batch<'_>,
    jobs: &mut [Job<'_>],
    asked: Vec<(usize, Checkpoints)>,
) -> Result<(), Error> {
    let before = asked
        .iter()
        .filter_map(|(index, asked)| Some((*index, Stretch { after: None, to: Some(asked.before.clone()?) })));
    let mut before = load_checkpoints(batch, jobs, before, Ends::Before, 1).await?;
    let after = asked.iter().filter(|(_, asked)| asked.count > 0);
    let after = after.map(|(index, asked)| (*index, Stretch { after: Some(asked.after.clone()), to: None }));
    let most = asked.iter().map(|(_, asked)| asked.count).max().unwrap_or_default();
    let mut after = load_checkpoints(batch, jobs, after, Ends::After, most).await?;
    for (index, asked) in asked {
        let before = before.remove(&index).and_then(|mut states| states.pop());
        let mut ahead = after.remove(&index).unwrap_or_default();
        ahead.truncate(asked.count);
        jobs[index].fold.feed_checkpoints(before, ahead);
    }
    Ok(())
}

/// Loads checkpoints in each stretch: at most `most` that are nearest to its one end, in the order of the customer's purchases.
async fn load_checkpoints(
    batch: &Batch<'_>,
    jobs: &[Job<'_>],
    stretches: impl Iterator<Item = (usize, Stretch)>,
    ends: Ends,
    most: usize,
) -> Result<HashMap<usize, Vec<State>>, Error> {
    let mut asked = Stretches::new(batch.backend());
    let mut places = Vec::new();
    for (place, stretch) in stretches {
        asked.push_in(jobs[place].customer_id, jobs[place].campaign.id(), &stretch);
        places.push(place);
    }
    let mut found: HashMap<usize, Vec<State>> = HashMap::new();
    if asked.is_empty() {
        return Ok(found);
    }
    let order = if matches!(ends, Ends::Before) {
        "s.purchased_at DESC, s.external_id DESC"
    } else {
        "s.purchased_at, s.external_id"
    };
    let (what, conditions) = (format!("{INDEX}, t.*"), lies_in("s", Stored::Checkpoints, ends));
    for row in first_of_each(batch.tx, &what, "checkpoint", asked.into_rows(), &conditions, order, most).await? {
        if let Some(place) = places.get(index(&row)?) {
            let state = checkpoint::from_row(&row)?;
            found.entry(*place).or_default().push(state);
        }
    }
    found.values_mut().for_each(|states| states.sort_by(|a: &State, b| a.last.cmp(&b.last)));
    Ok(found)
}

/// Loads purchases and feeds the folds with them. Returns the number of purchases that each fold was fed.
async fn feed_purchases(
    batch: &Batch<'_>,
    jobs: &mut [Job<'_>],
    stretches: Vec<(usize, Stretch)>,
) -> Result<Vec<(usize, usize)>, Error> {
    let mut fed = Vec::with_capacity(stretches.len());
    let asked = stretches.iter().map(|(index, stretch)| (&jobs[*index], stretch));
    let history = load_history(batch, asked).await?;
    for (index, stretch) in stretches {
        let Job { customer_id, campaign, ref mut fold, .. } = jobs[index];
        let all = history.get(&(customer_id, View::of(campaign.engine())));
        let loaded = all.and_then(|all| all.iter().rfind(|loaded| loaded.stretch.after <= stretch.after));
        let Some(Loaded { purchases, cut_at, .. }) = loaded else { continue };
        // The round is used up by earlier purchases, which other folds asked for. This fold is fed in a later round.
        if cut_at.as_ref().is_some_and(|cut_at| Some(cut_at) <= stretch.after.as_ref()) {
            continue;
        }
        let inside = purchases.iter().filter(|purchase| stretch.contains(&purchase.key));
        fed.push((index, inside.clone().count()));
        let to = cut_at.clone().filter(|cut_at| stretch.to.as_ref().is_none_or(|to| cut_at < to));
        fold.feed(inside.filter_map(|purchase| campaign.engine().eligible(purchase)).collect(), to);
    }
    Ok(fed)
}

/// A loaded stretch of a customer's history.
struct Loaded {
    stretch: Stretch,
    /// In the order of the customer's purchases.
    purchases: Vec<Purchase>,
    /// Purchases after this key are not loaded. `None` if the whole stretch is loaded.
    cut_at: Option<Key>,
}

/// The loaded stretches of each customer, in order.
type History = HashMap<(CustomerId, View), Vec<Loaded>>;

/// Loads the purchases that the folds ask for, with refunds. The purchases of a customer are loaded once for each view that the
/// campaigns have of them.
async fn load_history<'a>(
    batch: &Batch<'_>,
    asked: impl Iterator<Item = (&'a Job<'a>, &'a Stretch)>,
) -> Result<History, Error> {
    let mut by_view: HashMap<View, HashMap<CustomerId, Vec<Stretch>>> = HashMap::new();
    for (job, stretch) in asked {
        let of_customer = by_view.entry(View::of(job.campaign.engine())).or_default();
        of_customer.entry(job.customer_id).or_default().push(stretch.clone());
    }
    let mut history = History::new();
    for (view, by_customer) in by_view {
        let disjoint = |(id, stretches)| Stretch::disjoint(stretches).into_iter().map(move |stretch| (id, stretch));
        let asked: Vec<(CustomerId, Stretch)> = by_customer.into_iter().flat_map(disjoint).collect();
        let bounds = Bounds { rows: most_purchases(asked.len(), view.lines), bytes: ROUND_BYTES / asked.len().max(1) };
        let pages = history::pages(batch.tx, &asked, view, bounds).await?;
        for ((customer, stretch), Page { mut purchases, reached }) in asked.into_iter().zip(pages) {
            // A settled campaign does not count them.
            if view.settled_revision.is_none() {
                batch.add_unrecorded(customer, &mut purchases, &stretch.clone().clipped(reached.as_ref()));
            }
            history.entry((customer, view)).or_default().push(Loaded { stretch, purchases, cut_at: reached });
        }
    }
    Ok(history)
}

/// Returns how many purchases a round loads of each stretch, given the number of stretches. The result is a power of two, so that
/// there are only a few different statements.
fn most_purchases(stretches: usize, lines: Lines) -> usize {
    let round = match lines {
        Lines::Loaded => ROUND_PURCHASES_WITH_LINES,
        Lines::LeftOut => ROUND_PURCHASES,
    };
    let each = round / stretches.max(1);
    if each <= STRETCH_PURCHASES { STRETCH_PURCHASES } else { 1 << each.ilog2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_bounded_however_many_stretches_it_has() {
        for lines in [Lines::Loaded, Lines::LeftOut] {
            for stretches in [1, 3, 50] {
                let most = most_purchases(stretches, lines);
                assert!(most >= STRETCH_PURCHASES && most.is_power_of_two());
                assert!(most * stretches <= ROUND_PURCHASES.max(STRETCH_PURCHASES * stretches));
            }
        }
        assert_eq!(most_purchases(1, Lines::LeftOut), ROUND_PURCHASES);
    }
}
