//! Tests whether the database accepts writes. If there was no write lately, a small write finds out.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr};
use tokio::time::timeout;

use super::database::Database;
use super::failure::Obstacle;

/// How long a probe may take. A probe that waits for a batch learns nothing; the result of the batch will show whether writes
/// work.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How much a probe writes while there is an obstacle: at least as much as a batch, because a full disk often has space for
/// a single row.
const PROBE_BYTES: usize = 1 << 20;

/// Returns the obstacle that a write would meet now. Returns `None` if a write would be accepted.
pub async fn find_obstacle(database: &Database) -> Option<Obstacle> {
    let writes = database.writes();
    let _one_at_a_time = writes.take_turn().await;
    if !writes.is_fresh() {
        let known = writes.obstacle();
        let bytes = if known.is_some() { PROBE_BYTES } else { 0 };
        let found = match timeout(PROBE_TIMEOUT, probe(database, bytes)).await {
            Ok(Ok(true)) => None,
            Ok(Err(error)) => Obstacle::of(&error).or(known),
            // The probe waited for a batch, whose result will be noted, or another node's probe holds the row.
            Ok(Ok(false)) | Err(_) => known,
        };
        writes.met(found);
    }
    writes.obstacle()
}

/// Changes a row that nothing else uses, and commits, because a write that is rolled back does not reach the disk. Returns
/// whether the row was changed: the probe does not wait for the probe of another node, which may be frozen.
async fn probe(database: &Database, bytes: usize) -> Result<bool, DbErr> {
    let tx = database.begin().await?;
    let (filler, row) = match tx.get_database_backend() {
        DatabaseBackend::Postgres => (
            format!("decode(repeat('00', {bytes}), 'hex')"),
            " WHERE id IN (SELECT id FROM write_probe FOR UPDATE SKIP LOCKED)",
        ),
        _ => (format!("zeroblob({bytes})"), ""),
    };
    let stamp: i64 = rand::random();
    let sql = format!("UPDATE write_probe SET stamp = {stamp}, filler = {filler}{row}");
    let changed = tx.execute_unprepared(&sql).await?.rows_affected() > 0;
    tx.commit().await?;
    Ok(changed)
}
