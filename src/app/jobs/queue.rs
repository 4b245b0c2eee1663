//! The table of jobs. Claims jobs, renews their leases, ends them and counts them.
//!
//! A worker that claims a job gets a lease: a random number that every later statement about the job must contain. A worker
//! that has lost its lease can no longer change the job. It loses the lease if another worker claims the job, and if an admin
//! cancels it.
//!
//! Each commit of a worker waits for its turn beside the batches of the write path (`Recorder::job_turn`).

use std::time::Duration;

use entity::{CustomerId, JobKind, JobState, job};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveEnum, ColumnTrait, ConnectionTrait, DatabaseBackend, EntityTrait, ExprTrait, FromQueryResult, Iterable,
    QueryFilter, QueryOrder, QuerySelect, Statement, UpdateMany,
};

use crate::app::App;
use crate::app::error::Error;
use crate::engine::time::Instant;

/// How long a lease lasts without being renewed. Then another worker may claim the job.
pub const LEASE: Duration = Duration::from_secs(60);
/// The lease of a relay, which renews it all the time. If its node dies, events wait for so long.
pub(super) const RELAY_LEASE: Duration = Duration::from_secs(15);
/// How many attempts without progress a job has before it becomes dead.
pub const MAX_ATTEMPTS: i64 = 8;
/// The pause after the first failure. It doubles with each further failure, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(300);
/// The maximum length of a stored error, in characters.
const ERROR_CHARACTERS: usize = 500;

/// Claims the job of these kinds that has been due for longest: the caller holds its lease from now on. Jobs whose lease has
/// expired come first. Returns `None` if no job is due.
pub async fn claim(app: &App, kinds: &[JobKind]) -> Result<Option<job::Model>, Error> {
    claim_for(app, kinds, LEASE).await
}

/// Like [`claim`], with a lease of this length.
pub(super) async fn claim_for(app: &App, kinds: &[JobKind], lasting: Duration) -> Result<Option<job::Model>, Error> {
    let _turn = app.recorder.job_turn().await;
    let now = app.clock.now();
    let lease: i64 = rand::random();
    let backend = app.database.backend();
    // On PostgreSQL, workers do not wait for each other. SQLite has only one writer.
    let skip = if backend == DatabaseBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    // A program does not claim jobs of kinds that it does not know.
    let kinds: Vec<String> = kinds.iter().map(|kind| format!("'{}'", kind.to_value())).collect();
    let kinds = kinds.join(", ");
    // Each search reads one row of an index, however many jobs are due.
    let sql = format!(
        "UPDATE job SET state = 'running', attempts = attempts + 1, started_at = $1, lease = $2, leased_until = $3 \
         WHERE id = COALESCE(\
         (SELECT id FROM job WHERE state = 'running' AND leased_until <= $1 AND kind IN ({kinds}) \
         ORDER BY leased_until, id LIMIT 1 {skip}), \
         (SELECT id FROM job WHERE state = 'waiting' AND run_at <= $1 AND kind IN ({kinds}) \
         ORDER BY run_at, id LIMIT 1 {skip})) RETURNING *"
    );
    let values = [now.0.into(), lease.into(), leased_until(now, lasting).into()];
    let row = app.database.write().query_one_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    Ok(row.map(|row| job::Model::from_query_result(&row, "")).transpose()?)
}

