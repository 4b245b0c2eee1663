//! A database in which whoever takes a certain step stalls, so that a test can kill it there.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use windfall::app::database::Database;

use super::app::{Engine, open};
use super::websocket::PATIENCE;

/// A step of the database: an event, its table, and a condition on the row.
pub(crate) type Step = (&'static str, &'static str, &'static str);

/// A database in which processes stall.
pub(crate) struct Stall {
    engine: Engine,
    step: Step,
    pub(crate) database: Database,
}

impl Stall {
    /// Lets everyone stall who takes this step from now on.
    pub(crate) async fn at(engine: Engine, url: &str, step: Step) -> Self {
        let database = open(url).await;
        let (event, table, condition) = step;
        let steps = match engine {
            Engine::Postgres => [
                "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN PERFORM pg_sleep(3600); RETURN NEW; END $$"
                    .to_owned(),
                format!("CREATE TRIGGER stall BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION stall()"),
            ],
            // SQLite cannot sleep, but it can count.
            Engine::Sqlite => [
                "CREATE VIEW stall_for_long AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000000) \
                 SELECT COUNT(*) AS counted FROM n"
                    .to_owned(),
                format!("CREATE TRIGGER stall BEFORE {event} ON {table} WHEN {condition} BEGIN SELECT counted FROM stall_for_long; END"),
            ],
        };
        for sql in steps {
            database.write().execute_unprepared(&sql).await.unwrap();
        }
        Self { engine, step, database }
    }

    /// Waits until somebody stalls.
    pub(crate) async fn is_reached(&self) {
        let stalls = async {
            match self.engine {
                Engine::Postgres => {
                    while self.sleepers().await.is_empty() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                // It holds the write lock for longer than any other transaction.
                Engine::Sqlite => {
                    let mut refused = 0;
                    self.database.write().execute_unprepared("PRAGMA busy_timeout = 0").await.unwrap();
                    while refused < 50 {
                        let locked =
                            self.database.write().execute_unprepared("BEGIN IMMEDIATE; ROLLBACK").await.is_err();
                        refused = if locked { refused + 1 } else { 0 };
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    self.database.write().execute_unprepared("PRAGMA busy_timeout = 30000").await.unwrap();
                }
            }
        };
        let (engine, step) = (self.engine, self.step);
        tokio::time::timeout(PATIENCE, stalls).await.unwrap_or_else(|_| panic!("nobody stalls: {engine:?} {step:?}"));
    }

    async fn sleepers(&self) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        let rows =
            self.database.read().query_all_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await.unwrap();
        rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
    }

    /// Ends the statements of a process that was killed, which PostgreSQL would go on with.
    pub(crate) async fn bury(&self) {
        if self.engine == Engine::Postgres {
            for pid in self.sleepers().await {
                self.execute(&format!("SELECT pg_terminate_backend({pid})")).await;
            }
        }
    }

    /// Lets nobody stall any more.
    pub(crate) async fn end(&self) {
        let on = match self.engine {
            Engine::Postgres => format!(" ON {}", self.step.1),
            Engine::Sqlite => String::new(),
        };
        self.execute(&format!("DROP TRIGGER stall{on}")).await;
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.database.write().execute_unprepared(sql).await.unwrap();
    }
}
