//! A change that must fold a long stretch of a history again is folded before the transaction that posts it, while others write.
//!
//! The transaction that records the change finds that the fold is long, writes nothing and reports [`TooLong`]. [`prepare`] then
//! folds on a snapshot, as if the change had been recorded. The transaction is repeated: it takes what was found, folds on over
//! what came in meanwhile, and posts the whole difference at once. A repair is always prepared.
//!
//! What was found stays valid as long as nothing came in but purchases after the last counted one (`Standing::history_version`), so
//! a customer who buys all day does not delay it. After [`MAX_PREPARATIONS`] the transaction folds everything itself.

use super::deferred;
use super::folding::{self, Fold, Job};
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::recorder::change::{Touch, changes};
use crate::app::recorder::context::Context;
use crate::app::recorder::folded::{Folded, finish, load_recorded};
use crate::app::recorder::prepared::{Prepared, PreparedFold, TooLong};
use crate::app::recorder::recount::Recount;
use crate::app::recorder::touched::{Batch, Touched};
use crate::app::stored::running::Running;
use crate::engine::evaluate::{Change, Plan, Refold, plan};
use crate::engine::purchase::Key;
use entity::customer;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use std::collections::HashMap;

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