fn leased_until(now: Instant, lasting: Duration) -> i64 {
    now.plus(micros(lasting)).0
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Renews the lease and notes that the job has made progress, so that the number of attempts starts again at 1. A job that renews
/// its lease before it has made progress could kill its workers for ever. `progress` is the number of customers that are done,
/// and the total. Fails if the caller has lost the lease.
pub async fn renew(app: &App, job: &job::Model, progress: Option<(i64, i64)>) -> Result<(), Error> {
    let _turn = app.recorder.job_turn().await;
    renew_in(app.database.write(), app.clock.now(), job, progress).await
}

/// Like [`renew`], in the caller's transaction. If it succeeds, nobody else can take over the job until the transaction ends, so
/// everything in the transaction is committed under the lease. The caller has a turn.
pub(super) async fn renew_in(
    db: &impl ConnectionTrait,
    now: Instant,
    job: &job::Model,
    progress: Option<(i64, i64)>,
) -> Result<(), Error> {
    let mut update = extension(now).col_expr(job::Column::Attempts, Expr::value(1));
    if let Some((done, total)) = progress {
        update = update.col_expr(job::Column::Done, Expr::value(done)).col_expr(job::Column::Total, Expr::value(total));
    }
    extend(db, job, update).await
}

/// Like [`renew_in`], for a job that begins again with each attempt. What it has done so far is no progress, so the number of
/// attempts stays.
pub(super) async fn hold_in(db: &impl ConnectionTrait, now: Instant, job: &job::Model) -> Result<(), Error> {
    extend(db, job, extension(now)).await
}

fn extension(now: Instant) -> UpdateMany<job::Entity> {
    job::Entity::update_many().col_expr(job::Column::LeasedUntil, Expr::value(leased_until(now, LEASE)))
}

async fn extend(db: &impl ConnectionTrait, job: &job::Model, update: UpdateMany<job::Entity>) -> Result<(), Error> {
    let renewed = update.filter(held(job)).exec(db).await?;
    if renewed.rows_affected == 1 {
        return Ok(());
    }
    Err(Error::Internal(format!("the lease of job {} was lost", job.unique_key)))
}

/// The condition that the job still has the lease under which the caller claimed it.
fn held(job: &job::Model) -> sea_orm::Condition {
    sea_orm::Condition::all().add(job::Column::Id.eq(job.id)).add(job::Column::Lease.eq(job.lease))
}

/// Renews the leases of relays. Returns the ids of the jobs whose leases were not lost.
pub(super) async fn renew_relays(app: &App, jobs: &[job::Model]) -> Result<Vec<i64>, Error> {
    let _turn = app.recorder.job_turn().await;
    let tx = app.database.begin().await?;
    let mut renewed = Vec::new();
    for job in jobs {
        let until = leased_until(app.clock.now(), RELAY_LEASE);
        let update = job::Entity::update_many()
            .col_expr(job::Column::LeasedUntil, Expr::value(until))
            .col_expr(job::Column::Attempts, Expr::value(1))
            .filter(held(job))
            .exec(&tx)
            .await?;
        if update.rows_affected == 1 {
            renewed.push(job.id);
        }
    }
    tx.commit().await?;
    Ok(renewed)
}

/// The result of an attempt to run a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The job is done. If it was requested again meanwhile, it runs once more.
    Done,
    /// The job runs again, not before this instant, or as soon as it was requested meanwhile.
    Again(Instant),
    /// The job failed for this reason, which admins see. It is retried, unless it has failed too often.
    Failed(String),
}

/// Null as an instant. PostgreSQL would take a bare NULL for a text here.
const NULL: &str = "CAST(NULL AS bigint)";

/// Ends an attempt, and returns the resulting state. Changes nothing and returns `None` if the caller has lost the lease.
pub async fn end(app: &App, job: &job::Model, end: End) -> Result<Option<JobState>, Error> {
    let _turn = app.recorder.job_turn().await;
    let now = app.clock.now();
    let (state, run_at, error) = match end {
        End::Done => (JobState::Done, None, None),
        End::Again(at) => (JobState::Waiting, Some(at), None),
        End::Failed(error) if job.attempts < MAX_ATTEMPTS => {
            (JobState::Waiting, Some(now.plus(pause(job.attempts))), Some(error))
        }
        End::Failed(error) => (JobState::Dead, None, Some(error)),
    };
    let error = error.map(|error| error.chars().take(ERROR_CHARACTERS).collect::<String>());
    let finished = matches!(state, JobState::Done | JobState::Dead).then_some(now.0);
    let attempts = if error.is_some() { job.attempts } else { 0 };
    // A request that came in meanwhile puts the job back: it has set `run_at`.
    let unless_requested = |ended: &str, otherwise: &str| {
        Expr::cust(format!("CASE WHEN \"requests\" = {} THEN {ended} ELSE {otherwise} END", job.requests))
    };
    let quoted = |state: JobState| format!("'{}'", state.to_value());
    let run_at = run_at.map_or_else(|| "\"run_at\"".to_owned(), |at| at.0.to_string());
    let finished = finished.map_or_else(|| NULL.to_owned(), |at| at.to_string());
    let ended = job::Entity::update_many()
        .col_expr(job::Column::State, unless_requested(&quoted(state), &quoted(JobState::Waiting)))
        .col_expr(job::Column::RunAt, unless_requested(&run_at, "\"run_at\""))
        .col_expr(job::Column::Attempts, unless_requested(&attempts.to_string(), "0"))
        .col_expr(job::Column::Error, Expr::value(error))
        .col_expr(job::Column::Lease, Expr::value(Option::<i64>::None))
        .col_expr(job::Column::LeasedUntil, Expr::value(Option::<i64>::None))
        .col_expr(job::Column::FinishedAt, unless_requested(&finished, NULL))
        .filter(held(job))
        .exec(app.database.write())
        .await?;
    Ok((ended.rows_affected == 1).then_some(state))
}

