//! Retention: deletes what nobody needs any more, in bounded commits.
//!
//! Nothing that follows from a promise is ever deleted here: facts and idempotency keys are recognised for ever, ledgers and
//! budget decisions are the record itself, and the evidence of awards is read from the checkpoints of settled campaigns too.
//! Entries of the trail and results of exports belong in `run_tick`, once they exist.

use std::time::Duration;

use entity::job;
use sea_orm::{ConnectionTrait, Statement};

use super::queue::{self, End, micros};
use crate::app::App;
use crate::app::error::Error;
use crate::engine::time::Instant;

/// The maximum number of rows that one commit deletes.
const MAX_ROWS: i64 = 1_000;
/// The row of a program is kept for this long after its last announcement.
const PROGRAMS_KEPT_FOR: Duration = Duration::from_hours(24);

/// Jobs that were done or cancelled before `$1`, at most `$2` of them, the oldest first. The states are compared twice, because a
/// job may be requested again while this statement runs. These stay:
/// - a cancelled backfill that is open, because it can be retried;
/// - the last tick of each kind, so that no node requests it again.
const FINISHED_JOBS: &str = "DELETE FROM job WHERE state IN ('done', 'cancelled') AND finished_at < $1 AND id IN (\
    SELECT j.id FROM job AS j WHERE j.state IN ('done', 'cancelled') AND j.finished_at < $1 \
    AND NOT EXISTS (SELECT 1 FROM campaign AS c WHERE c.id = j.campaign_id AND c.backfilled_to IS NOT NULL) \
    AND (j.kind = 'evaluation' OR EXISTS (SELECT 1 FROM job AS later WHERE later.kind = j.kind AND later.id > j.id)) \
    ORDER BY j.id LIMIT $2)";
/// Programs that were last seen before `$1`, at most `$2` of them.
const GONE_PROGRAMS: &str = "DELETE FROM node WHERE last_seen < $1 AND id IN (\
    SELECT n.id FROM node AS n WHERE n.last_seen < $1 ORDER BY n.last_seen LIMIT $2)";

/// Deletes everything that is old enough at this tick.
pub(super) async fn run_tick(app: &App, job: &job::Model) -> Result<End, Error> {
    let now = app.clock.ask(app.database.read()).await?;
    let before = |kept_for: Duration| now.minus(micros(kept_for));
    let jobs = delete(app, job, FINISHED_JOBS, before(app.job_settings.finished_kept_for)).await?;
    let programs = delete(app, job, GONE_PROGRAMS, before(PROGRAMS_KEPT_FOR)).await?;
    if jobs + programs > 0 {
        tracing::info!(jobs, programs, "rows that nobody needs any more were deleted");
    }
    Ok(End::Done)
}

/// Repeats the statement until it finds no more rows. Returns how many it has deleted.
async fn delete(app: &App, job: &job::Model, sql: &str, before: Instant) -> Result<u64, Error> {
    let db = app.database.write();
    let mut total = 0;
    loop {
        let turn = app.recorder.job_turn().await;
        let values = [before.0.into(), MAX_ROWS.into()];
        let deleted = db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
        drop(turn);
        total += deleted.rows_affected();
        if deleted.rows_affected() < MAX_ROWS.unsigned_abs() {
            return Ok(total);
        }
        queue::renew(app, job, None).await?;
    }
}
