//! Copies the write-ahead log of SQLite into the database file while batches are committed. Without it, the commit that finds a long
//! log copies it, and all other writes wait.
//!
//! While batches are committed, a copy does not reach the end of the log, so the log still grows. From [`MAX_PAGES`] on, a commit
//! copies what is left, and the next one begins the log anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sea_orm::{ConnectOptions, ConnectionTrait as _, DatabaseConnection, DbErr};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The size of the log at which a commit copies it: 128 MiB. A longer one takes longer to read after a crash.
pub(super) const MAX_PAGES: u32 = 32_768;
/// The pause between two copies.
const PAUSE: Duration = Duration::from_millis(200);

/// The task that copies the log. It ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct WriteAheadLog {
    connection: DatabaseConnection,
    _stop: Arc<DropGuard>,
}

impl WriteAheadLog {
    /// Starts to copy the log through a connection of its own. `statements` is the number of statements that this process has sent:
    /// while it sends none, there is nothing to copy.
    pub(super) async fn start(options: ConnectOptions, statements: Arc<AtomicU64>) -> Result<Self, DbErr> {
        let connection = sea_orm::Database::connect(options).await?;
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(copy(connection.clone(), statements)));
        Ok(Self { connection, _stop: Arc::new(stop.drop_guard()) })
    }

    pub(super) async fn close(self) -> Result<(), DbErr> {
        self.connection.close().await
    }
}

async fn copy(connection: DatabaseConnection, statements: Arc<AtomicU64>) {
    let mut copied = 0;
    loop {
        sleep(PAUSE).await;
        let sent = statements.load(Ordering::Relaxed);
        // PASSIVE waits for nobody. If it fails, for example because the disk is full, the commits report that.
        if sent != copied && connection.execute_unprepared("PRAGMA wal_checkpoint(PASSIVE)").await.is_ok() {
            copied = sent;
        }
    }
}
