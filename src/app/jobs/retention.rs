//! Retention: deletes what nobody needs any more, in bounded commits.
//!
//! Nothing that follows from a promise is ever deleted here: facts and idempotency keys are recognised for ever, ledgers and
//! budget decisions are the record itself, and the evidence of awards is read from the checkpoints of settled campaigns too.
//! The result of an export goes with its job. A download that is under way then breaks off.

use std::time::Duration;

use entity::job;
use sea_orm::{ConnectionTrait, Statement, Value};

use super::queue::{self, End, micros};
use crate::app::App;
use crate::app::error::Error;

/// The maximum number of rows that one commit deletes.
const MAX_ROWS: i64 = 1_000;
/// The maximum number of parts of results that one commit deletes. Together they are at most 16 MiB.
const MAX_CHUNKS: i64 = 64;
/// The row of a program is kept for this long after its last announcement.
const PROGRAMS_KEPT_FOR: Duration = Duration::from_hours(24);

/// Jobs that were done or cancelled before `$1`, at most `$2` of them, the oldest first. The states are compared twice, because a
/// job may be requested again while this statement runs. These stay:
/// - a cancelled backfill that is open, because it can be retried;
/// - the last tick of each kind, so that no node requests it again.
const FINISHED_JOBS: &str = "DELETE FROM job WHERE state IN ('done', 'cancelled') AND finished_at < $1 AND id IN (\
    SELECT j.id FROM job AS j WHERE j.state IN ('done', 'cancelled') AND j.finished_at < $1 \
    AND NOT EXISTS (SELECT 1 FROM campaign AS c WHERE c.id = j.campaign_id AND c.backfilled_to IS NOT NULL) \
    AND (j.kind IN ('evaluation', 'export', 'erasure') OR EXISTS (SELECT 1 FROM job AS later WHERE later.kind = j.kind AND later.id > j.id)) \
    ORDER BY j.id LIMIT $2)";
/// Results of jobs that will not be read any more, at most `$1` parts of them: of deleted jobs, and of those that have failed or were
/// cancelled. Such a job begins again if it is retried.
const ABANDONED_RESULTS: &str = "DELETE FROM export_chunk WHERE (job_id, number) IN (\
    SELECT c.job_id, c.number FROM export_chunk AS c WHERE NOT EXISTS (\
    SELECT 1 FROM job AS j WHERE j.id = c.job_id AND j.state IN ('waiting', 'running', 'done')) \
    ORDER BY c.job_id, c.number LIMIT $1)";
/// Entries of the trail from before `$1`, at most `$2` of them, the oldest first.
const OLD_ENTRIES: &str = "DELETE FROM trail_entry WHERE id IN (\
    SELECT e.id FROM trail_entry AS e WHERE e.at < $1 ORDER BY e.at, e.id LIMIT $2)";
/// Programs that were last seen before `$1`, at most `$2` of them.
const GONE_PROGRAMS: &str = "DELETE FROM node WHERE last_seen < $1 AND id IN (\
    SELECT n.id FROM node AS n WHERE n.last_seen < $1 ORDER BY n.last_seen LIMIT $2)";

/// Deletes everything that is old enough at this tick.
pub(super) async fn run_tick(app: &App, job: &job::Model) -> Result<End, Error> {
    let now = app.clock.ask(app.database.read()).await?;
    let before = |kept_for: Duration| now.minus(micros(kept_for));
    let old = |kept_for| vec![before(kept_for).0.into(), MAX_ROWS.into()];
    let jobs = delete(app, job, FINISHED_JOBS, old(app.job_settings.finished_kept_for), MAX_ROWS).await?;
    let results = delete(app, job, ABANDONED_RESULTS, vec![MAX_CHUNKS.into()], MAX_CHUNKS).await?;
    let entries = delete(app, job, OLD_ENTRIES, old(app.job_settings.trail_kept_for), MAX_ROWS).await?;
    let programs = delete(app, job, GONE_PROGRAMS, old(PROGRAMS_KEPT_FOR), MAX_ROWS).await?;
    if jobs + results + entries + programs > 0 {
        tracing::info!(jobs, results, entries, programs, "rows that nobody needs any more were deleted");
    }
    Ok(End::Done)
}

/// Repeats the statement, which deletes at most `most` rows, until it finds no more. Returns how many it has deleted.
async fn delete(app: &App, job: &job::Model, sql: &str, values: Vec<Value>, most: i64) -> Result<u64, Error> {
    let db = app.database.write();
    let mut total = 0;
    loop {
        let turn = app.recorder.job_turn().await;
        let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values.clone());
        let deleted = db.execute_raw(statement).await?;
        drop(turn);
        total += deleted.rows_affected();
        if deleted.rows_affected() < most.unsigned_abs() {
            return Ok(total);
        }
        queue::renew(app, job, None).await?;
    }
}
