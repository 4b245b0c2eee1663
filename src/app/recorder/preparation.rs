//! Prepares long changes: a change that must fold a long stretch of a history again is folded before the transaction that posts
//! it. So other writers do not wait for the fold.
//!
//! The transaction that records the change finds that the fold is too long, writes nothing and returns [`TooLong`]. [`prepare`]
//! then folds on a snapshot of the database, as if the change had been recorded. After that, the transaction is started again. It
//! takes the prepared folds, continues them over the purchases that were recorded in the meantime, and posts the whole difference
//! in one commit. A repair is always prepared.
//!
//! A prepared fold stays valid as long as only purchases after the last counted one are recorded
//! (`CampaignState::history_version`). So a customer who keeps buying does not invalidate it. After three attempts, the
//! transaction folds everything itself.

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
use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::app::stored::running::Running;
use crate::engine::purchase::Key;

/// Folds what the change of the customer affects, on a snapshot of the database. Returns `None` if the customer does not exist.
///
/// Folds one campaign after the other, so that the awards of only one campaign are in memory.
pub(super) async fn prepare(context: &Context, too_long: TooLong) -> Result<Option<Prepared>, Error> {
    let TooLong { customer, touches, repair } = too_long;
    let tx = context.database.long_snapshot().await?;
    let campaigns = context.campaigns.current(&tx).await?;
    let named = customer::Column::ExternalId.eq(customer.as_str());
    let Some(row) = customer::Entity::find().filter(named).one(&tx).await? else { return Ok(None) };
    let recount = if repair { Some(Recount::read(&tx, &row).await?) } else { None };
    let running = Running::parse(&row.head);
    let running = if repair { running.unwrap_or_default() } else { running? };
    let repair = repair.then(|| Repair::of(running.clone()));
    let touched = Touched { repair, ..Touched::of(row, running, context.clock.now()) };
    let customer_id = touched.row.id;
    let batch = Batch {
        tx: &tx,
        campaigns,
        now: context.clock.now(),
        clock: context.clock.clone(),
        shard: PREPARED_SHARD,
        fold_purchases: context.fold_purchases,
        most_refolded: None,
        unrecorded: HashMap::from([(customer_id, touches)]),
    };
    let touches = batch.unrecorded.get(&customer_id).map(Vec::as_slice).unwrap_or_default();
    let mut folds = HashMap::new();
    for campaign in batch.campaigns.all().iter().filter(|campaign| is_evaluated_in(&touched, campaign)) {
        let planned = plan_fold(&batch, &touched, campaign, touches, &Waiting::default(), None);
        let Some(Planned { fold: fold @ Fold::Refold(_), until, .. }) = planned else { continue };
        let customer = customer.as_str();
        let mut jobs = [Job {
            customer,
            customer_id,
            campaign,
            fold,
            until,
            has_checkpoints: touched.running.has_checkpoints(campaign.id()),
            prepared: None,
            most_purchases: None,
        }];
        folding::run(&batch, &mut jobs).await?;
        let mut folded = jobs.map(finish);
        load_recorded(&batch, &mut folded).await?;
        let [Folded { outcome, recorded, .. }] = folded;
        let changes = changes_in(&touched, campaign, touches);
        let version_and_last = version_and_last(&touched, campaign);
        let mut prepared = PreparedFold { version_and_last, changes, seen: None, outcome: *outcome, recorded };
        prepared.drop_equal(&campaign.rule);
        folds.insert(campaign.id(), prepared);
    }
    let set_revision = batch.campaigns.revision.number;
    Ok(Some(Prepared { customer_id, stamp: touched.row.stamp, set_revision, folds, recount }))
}

/// Returns the value of [`PreparedFold::version_and_last`].
fn version_and_last(customer: &Touched, campaign: &Campaign) -> Option<(i64, Key)> {
    let standing = customer.running.get(campaign.id())?;
    standing.history_version.zip(standing.state.last.clone())
}
