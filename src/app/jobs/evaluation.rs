//! Backfills: evaluates what was deferred, through the write path, in bounded commits.
//!
//! A campaign that is activated with a start in the past gets a job that evaluates every customer, in the order of their keys. If
//! the history of a customer is too long for one commit, the customer gets a mark (`app::stored::running`) and a job of its own,
//! which continues from the mark. So a customer with a long history does not delay the others, and one that fails does not
//! stop them.
//!
//! A backfill is complete when the job has reached every customer and no customer has a mark in the campaign.
//!
//! The progress of a backfill is committed under the lease of its job: a worker that has lost the lease can neither set it back
//! nor open a backfill again that another worker has closed.

use std::collections::HashMap;
use std::time::Duration;

use entity::{CampaignId, CustomerId, campaign, customer, job};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect,
};

use super::queue;
use super::queue::End;
use crate::app::App;
use crate::app::error::Error;
use crate::app::jobs::request::{Wanted, request, wake};
use crate::app::recorder::fact::Fact;
use crate::app::rows::any;
use crate::app::stored::running::Running;
use crate::engine::time::Instant;

/// The number of customers that the job of a campaign hands to the write path together.
const CHUNK: u64 = 256;
/// The maximum number of deferred customers that are checked to find out whether the evaluation of a campaign is complete.
const MAX_DEFERRED: u64 = 10_000;
/// How often the job of a campaign checks whether the jobs of its customers are done. Each of these requests it earlier when
/// it ends.
const WAIT: Duration = Duration::from_secs(60);

/// Opens the backfill of a campaign, beginning with the first customer.
pub(in crate::app) async fn open(tx: &DatabaseTransaction, id: CampaignId, now: Instant) -> Result<(), Error> {
    set_reached(tx, id, Some(0)).await?;
    request(tx, &[Wanted::Campaign(id)], now).await
}

/// Evaluates every customer for the campaign, and closes the backfill when all are done.
pub async fn run_campaign(app: &App, job: &job::Model, id: CampaignId) -> Result<End, Error> {
    let row = campaign::Entity::find_by_id(id).one(app.database.read()).await?;
    let open = row.and_then(|row| Some((row.backfilled_to?, row.activated_revision?)));
    let Some((mut reached, revision)) = open else { return Ok(End::Done) };
    let (mut done, total) = match (job.done, job.total) {
        (Some(done), Some(total)) => (done, total),
        _ => (0, count_behind(app, reached, revision).await?),
    };
    loop {
        let chunk = load_behind(app, reached, revision).await?;
        let Some((last, _)) = chunk.last() else { break };
        reached = *last;
        done += i64::try_from(chunk.len()).unwrap_or(i64::MAX);
        evaluate(app, chunk).await?;
        save_reached(app, job, id, Some(reached), (done, total)).await?;
    }
    if !load_deferred(app.database.read(), id).await?.is_empty() {
        return Ok(End::Again(app.clock.now().plus(queue::micros(WAIT))));
    }
    save_reached(app, job, id, None, (done, total)).await?;
    Ok(End::Done)
}

/// Counts the customers after `reached` that have not been evaluated at this revision of the campaign set.
async fn count_behind(app: &App, reached: i64, revision: i64) -> Result<i64, Error> {
    let count = customer::Entity::find()
        .filter(customer::Column::Id.gt(reached))
        .filter(customer::Column::EvaluatedRevision.lt(revision))
        .count(app.database.read())
        .await?;
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}

async fn load_behind(app: &App, reached: i64, revision: i64) -> Result<Vec<(i64, String)>, Error> {
    let chunk = customer::Entity::find()
        .select_only()
        .column(customer::Column::Id)
        .column(customer::Column::ExternalId)
        .filter(customer::Column::Id.gt(reached))
        .filter(customer::Column::EvaluatedRevision.lt(revision))
        .order_by_asc(customer::Column::Id)
        .limit(CHUNK)
        .into_tuple()
        .all(app.database.read())
        .await?;
    Ok(chunk)
}

