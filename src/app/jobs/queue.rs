//! The table of jobs. Claims jobs, renews their leases, ends them and counts them.
//!
//! A worker that claims a job gets a lease: a random number that every later statement about the job must contain. A worker
//! that has lost its lease can no longer change the job.

use std::collections::HashMap;
use std::time::Duration;

use entity::{CustomerId, JobKind, JobState, job};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveEnum, ColumnTrait, ConnectionTrait, DatabaseBackend, EntityTrait, ExprTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, Statement,
};

use crate::app::App;
use crate::app::error::Error;
use crate::app::jobs::request::Wanted;
use crate::engine::time::Instant;

/// How long a lease lasts without being renewed. Then another worker may claim the job.
pub const LEASE: Duration = Duration::from_secs(60);
/// How many attempts without progress a job has before it becomes dead.
pub const MAX_ATTEMPTS: i64 = 8;
/// The pause after the first failure. It doubles with each further failure, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// The maximum length of a stored error, in characters.
const ERROR_CHARACTERS: usize = 500;

/// Requests a periodic job, unless it exists already.
pub async fn request_periodic(app: &App, wanted: &Wanted) -> Result<(), Error> {
    let keep = OnConflict::column(job::Column::UniqueKey).do_nothing().to_owned();
    let row = wanted.row(app.clock.now());
    job::Entity::insert_many([row]).on_conflict(keep).exec_without_returning(app.database.write()).await?;
    Ok(())
}

/// Claims the job that has been due for longest: the caller holds its lease from now on. Returns `None` if no job is due.
pub async fn claim(app: &App) -> Result<Option<job::Model>, Error> {
    let now = app.clock.now();
    let lease: i64 = rand::random();
    let backend = app.database.backend();
    // On PostgreSQL, workers do not wait for each other. SQLite has only one writer.
    let skip = if backend == DatabaseBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "UPDATE job SET state = 'running', attempts = attempts + 1, started_at = $1, lease = $2, leased_until = $3 \
         WHERE id = (SELECT id FROM job WHERE (state = 'waiting' AND run_at <= $1) \
         OR (state = 'running' AND leased_until <= $1) \
         ORDER BY run_at, started_at NULLS FIRST, id LIMIT 1 {skip}) RETURNING *"
    );
    let values = [now.0.into(), lease.into(), leased_until(now).into()];
    let row = app.database.write().query_one_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    Ok(row.map(|row| job::Model::from_query_result(&row, "")).transpose()?)
}

fn leased_until(now: Instant) -> i64 {
    now.plus(micros(LEASE)).0
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Renews the lease and notes that there is progress, so that the number of attempts starts again at 1. `progress` is the number
/// of customers that are done, and the total. Fails if another worker has claimed the job.
pub async fn renew(app: &App, job: &job::Model, progress: Option<(i64, i64)>) -> Result<(), Error> {
    let mut update = job::Entity::update_many()
        .col_expr(job::Column::LeasedUntil, Expr::value(leased_until(app.clock.now())))
        .col_expr(job::Column::Attempts, Expr::value(1));
    if let Some((done, total)) = progress {
        update = update.col_expr(job::Column::Done, Expr::value(done)).col_expr(job::Column::Total, Expr::value(total));
    }
    let renewed = update.filter(held(job)).exec(app.database.write()).await?;
    if renewed.rows_affected == 1 {
        return Ok(());
    }
    Err(Error::Internal(format!("job {} was claimed by another worker", job.unique_key)))
}

/// The condition that the job still has the lease under which the caller claimed it.
fn held(job: &job::Model) -> sea_orm::Condition {
    sea_orm::Condition::all().add(job::Column::Id.eq(job.id)).add(job::Column::Lease.eq(job.lease))
}

/// The result of an attempt to run a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The job is done. If it was requested again meanwhile, it runs once more.
    Done,
    /// The job runs again, not before this instant.
    Again(Instant),
    /// The job failed. It is retried, unless it has failed too often.
    Failed {
        /// The reason, for operators.
        error: String,
        /// Retry the job however often it fails. This is for periodic jobs.
        forever: bool,
    },
}

/// Null as an instant. PostgreSQL would take a bare NULL for a text here.
const NULL: &str = "CAST(NULL AS bigint)";

