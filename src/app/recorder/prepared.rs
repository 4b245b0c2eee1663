//! A change that must fold a long stretch of a history again is folded before the transaction that posts it, while others write.
//!
//! The transaction that records the change finds that the fold is long, writes nothing and reports [`TooLong`]. [`prepare`] then
//! folds on a snapshot, as if the change had been recorded. The transaction is repeated: it takes what was found, folds on over
//! what came in meanwhile, and posts the whole difference at once. A repair is always prepared.
//!
//! What was found stays valid as long as nothing came in but purchases after the last counted one (`Standing::history_version`), so
//! a customer who buys all day does not delay it. After [`MAX_PREPARATIONS`] the transaction folds everything itself.

use std::collections::{HashMap, HashSet};

use entity::{CampaignId, CustomerId, award, customer};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::batch::{Batch, Touched};
use super::deferred;
use super::evaluation::{Folded, Touch, changes, finish, load_recorded};
use super::folding::{self, Fold, Job};
use super::repair::Recount;
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::recorder::context::Context;
use crate::app::stored::award as awards;
use crate::app::stored::running::Running;
use crate::engine::evaluate::{Change, Outcome, Plan, Refold, plan};
use crate::engine::purchase::Key;
use crate::engine::time::Instant;

/// How often a change is prepared.
const MAX_PREPARATIONS: u32 = 3;

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
    customer_id: CustomerId,
    /// The customer's, of its last commit.
    stamp: i64,
    /// Of the campaign set.
    set_revision: i64,
    folds: HashMap<CampaignId, PreparedFold>,
    /// Of a repair.
    pub(super) recount: Option<Recount>,
}

/// What was found in one campaign.
pub(super) struct PreparedFold {
    /// Where the customer stood: see `Standing::history_version`, and the last purchase that had been counted. What came in since
    /// lies after that.
    version_and_last: Option<(i64, Key)>,
    /// What was folded in.
    changes: Vec<Change>,
    /// From here on the fold is to be taken up again, and recorded awards are to be loaded. None: it is complete.
    seen: Option<Key>,
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
    /// The fold that goes on from what was found, over what came in since. None: there is no state to go on from.
    pub(super) fn onward<'a>(&mut self, campaign: &'a Campaign) -> Option<Fold<'a>> {
        let Some(seen) = &self.seen else { return Some(Fold::Through) };
        let state = self.outcome.rewind(seen)?;
        Some(Fold::Refold(Box::new(Refold::onward(campaign.engine(), state))))
    }

    /// After this key recorded awards are not loaded. None: all of the stretch are.
    pub(super) fn loaded_to(&self) -> Option<&Key> {
        self.seen.as_ref()
    }

    /// Drops the awards that are recorded just as they are reached, as far as no fold is taken up again before them.
    fn drop_equal(&mut self) {
        let kept_from = match &self.version_and_last {
            Some((_, last)) if self.outcome.met.is_none() => self.outcome.last_checkpoint(last).cloned(),
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

/// Folds on a snapshot what the customer's change affects. None: there is no such customer.
///
/// One campaign after the other, so that no more than one's awards are in memory.
pub(super) async fn prepare(context: &Context, too_long: TooLong) -> Result<Option<Prepared>, Error> {
    let TooLong { customer, touches, repair } = too_long;
    let tx = context.database.snapshot().await?;
    let campaigns = context.campaigns.current(&tx).await?;
    let named = customer::Column::ExternalId.eq(customer.as_str());
    let Some(row) = customer::Entity::find().filter(named).one(&tx).await? else { return Ok(None) };
    let recount = if repair { Some(Recount::read(&tx, &row).await?) } else { None };
    let running = Running::parse(&row.running);
    let touched = Touched::of(row, if repair { running.unwrap_or_default() } else { running? });
    let customer_id = touched.row.id;
    let batch = Batch {
        tx: &tx,
        campaigns,
        now: context.clock.now(),
        shard: 0,
        fold_purchases: context.fold_purchases,
        most_refolded: None,
        unrecorded: HashMap::from([(customer_id, touches.iter().map(|touch| touch.after.clone()).collect())]),
    };
    let mut folds = HashMap::new();
    for campaign in batch.campaigns.all() {
        let planned =
            if repair { plan_whole(&touched, campaign, &touches) } else { plan_change(&touched, campaign, &touches) };
        let Some(Planned { fold, until, changes, version_and_last }) = planned else { continue };
        let customer = customer.as_str();
        let mut jobs = [Job { customer, customer_id, campaign, fold, until, prepared: None, most_purchases: None }];
        folding::run(&batch, &mut jobs).await?;
        let mut folded = jobs.map(finish);
        load_recorded(&batch, &mut folded).await?;
        let [Folded { outcome, recorded, .. }] = folded;
        let mut prepared = PreparedFold { version_and_last, changes, seen: None, outcome, recorded };
        prepared.drop_equal();
        folds.insert(campaign.id(), prepared);
    }
    let set_revision = batch.campaigns.revision.number;
    Ok(Some(Prepared { customer_id, stamp: touched.row.stamp, set_revision, folds, recount }))
}

/// What is folded again of a customer in a campaign.
struct Planned<'a> {
    fold: Fold<'a>,
    /// See [`Job::until`].
    until: Option<Key>,
    changes: Vec<Change>,
    /// See [`PreparedFold`].
    version_and_last: Option<(i64, Key)>,
}

fn version_and_last(customer: &Touched, campaign: &Campaign) -> Option<(i64, Key)> {
    let standing = customer.running.get(campaign.id())?;
    standing.history_version.zip(standing.state.last.clone())
}

fn plan_change<'a>(customer: &Touched, campaign: &'a Campaign, touches: &[Touch]) -> Option<Planned<'a>> {
    let standing = customer.running.get(campaign.id()).filter(|_| campaign.counts())?;
    let version_and_last = Some(version_and_last(customer, campaign)?);
    let until = deferred::mark(customer, campaign);
    let changes = changes(campaign, touches, until.as_ref());
    let Plan::Refold { first, last } = plan(campaign.engine(), &standing.tail(), changes.clone()) else { return None };
    let fold = Fold::Refold(Box::new(Refold::new(campaign.engine(), &first, &last)));
    Some(Planned { fold, until, changes, version_and_last })
}

fn plan_whole<'a>(customer: &Touched, campaign: &'a Campaign, touches: &[Touch]) -> Option<Planned<'a>> {
    let changes = changes(campaign, touches, None);
    let version_and_last = version_and_last(customer, campaign);
    let fold = Fold::Refold(Box::new(Refold::whole(campaign.engine())));
    campaign.life.activated.then_some(Planned { fold, until: None, changes, version_and_last })
}