fn pause(attempts: i64) -> i64 {
    let doubled =
        u32::try_from(Ord::max(attempts, 1) - 1).ok().and_then(|by| 1_u32.checked_shl(by)).unwrap_or(u32::MAX);
    micros(FIRST_PAUSE.saturating_mul(doubled).min(MAX_PAUSE))
}

/// Makes all evaluations that are dead or cancelled run again. Returns their number. Dead ticks need nothing: the next tick does
/// their work.
pub async fn revive(app: &App) -> Result<u64, Error> {
    let revived = job::Entity::update_many()
        .col_expr(job::Column::State, Expr::value(JobState::Waiting.to_value()))
        .col_expr(job::Column::Attempts, Expr::value(0))
        .col_expr(job::Column::RunAt, Expr::value(app.clock.now().0))
        .col_expr(job::Column::FinishedAt, Expr::value(Option::<i64>::None))
        .filter(job::Column::Kind.eq(JobKind::Evaluation))
        .filter(job::Column::State.is_in([JobState::Dead, JobState::Cancelled]))
        .exec(app.database.write())
        .await?;
    Ok(revived.rows_affected)
}

/// Returns the error of the oldest dead evaluation. Returns `None` if no evaluation is dead.
pub async fn first_dead(app: &App) -> Result<Option<String>, Error> {
    let dead = job::Entity::find()
        .filter(job::Column::State.eq(JobState::Dead).and(job::Column::Kind.eq(JobKind::Evaluation)))
        .order_by_asc(job::Column::Id)
        .one(app.database.read())
        .await?;
    Ok(dead.map(|job| job.error.unwrap_or_default()))
}

/// Whether an evaluation waits or runs, on any node.
pub async fn has_unfinished_evaluations(app: &App) -> Result<bool, Error> {
    let unfinished = job::Entity::find()
        .filter(job::Column::State.is_in([JobState::Waiting, JobState::Running]))
        .filter(job::Column::Kind.eq(JobKind::Evaluation))
        .one(app.database.read())
        .await?;
    Ok(unfinished.is_some())
}

/// Returns the customers of whom something is deferred: those with an evaluation of their own that is not done. Returns at most `limit`. A
/// job is cancelled only if nothing of its customer is deferred.
pub async fn deferred_customers(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<CustomerId>, Error> {
    let ids: Vec<Option<i64>> = job::Entity::find()
        .select_only()
        .column(job::Column::CustomerId)
        .filter(job::Column::Kind.eq(JobKind::Evaluation))
        .filter(job::Column::State.is_not_in([JobState::Done, JobState::Cancelled]))
        .filter(job::Column::CustomerId.is_not_null())
        .order_by_asc(job::Column::Id)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    Ok(ids.into_iter().flatten().map(CustomerId).collect())
}

/// Counts the jobs that are not done or cancelled, by kind and state.
pub async fn counts(app: &App) -> Result<Vec<(JobKind, JobState, i64)>, Error> {
    let states = [JobState::Waiting, JobState::Running, JobState::Dead];
    let rows: Vec<(JobKind, JobState, i64)> = job::Entity::find()
        .select_only()
        .column(job::Column::Kind)
        .column(job::Column::State)
        .column_as(job::Column::Id.count(), "jobs")
        // A newer program may know further kinds.
        .filter(job::Column::Kind.is_in(JobKind::iter()))
        .filter(job::Column::State.is_in(states))
        .group_by(job::Column::Kind)
        .group_by(job::Column::State)
        .into_tuple()
        .all(app.database.read())
        .await?;
    let count = |kind, state| rows.iter().find(|row| (row.0, row.1) == (kind, state)).map_or(0, |row| row.2);
    let all = JobKind::iter().flat_map(|kind| states.map(|state| (kind, state)));
    Ok(all.map(|(kind, state)| (kind, state, count(kind, state))).collect())
}

/// Returns how long ago the oldest job that is due became due, in µs. Returns 0 if no job is due. A job whose worker has died is
/// due when its lease expires. Relays do not count: they are due while no server publishes events, and their events have a metric.
pub async fn oldest_wait(app: &App) -> Result<i64, Error> {
    let sql = "SELECT (SELECT MIN(run_at) FROM job WHERE state = 'waiting' AND kind <> 'outbox') AS waiting, \
        (SELECT MIN(leased_until) FROM job WHERE state = 'running' AND kind <> 'outbox') AS running";
    let db = app.database.read();
    let Some(row) = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await? else {
        return Ok(0);
    };
    let due: [Option<i64>; 2] = [row.try_get("", "waiting")?, row.try_get("", "running")?];
    let now = app.clock.now().0;
    Ok(due.into_iter().flatten().map(|due| now.saturating_sub(due)).fold(0, Ord::max))
}
