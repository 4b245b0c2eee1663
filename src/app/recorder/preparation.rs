//! A change that must fold a long stretch of a history again is folded before the transaction that posts it, while others write.
//!
//! The transaction that records the change finds that the fold is long, writes nothing and reports [`TooLong`]. [`prepare`] then
//! folds on a snapshot, as if the change had been recorded. The transaction is repeated: it takes what was found, folds on over
//! what came in meanwhile, and posts the whole difference at once. A repair is always prepared.
//!
//! What was found stays valid as long as nothing came in but purchases after the last counted one (`Standing::history_version`), so
//! a customer who buys all day does not delay it. After three attempts the transaction folds everything itself.

use std::collections::HashMap;

use entity::customer;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::context::Context;
use super::deferred::Waiting;
use super::evaluation::{Planned, changes_in, is_evaluated_in, plan_fold};
use super::folded::{Folded, finish, load_recorded};
use super::folding::{self, Fold, Job};
use super::prepared::{PREPARED_SHARD, Prepared, PreparedFold, TooLong};
use super::recount::{Recount, Repair};
use super::touched::{Batch, Touched};
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::stored::running::Running;
use crate::engine::purchase::Key;

/// Folds on a snapshot what the customer's change affects. None: there is no such customer.
///
/// One campaign after the other, so that no more than one's awards are in memory.
pub(super) async fn prepare(context: &Context, too_long: TooLong) -> Result<Option<Prepared>, Error> {
    let TooLong { customer, touches, repair } = too_long;
    let tx = context.database.long_snapshot().await?;
    let campaigns = context.campaigns.current(&tx).await?;
    let named = customer::Column::ExternalId.eq(customer.as_str());
    let Some(row) = customer::Entity::find().filter(named).one(&tx).await? else { return Ok(None) };
    let recount = if repair { Some(Recount::read(&tx, &row).await?) } else { None };
    let running = Running::parse(&row.running);
    let running = if repair { running.unwrap_or_default() } else { running? };
    let repair = repair.then(|| Repair::of(running.clone()));
    let touched = Touched { repair, ..Touched::of(row, running) };
    let customer_id = touched.row.id;
    let batch = Batch {
        tx: &tx,
        campaigns,
        now: context.clock.now(),
        shard: PREPARED_SHARD,
        fold_purchases: context.fold_purchases,
        most_refolded: None,
        unrecorded: HashMap::from([(customer_id, touches.iter().map(|touch| touch.after.clone()).collect())]),
    };
    let mut folds = HashMap::new();
    for campaign in batch.campaigns.all().iter().filter(|campaign| is_evaluated_in(&touched, campaign)) {
        let planned = plan_fold(&batch, &touched, campaign, &touches, &Waiting::default(), None);
        let Some(Planned { fold: fold @ Fold::Refold(_), until, .. }) = planned else { continue };
        let customer = customer.as_str();
        let mut jobs = [Job { customer, customer_id, campaign, fold, until, prepared: None, most_purchases: None }];
        folding::run(&batch, &mut jobs).await?;
        let mut folded = jobs.map(finish);
        load_recorded(&batch, &mut folded).await?;
        let [Folded { outcome, recorded, .. }] = folded;
        let changes = changes_in(&touched, campaign, &touches);
        let version_and_last = version_and_last(&touched, campaign);
        let mut prepared = PreparedFold { version_and_last, changes, seen: None, outcome, recorded };
        prepared.drop_equal();
        folds.insert(campaign.id(), prepared);
    }
    let set_revision = batch.campaigns.revision.number;
    Ok(Some(Prepared { customer_id, stamp: touched.row.stamp, set_revision, folds, recount }))
}

/// See [`PreparedFold::version_and_last`].
fn version_and_last(customer: &Touched, campaign: &Campaign) -> Option<(i64, Key)> {
    let standing = customer.running.get(campaign.id())?;
    standing.history_version.zip(standing.state.last.clone())
}
