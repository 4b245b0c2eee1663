//! The database: connections, transactions, migrations.
//!
//! Most SQL is the same for PostgreSQL and SQLite. Where they differ, for example in locks and arrays, the code asks
//! [`Database::backend`] or uses [`super::rows`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use entity::installation;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{Connection as _, Executor as _};
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr,
    EntityTrait, IsolationLevel, SqliteTransactionMode, Statement, TransactionOptions,
};
use tokio::time::{Instant as Monotonic, sleep, timeout};

use super::connections::{Begins, Connections};
use super::failure::{code, is_conflict, is_lock_timeout};
use super::login;
use super::write_ahead_log::{MAX_PAGES, WriteAheadLog};
use super::writes::Writes;
use crate::config;

/// The number of connections that read an SQLite file, in addition to the one that writes.
const SQLITE_READERS: u32 = 4;
/// The number of connections of a program that only reads for a moment.
const CONNECTIONS_TO_READ: u32 = 2;
/// How long an SQLite transaction waits for a transaction of another process.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum number of attempts to open an SQLite file that another process creates, and the pause between them.
const MAX_SQLITE_ATTEMPTS: u32 = 50;
const SQLITE_PAUSE: Duration = Duration::from_millis(20);
/// The number of prepared statements that an SQLite connection keeps. Each kind has about a dozen sizes ([`super::rows`]).
const SQLITE_STATEMENTS: usize = 400;
/// The size of the page caches of all connections of an SQLite pool together, in KiB.
const SQLITE_PAGES_KIB: u32 = 64 << 10;
/// The size of the page caches of SQLite, in bytes. There are three pools: one writes, one reads, and one copies the log.
pub const SQLITE_PAGES_BYTES: u64 = 3 * SQLITE_PAGES_KIB as u64 * 1024;
/// The size up to which the write-ahead log of SQLite grows if no long read holds it up, in bytes. A page has 4 KiB.
pub const SQLITE_LOG_BYTES: u64 = MAX_PAGES as u64 * 4096;
/// The maximum number of batches that are not committed yet on PostgreSQL: one or two are evaluated, the others are in their COMMIT.
/// SQLite has one connection that writes, so a batch that began earlier would only be smaller.
pub const MAX_OPEN_BATCHES: usize = 3;
/// How long a query waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Advisory lock (PostgreSQL). Every batch holds it shared, every change of a campaign holds it exclusively.
pub const CAMPAIGNS_LOCK: i64 = 0x57_46_43_41;

/// After how long without use a connection is tested before its next use. A server that was restarted has closed it.
const UNTESTED_IDLE: Duration = Duration::from_secs(1);
/// Returning a connection to the pool may take this much longer than a statement. Then the connection is closed, because a server
/// that is gone never responds.
const RELEASE_MARGIN: Duration = Duration::from_secs(5);
/// While the database is read-only, older connections are replaced, because another server may have become the primary.
const READ_ONLY_CONNECTION_AGE: Duration = Duration::from_secs(5);

/// Settings of each session (PostgreSQL), which a pooler in front may ignore. Without the isolation level, it is set in each
/// transaction. The others are about speed: frequent statements search by index, whatever the sizes of the tables are. The planner
/// would plan each of them again for each use, and would read small tables as a whole.
const SESSION: [(&str, &str); 6] = [
    ("default_transaction_isolation", "read committed"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    // A table without an index is read as a whole nevertheless, at a price at which PostgreSQL would compile the statement.
    ("jit", "off"),
];
/// When PostgreSQL closes the connection of a node that is gone: seconds without traffic before the first probe, seconds between
/// probes, and the number of probes without a response.
const TCP_KEEPALIVES: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "10"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];
/// After how many milliseconds PostgreSQL closes the connection of a frozen node, which does not acknowledge what it is sent.
const TCP_USER_TIMEOUT_MS: &str = "10000";

/// How long the first attempt waits for the exclusive campaign lock. The wait doubles with each attempt.
const CAMPAIGNS_LOCK_WAIT: Duration = Duration::from_millis(250);
/// How long an attempt waits at most. All batches that arrive meanwhile wait too.
const CAMPAIGNS_LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long attempts continue. This is longer than a frozen node can hold the lock, and shorter than a request may take.
const CAMPAIGNS_LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// The connections to the database.
#[derive(Clone, Debug)]
pub struct Database {
    write: Connections,
    read: Connections,
    statements: Arc<AtomicU64>,
    /// `None` on PostgreSQL, and if the database is only read.
    log: Option<WriteAheadLog>,
    writes: Writes,
    /// Each transaction is READ COMMITTED by itself, or needs no isolation level (SQLite).
    is_isolated: bool,
    /// Sessions are those of a pooler, so they keep no locks and no settings (PostgreSQL).
    is_pooled: bool,
    max_connections: u32,
}

