//! Jobs: the background work that admins watch, retry and cancel.

use std::sync::Arc;

use async_graphql::{Context, Description, Enum, ID, Object, SimpleObject};

use super::campaign::Campaign;
use super::campaign::backfill::Progress;
use super::customer::Customer;
use super::error::{ApiError, UserError, payload};
use super::id::GlobalId;
use super::loaders::{CustomerOf, FindCampaign, FindJob};
use super::node::Node;
use super::page::Connection;
use super::scalar::DateTime;
use super::session::ContextExt;
use crate::app::error::{Error, UserErrorCode};
use crate::app::jobs::list::list;
use crate::app::jobs::transition;
use crate::app::model::{self, CampaignId, CustomerId};
use crate::app::reading::page::{Listed, PageArgs};
use crate::engine::time::Instant;

/// Work that waits for a point in time or takes long. Any node can run it.
#[derive(Clone, Description)]
pub struct Job(pub Arc<model::Job>);

#[Object(use_type_description)]
impl Job {
    /// An opaque id, unique across all types.
    pub(super) async fn id(&self) -> ID {
        GlobalId::Job(self.0.id).into()
    }

    /// What kind of work it is.
    async fn kind(&self) -> JobKind {
        self.0.kind.into()
    }

    /// The state at the current instant.
    async fn state(&self) -> JobState {
        self.0.state.into()
    }

    /// What an `EVALUATION` is about: a campaign, whose past is evaluated for every customer, or a customer, whose
    /// history is evaluated. Null for other kinds, and if the customer no longer exists.
    async fn subject(&self, ctx: &Context<'_>) -> Option<Result<Node, ApiError>> {
        subject(ctx, &self.0).await.transpose()
    }

    /// How far an `EVALUATION` of a campaign has come. Null until the first customers are done, and for other jobs.
    async fn progress(&self) -> Option<Progress> {
        Some(Progress::new(self.0.done?, self.0.total?))
    }

    /// The number of attempts since the job last made progress, a running one included. After 8, the job is `DEAD`.
    async fn attempts(&self) -> i32 {
        i32::try_from(self.0.attempts).unwrap_or(i32::MAX)
    }

    /// Why the last attempt failed. The log of the node that ran it has the details. Null if it did not fail.
    async fn error(&self) -> Option<&str> {
        self.0.error.as_deref()
    }

    /// The job does not run before this instant.
    async fn run_at(&self) -> DateTime {
        Instant(self.0.run_at).into()
    }

    /// When the last attempt started. Null if there was none.
    async fn started_at(&self) -> Option<DateTime> {
        self.0.started_at.map(|at| Instant(at).into())
    }

    /// When the job became `DONE`, `DEAD` or `CANCELLED`. Null in other states.
    async fn finished_at(&self) -> Option<DateTime> {
        self.0.finished_at.map(|at| Instant(at).into())
    }

    /// Where the result can be read with the same token. It is always null, because no kind of job has a result.
    async fn result_url(&self) -> Option<String> {
        None
    }
}

async fn subject(ctx: &Context<'_>, job: &model::Job) -> Result<Option<Node>, ApiError> {
    if let Some(id) = job.campaign_id {
        let campaign = ctx.loaders().load_one(FindCampaign(CampaignId(id))).await?;
        return Ok(campaign.map(|campaign| Campaign(campaign).into()));
    }
    let Some(id) = job.customer_id else { return Ok(None) };
    let customer = ctx.loaders().load_one(CustomerOf(CustomerId(id))).await?;
    Ok(customer.map(|row| Customer::from(row).into()))
}

/// The kind of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "model::JobKind")]
pub enum JobKind {
    /// Evaluates what is not evaluated yet: the past of a campaign, or the history of one customer.
    Evaluation,
    /// Settles the campaigns that are due. It recurs every minute.
    Settlement,
    /// Deletes what nobody needs any more, such as finished jobs. It recurs.
    Retention,
    /// Audits a random sample of the customers. It recurs.
    Audit,
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

/// The result of `retryJob` and `cancelJob`.
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
        Ok(Self { job: job.map(|row| Job(Arc::new(row))), user_errors })
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
        Ok(Connection::new(slice, Listed::cursor, |row| Job(Arc::new(row))))
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
        job.map(|job| job.map(Job)).map_err(ApiError::from).transpose()
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
        let admin = ctx.viewer().require_admin()?;
        JobPayload::new(async { transition::retry(ctx.app(), &admin, job_id(&id)?).await }.await)
    }

    /// Cancels a `WAITING`, `RUNNING` or `DEAD` job. A running one commits nothing more, except what it has handed over
    /// already. If the job is `CANCELLED` already, nothing changes. The evaluation of a campaign stays open, and the
    /// campaign does not settle, until `retryJob` continues it. The error is `ILLEGAL_TRANSITION` if the job is `DONE`,
    /// if a part of a customer's history would never be evaluated without it, and for a periodic job that is not
    /// `DEAD`. Requires an admin token (`FORBIDDEN`).
    async fn cancel_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the job.")] id: ID,
    ) -> Result<JobPayload, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        JobPayload::new(async { transition::cancel(ctx.app(), &admin, job_id(&id)?).await }.await)
    }
}
