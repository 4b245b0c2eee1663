//! The table of jobs: asking for a job, claiming it, ending it.
//!
//! Whoever claims a job holds a lease: a random number that each later statement about the job must name. Who lost the lease
//! changes nothing any more.

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

/// How long a worker may show no sign of life.
pub const LEASE: Duration = Duration::from_secs(60);
/// How often a job is begun without progress before it is given up.
pub const MAX_ATTEMPTS: i64 = 8;
/// The pause after the first failure; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// The longest error that is stored, in characters.
const ERROR_CHARACTERS: usize = 500;

/// Asks for a job that runs again and again, unless it is there already.
pub async fn request_periodic(app: &App, wanted: &Wanted) -> Result<(), Error> {
    let keep = OnConflict::column(job::Column::UniqueKey).do_nothing().to_owned();
    let row = wanted.row(app.clock.now());
    job::Entity::insert_many([row]).on_conflict(keep).exec_without_returning(app.database.write()).await?;
    Ok(())
}

/// The job that has been due for longest, now leased to the caller; none: nothing is due.
pub async fn claim(app: &App) -> Result<Option<job::Model>, Error> {
    let now = app.clock.now();
    let lease: i64 = rand::random();
    let backend = app.database.backend();
    // PostgreSQL: workers do not wait for each other. SQLite has one writer.
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

/// Says that the job is being worked on. `progress`: how much of how much is done. Fails if somebody else has the job.
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
    Err(Error::Internal(format!("job {} was taken over", job.unique_key)))
}

/// The job is under the lease that it was claimed with.
fn held(job: &job::Model) -> sea_orm::Condition {
    sea_orm::Condition::all().add(job::Column::Id.eq(job.id)).add(job::Column::Lease.eq(job.lease))
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It is done, unless it was asked for once more meanwhile.
    Done,
    /// It is run again, at this instant at the earliest.
    Again(Instant),
    /// It failed for this reason. `forever`: it is tried again however often it fails.
    Failed {
        /// For people.
        error: String,
        /// A periodic job is never given up.
        forever: bool,
    },
}

/// Ends the attempt. Nothing happens if somebody else has the job.
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
    let next = format!("CASE WHEN \"requests\" = {} THEN '{ended}' ELSE '{waiting}' END", job.requests);
    job::Entity::update_many()
        .col_expr(job::Column::State, Expr::cust(next))
        .col_expr(job::Column::RunAt, Expr::value(run_at.0))
        .col_expr(job::Column::Attempts, Expr::value(attempts))
        .col_expr(job::Column::Error, Expr::value(error))
        .col_expr(job::Column::Lease, Expr::value(Option::<i64>::None))
        .col_expr(job::Column::LeasedUntil, Expr::value(Option::<i64>::None))
        .col_expr(job::Column::FinishedAt, Expr::value(finished))
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

/// Lets every job that was given up run once more; returns how many there were.
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

/// Why the first of the evaluations that were given up failed; none: none was given up.
pub async fn first_dead(app: &App) -> Result<Option<String>, Error> {
    let dead = job::Entity::find()
        .filter(job::Column::State.eq(JobState::Dead).and(job::Column::Kind.eq(JobKind::Evaluation)))
        .order_by_asc(job::Column::Id)
        .one(app.database.read())
        .await?;
    Ok(dead.map(|job| job.error.unwrap_or_default()))
}

/// The customers of whom something is deferred, at most `limit` of them.
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

/// How many jobs there are, by kind and state; those that are done are left out.
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

/// How long the oldest job that is due has been waiting, µs; 0: none is due.
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
