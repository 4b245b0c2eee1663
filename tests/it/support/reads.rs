//! What reads cost a database that one test uses, in counts. Times would depend on how busy the machine is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sea_orm::sqlx::{self, Row as _};
use sea_orm::{ConnectionTrait, DatabaseBackend};
use windfall::app::database::Database;

/// The number of instructions of SQLite's virtual machine between two counts.
const INSTRUCTIONS: i32 = 10;

/// Counts what one node reads. Nothing else may use the connections of the node meanwhile.
pub(crate) struct Reads {
    database: Database,
    /// On SQLite: the instructions so far, in units of [`INSTRUCTIONS`].
    instructions: Arc<AtomicU64>,
}

impl Reads {
    pub(crate) async fn of(database: &Database) -> Self {
        let reads = Self { database: database.clone(), instructions: Arc::default() };
        if database.backend() == DatabaseBackend::Sqlite {
            let pool = database.read().pool().get_sqlite_connection_pool();
            let mut connections = Vec::new();
            for _ in 0..pool.options().get_max_connections() {
                connections.push(pool.acquire().await.unwrap());
            }
            for connection in &mut connections {
                let instructions = Arc::clone(&reads.instructions);
                connection.lock_handle().await.unwrap().set_progress_handler(INSTRUCTIONS, move || {
                    instructions.fetch_add(1, Ordering::Relaxed);
                    true
                });
            }
        }
        reads
    }

    /// The reads so far: rows on PostgreSQL, instructions in units of [`INSTRUCTIONS`] on SQLite.
    pub(crate) async fn total(&self) -> u64 {
        if self.database.backend() == DatabaseBackend::Sqlite {
            return self.instructions.load(Ordering::Relaxed);
        }
        let pool = self.database.read().pool().get_postgres_connection_pool();
        let mut connections = Vec::new();
        for _ in 0..pool.options().get_max_connections() {
            connections.push(pool.acquire().await.unwrap());
        }
        for connection in &mut connections {
            // Makes each connection report what it has read.
            sqlx::query("SELECT pg_stat_force_next_flush()").execute(&mut **connection).await.unwrap();
        }
        let rows = "SELECT ((SELECT SUM(seq_tup_read) FROM pg_stat_user_tables) \
            + (SELECT SUM(idx_tup_read) FROM pg_stat_user_indexes))::bigint";
        let row = sqlx::query(rows).fetch_one(&mut *connections[0]).await.unwrap();
        u64::try_from(row.get::<i64, _>(0)).unwrap()
    }

    /// PostgreSQL plans by the statistics of its tables. This updates them now, not at some later time.
    pub(crate) async fn analyze(&self) {
        let tx = self.database.begin().await.unwrap();
        tx.execute_unprepared("ANALYZE").await.unwrap();
        tx.commit().await.unwrap();
    }
}
