//! Evaluates deferred parts of histories, in commits that are bounded in rows and bytes.
//!
//! A history may be longer than one commit may evaluate, for example when a campaign with a past start is activated. The running
//! state then contains a *mark* (`app::stored::running`). The history is evaluated up to the mark, and the rest is deferred.
//! [`load_waiting`] loads the part after the mark that this batch evaluates.

use std::collections::HashMap;
use std::sync::Arc;

use entity::CustomerId;

use super::touched::{Batch, Customers, Touched};
use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::app::rows::read_in_order;
use crate::app::stored::history::{self, Bounds, Lines, Page, View};
use crate::engine::evaluate::{Append, Tail};
use crate::engine::purchase::{Key, Purchase};
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// The minimum number of purchases by which a batch advances each customer, even if many customers share the limit of one commit.
const MIN_PURCHASES: usize = 16;
/// The maximum number of bytes of lines that a batch loads for all customers together. Each customer gets an equal part, but at
/// least one purchase.
const MAX_LINES_BYTES: usize = 16 << 20;

/// Returns the key up to which the customer is evaluated in the campaign, or `None` if nothing is deferred.
pub(super) fn mark(customer: &Touched, campaign: &Campaign) -> Option<Key> {
    if is_unevaluated(customer, campaign) {
        return Some(Key::before(campaign.life.period.starts_at));
    }
    customer.running.get(campaign.id())?.mark.clone()
}

/// Whether the campaign was activated after the customer was last evaluated.
pub(super) fn is_unevaluated(customer: &Touched, campaign: &Campaign) -> bool {
    campaign.row.activated_revision > Some(customer.row.evaluated_revision)
}

/// The deferred purchases that this batch evaluates.
#[derive(Default)]
pub(super) struct Waiting {
    customers: HashMap<CustomerId, WaitingStretch>,
}

struct WaitingStretch {
    /// In order, beginning after the earliest mark of the customer.
    purchases: Vec<Purchase>,
    /// The key of the last of these purchases. `None` if the history ends with them.
    end: Option<Key>,
}

/// Loads the deferred purchases of the customers that a job asked for, and of those that are evaluated in a campaign for the
/// first time. All customers share the limit of one commit; a customer with several campaigns counts several times.
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
        let pages = history::pages(batch.tx, &stretches, View::now(lines), bounds).await?;
        for ((customer, _), Page { purchases, reached: end }) in stretches.into_iter().zip(pages) {
            waiting.insert(customer, WaitingStretch { purchases, end });
        }
    }
    Ok(Waiting { customers: waiting })
}

impl Waiting {
    /// Folds the loaded purchases of the customer after the mark of the campaign into the tail. Returns the fold and the new
    /// mark, or `None` if nothing was loaded for the customer or nothing is deferred in the campaign. If the loaded purchases
    /// end before the mark, nothing is folded and the mark stays.
    pub(super) fn fold_on<'a>(
        &self,
        customer: &Touched,
        campaign: &'a Campaign,
        tail: impl FnOnce() -> Tail,
    ) -> Option<(Append<'a>, Option<Key>)> {
        let WaitingStretch { purchases, end } = self.customers.get(&customer.row.id)?;
        let mark = mark(customer, campaign)?;
        let behind = purchases.iter().filter(|purchase| purchase.key > mark);
        let purchases = behind.filter_map(|purchase| campaign.engine().eligible(purchase)).collect();
        let end = end.clone().map(|end| end.max(mark));
        Some((Append::new(campaign.engine(), tail(), purchases), end))
    }
}

/// The deferred part of the history of one customer.
struct Deferred {
    customer: CustomerId,
    /// From the earliest mark to the latest end of the periods of the campaigns.
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
    let reads_lines = marked.iter().any(|(campaign, _)| campaign.rule.reads_lines());
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
