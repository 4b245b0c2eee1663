//! Jobs: the background work that admins watch, retry and cancel.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, Object, SimpleObject};

use super::campaign::backfill::Progress;
use super::error::{ApiError, UserError, payload};
use super::loaders::FindJob;
use super::page::Connection;
use super::scalar::DateTime;
use super::session::ContextExt;
use crate::app::erasure;
use crate::app::error::{Error, UserErrorCode};
use crate::app::export::{self, has_result};
use crate::app::global_id::GlobalId;
use crate::app::jobs::list::list;
use crate::app::jobs::transition;
use crate::app::model;
use crate::app::reading::page::{Listed, PageArgs};
use crate::engine::time::Instant;

/// Work that waits for a point in time or takes long. Any node can run it.
#[derive(Clone, SimpleObject)]
#[graphql(complex)]
pub struct Job {
    /// An opaque id, unique across all types.
    #[graphql(owned)]
    pub(super) id: ID,
    /// What kind of work it is.
    kind: JobKind,
    /// The state at the current instant.
    state: JobState,
    /// How far an `EVALUATION` of a campaign has come. Null until the first customers are done, and for other jobs.
    progress: Option<Progress>,
    /// The number of attempts since the job last made progress, a running one included. After 8, the job is `DEAD`.
    attempts: i32,
    /// Why the last attempt failed. The log of the node that ran it has the details. Null if it did not fail.
    error: Option<String>,
    /// The job does not run before this instant.
    run_at: DateTime,
    /// When the last attempt started. Null if there was none.
    started_at: Option<DateTime>,
    /// When the job became `DONE`, `DEAD` or `CANCELLED`. Null in other states.
    finished_at: Option<DateTime>,
    /// Where the result of an `EXPORT` can be read with the same token: a path of this server, for a GET request. Null until
    /// the job is `DONE`, and for other kinds.
    result_url: Option<String>,
    #[graphql(skip)]
    pub(super) row: Arc<model::Job>,
}

impl From<Arc<model::Job>> for Job {
    fn from(row: Arc<model::Job>) -> Self {
        let instant = |at| Instant(at).into();
        Self {
            id: GlobalId::Job(row.id).into(),
            kind: row.kind.into(),
            state: row.state.into(),
            progress: row.done.zip(row.total).map(|(done, total)| Progress::new(done, total)),
            attempts: i32::try_from(row.attempts).unwrap_or(i32::MAX),
            error: row.error.clone(),
            run_at: instant(row.run_at),
            started_at: row.started_at.map(instant),
            finished_at: row.finished_at.map(instant),
            result_url: has_result(&row).then(|| format!("/exports/{}", row.id)),
            row,
        }
    }
}

/// The kind of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "model::JobKind")]
pub enum JobKind {
    /// Evaluates what is not evaluated yet: the past of a campaign, or the history of one customer.
    Evaluation,
    /// Settles the campaigns that are due. It recurs every minute.
    Settlement,
    /// Posts the expiries and the ends of reservations that are due. It recurs every minute.
    Expiry,
    /// Publishes the events of one bucket of customers. It runs as long as a server that publishes events runs.
    Outbox,
    /// Deletes what nobody needs any more, such as finished jobs. It recurs.
    Retention,
    /// Audits a random sample of the customers. It recurs.
    Audit,
    /// Exports everything that is recorded of a customer.
    Export,
    /// Removes what names a customer, and what it bought.
    Erasure,
}

/// The state of a job. A job goes from `WAITING` through `RUNNING` to `DONE`. It goes back to `WAITING` if an attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "model::JobState")]
pub enum JobState {
    /// The job runs once its `runAt` has come.
    Waiting,
    /// A node runs the job. If the node dies, another one takes over within a minute.
    Running,
    /// The job has done its work.
    Done,
    /// The job was given up after 8 attempts without progress. `retryJob` makes it run again.
    Dead,
    /// An admin has cancelled the job, or a later one has done the work of a periodic job that was `DEAD`.
    Cancelled,
}

/// The result of `retryJob`, `cancelJob`, `exportCustomer` and `eraseCustomer`.
#[derive(SimpleObject)]
pub struct JobPayload {
    /// The job after the mutation. Null if the mutation was refused.
    job: Option<Job>,
    /// The reasons why the mutation was refused. Empty if it was accepted.
    user_errors: Vec<UserError>,
}

impl JobPayload {
    fn new(changed: Result<model::Job, Error>) -> Result<Self, ApiError> {
        let (job, user_errors) = payload(changed)?;
        Ok(Self { job: job.map(|row| Arc::new(row).into()), user_errors })
    }
}

/// Decodes the argument `id`. Any id that is not of a job is refused with `NOT_FOUND`.
fn job_id(id: &ID) -> Result<i64, Error> {
    match GlobalId::parse(id) {
        Some(GlobalId::Job(id)) => Ok(id),
        _ => Err(Error::refused(&["id"], UserErrorCode::NotFound, "no job has this id")),
    }
}