/// Hands the customers to the write path. A customer whose evaluation fails gets a job of its own.
async fn evaluate(app: &App, chunk: Vec<(i64, String)>) -> Result<(), Error> {
    let mut answers = Vec::with_capacity(chunk.len());
    for (id, external_id) in chunk {
        answers.push((id, app.recorder.record_when_free(Fact::Evaluation(external_id)).await?));
    }
    let mut failed = Vec::new();
    for (id, answer) in answers {
        match answer.await {
            // A refusal means that the customer no longer exists, so there is nothing to evaluate.
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.is_retryable() => return Err(error),
            // The sender is gone: the writer has stopped, or the batch has panicked.
            Err(_) if app.stopping.is_cancelled() => return Err(Error::Unavailable),
            Ok(Err(_)) | Err(_) => failed.push(Wanted::Customer(CustomerId(id))),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    tracing::error!(customers = failed.len(), "customers could not be evaluated; each gets a job of its own");
    let _turn = app.recorder.job_turn().await;
    request(app.database.write(), &failed, app.clock.now()).await
}

/// Continues from the marks of the customer until it has none. Then wakes the jobs of all open backfills.
pub(super) async fn run_customer(app: &App, job: &job::Model, id: CustomerId) -> Result<End, Error> {
    let Some(row) = customer::Entity::find_by_id(id).one(app.database.read()).await? else { return Ok(End::Done) };
    loop {
        let answer = app.recorder.record_when_free(Fact::Evaluation(row.external_id.clone())).await?;
        match answer.await.map_err(|_| Error::Unavailable)?? {
            Ok(recorded) if recorded.deferred => queue::renew(app, job, None).await?,
            Ok(_) | Err(_) => break,
        }
    }
    let open = open_backfills(app).await?;
    if !open.is_empty() {
        let _turn = app.recorder.job_turn().await;
        wake(app.database.write(), &open, app.clock.now()).await?;
    }
    Ok(End::Done)
}

async fn open_backfills(app: &App) -> Result<Vec<CampaignId>, Error> {
    let open = campaign::Entity::find()
        .select_only()
        .column(campaign::Column::Id)
        .filter(campaign::Column::BackfilledTo.is_not_null())
        .into_tuple()
        .all(app.database.read())
        .await?;
    Ok(open)
}

/// Returns the customers that have a mark in the campaign, or whose evaluation failed.
pub(super) async fn load_deferred(db: &impl ConnectionTrait, id: CampaignId) -> Result<Vec<CustomerId>, Error> {
    let customers = queue::deferred_customers(db, MAX_DEFERRED).await?;
    if customers.is_empty() {
        return Ok(customers);
    }
    let by_id = any(db.get_database_backend(), customer::Column::Id, customers.into_iter().map(|id| id.0));
    let activated = campaign::Entity::find_by_id(id).one(db).await?.and_then(|row| row.activated_revision);
    let mut deferred = Vec::new();
    for row in customer::Entity::find().filter(by_id).all(db).await? {
        // If the states of a customer cannot be read, its job has failed because of that.
        let has_mark = Running::parse(&row.head).map_or(true, |running| running.is_deferred(id));
        if has_mark || activated > Some(row.evaluated_revision) {
            deferred.push(row.id);
        }
    }
    Ok(deferred)
}

/// Returns the progress of the backfills of these campaigns: the number of customers that are done, and the total. A campaign
/// without an open backfill is missing.
pub async fn load_backfills(app: &App, campaigns: &[CampaignId]) -> Result<HashMap<CampaignId, (i64, i64)>, Error> {
    let mut open = open_backfills(app).await?;
    open.retain(|id| campaigns.contains(id));
    if open.is_empty() {
        return Ok(HashMap::new());
    }
    let of_campaigns = any(app.database.backend(), job::Column::CampaignId, open.iter().map(|id| id.0));
    let jobs = job::Entity::find().filter(of_campaigns).all(app.database.read()).await?;
    let mut backfills = HashMap::with_capacity(open.len());
    for id in open {
        let job = jobs.iter().find(|job| job.campaign_id == Some(id.0));
        let (done, total) = job.and_then(|job| job.done.zip(job.total)).unwrap_or_default();
        let deferred = load_deferred(app.database.read(), id).await?.len();
        let deferred = i64::try_from(deferred).unwrap_or(i64::MAX);
        backfills.insert(id, ((done - deferred).max(0), total.max(done)));
    }
    Ok(backfills)
}

/// Saves how far the backfill has come, and renews the lease of its job, in one transaction. `None` closes the backfill. Fails if
/// the caller has lost the lease.
async fn save_reached(
    app: &App,
    job: &job::Model,
    id: CampaignId,
    reached: Option<i64>,
    progress: (i64, i64),
) -> Result<(), Error> {
    let _turn = app.recorder.job_turn().await;
    let tx = app.database.begin().await?;
    queue::renew_in(&tx, app.clock.now(), job, Some(progress)).await?;
    set_reached(&tx, id, reached).await?;
    Ok(tx.commit().await?)
}

async fn set_reached(db: &impl ConnectionTrait, id: CampaignId, reached: Option<i64>) -> Result<(), Error> {
    campaign::Entity::update_many()
        .col_expr(campaign::Column::BackfilledTo, Expr::value(reached))
        .filter(campaign::Column::Id.eq(id))
        .exec(db)
        .await?;
    Ok(())
}
