//! A change that must fold a long stretch of a history again is folded before the transaction that posts it, while others write.
//!
//! The transaction that records the change finds that the fold is long, writes nothing and reports [`TooLong`]. [`prepare`] then
//! folds on a snapshot, as if the change had been recorded. The transaction is repeated: it takes what was found, folds on over
//! what came in meanwhile, and posts the whole difference at once.
//!
//! What was found stays valid as long as nothing came in but purchases after the last counted one (`Standing::history_version`), so
//! a customer who buys all day does not delay it. After [`MAX_PREPARATIONS`] the transaction folds everything itself.

use std::collections::HashMap;

use entity::{CampaignId, CustomerId, award, customer};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::Context;
use super::batch::{Batch, Touched};
use super::deferred;
use super::evaluation::{Touch, changes, finish, load_recorded};
use super::folding::{self, Fold, Job};
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::running::Running;
use crate::engine::evaluate::{Change, Outcome, Plan, Refold, plan};
use crate::engine::purchase::Key;

/// How often a change is prepared.
const MAX_PREPARATIONS: u32 = 3;

/// A customer whose change needs more purchases than one transaction may fold again.
pub(super) struct TooLong {
    /// External id.
    pub(super) customer: String,
    /// The change.
    pub(super) touches: Vec<Touch>,
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
    /// Of the campaign set.
    set_revision: i64,
    folds: HashMap<CampaignId, PreparedFold>,
}

/// What was found in one campaign.
pub(super) struct PreparedFold {
    /// See `Standing`: as it was.
    history_version: i64,
    /// The last purchase that had been counted. Whatever came in since lies after it.
    seen: Key,
    /// What was folded in.
    changes: Vec<Change>,
    pub(super) outcome: Outcome,
    /// The recorded awards of the folded stretch.
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
        let standing = customer.running.get(campaign.id())?;
        if customer.row.id != self.customer_id || batch.campaigns.revision.number != self.set_revision {
            return None;
        }
        let prepared = self.folds.remove(&campaign.id())?;
        let holds = standing.history_version == Some(prepared.history_version) && prepared.changes == changes;
        holds.then_some(prepared)
    }
}

impl PreparedFold {
    /// The fold that goes on from what was found, over what came in since. None: there is no state to go on from.
    pub(super) fn onward<'a>(&mut self, campaign: &'a Campaign) -> Option<Fold<'a>> {
        if self.outcome.met.is_some() {
            return Some(Fold::Through);
        }
        let state = self.outcome.rewind(&self.seen)?;
        Some(Fold::Refold(Box::new(Refold::onward(campaign.engine(), state))))
    }

    /// After this key recorded awards are not loaded. None: all of the stretch are.
    pub(super) fn loaded_to(&self) -> Option<&Key> {
        self.outcome.met.is_none().then_some(&self.seen)
    }
}

/// Folds on a snapshot what the customer's change affects. None: there is no such customer.
pub(super) async fn prepare(context: &Context, too_long: TooLong) -> Result<Option<Prepared>, Error> {
    let TooLong { customer, touches } = too_long;
    let tx = context.database.snapshot().await?;
    let campaigns = context.campaigns.current(&tx).await?;
    let named = customer::Column::ExternalId.eq(customer.as_str());
    let Some(row) = customer::Entity::find().filter(named).one(&tx).await? else { return Ok(None) };
    let running = Running::parse(&row.running)?;
    let touched = Touched::of(row, running);
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
    let mut jobs = Vec::new();
    let mut folds = Vec::new();
    for campaign in batch.campaigns.counting() {
        let Some(standing) = touched.running.get(campaign.id()) else { continue };
        let Some((history_version, seen)) = standing.history_version.zip(standing.state.last.clone()) else { continue };
        let until = deferred::mark(&touched, campaign);
        let changes = changes(campaign, &touches, until.as_ref());
        let Plan::Refold { first, last } = plan(campaign.engine(), &standing.tail(), changes.clone()) else { continue };
        let fold = Fold::Refold(Box::new(Refold::new(campaign.engine(), &first, &last)));
        let customer = customer.as_str();
        jobs.push(Job { customer, customer_id, campaign, fold, until, prepared: None, most_purchases: None });
        folds.push((history_version, seen, changes));
    }
    folding::run(&batch, &mut jobs).await?;
    let mut folded: Vec<_> = jobs.into_iter().map(finish).collect();
    load_recorded(&batch, &mut folded).await?;
    let prepared = folded.into_iter().zip(folds).map(|(one, (history_version, seen, changes))| {
        let (outcome, recorded) = (one.outcome, one.recorded);
        (one.campaign.id(), PreparedFold { history_version, seen, changes, outcome, recorded })
    });
    let folds = prepared.collect();
    Ok(Some(Prepared { customer_id, set_revision: batch.campaigns.revision.number, folds }))
}