/// The part of [`super::Query`] that reads jobs.
#[derive(Default)]
pub(super) struct JobQuery;

#[Object]
impl JobQuery {
    /// All jobs, the most recently requested first. A job that is requested again keeps its place. Jobs that are `DONE`
    /// or `CANCELLED` are deleted after some days. Requires an admin token (`FORBIDDEN`).
    #[expect(clippy::too_many_arguments, reason = "the API defines these arguments")]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only jobs of one of these kinds.")] kind: Option<Vec<JobKind>>,
        #[graphql(desc = "Only jobs in one of these states.")] state: Option<Vec<JobState>>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
    ) -> Result<Connection<Job>, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        let page = model::Job::LIST.page(PageArgs { first, after, last, before })?;
        let kinds = kind.map(|kinds| kinds.into_iter().map(model::JobKind::from).collect());
        let states = state.map(|states| states.into_iter().map(model::JobState::from).collect());
        let slice = list(ctx.app(), &admin, &page, kinds, states).await?;
        Ok(Connection::new(slice, Listed::cursor, |row| Arc::new(row).into()))
    }

    /// A job. Null if it does not exist. Requires an admin token (`FORBIDDEN`).
    async fn job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the job.")] id: ID,
    ) -> Option<Result<Job, ApiError>> {
        if let Err(error) = ctx.viewer().require_admin() {
            return Some(Err(error.into()));
        }
        let job = ctx.loaders().load_one(FindJob(job_id(&id).ok()?)).await;
        job.map(|job| job.map(Job::from)).map_err(ApiError::from).transpose()
    }
}

/// The part of [`super::Mutation`] that controls jobs.
#[derive(Default)]
pub struct JobMutation;

#[Object]
impl JobMutation {
    /// Makes a job run again. A `DEAD` or `CANCELLED` job gets all its attempts back; a `WAITING` one runs now. If the
    /// job is due already, nothing changes. The error is `ILLEGAL_TRANSITION` if the job is `RUNNING` or `DONE`.
    /// Requires an admin token (`FORBIDDEN`).
    async fn retry_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the job.")] id: ID,
    ) -> Result<JobPayload, ApiError> {
        let actor = ctx.actor()?;
        JobPayload::new(async { transition::retry(ctx.app(), &actor, job_id(&id)?).await }.await)
    }

    /// Cancels a `WAITING`, `RUNNING` or `DEAD` job. A running one commits nothing more, except what it has handed over
    /// already. If the job is `CANCELLED` already, nothing changes. The evaluation of a campaign stays open, and the
    /// campaign does not settle, until `retryJob` continues it. The error is `ILLEGAL_TRANSITION` if the job is `DONE`,
    /// if a part of a customer's history would never be evaluated without it, for an `ERASURE` that has begun, and for a
    /// periodic job that is not `DEAD`. Requires an admin token (`FORBIDDEN`).
    async fn cancel_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the job.")] id: ID,
    ) -> Result<JobPayload, ApiError> {
        let actor = ctx.actor()?;
        JobPayload::new(async { transition::cancel(ctx.app(), &actor, job_id(&id)?).await }.await)
    }

    /// Exports everything that is recorded of a customer. The `resultUrl` of the job has it once the job is `DONE`, until
    /// the job is deleted. The export replaces an earlier one of the same customer. While that one is `WAITING` or
    /// `RUNNING`, it is returned, and nothing changes. The error is `NOT_FOUND` if nothing is recorded of the customer.
    /// Requires an admin token (`FORBIDDEN`).
    async fn export_customer(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The shop's id of the customer.")] external_id: String,
    ) -> Result<JobPayload, ApiError> {
        let actor = ctx.actor()?;
        JobPayload::new(export::request(ctx.app(), &actor, &external_id).await)
    }

    /// Erases a customer: replaces its external id, ends its reservations, and deletes its purchases, refunds and exports.
    /// Its ledger, awards and redemptions stay under the new id, without the purchases and the reasons, so that all sums
    /// stay. An order that is sent again, revised or refunded counts as recorded and changes nothing. Later purchases under
    /// the same `externalId` are those of a new customer. It cannot be undone once the job is `RUNNING`. If it waits or
    /// runs already, that job is returned. The error is `NOT_FOUND` if nothing is recorded of the customer. Requires an
    /// admin token (`FORBIDDEN`).
    async fn erase_customer(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The shop's id of the customer.")] external_id: String,
        #[graphql(desc = "The same id again (`INVALID`).")] confirm_external_id: String,
    ) -> Result<JobPayload, ApiError> {
        let actor = ctx.actor()?;
        JobPayload::new(erasure::request(ctx.app(), &actor, &external_id, &confirm_external_id).await)
    }
}
