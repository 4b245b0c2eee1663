//! Requests a job about one customer for an admin.

use entity::{JobState, customer, job};
use sea_orm::{ActiveEnum, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect};
use serde_json::json;

use super::request::{self, Wanted};
use crate::app::App;
use crate::app::error::{Error, UserErrorCode};
use crate::app::trail::{self, Attempt, Target};
use crate::engine::external_id::ExternalId;
use entity::CustomerId;

/// Requests the job `wanted` about the customer, and adds the attempt to the trail. If that job waits or runs, returns it and changes
/// nothing.
pub(in crate::app) async fn find_or_request(
    app: &App,
    attempt: &Attempt<'_>,
    external_id: &str,
    wanted: fn(CustomerId) -> Wanted,
) -> Result<job::Model, Error> {
    let tx = app.database.begin().await?;
    let Some(customer) = lock(&tx, external_id).await? else {
        return Err(Error::refused(&["externalId"], UserErrorCode::NotFound, "no customer has this external id"));
    };
    let wanted = wanted(customer.id);
    if let Some(job) = find_job(&tx, &wanted).await?.filter(is_unfinished) {
        tx.rollback().await?;
        return Ok(job);
    }
    let now = app.clock.ask(&tx).await?;
    request::request(&tx, std::slice::from_ref(&wanted), now).await?;
    let job = find_job(&tx, &wanted).await?;
    let job = job.ok_or_else(|| Error::Internal("a job that was just requested is gone".to_owned()))?;
    let after = trail::state(json!({ "kind": job.kind.to_value().to_uppercase(), "state": "WAITING" }))?;
    let entry = attempt.on(Target::Customer(customer.id)).entry(now, None, Some(after));
    trail::add(&tx, &[entry]).await?;
    tx.commit().await?;
    app.job_wanted.notify_one();
    Ok(job)
}

/// Loads a customer and locks its row, so that of two requests at a time the second one sees the job of the first.
async fn lock(tx: &DatabaseTransaction, external_id: &str) -> Result<Option<customer::Model>, Error> {
    let Ok(name) = ExternalId::parse(external_id) else { return Ok(None) };
    let named = customer::Column::ExternalId.eq(String::from(name));
    Ok(customer::Entity::find().filter(named).lock_exclusive().one(tx).await?)
}

async fn find_job(tx: &DatabaseTransaction, wanted: &Wanted) -> Result<Option<job::Model>, Error> {
    let named = job::Column::UniqueKey.eq(wanted.unique_key());
    Ok(job::Entity::find().filter(named).lock_exclusive().one(tx).await?)
}

fn is_unfinished(job: &job::Model) -> bool {
    matches!(job.state, JobState::Waiting | JobState::Running)
}
