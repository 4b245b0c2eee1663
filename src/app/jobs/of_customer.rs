//! Requests a job about one customer for an admin.

use entity::{CustomerId, JobState, customer, job, purchase_revision};
use sea_orm::{ActiveEnum, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect};
use serde_json::json;

use super::request::{self, Wanted};
use crate::app::App;
use crate::app::error::{Error, UserErrorCode};
use crate::app::rows::insert_new;
use crate::app::stored::customer::blank;
use crate::app::trail::{self, Attempt, Target};
use crate::engine::external_id::ExternalId;

/// Requests the job `wanted` about the customer, and adds the attempt to the trail. If that job waits or runs, returns it and changes
/// nothing. A customer that only contents of purchases name gets a row, so that the job can be about it.
pub(in crate::app) async fn find_or_request(
    app: &App,
    attempt: &Attempt<'_>,
    external_id: &str,
    wanted: fn(CustomerId) -> Wanted,
) -> Result<job::Model, Error> {
    let tx = app.database.begin().await?;
    let now = app.clock.ask(&tx).await?;
    let mut customer = lock(&tx, external_id).await?;
    if customer.is_none() && is_named(&tx, external_id).await? {
        let evaluated_revision = app.campaigns.current(&tx).await?.revision.number;
        let row = customer::Model { recorded_at: now.0, evaluated_revision, ..blank(external_id) };
        insert_new::<customer::Entity>(&tx, &[row], &[customer::Column::Id], "id").await?;
        customer = lock(&tx, external_id).await?;
    }
    let Some(customer) = customer else {
        return Err(Error::refused(&["externalId"], UserErrorCode::NotFound, "nothing is recorded of this customer"));
    };
    let wanted = wanted(customer);
    if let Some(job) = find_job(&tx, &wanted).await?.filter(is_unfinished) {
        tx.rollback().await?;
        return Ok(job);
    }
    request::request(&tx, std::slice::from_ref(&wanted), now).await?;
    let job = find_job(&tx, &wanted).await?;
    let job = job.ok_or_else(|| Error::Internal("a job that was just requested is gone".to_owned()))?;
    let after = trail::state(json!({ "kind": job.kind.to_value().to_uppercase(), "state": "WAITING" }))?;
    let entry = attempt.on(Target::Customer(customer)).entry(now, None, Some(after));
    trail::add(&tx, &[entry]).await?;
    tx.commit().await?;
    app.job_wanted.notify_one();
    Ok(job)
}

/// Finds a customer and locks its row, so that of two requests at a time the second one sees the job of the first.
async fn lock(tx: &DatabaseTransaction, external_id: &str) -> Result<Option<CustomerId>, Error> {
    let Ok(name) = ExternalId::parse(external_id) else { return Ok(None) };
    let named = customer::Column::ExternalId.eq(String::from(name));
    let row = customer::Entity::find().filter(named).lock_exclusive().one(tx).await?;
    Ok(row.map(|row| row.id))
}

/// Whether a content of a purchase names the customer. If none of these contents ever counted, the customer has no row.
async fn is_named(tx: &DatabaseTransaction, external_id: &str) -> Result<bool, Error> {
    let Ok(name) = ExternalId::parse(external_id) else { return Ok(false) };
    let named = purchase_revision::Column::CustomerExternalId.eq(String::from(name));
    Ok(purchase_revision::Entity::find().filter(named).one(tx).await?.is_some())
}

async fn find_job(tx: &DatabaseTransaction, wanted: &Wanted) -> Result<Option<job::Model>, Error> {
    let named = job::Column::UniqueKey.eq(wanted.unique_key());
    Ok(job::Entity::find().filter(named).lock_exclusive().one(tx).await?)
}

fn is_unfinished(job: &job::Model) -> bool {
    matches!(job.state, JobState::Waiting | JobState::Running)
}