impl Database {
    /// Connects to the database. Creates an SQLite file if it does not exist.
    pub async fn connect(options: &config::Database) -> Result<Self, DbErr> {
        let url = options.url.expose();
        let (writes, begins) = (Writes::default(), Begins::default());
        if !url.starts_with("sqlite:") {
            let mut pool = sea_orm::Database::connect(postgres_options(options, &writes, &begins)).await?;
            if let Some(login) = options.login.clone() {
                let (pool, session) = (pool.get_postgres_connection_pool().clone(), session_options(options));
                tokio::spawn(login::follow(pool, login, session));
            }
            let is_isolated = options.pooler || takes_session_settings(&pool).await?;
            let statements = count_statements([&mut pool]);
            let connections = Connections::new(pool, begins, options.pooler.then(|| pooled_transaction(options)));
            return Ok(Self {
                write: connections.clone(),
                read: connections,
                statements,
                log: None,
                writes,
                is_isolated,
                is_pooled: options.pooler,
                max_connections: options.connections,
            });
        }
        // SQLite allows only one writer anyway, and waiting in the pool's queue is fairer than waiting for SQLite's lock.
        let mut write = create_sqlite(url).await?;
        let mut read = sea_orm::Database::connect(sqlite_options(url, SQLITE_READERS, Opening::Write)).await?;
        let statements = count_statements([&mut write, &mut read]);
        let log = WriteAheadLog::start(sqlite_options(url, 1, Opening::Write), Arc::clone(&statements)).await?;
        let max_connections = 1 + SQLITE_READERS;
        Ok(Self {
            write: Connections::new(write, begins.clone(), None),
            read: Connections::new(read, begins, None),
            statements,
            log: Some(log),
            writes,
            is_isolated: true,
            is_pooled: false,
            max_connections,
        })
    }

    /// Connects with few connections, only to read: creates no SQLite file and changes none.
    pub async fn connect_to_read(options: &config::Database) -> Result<Self, DbErr> {
        let url = options.url.expose();
        if !url.starts_with("sqlite:") {
            return Self::connect(&config::Database { connections: CONNECTIONS_TO_READ, ..options.clone() }).await;
        }
        let opening = if has_log(url) { Opening::Read } else { Opening::ReadAlone };
        let mut read = sea_orm::Database::connect(sqlite_options(url, CONNECTIONS_TO_READ, opening)).await?;
        let statements = count_statements([&mut read]);
        let connections = Connections::new(read, Begins::default(), None);
        Ok(Self {
            write: connections.clone(),
            read: connections,
            statements,
            log: None,
            writes: Writes::default(),
            is_isolated: true,
            is_pooled: false,
            max_connections: CONNECTIONS_TO_READ,
        })
    }

    /// Returns how many statements were sent so far. Tests use it to show that the cost of a request does not grow with its rows.
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Returns the maximum number of open connections.
    pub fn max_connections(&self) -> usize {
        self.max_connections as usize
    }

    /// Returns the number of idle connections and the number of connections in use.
    pub fn connections(&self) -> (usize, usize) {
        let (open, idle) = match self.backend() {
            DatabaseBackend::Postgres => {
                let pool = self.read.pool().get_postgres_connection_pool();
                (pool.size(), pool.num_idle())
            }
            _ => {
                let (read, write) = (self.read.pool(), self.write.pool());
                let (read, write) = (read.get_sqlite_connection_pool(), write.get_sqlite_connection_pool());
                (read.size() + write.size(), read.num_idle() + write.num_idle())
            }
        };
        let open = usize::try_from(open).unwrap_or(usize::MAX);
        (idle, open.saturating_sub(idle))
    }

    /// Returns the connections for queries outside a transaction.
    pub fn read(&self) -> &Connections {
        &self.read
    }

    /// Returns the connections for single statements that write outside a transaction.
    pub fn write(&self) -> &Connections {
        &self.write
    }

