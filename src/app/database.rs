//! The database: connections, transactions, migrations.
//!
//! One text of SQL serves both engines wherever it can; where they differ (locks, arrays), [`Database::backend`] or
//! [`super::rows`] decides, and nothing else does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use entity::installation;
use migration::{MigrationTrait, Migrator, MigratorTrait};
use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{Connection as _, Executor as _};
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr,
    EntityTrait, IsolationLevel, RuntimeErr, SqliteTransactionMode, SqlxPostgresConnector, Statement,
    TransactionOptions, TransactionTrait,
};
use tokio::time::{Instant, sleep, timeout};

use super::failure::{code, is_lock_timeout};
use super::node::FORMAT;
use super::writes::Writes;
use crate::config;

/// Readers of an SQLite file beside its one writer.
const SQLITE_READERS: u32 = 4;
/// How long an SQLite transaction waits for another process's.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Prepared statements kept by an SQLite connection: each kind in a dozen sizes ([`super::rows`]).
const SQLITE_STATEMENTS: usize = 400;
/// Pages of the file that all connections of a pool keep together, KiB.
const SQLITE_PAGES_KIB: u32 = 64 << 10;
/// How long a query waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Advisory lock (PostgreSQL): held shared by every batch, exclusively by every transition of a campaign.
pub const CAMPAIGNS_LOCK: i64 = 0x57_46_43_41;
/// Advisory lock (PostgreSQL): held by whoever migrates.
const MIGRATE_LOCK: i64 = 0x57_46_4d_49;
/// Advisory lock (PostgreSQL): held by whoever applies a migration that runs online.
const ONLINE_LOCK: i64 = 0x57_46_4f_4e;
/// Between two attempts to take it.
const ONLINE_LOCK_PAUSE: Duration = Duration::from_millis(100);

/// How much longer than a statement a connection may take to be given back; then it is closed. A server that is gone never
/// answers.
const RELEASE_MARGIN: Duration = Duration::from_secs(5);
/// While the database is read-only, connections that are older are replaced: another server may have become the primary.
const READ_ONLY_CONNECTION_AGE: Duration = Duration::from_secs(5);

/// After how many seconds, and how many probes that are not answered, PostgreSQL closes the connection of a node that is gone.
const TCP_KEEPALIVES: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "10"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];
/// After how many milliseconds it closes the connection of a node that does not take what it is sent: a frozen node.
const TCP_USER_TIMEOUT_MS: &str = "10000";

/// The first wait for the campaign lock, exclusively; it doubles.
const CAMPAIGNS_LOCK_WAIT: Duration = Duration::from_millis(250);
/// The longest single wait. Batches that come later wait with it.
const CAMPAIGNS_LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
/// After this time the lock is given up. Longer than a frozen node can hold it, shorter than a request may take.
const CAMPAIGNS_LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// How long a migration's statement waits for a lock. Reads that come later wait with it.
const MIGRATE_LOCK_WAIT: Duration = Duration::from_millis(200);
/// The pause before the migration is tried again.
const MIGRATE_PAUSE: Duration = Duration::from_secs(1);
/// After this time it is given up. A dump of a large database takes a while.
const MIGRATE_PATIENCE: Duration = Duration::from_secs(3_600);

/// Connections to the one database.
#[derive(Clone, Debug)]
pub struct Database {
    write: DatabaseConnection,
    read: DatabaseConnection,
    statements: Arc<AtomicU64>,
    writes: Writes,
    max_connections: u32,
}

impl Database {
    /// Connects. An SQLite file that does not exist is made.
    pub async fn connect(options: &config::Database) -> Result<Self, DbErr> {
        let url = options.url.expose();
        let writes = Writes::default();
        if !url.starts_with("sqlite:") {
            let mut pool = sea_orm::Database::connect(postgres_options(options, &writes)).await?;
            let statements = count_statements([&mut pool]);
            return Ok(Self {
                write: pool.clone(),
                read: pool,
                statements,
                writes,
                max_connections: options.connections,
            });
        }
        // One writer: SQLite has one anyway, and waiting in our queue is fairer than waiting for its lock.
        let mut write = sea_orm::Database::connect(sqlite_options(url, 1, true)).await?;
        let mut read = sea_orm::Database::connect(sqlite_options(url, SQLITE_READERS, false)).await?;
        let statements = count_statements([&mut write, &mut read]);
        Ok(Self { write, read, statements, writes, max_connections: 1 + SQLITE_READERS })
    }

