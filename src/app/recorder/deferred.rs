//! Folding on from a mark, in commits that are bounded in rows and bytes.
//!
//! A customer's history may be longer than one commit should take: a campaign is activated over its past, say. The running state
//! then carries a *mark* (`app::stored::running`): up to it the history is evaluated, and what lies after it waits. [`load_waiting`] loads
//! what this batch folds on.

use std::collections::HashMap;
use std::sync::Arc;

use entity::CustomerId;

use super::touched::{Batch, Customers, Touched};
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::rows::read_in_order;
use crate::app::stored::history::{self, Bounds, Lines};
use crate::app::stored::recorded::{Recorded, with_refunds};
use crate::engine::evaluate::{Append, Tail};
use crate::engine::purchase::Key;
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// Purchases that each customer folds on by, at the least, where many of them share what one commit may take.
const MIN_PURCHASES: usize = 16;
/// Bytes of purchases' lines that all customers of one batch fold on by. Each gets an equal part, and one purchase at the least.
const MAX_LINES_BYTES: usize = 16 << 20;

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

/// What waits behind the marks and is folded in by this batch.
#[derive(Default)]
pub(super) struct Waiting {
    customers: HashMap<CustomerId, WaitingStretch>,
}

struct WaitingStretch {
    /// In order, from the earliest mark of the customer on.
    recorded: Vec<Recorded>,
    /// The last of these; none: the history has no more.
    end: Option<Key>,
}

/// Loads it for the customers that a job asks for, and for those that meet a campaign for the first time. All of them together, each
/// campaign counted by itself, take what one commit may take.
pub(super) async fn load_waiting(batch: &Batch<'_>, customers: &Customers) -> Result<Waiting, Error> {
    let deferred: Vec<Deferred> = customers.values().filter_map(|customer| deferred(batch, customer)).collect();
    let campaigns: usize = deferred.iter().map(|one| one.campaigns).sum();
    let bounds = Bounds {
        rows: (batch.fold_purchases / campaigns.max(1)).max(MIN_PURCHASES.min(batch.fold_purchases)),
        bytes: MAX_LINES_BYTES / deferred.len().max(1),
    };
    let mut waiting = HashMap::with_capacity(deferred.len());
    if !deferred.is_empty() {
        read_in_order(batch.tx).await?;
    }
    for lines in [Lines::Loaded, Lines::LeftOut] {
        let of_lines = deferred.iter().filter(|one| one.lines == lines);
        let stretches: Vec<(CustomerId, Stretch)> = of_lines.map(|one| (one.customer, one.stretch.clone())).collect();
        let first = history::first_rows(batch.tx, &stretches, lines, bounds).await?;
        for ((customer, _), (recorded, end)) in stretches.into_iter().zip(with_refunds(batch.tx, first).await?) {
            waiting.insert(customer, WaitingStretch { recorded, end });
        }
    }
    Ok(Waiting { customers: waiting })
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
        let WaitingStretch { recorded, end } = self.customers.get(&customer.row.id)?;
        let mark = mark(customer, campaign)?;
        let behind = recorded.iter().filter(|recorded| recorded.purchase.key > mark);
        let purchases = behind.filter_map(|recorded| recorded.eligible_for(campaign)).collect();
        let end = end.clone().map(|end| end.max(mark));
        Some((Append::new(campaign.engine(), tail, purchases), end))
    }
}

/// What is deferred of one customer.
struct Deferred {
    customer: CustomerId,
    /// From the earliest mark to the latest end of the campaigns' periods.
    stretch: Stretch,
    lines: Lines,
    campaigns: usize,
}

fn deferred(batch: &Batch<'_>, customer: &Touched) -> Option<Deferred> {
    let counting = || batch.campaigns.counting();
    let meets_one = customer.is_evaluated() && counting().any(|campaign| is_unevaluated(customer, campaign));
    if customer.repair.is_some() || !(customer.asked_for || meets_one) {
        return None;
    }
    let marked: Vec<(&Arc<Campaign>, Key)> =
        counting().filter_map(|campaign| Some((campaign, mark(customer, campaign)?))).collect();
    let ends = marked.iter().map(|(campaign, _)| campaign.life.period.ends_at.unwrap_or(Instant::FOREVER));
    let reads_lines = marked.iter().any(|(campaign, _)| Lines::of(&campaign.rule) == Lines::Loaded);
    Some(Deferred {
        lines: if reads_lines { Lines::Loaded } else { Lines::LeftOut },
        campaigns: marked.len(),
        customer: customer.row.id,
        stretch: Stretch {
            to: Some(Key::before(ends.max()?)),
            after: Some(marked.into_iter().map(|(_, mark)| mark).min()?),
        },
    })
}