/// Ends an attempt, and returns the resulting state. Changes nothing if another worker has claimed the job.
pub async fn end(app: &App, job: &job::Model, end: End) -> Result<JobState, Error> {
    let now = app.clock.now();
    let (state, run_at, error) = match end {
        End::Done => (JobState::Done, now, None),
        End::Again(at) => (JobState::Waiting, at, None),
        End::Failed { error, forever } if forever || job.attempts < MAX_ATTEMPTS => {
            (JobState::Waiting, now.plus(pause(job.attempts)), Some(error))
        }
        End::Failed { error, .. } => (JobState::Dead, now, Some(error)),
    };
    let error = error.map(|error| error.chars().take(ERROR_CHARACTERS).collect::<String>());
    let finished = matches!(state, JobState::Done | JobState::Dead).then_some(now.0);
    let attempts = if error.is_some() { job.attempts } else { 0 };
    let (waiting, ended) = (JobState::Waiting.to_value(), state.to_value());
    // A request that came in meanwhile puts the job back.
    let unless_requested = |ended: &str, otherwise: &str| {
        Expr::cust(format!("CASE WHEN \"requests\" = {} THEN {ended} ELSE {otherwise} END", job.requests))
    };
    let finished = finished.map_or_else(|| NULL.to_owned(), |at| at.to_string());
    job::Entity::update_many()
        .col_expr(job::Column::State, unless_requested(&format!("'{ended}'"), &format!("'{waiting}'")))
        .col_expr(job::Column::RunAt, Expr::value(run_at.0))
        .col_expr(job::Column::Attempts, Expr::value(attempts))
        .col_expr(job::Column::Error, Expr::value(error))
        .col_expr(job::Column::Lease, Expr::value(Option::<i64>::None))
        .col_expr(job::Column::LeasedUntil, Expr::value(Option::<i64>::None))
        .col_expr(job::Column::FinishedAt, unless_requested(&finished, NULL))
        .filter(held(job))
        .exec(app.database.write())
        .await?;
    Ok(state)
}

fn pause(attempts: i64) -> i64 {
    let doubled =
        u32::try_from(Ord::max(attempts, 1) - 1).ok().and_then(|by| 1_u32.checked_shl(by)).unwrap_or(u32::MAX);
    micros(FIRST_PAUSE.saturating_mul(doubled).min(MAX_PAUSE))
}

/// Makes all dead jobs run again. Returns their number.
pub async fn revive(app: &App) -> Result<u64, Error> {
    let revived = job::Entity::update_many()
        .col_expr(job::Column::State, Expr::value(JobState::Waiting.to_value()))
        .col_expr(job::Column::Attempts, Expr::value(0))
        .col_expr(job::Column::RunAt, Expr::value(app.clock.now().0))
        .filter(job::Column::State.eq(JobState::Dead))
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

/// Returns the customers of whom something is deferred: those with a job of their own that is not done. Returns at most `limit`.
pub async fn deferred_customers(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<CustomerId>, Error> {
    let ids: Vec<Option<i64>> = job::Entity::find()
        .select_only()
        .column(job::Column::CustomerId)
        .filter(job::Column::State.ne(JobState::Done))
        .filter(job::Column::CustomerId.is_not_null())
        .order_by_asc(job::Column::Id)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    Ok(ids.into_iter().flatten().map(CustomerId).collect())
}

/// Counts the jobs by kind and state. Jobs that are done are not counted.
pub async fn counts(app: &App) -> Result<HashMap<(&'static str, &'static str), i64>, Error> {
    let states = [JobState::Waiting, JobState::Running, JobState::Dead];
    let rows: Vec<(JobKind, JobState, i64)> = job::Entity::find()
        .select_only()
        .column(job::Column::Kind)
        .column(job::Column::State)
        .column_as(job::Column::Id.count(), "jobs")
        .filter(job::Column::State.is_in(states))
        .group_by(job::Column::Kind)
        .group_by(job::Column::State)
        .into_tuple()
        .all(app.database.read())
        .await?;
    let mut counts = HashMap::new();
    for kind in [JobKind::Evaluation, JobKind::Settlement] {
        counts.extend(states.map(|state| ((kind_name(kind), state_name(state)), 0)));
    }
    counts.extend(rows.into_iter().map(|(kind, state, jobs)| ((kind_name(kind), state_name(state)), jobs)));
    Ok(counts)
}

fn kind_name(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Evaluation => "evaluation",
        JobKind::Settlement => "settlement",
    }
}

fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Waiting => "waiting",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Dead => "dead",
    }
}

/// Returns how long the oldest job that is due has been waiting, in µs. Returns 0 if no job is due.
pub async fn oldest_wait(app: &App) -> Result<i64, Error> {
    let oldest: Option<Option<i64>> = job::Entity::find()
        .select_only()
        .column_as(job::Column::RunAt.min(), "oldest")
        .filter(job::Column::State.eq(JobState::Waiting))
        .into_tuple()
        .one(app.database.read())
        .await?;
    Ok(oldest.flatten().map_or(0, |oldest| Ord::max(app.clock.now().0.saturating_sub(oldest), 0)))
}