    /// How many statements were sent so far: what a request costs does not grow with the rows it answers.
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Connections that may be open at once.
    pub fn max_connections(&self) -> usize {
        self.max_connections as usize
    }

    /// Connections that are open: idle ones, and those in use.
    pub fn connections(&self) -> (usize, usize) {
        let (open, idle) = match self.backend() {
            DatabaseBackend::Postgres => {
                let pool = self.read.get_postgres_connection_pool();
                (pool.size(), pool.num_idle())
            }
            _ => {
                let (read, write) = (self.read.get_sqlite_connection_pool(), self.write.get_sqlite_connection_pool());
                (read.size() + write.size(), read.num_idle() + write.num_idle())
            }
        };
        let open = usize::try_from(open).unwrap_or(usize::MAX);
        (idle, open.saturating_sub(idle))
    }

    /// For queries outside any transaction.
    pub fn read(&self) -> &DatabaseConnection {
        &self.read
    }

    /// For single statements that write outside any transaction.
    pub fn write(&self) -> &DatabaseConnection {
        &self.write
    }

    /// What writes met.
    pub fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.read.ping().await
    }

    /// Which engine it is.
    pub fn backend(&self) -> DatabaseBackend {
        self.read.get_database_backend()
    }

    /// Begins a transaction that may write. On SQLite it takes the write lock at once: upgrading a reader fails
    /// whatever the time-out says.
    pub async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        self.write
            .begin_with_options(TransactionOptions {
                // Whatever the server's default is: a later statement must see what an earlier one waited for.
                isolation_level: (self.backend() == DatabaseBackend::Postgres).then_some(IsolationLevel::ReadCommitted),
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            })
            .await
    }

    /// Begins a transaction that holds the campaign lock exclusively. A transaction that waits for this lock holds up all
    /// later batches on every node, and the lock may be held by a frozen node. So it waits briefly, gives up, and tries
    /// again: batches pass in between.
    pub async fn begin_alone(&self) -> Result<DatabaseTransaction, DbErr> {
        let began = Instant::now();
        let mut wait = CAMPAIGNS_LOCK_WAIT;
        loop {
            match self.try_begin_alone(wait).await {
                Err(error) if is_lock_timeout(&error) && began.elapsed() < CAMPAIGNS_LOCK_PATIENCE => sleep(wait).await,
                begun => return begun,
            }
            wait = (wait * 2).min(CAMPAIGNS_LOCK_WAIT_MAX);
        }
    }

    async fn try_begin_alone(&self, wait: Duration) -> Result<DatabaseTransaction, DbErr> {
        let tx = self.begin().await?;
        if self.backend() == DatabaseBackend::Postgres {
            set_lock_timeout(&tx, wait).await?;
            tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({CAMPAIGNS_LOCK})")).await?;
        }
        Ok(tx)
    }

    /// Begins a transaction that only reads, all of it as of one moment.
    pub async fn snapshot(&self) -> Result<DatabaseTransaction, DbErr> {
        let postgres = self.backend() == DatabaseBackend::Postgres;
        self.read
            .begin_with_options(TransactionOptions {
                // SQLite's transactions see one moment whatever they are called.
                isolation_level: postgres.then_some(IsolationLevel::RepeatableRead),
                access_mode: postgres.then_some(AccessMode::ReadOnly),
                sqlite_transaction_mode: Some(SqliteTransactionMode::Deferred),
            })
            .await
    }

    /// [`Self::snapshot`], for statements that may take longer than a request's may.
    pub async fn long_snapshot(&self) -> Result<DatabaseTransaction, DbErr> {
        let snapshot = self.snapshot().await?;
        if self.backend() == DatabaseBackend::Postgres {
            snapshot.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        }
        Ok(snapshot)
    }

    /// Applies pending migrations under locks: two at once are safe, the second finds nothing to do.
    pub async fn migrate(&self) -> Result<(), DbErr> {
        self.migrate_with::<Migrator>().await
    }

    /// Applies what is pending of a history, in order. Where others use the tables that it changes (a dump does, while it runs),
    /// it lets go and tries again: a statement that waits for such a lock holds up every read that comes later.
    pub async fn migrate_with<M: MigratorTrait>(&self) -> Result<(), DbErr> {
        let began = Instant::now();
        let mut told = false;
        loop {
            match self.try_migrate::<M>().await {
                Err(error) if is_lock_timeout(&error) && began.elapsed() < MIGRATE_PATIENCE => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            "the migration waits for a transaction that uses the same tables, such as a dump"
                        );
                    }
                    sleep(MIGRATE_PAUSE).await;
                }
                migrated => return migrated,
            }
        }
    }

    async fn try_migrate<M: MigratorTrait>(&self) -> Result<(), DbErr> {
        while !self.migrate_at_once::<M>().await? {
            self.migrate_online::<M>().await?;
        }
        Ok(())
    }

    /// Applies, in one transaction, what is pending up to the first migration that runs online; whether that was all. In a new
    /// database none has to.
    async fn migrate_at_once<M: MigratorTrait>(&self) -> Result<bool, DbErr> {
        let tx = self.begin().await?;
        if self.backend() == DatabaseBackend::Postgres {
            // Another node's migration, or this one's, may take longer than a request's statement may.
            tx.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
            tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATE_LOCK})")).await?;
            set_lock_timeout(&tx, MIGRATE_LOCK_WAIT).await?;
        }
        let pending = pending::<M>(&tx).await?;
        let is_new = pending.len() == M::migrations().len();
        let count = pending.iter().take_while(|next| is_new || !self.is_online(next.as_ref())).count();
        if count > 0 {
            M::up(&tx, Some(u32::try_from(count).unwrap_or(u32::MAX))).await?;
        }
        let id = format!("{:032x}", rand::random::<u128>());
        tx.execute_unprepared(&format!(
            "INSERT INTO installation (id, installation_id, set_revision, format) VALUES (1, '{id}', 0, {FORMAT}) \
             ON CONFLICT (id) DO NOTHING"
        ))
        .await?;
        tx.commit().await?;
        Ok(count == pending.len())
    }

    /// Applies the next pending migration while others read and write, on a connection that holds a lock of its own.
    ///
    /// It only tries to take the lock, again and again: a concurrent index waits for all statements that are under way, and so
    /// would wait for ever for one that waits for its lock.
    async fn migrate_online<M: MigratorTrait>(&self) -> Result<(), DbErr> {
        let online = self.connect_for_long().await?;
        let take = format!("SELECT pg_try_advisory_lock({ONLINE_LOCK})");
        let take = Statement::from_string(DatabaseBackend::Postgres, take);
        while !online.query_one_raw(take.clone()).await?.is_some_and(|row| row.try_get_by_index(0).unwrap_or(false)) {
            tokio::time::sleep(ONLINE_LOCK_PAUSE).await;
        }
        // Whoever had the lock may have applied it.
        if pending::<M>(&online).await?.first().is_some_and(|next| self.is_online(next.as_ref())) {
            M::up(&online, Some(1)).await?;
        }
        // The lock goes with the connection.
        online.close().await
    }

    /// On SQLite nothing can be done while others write.
    fn is_online(&self, migration: &dyn MigrationTrait) -> bool {
        self.backend() == DatabaseBackend::Postgres && migration.use_transaction() == Some(false)
    }

    /// One connection of its own, for statements that may take their time (PostgreSQL).
    async fn connect_for_long(&self) -> Result<DatabaseConnection, DbErr> {
        let options = self.write.get_postgres_connection_pool().connect_options();
        let options = options.as_ref().clone().options([("statement_timeout", "0")]);
        let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = pool.connect_with(options).await;
        let pool = pool.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))))?;
        Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
    }

    /// What tells this database from all others, those that were made from a dump of it too; a physical copy is not told apart.
    pub async fn identity(&self) -> Result<String, DbErr> {
        let row = installation::Entity::find().one(&self.read).await?;
        let row = row.ok_or_else(|| DbErr::Custom("there is no installation row".to_owned()))?;
        let installation = row.installation_id;
        if self.backend() != DatabaseBackend::Postgres {
            return Ok(installation);
        }
        let ask = async |sql: &str| {
            let row = self.read.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await?;
            row.map_or_else(|| Ok(String::new()), |row| row.try_get_by_index::<String>(0))
        };
        let database = ask("SELECT oid::text FROM pg_database WHERE datname = current_database()").await?;
        let server = match ask("SELECT system_identifier::text FROM pg_control_system()").await {
            // Where a provider does not let us ask.
            Err(error) if code(&error).as_deref() == Some("42501") => String::new(),
            server => server?,
        };
        Ok(format!("{installation}:{server}:{database}"))
    }

    /// Whether the schema is older than this program.
    pub async fn is_behind(&self) -> Result<bool, DbErr> {
        Ok(!pending::<Migrator>(&self.write).await?.is_empty())
    }

    /// Copies the database into a new file while others write (SQLite).
    pub async fn backup(&self, file: &Path) -> Result<(), DbErr> {
        let Some(file) = file.to_str() else {
            return Err(DbErr::Custom("the file's name is not UTF-8".to_owned()));
        };
        let quoted = file.replace('\'', "''");
        self.write.execute_unprepared(&format!("VACUUM INTO '{quoted}'")).await?;
        Ok(())
    }

    /// Closes all connections. Without it SQLite's data stays in the write-ahead log.
    pub async fn close(self) -> Result<(), DbErr> {
        self.read.close().await?;
        self.write.close().await
    }
}

