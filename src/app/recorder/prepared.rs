//! The result of preparing a long change before its transaction (see `preparation`).

use std::collections::{HashMap, HashSet};

use entity::{CampaignId, CustomerId, award};

use super::recount::Recount;
use super::touched::{Batch, Touch, Touched};
use crate::app::campaign::set::Campaign;
use crate::app::stored::award as awards;
use crate::engine::award::AwardName;
use crate::engine::cap::Caps;
use crate::engine::evaluate::{Change, Outcome};
use crate::engine::purchase::Key;
use crate::engine::rule::Rule;
use crate::engine::time::Instant;

/// The maximum number of times that a change is prepared.
const MAX_PREPARATIONS: u32 = 3;
/// The shard of the campaign counters to which prepared changes add. It is separate from those of the writers, so that no writer
/// waits for the rows that a long transaction has locked.
pub(super) const PREPARED_SHARD: i32 = -1;

/// A customer whose change needs more purchases than one transaction may fold again.
pub(super) struct TooLong {
    /// The external id of the customer.
    pub(super) customer: String,
    /// The changes of the customer's purchases.
    pub(super) touches: Vec<Touch>,
    /// The change is a repair, which folds everything again.
    pub(super) repair: bool,
}

/// The number of preparations of a change, and the result of the last one.
#[derive(Default)]
pub(super) struct Preparation {
    pub(super) attempts: u32,
    pub(super) prepared: Option<Prepared>,
}

impl Preparation {
    /// Whether the change may be prepared again.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.attempts < MAX_PREPARATIONS
    }
}

/// The prepared folds of one customer.
pub(super) struct Prepared {
    pub(super) customer_id: CustomerId,
    /// The stamp of the customer in the snapshot.
    pub(super) stamp: i64,
    /// The revision of the campaign set in the snapshot.
    pub(super) set_revision: i64,
    pub(super) folds: HashMap<CampaignId, PreparedFold>,
    /// The recount of a repair, made on the snapshot.
    pub(super) recount: Option<Recount>,
}

/// The prepared fold of one customer in one campaign.
pub(super) struct PreparedFold {
    /// `CampaignState::history_version` in the snapshot, and the last purchase that had been counted. As long as the version is
    /// the same, everything that was recorded since is after that purchase.
    pub(super) version_and_last: Option<(i64, Key)>,
    /// The changes that were folded in.
    pub(super) changes: Vec<Change>,
    /// The key from which the fold must be continued and recorded awards must be loaded. `None` if the fold is complete.
    pub(super) seen: Option<Key>,
    pub(super) outcome: Outcome,
    /// The recorded awards of the folded stretch, without those that are reached unchanged ([`Self::drop_equal`]).
    pub(super) recorded: Vec<award::Model>,
}

impl Prepared {
    /// Takes the prepared fold of the campaign. Returns `None` if there is none, or if it is not valid for these changes and the
    /// current state of the customer.
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
        // In a settled campaign, facts that were recorded since do not count.
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
    /// Removes the awards that are recorded exactly as they are reached, to save memory. The caps of a customer need all of them, and so
    /// does the sum of the points that a cap in points needs. If the fold may have to be continued, the awards after the checkpoint from
    /// which it would continue are kept.
    pub(super) fn drop_equal(&mut self, rule: &Rule) {
        if Caps::of(rule).exist() || rule.caps_points() {
            return;
        }
        let kept_from = match &self.version_and_last {
            Some((_, last)) if self.outcome.met.is_none() => {
                self.outcome.last_checkpoint(last).and_then(|state| state.last.clone())
            }
            _ => Some(Key::before(Instant::FOREVER)),
        };
        let Some(kept_from) = kept_from else { return };
        let mut recorded: HashMap<AwardName, usize> = HashMap::new();
        for (index, row) in self.recorded.iter().enumerate() {
            recorded.insert(awards::name(row), index);
        }
        let mut equal = HashSet::new();
        let rows = &self.recorded;
        self.outcome.awards.retain(|reached| {
            let row = recorded.get(&reached.name()).filter(|_| reached.by <= kept_from);
            let same = row.filter(|row| awards::recorded(&rows[**row]).reached == *reached);
            equal.extend(same.copied());
            same.is_none()
        });
        let mut index = 0..;
        self.recorded.retain(|_| !index.next().is_some_and(|index| equal.contains(&index)));
    }
}
