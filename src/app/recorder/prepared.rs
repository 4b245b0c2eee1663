//! What was found of a long change before its transaction began: see `preparation`.

use std::collections::{HashMap, HashSet};

use entity::{CampaignId, CustomerId, award};

use super::change::Touch;
use super::recount::Recount;
use super::touched::{Batch, Touched};
use crate::app::campaigns::Campaign;
use crate::app::stored::award as awards;
use crate::engine::evaluate::{Change, Outcome};
use crate::engine::purchase::Key;
use crate::engine::time::Instant;

/// How often a change is prepared.
const MAX_PREPARATIONS: u32 = 3;
/// Which of a campaign's counters prepared changes add to. Their transactions are long, and no writer has to wait for their rows.
pub(super) const PREPARED_SHARD: i32 = -1;

/// A customer whose change needs more purchases than one transaction may fold again.
pub(super) struct TooLong {
    /// External id.
    pub(super) customer: String,
    /// The change.
    pub(super) touches: Vec<Touch>,
    /// Everything is folded again.
    pub(super) repair: bool,
}

/// How often a batch's change was prepared, and what was found the last time.
#[derive(Default)]
pub(super) struct Preparation {
    pub(super) attempts: u32,
    pub(super) prepared: Option<Prepared>,
}

impl Preparation {
    /// Whether the change may be prepared once more.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.attempts < MAX_PREPARATIONS
    }
}

/// What was found of one customer.
pub(super) struct Prepared {
    pub(super) customer_id: CustomerId,
    /// The customer's, of its last commit.
    pub(super) stamp: i64,
    /// Of the campaign set.
    pub(super) set_revision: i64,
    pub(super) folds: HashMap<CampaignId, PreparedFold>,
    /// Of a repair.
    pub(super) recount: Option<Recount>,
}

/// What was found in one campaign.
pub(super) struct PreparedFold {
    /// Where the customer stood: see `Standing::history_version`, and the last purchase that had been counted. What came in since
    /// lies after that.
    pub(super) version_and_last: Option<(i64, Key)>,
    /// What was folded in.
    pub(super) changes: Vec<Change>,
    /// From here on the fold is to be taken up again, and recorded awards are to be loaded. None: it is complete.
    pub(super) seen: Option<Key>,
    pub(super) outcome: Outcome,
    /// The recorded awards of the folded stretch, but for those that are reached just so.
    pub(super) recorded: Vec<award::Model>,
}

impl Prepared {
    /// What was found in the campaign, if it holds for these changes of the customer as it is now.
    pub(super) fn take(
        &mut self,
        batch: &Batch<'_>,
        customer: &Touched,
        campaign: &Campaign,
        changes: &[Change],
    ) -> Option<PreparedFold> {
        if customer.row.id != self.customer_id || batch.campaigns.revision.number != self.set_revision {
            return None;
        }
        let mut prepared = self.folds.remove(&campaign.id()).filter(|prepared| prepared.changes == changes)?;
        // What comes in later does not count in a settled campaign.
        if customer.before == self.stamp || !campaign.counts() {
            return Some(prepared);
        }
        let recorded = customer.repair.as_ref().map_or(&customer.running, |repair| &repair.recorded);
        let history_version = recorded.get(campaign.id())?.history_version;
        let (version, last) = prepared.version_and_last.clone()?;
        if prepared.outcome.met.is_none() {
            prepared.seen = Some(last);
        }
        (history_version == Some(version)).then_some(prepared)
    }
}

impl PreparedFold {
    /// Drops the awards that are recorded just as they are reached, as far as no fold is taken up again before them.
    pub(super) fn drop_equal(&mut self) {
        let kept_from = match &self.version_and_last {
            Some((_, last)) if self.outcome.met.is_none() => {
                self.outcome.last_checkpoint(last).and_then(|state| state.last.clone())
            }
            _ => Some(Key::before(Instant::FOREVER)),
        };
        let Some(kept_from) = kept_from else { return };
        let mut recorded: HashMap<(Key, i32), usize> = HashMap::new();
        for (index, row) in self.recorded.iter().enumerate() {
            recorded.insert((awards::reaching_key(row), row.nth), index);
        }
        let mut equal = HashSet::new();
        let rows = &self.recorded;
        self.outcome.awards.retain(|reached| {
            let row = recorded.get(&(reached.by.clone(), reached.nth)).filter(|_| reached.by <= kept_from);
            let same = row.filter(|row| awards::recorded(&rows[**row]).reached == *reached);
            equal.extend(same.copied());
            same.is_none()
        });
        let mut index = 0..;
        self.recorded.retain(|_| !index.next().is_some_and(|index| equal.contains(&index)));
    }
}
