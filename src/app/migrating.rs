//! Applies migrations to a database that other programs may be using.

use std::sync::Arc;
use std::time::Duration;

use migration::{MigrationTrait, Migrator, MigratorTrait};
use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DbErr, RuntimeErr, SqlxPostgresConnector, Statement,
};
use tokio::time::{Instant as Monotonic, sleep};

use super::database::{Database, set_lock_timeout};
use super::failure::is_lock_timeout;
use super::node::FORMAT;

/// Advisory lock (PostgreSQL). A program holds it while it migrates the database in a transaction.
const MIGRATE_LOCK: i64 = 0x57_46_4d_49;
/// Advisory lock (PostgreSQL). A program holds it while it applies a migration that runs online.
const ONLINE_LOCK: i64 = 0x57_46_4f_4e;
const ONLINE_IS_DIRECT: &str = "a pending migration runs online, and so needs a connection that is not pooled: run \
    `windfall migrate` with the URL of PostgreSQL itself and `database.pooler` (WINDFALL__DATABASE__POOLER) = false";
/// The pause between two attempts to take [`ONLINE_LOCK`].
const ONLINE_LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How long a statement of a migration waits for a lock. All reads of the table that arrive meanwhile wait too.
const MIGRATE_LOCK_WAIT: Duration = Duration::from_millis(200);
/// The pause before a migration is retried.
const MIGRATE_PAUSE: Duration = Duration::from_secs(1);
/// How long a migration is retried. A dump of a large database takes a long time.
const MIGRATE_PATIENCE: Duration = Duration::from_secs(3_600);

impl Database {
    /// Applies the pending migrations. Several programs may call this at the same time: locks make them take turns, and the later
    /// ones find nothing to do.
    pub async fn migrate(&self) -> Result<(), DbErr> {
        self.migrate_with::<Migrator>().await
    }

    /// Applies the pending migrations of the history `M`, in order. A statement that waits for the lock of a table blocks all
    /// later reads of the table. So if another program uses the table, for example a dump, the migration rolls back and is
    /// retried.
    pub async fn migrate_with<M: MigratorTrait>(&self) -> Result<(), DbErr> {
        let began = Monotonic::now();
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

    /// Applies the pending migrations in one transaction, up to the first one that must run online. Returns whether that was all.
    /// In a new database, no migration must run online.
    async fn migrate_at_once<M: MigratorTrait>(&self) -> Result<bool, DbErr> {
        let tx = self.begin().await?;
        if self.backend() == DatabaseBackend::Postgres {
            // Waiting for another node's migration, or this migration itself, may exceed the usual timeout.
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

    /// Applies the next pending migration while other programs read and write. Uses a connection of its own, which holds
    /// [`ONLINE_LOCK`].
    ///
    /// The lock is polled. A statement that waited for the lock would never end: the lock's holder may be building an index
    /// concurrently, and that waits for all running statements. The lock belongs to a session, and a pooler would give that session
    /// to another client.
    async fn migrate_online<M: MigratorTrait>(&self) -> Result<(), DbErr> {
        if self.is_pooled() {
            return Err(DbErr::Custom(ONLINE_IS_DIRECT.to_owned()));
        }
        let online = self.connect_for_long().await?;
        let take = format!("SELECT pg_try_advisory_lock({ONLINE_LOCK})");
        let take = Statement::from_string(DatabaseBackend::Postgres, take);
        while !online.query_one_raw(take.clone()).await?.is_some_and(|row| row.try_get_by_index(0).unwrap_or(false)) {
            tokio::time::sleep(ONLINE_LOCK_PAUSE).await;
        }
        // The previous holder of the lock may have applied the migration.
        if pending::<M>(&online).await?.first().is_some_and(|next| self.is_online(next.as_ref())) {
            M::up(&online, Some(1)).await?;
        }
        // Closing the connection releases the lock.
        online.close().await
    }

    /// Whether the migration must run online. On SQLite, none can: nothing runs beside a writer.
    fn is_online(&self, migration: &dyn MigrationTrait) -> bool {
        self.backend() == DatabaseBackend::Postgres && migration.use_transaction() == Some(false)
    }

    /// Opens a separate connection without a timeout for statements (PostgreSQL).
    async fn connect_for_long(&self) -> Result<DatabaseConnection, DbErr> {
        let options = self.write().pool().get_postgres_connection_pool().connect_options();
        let options = options.as_ref().clone().options([("statement_timeout", "0")]);
        let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = pool.connect_with(options).await;
        let pool = pool.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))))?;
        Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
    }

    /// Returns the names of the migrations that the database lacks. Unlike all other queries about migrations, it does not create
    /// the table of migrations.
    pub async fn pending_migrations(&self) -> Result<Vec<String>, DbErr> {
        let table = Migrator::migration_table_name().to_string();
        let (backend, db) = (self.backend(), self.read());
        let exists = match backend {
            DatabaseBackend::Postgres => format!(
                "SELECT 1 FROM pg_tables WHERE tablename = '{table}' AND schemaname = ANY (current_schemas(false))"
            ),
            _ => format!("SELECT 1 FROM sqlite_master WHERE name = '{table}'"),
        };
        let mut applied: Vec<String> = Vec::new();
        if db.query_one_raw(Statement::from_string(backend, exists)).await?.is_some() {
            let versions = Statement::from_string(backend, format!("SELECT version FROM {table}"));
            for row in db.query_all_raw(versions).await? {
                applied.push(row.try_get_by_index(0)?);
            }
        }
        let names = Migrator::migrations().into_iter().map(|migration| migration.name().to_owned());
        Ok(names.filter(|name| !applied.contains(name)).collect())
    }

    /// Whether the schema is older than this program.
    pub async fn is_behind(&self) -> Result<bool, DbErr> {
        Ok(!pending::<Migrator>(self.write()).await?.is_empty())
    }
}

/// Returns the migrations of `M` that the database does not have, in order. Ignores migrations of newer releases: the database
/// format decides whether this program may run beside them.
async fn pending<M: MigratorTrait>(db: &impl ConnectionTrait) -> Result<Vec<Box<dyn MigrationTrait>>, DbErr> {
    let applied = M::get_migration_models(db).await?;
    let is_applied = |name: &str| applied.iter().any(|row| row.version == name);
    Ok(M::migrations().into_iter().filter(|migration| !is_applied(migration.name())).collect())
}
