//! A pool of connections, and the transactions and single statements that run on it.
//!
//! Behind a pooler (PostgreSQL), each transaction runs in whichever session of PostgreSQL is free. Three things follow:
//! - Preparing and executing a statement are two messages, which could reach two sessions. So each single statement gets a
//!   transaction of its own.
//! - The session may keep statements that another client has prepared under the same names. So each transaction first removes
//!   them, and no statement is used in a later transaction.
//! - Settings of a session would change the statements of other clients. So each transaction sets them for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr, ExecResult, IsolationLevel,
    QueryResult, Statement, TransactionOptions, TransactionTrait,
};
use tokio::time::Instant as Monotonic;

/// How long after a cancelled `BEGIN` each connection that is released is rolled back. Its release may take as long as a statement.
const CANCELLED_FRESH: Duration = Duration::from_secs(120);

/// A pool of connections. Clones share it.
#[derive(Clone, Debug)]
pub struct Connections {
    pool: DatabaseConnection,
    begins: Begins,
    /// Behind a pooler, the statements that begin each transaction.
    pooled: Option<Arc<str>>,
}

impl Connections {
    pub(super) fn new(pool: DatabaseConnection, begins: Begins, pooled: Option<Arc<str>>) -> Self {
        Self { pool, begins, pooled }
    }

    /// Returns the pool. Behind a pooler, no statement may be sent through it.
    pub fn pool(&self) -> &DatabaseConnection {
        &self.pool
    }

    pub(super) async fn begin(&self, options: TransactionOptions) -> Result<DatabaseTransaction, DbErr> {
        let Some(first) = &self.pooled else { return self.begin_with(options).await };
        let tx = self.begin_with(TransactionOptions::default()).await?;
        // The isolation level comes first, because it cannot change once the transaction has a snapshot.
        let isolation = options.isolation_level.unwrap_or(IsolationLevel::ReadCommitted);
        let access = options.access_mode.map_or_else(String::new, |mode| format!(", {mode}"));
        tx.execute_unprepared(&format!("SET TRANSACTION ISOLATION LEVEL {isolation}{access}; {first}")).await?;
        Ok(tx)
    }

    async fn begin_with(&self, options: TransactionOptions) -> Result<DatabaseTransaction, DbErr> {
        let beginning = self.begins.begin();
        let begun = self.pool.begin_with_options(options).await;
        beginning.end();
        begun
    }

    /// Begins the transaction of a single statement, or returns `None` if the statement needs none.
    async fn begin_single(&self) -> Result<Option<DatabaseTransaction>, DbErr> {
        match self.pooled {
            Some(_) => self.begin(TransactionOptions::default()).await.map(Some),
            None => Ok(None),
        }
    }
}

#[async_trait]
impl ConnectionTrait for Connections {
    fn get_database_backend(&self) -> DatabaseBackend {
        self.pool.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let Some(tx) = self.begin_single().await? else { return self.pool.execute_raw(statement).await };
        let done = tx.execute_raw(statement).await?;
        tx.commit().await?;
        Ok(done)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let Some(tx) = self.begin_single().await? else { return self.pool.execute_unprepared(sql).await };
        let done = tx.execute_unprepared(sql).await?;
        tx.commit().await?;
        Ok(done)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let Some(tx) = self.begin_single().await? else { return self.pool.query_one_raw(statement).await };
        let row = tx.query_one_raw(statement).await?;
        tx.commit().await?;
        Ok(row)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let Some(tx) = self.begin_single().await? else { return self.pool.query_all_raw(statement).await };
        let rows = tx.query_all_raw(statement).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

/// Notices transactions that may have been left open: those whose `BEGIN` was cancelled while it ran. All clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Begins(Arc<BeginsState>);

#[derive(Debug, Default)]
struct BeginsState {
    running: AtomicU64,
    /// When a `BEGIN` was last cancelled.
    cancelled: Mutex<Option<Monotonic>>,
}

/// A `BEGIN` that runs.
struct Beginning {
    begins: Begins,
    ended: bool,
}

impl Begins {
    fn begin(&self) -> Beginning {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        Beginning { begins: self.clone(), ended: false }
    }

    /// Whether the connection that is being released may have an open transaction. A cancelled `BEGIN` releases its connection
    /// just before or after it is noted here.
    pub(super) fn may_be_open(&self) -> bool {
        let running = self.0.running.load(Ordering::SeqCst) > 0;
        running || self.0.cancelled.lock().is_some_and(|at| at.elapsed() < CANCELLED_FRESH)
    }
}

impl Beginning {
    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        let BeginsState { running, cancelled } = &*self.begins.0;
        if !self.ended {
            *cancelled.lock() = Some(Monotonic::now());
        }
        running.fetch_sub(1, Ordering::SeqCst);
    }
}
