//! Looking whether the database takes writes: a small write finds out, where none was made lately.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr};
use tokio::time::timeout;

use super::database::Database;
use super::failure::Obstacle;

/// How long a probe may take. One that waits for a batch finds out nothing, and the batch will tell.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// What a probe writes once there is an obstacle, at least what a batch does: a disk that is full often has room for a
/// single row.
const PROBE_BYTES: usize = 1 << 20;

/// The obstacle that a write would meet now; none: it would be taken.
pub async fn find_obstacle(database: &Database) -> Option<Obstacle> {
    let writes = database.writes();
    let _one_at_a_time = writes.take_turn().await;
    if !writes.is_fresh() {
        let known = writes.obstacle();
        let bytes = if known.is_some() { PROBE_BYTES } else { 0 };
        let found = match timeout(PROBE_TIMEOUT, probe(database, bytes)).await {
            Ok(Ok(true)) => None,
            Ok(Err(error)) => Obstacle::of(&error).or(known),
            // It waited for a batch, which will tell, or for another node's probe.
            Ok(Ok(false)) | Err(_) => known,
        };
        writes.met(found);
    }
    writes.obstacle()
}

/// Changes a row that nothing else uses, and commits: what is rolled back does not reach the disk. Answers whether it did;
/// another node's probe, which may be frozen, is not waited for.
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
