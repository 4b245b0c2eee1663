//! Exports: everything that is recorded of a customer, as an admin requests and downloads it. `jobs::export` writes it.
//!
//! A customer has at most one export. A new request replaces it, and a download that is under way then breaks off. So a download
//! that ends well is one export as a whole.

use entity::{JobKind, JobState, job};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Statement};

use super::App;
use super::error::Error;
use super::jobs::of_customer::find_or_request;
use super::jobs::request::Wanted;
use super::trail::Attempt;
use super::viewer::{Actor, Admin};

/// The part `$3 + 1` of the result of the job `$1`, or a row of nulls after the last one. No row if the result was replaced or is gone.
const NEXT: &str = "SELECT c.number, c.content FROM job AS j LEFT JOIN export_chunk AS c \
    ON c.job_id = j.id AND c.number = CAST($3 AS bigint) + 1 \
    WHERE j.id = $1 AND j.requests = $2 AND j.kind = 'export' AND j.state = 'done'";

/// Requests an export of a customer. If one waits or runs, returns it and changes nothing.
pub async fn request(app: &App, actor: &Actor, external_id: &str) -> Result<job::Model, Error> {
    let attempt = Attempt::new(actor, "exportCustomer");
    app.conclude(&attempt, find_or_request(app, &attempt, external_id, Wanted::Export)).await
}

/// Whether the job is an export that can be downloaded.
pub fn has_result(job: &job::Model) -> bool {
    job.kind == JobKind::Export && job.state == JobState::Done
}

/// The result of an export, from its beginning to its end.
#[derive(Debug)]
pub struct Download {
    job: i64,
    /// Distinguishes the results of one job.
    requests: i64,
    /// The number of the last part that was read.
    read: i64,
}

/// Opens the result of a job. Fails with [`Error::NotFound`] if the job is no export, is not done or does not exist.
pub async fn open(app: &App, _: &Admin, job: i64) -> Result<Download, Error> {
    let row = job::Entity::find_by_id(job)
        .filter(job::Column::Kind.eq(JobKind::Export))
        .one(app.database.read())
        .await?
        .filter(has_result)
        .ok_or(Error::NotFound)?;
    Ok(Download { job, requests: row.requests, read: 0 })
}

impl Download {
    /// Reads the next part. Returns `None` after the last one. Fails with [`Error::NotFound`] if the result was replaced or deleted
    /// meanwhile.
    pub async fn next(&mut self, app: &App) -> Result<Option<Vec<u8>>, Error> {
        let db = app.database.read();
        let values = [self.job.into(), self.requests.into(), self.read.into()];
        let row = db.query_one_raw(Statement::from_sql_and_values(db.get_database_backend(), NEXT, values)).await?;
        let row = row.ok_or(Error::NotFound)?;
        let Some(number) = row.try_get::<Option<i64>>("", "number")? else { return Ok(None) };
        self.read = number;
        Ok(Some(row.try_get("", "content")?))
    }
}