/// A statement of this transaction that waits longer for a lock fails (PostgreSQL).
async fn set_lock_timeout(tx: &DatabaseTransaction, wait: Duration) -> Result<(), DbErr> {
    tx.execute_unprepared(&format!("SET LOCAL lock_timeout = {}", wait.as_millis())).await?;
    Ok(())
}

/// The migrations that a history has and the database has not, in order. What newer programs have applied is no matter: whether
/// this one may run beside them, the database's format says.
async fn pending<M: MigratorTrait>(db: &impl ConnectionTrait) -> Result<Vec<Box<dyn MigrationTrait>>, DbErr> {
    let applied = M::get_migration_models(db).await?;
    let is_applied = |name: &str| applied.iter().any(|row| row.version == name);
    Ok(M::migrations().into_iter().filter(|migration| !is_applied(migration.name())).collect())
}

fn postgres_options(options: &config::Database, writes: &Writes) -> ConnectOptions {
    let timeout_ms = options.statement_timeout.as_millis().to_string();
    let release_timeout = options.statement_timeout + RELEASE_MARGIN;
    let idle_timeout_ms = options.idle_transaction_timeout.as_millis().to_string();
    let writes = writes.clone();
    let mut connect = ConnectOptions::new(options.url.expose());
    connect
        .max_connections(options.connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_postgres_opts(move |options| {
            options.options(TCP_KEEPALIVES).options([
                ("statement_timeout", timeout_ms.as_str()),
                ("idle_in_transaction_session_timeout", idle_timeout_ms.as_str()),
                ("tcp_user_timeout", TCP_USER_TIMEOUT_MS),
                ("application_name", "windfall"),
                // A ROLLBACK outside a transaction (below) is no news.
                ("client_min_messages", "error"),
            ])
        })
        .map_sqlx_postgres_pool_opts(move |options| {
            let writes = writes.clone();
            options.after_release(move |connection, met| {
                let outlived = met.age > READ_ONLY_CONNECTION_AGE && writes.was_read_only_within(met.age);
                Box::pin(async move {
                    // A `BEGIN` that was cancelled under way leaves a transaction open, which the next borrower would inherit.
                    let rolled_back = timeout(release_timeout, connection.execute("ROLLBACK")).await;
                    rolled_back.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
                    Ok(!outlived)
                })
            })
        });
    connect
}

fn count_statements<const N: usize>(connections: [&mut DatabaseConnection; N]) -> Arc<AtomicU64> {
    let statements = Arc::new(AtomicU64::new(0));
    for connection in connections {
        let statements = Arc::clone(&statements);
        connection.set_metric_callback(move |_| {
            statements.fetch_add(1, Ordering::Relaxed);
        });
    }
    statements
}

fn sqlite_options(url: &str, connections: u32, create: bool) -> ConnectOptions {
    let mut connect = ConnectOptions::new(url);
    // In KiB, as SQLite takes a negative number.
    let cache_size = format!("-{}", SQLITE_PAGES_KIB / connections.max(1));
    connect
        .min_connections(1)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_sqlite_opts(move |options| {
            options
                .create_if_missing(create)
                .journal_mode(SqliteJournalMode::Wal)
                // What was acknowledged survives a power cut; batching pays for it.
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(SQLITE_BUSY_TIMEOUT)
                .statement_cache_capacity(SQLITE_STATEMENTS)
                .pragma("cache_size", cache_size.clone())
                .pragma("temp_store", "MEMORY")
        })
        .map_sqlx_sqlite_pool_opts(|options| {
            // SQLite rolls back by itself when its disk is full or fails. The driver's own rollback then fails, it counts the
            // transaction as open for ever, and its next `begin` is a savepoint in a transaction that nobody commits.
            options.after_release(|connection, _| {
                Box::pin(async move {
                    // Fails where nothing is open, which is the rule. What was queued has been carried out then.
                    let _ = connection.execute("ROLLBACK").await;
                    Ok(!connection.is_in_transaction())
                })
            })
        });
    connect
}
