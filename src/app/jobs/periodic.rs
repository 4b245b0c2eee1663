//! Periodic jobs: their periods, and the request of each tick.
//!
//! The ticks of a kind follow each other from 1970 on, each as long as the period. A tick is a job of its own, whose `unique_key`
//! contains the second at which the tick began by the database's clock. So it does not matter how many nodes request a tick, and
//! what their own clocks show. A tick is not requested while a job of its kind is unfinished, and only the current tick is ever
//! requested. So ticks that were missed, because all nodes were down or the job took longer than its period, are made up for
//! by one job.
//!
//! A tick that fails is retried like any other job, and is dead after too many attempts. The next tick is a new job. When it ends,
//! it takes the place of the dead one: there is at most one dead tick of each kind, and none once a later one has succeeded.

use std::collections::HashMap;
use std::time::Duration;

use entity::{JobKind, JobState, job};
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveEnum, ColumnTrait, ConnectionTrait, EntityTrait, Iterable, QueryFilter, Statement};

use super::queue::{LEASE, MAX_PAUSE, micros};
use super::{expiry, settlement};
use crate::app::App;
use crate::app::error::Error;
use crate::engine::time::Instant;

const SECOND: i64 = 1_000_000;

/// Whether jobs of this kind are ticks.
pub fn is_periodic(kind: JobKind) -> bool {
    match kind {
        JobKind::Evaluation | JobKind::Outbox | JobKind::Export | JobKind::Erasure => false,
        JobKind::Settlement | JobKind::Expiry | JobKind::Retention | JobKind::Audit => true,
    }
}

/// Returns the time between two ticks of this kind. `None` if the kind is not periodic or the configuration turns it off.
fn period(app: &App, kind: JobKind) -> Option<Duration> {
    let settings = &app.job_settings;
    match kind {
        JobKind::Evaluation | JobKind::Outbox | JobKind::Export | JobKind::Erasure => None,
        JobKind::Settlement => Some(settlement::PERIOD),
        JobKind::Expiry => Some(expiry::PERIOD),
        JobKind::Retention => Some(settings.retention_period),
        JobKind::Audit => (settings.audit_customers > 0).then_some(settings.audit_period),
    }
}

/// The ticks that this node has requested last, by kind: the instants at which they began. A node requests each of them once, so
/// that it costs nothing to check often whether a new tick has begun.
#[derive(Debug, Default)]
pub struct Requested(HashMap<JobKind, Instant>);

/// Requests the current tick of each kind that this node has not requested yet.
pub async fn request_ticks(app: &App, requested: &mut Requested) -> Result<(), Error> {
    for kind in JobKind::iter() {
        let Some(period) = period(app, kind) else { continue };
        if requested.0.get(&kind) != Some(&tick(app.clock.now(), period)) {
            requested.0.insert(kind, request_tick(app, kind, period).await?);
        }
    }
    Ok(())
}

/// Returns when the tick at this instant began.
fn tick(now: Instant, period: Duration) -> Instant {
    let period = micros(period).max(SECOND);
    Instant(now.0.div_euclid(period).saturating_mul(period))
}

/// Requests the current tick by the database's clock, unless it was requested before or a job of its kind is unfinished. Returns
/// when the tick began.
async fn request_tick(app: &App, kind: JobKind, period: Duration) -> Result<Instant, Error> {
    let _turn = app.recorder.job_turn().await;
    let now = app.clock.ask(app.database.read()).await?;
    let began = tick(now, period);
    // A job whose retry or lease lies further ahead than it can was written by a clock that was wrong. It must not keep ticks
    // waiting.
    let sql = "INSERT INTO job (kind, unique_key, state, requests, attempts, run_at, created_at) \
        SELECT $1, $2, 'waiting', 1, 0, CAST($3 AS bigint), CAST($3 AS bigint) \
        WHERE NOT EXISTS (SELECT 1 FROM job AS unfinished WHERE unfinished.kind = $1 AND \
        ((unfinished.state = 'waiting' AND unfinished.run_at <= $4) OR \
        (unfinished.state = 'running' AND unfinished.leased_until <= $5))) ON CONFLICT (unique_key) DO NOTHING";
    let values = [
        kind.to_value().into(),
        format!("{}:{}", kind.to_value(), began.0 / SECOND).into(),
        now.0.into(),
        now.plus(micros(MAX_PAUSE)).0.into(),
        now.plus(micros(2 * LEASE)).0.into(),
    ];
    let db = app.database.write();
    let requested = db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    if requested.rows_affected() > 0 {
        app.job_wanted.notify_one();
    }
    Ok(began)
}

/// Cancels the dead ticks of the kind of this job, which has ended: it has done their work, or has failed in their place.
pub(super) async fn replace_dead(app: &App, ended: &job::Model) -> Result<(), Error> {
    let _turn = app.recorder.job_turn().await;
    job::Entity::update_many()
        .col_expr(job::Column::State, Expr::value(JobState::Cancelled.to_value()))
        .filter(job::Column::Kind.eq(ended.kind))
        .filter(job::Column::State.eq(JobState::Dead))
        .filter(job::Column::Id.ne(ended.id))
        .exec(app.database.write())
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_begin_at_whole_periods() {
        let minute = Duration::from_secs(60);
        for (now, began) in [(0, 0), (59_999_999, 0), (60_000_000, 60_000_000), (-1, -60_000_000)] {
            assert_eq!(tick(Instant(now), minute), Instant(began), "{now}");
        }
    }
}