    /// Returns the record of whether the database accepts writes.
    pub fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Fails if the database does not respond.
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.read.pool().ping().await
    }

    /// Returns whether the database is PostgreSQL or SQLite.
    pub fn backend(&self) -> DatabaseBackend {
        self.read.get_database_backend()
    }

    /// Whether sessions are those of a pooler, so that they keep no locks (PostgreSQL).
    pub(super) fn is_pooled(&self) -> bool {
        self.is_pooled
    }

    /// Begins a transaction that may write. On SQLite, it takes the write lock immediately: upgrading a transaction that has only
    /// read fails without waiting for the timeout.
    pub async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let options = TransactionOptions {
            // Does not rely on the server's default: a statement must see what was committed while an earlier one waited.
            isolation_level: (!self.is_isolated).then_some(IsolationLevel::ReadCommitted),
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.write.begin(options).await
    }

    /// Begins a transaction that holds the campaign lock exclusively. A transaction that waits for this lock blocks all later
    /// batches on every node, and a frozen node may hold the lock. So each attempt waits only briefly. Batches run between the
    /// attempts.
    pub async fn begin_alone(&self) -> Result<DatabaseTransaction, DbErr> {
        let began = Monotonic::now();
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

    /// Begins a transaction that only reads. All of its statements see the state at the same moment.
    pub async fn snapshot(&self) -> Result<DatabaseTransaction, DbErr> {
        let postgres = self.backend() == DatabaseBackend::Postgres;
        let options = TransactionOptions {
            // On SQLite, every transaction sees the state at one moment.
            isolation_level: postgres.then_some(IsolationLevel::RepeatableRead),
            access_mode: postgres.then_some(AccessMode::ReadOnly),
            sqlite_transaction_mode: Some(SqliteTransactionMode::Deferred),
        };
        self.read.begin(options).await
    }

    /// Like [`Self::snapshot`], but without a timeout for statements.
    pub async fn long_snapshot(&self) -> Result<DatabaseTransaction, DbErr> {
        let snapshot = self.snapshot().await?;
        if self.backend() == DatabaseBackend::Postgres {
            snapshot.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        }
        Ok(snapshot)
    }

    /// Returns a text that identifies this database. A database that was restored from a dump has another identity; a physical
    /// copy has the same.
    pub async fn identity(&self) -> Result<String, DbErr> {
        let row = installation::Entity::find().one(&self.read).await?;
        let row = row.ok_or_else(|| DbErr::Custom("the database has no installation row".to_owned()))?;
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
            // Some providers do not permit this query.
            Err(error) if code(&error).as_deref() == Some("42501") => String::new(),
            server => server?,
        };
        Ok(format!("{installation}:{server}:{database}"))
    }

    /// Copies the database into a new file. Other connections may write meanwhile (SQLite).
    pub async fn backup(&self, file: &Path) -> Result<(), DbErr> {
        let Some(file) = file.to_str() else {
            return Err(DbErr::Custom("the file's name is not UTF-8".to_owned()));
        };
        let quoted = file.replace('\'', "''");
        self.write.execute_unprepared(&format!("VACUUM INTO '{quoted}'")).await?;
        Ok(())
    }

    /// Closes all connections. Otherwise the latest changes of an SQLite database stay in the write-ahead log.
    pub async fn close(self) -> Result<(), DbErr> {
        if let Some(log) = self.log {
            log.close().await?;
        }
        self.read.pool().close_by_ref().await?;
        self.write.pool().close_by_ref().await
    }
}

/// Makes every later statement of the transaction fail if it waits longer than this for a lock (PostgreSQL).
pub(super) async fn set_lock_timeout(tx: &DatabaseTransaction, wait: Duration) -> Result<(), DbErr> {
    tx.execute_unprepared(&format!("SET LOCAL lock_timeout = {}", wait.as_millis())).await?;
    Ok(())
}

fn postgres_options(options: &config::Database, writes: &Writes, begins: &Begins) -> ConnectOptions {
    let release_timeout = options.statement_timeout + RELEASE_MARGIN;
    let (writes, begins) = (writes.clone(), begins.clone());
    // Behind a pooler, PostgreSQL would warn about a ROLLBACK outside a transaction.
    let rollback = if options.pooler { "BEGIN; ROLLBACK" } else { "ROLLBACK" };
    let (password, session) = (options.password.clone(), session_options(options));
    let mut connect = ConnectOptions::new(options.url.expose());
    connect
        .max_connections(options.connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_postgres_opts(move |options| match &password {
            Some(password) => session(options.password(password.expose())),
            None => session(options),
        })
        .map_sqlx_postgres_pool_opts(move |options| {
            let (writes, begins) = (writes.clone(), begins.clone());
            let options = options.test_before_acquire(false).before_acquire(move |connection, met| {
                Box::pin(async move {
                    if met.idle_for > UNTESTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            });
            options.after_release(move |connection, met| {
                let outlived = met.age > READ_ONLY_CONNECTION_AGE && writes.was_read_only_within(met.age);
                let begins = begins.clone();
                Box::pin(async move {
                    // A `BEGIN` that is cancelled while it runs leaves a transaction open, which the next user of the connection
                    // would get.
                    if !begins.may_be_open() {
                        return Ok(!outlived);
                    }
                    let rolled_back = timeout(release_timeout, connection.execute(rollback)).await;
                    rolled_back.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
                    Ok(!outlived)
                })
            })
        });
    connect
}

/// Returns a function that adds the settings of a session to the options of a connection.
fn session_options(options: &config::Database) -> impl Fn(PgConnectOptions) -> PgConnectOptions + Send + Sync + use<> {
    let is_pooled = options.pooler;
    let timeouts = timeouts(options);
    move |options| {
        let options = options.application_name("windfall");
        if is_pooled {
            // PgBouncer refuses both. With its statement cache, the client would use a statement in a later transaction.
            return options.extra_float_digits(None).statement_cache_capacity(0);
        }
        options.options(TCP_KEEPALIVES).options(SESSION).options(timeouts.clone()).options([
            ("tcp_user_timeout", TCP_USER_TIMEOUT_MS),
            // Suppresses the warning about a ROLLBACK outside a transaction, which `after_release` sends.
            ("client_min_messages", "error"),
        ])
    }
}

fn timeouts(options: &config::Database) -> [(&'static str, String); 2] {
    [
        ("statement_timeout", options.statement_timeout.as_millis().to_string()),
        ("idle_in_transaction_session_timeout", options.idle_transaction_timeout.as_millis().to_string()),
    ]
}

/// The statements that begin each transaction behind a pooler ([`Connections`]).
fn pooled_transaction(options: &config::Database) -> Arc<str> {
    let session = SESSION.iter().map(|(name, value)| (*name, (*value).to_owned()));
    // The isolation level of the transaction itself is set before.
    let settings = session.filter(|(name, _)| *name != "default_transaction_isolation").chain(timeouts(options));
    let settings = settings.map(|(name, value)| format!("SET LOCAL {name} = {value}; "));
    format!("{}DEALLOCATE ALL", settings.collect::<String>()).into()
}

/// Whether sessions have the settings of [`SESSION`]. A pooler may ignore them.
async fn takes_session_settings(pool: &DatabaseConnection) -> Result<bool, DbErr> {
    let sql = "SELECT current_setting('plan_cache_mode') = 'force_generic_plan' \
        AND current_setting('default_transaction_isolation') = 'read committed' AS taken";
    let row = pool.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await?;
    row.map_or(Ok(false), |row| row.try_get("", "taken"))
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

/// Opens the connection that writes, and creates the file if it does not exist. While another process creates the file too, SQLite
/// refuses the change of the journal mode at once, so it is tried again.
async fn create_sqlite(url: &str) -> Result<DatabaseConnection, DbErr> {
    let mut attempts = 1;
    loop {
        match sea_orm::Database::connect(sqlite_options(url, 1, Opening::Create)).await {
            Err(error) if is_conflict(&error) && attempts < MAX_SQLITE_ATTEMPTS => {
                attempts += 1;
                sleep(SQLITE_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// Whether a file has a write-ahead log. Each program that has the file open, or had it open when it was killed, has made one.
fn has_log(url: &str) -> bool {
    let file = url.strip_prefix("sqlite://").unwrap_or(url);
    let file = file.split('?').next().unwrap_or(file);
    Path::new(&format!("{file}-wal")).exists()
}

/// How an SQLite file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// To write. Creates the file if it does not exist, and sets its journal mode.
    Create,
    Write,
    /// Only to read, while others may write.
    Read,
    /// Only to read a file that nobody else has open. Otherwise SQLite would make the files of a log, and leave them.
    ReadAlone,
}

fn sqlite_options(url: &str, connections: u32, opening: Opening) -> ConnectOptions {
    let mut connect = ConnectOptions::new(url);
    // SQLite interprets a negative number as KiB.
    let cache_size = format!("-{}", SQLITE_PAGES_KIB / connections.max(1));
    connect
        .min_connections(1)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_sqlite_opts(move |options| {
            // The first connection sets the mode, which the file keeps. To set it again could fail while another process opens the file.
            let create = opening == Opening::Create;
            let options = if create { options.journal_mode(SqliteJournalMode::Wal) } else { options };
            options
                .create_if_missing(create)
                .read_only(matches!(opening, Opening::Read | Opening::ReadAlone))
                .immutable(opening == Opening::ReadAlone)
                // Acknowledged facts survive a power failure. Batching makes up for the cost.
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(false)
                .busy_timeout(SQLITE_BUSY_TIMEOUT)
                .statement_cache_capacity(SQLITE_STATEMENTS)
                .pragma("cache_size", cache_size.clone())
                .pragma("wal_autocheckpoint", MAX_PAGES.to_string())
                .pragma("temp_store", "MEMORY")
        })
        .map_sqlx_sqlite_pool_opts(|options| {
            // SQLite rolls back by itself when its disk is full or fails. Then the rollback of the driver fails, and the driver
            // believes that the transaction is open for ever. Its next `begin` would be a savepoint that nobody commits.
            options.after_release(|connection, _| {
                Box::pin(async move {
                    // Usually fails because no transaction is open. Afterwards, all queued statements have run.
                    let _ = connection.execute("ROLLBACK").await;
                    Ok(!connection.is_in_transaction())
                })
            })
        });
    connect
}
