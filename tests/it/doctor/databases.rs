//! PostgreSQL, SQLite, the schema, and what runs on the database.

use std::time::Duration;

use entity::{dead_letter, ingest_position, node as program, waiting_fact};
use sea_orm::{
    ActiveModelTrait as _, ConnectionTrait as _, DatabaseBackend, EntityTrait as _, IntoActiveModel as _, Statement,
    TransactionTrait as _,
};
use windfall::app::clock::Clock;
use windfall::app::database::Database;
use windfall::app::node::FORMAT;

use super::well::limit_sessions;
use super::*;
use crate::support::app::{ENGINES, Engine, open, scratch};
use crate::support::faketime::WrongClock;
use crate::support::pgbouncer::PgBouncer;
use crate::support::postgres::{Durability, Postgres};
use crate::support::sqlite::Sqlite;
use crate::support::websocket::PATIENCE;

/// An empty database with all tables.
async fn migrated(engine: Engine) -> (String, Option<Sqlite>) {
    let (url, kept) = scratch(engine).await;
    let database = open(&url).await;
    database.migrate().await.unwrap();
    database.close().await.unwrap();
    (url, kept)
}

/// Runs statements on a database, one after the other.
async fn execute(url: &str, statements: &[&str]) {
    let database = open(url).await;
    for sql in statements {
        database.write().execute_unprepared(sql).await.unwrap();
    }
    database.close().await.unwrap();
}

async fn tables(database: &Database) -> usize {
    let sql = match database.backend() {
        DatabaseBackend::Postgres => "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
        _ => "SELECT name FROM sqlite_master",
    };
    database.read().query_all_raw(Statement::from_string(database.backend(), sql)).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_down_is_told_without_its_password() {
    let url = format!("postgres://someone:pa55word@{}/shop", nobody());
    let report = Report::of(&mut command(&url));
    report.has("problem", "database-unreachable");
    assert!(!report.ran.stdout.contains("pa55word"), "{:?}", report.ran);
    Report::of(&mut command("sqlite:///no/such/directory/windfall.db")).has("problem", "database-unreachable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_does_not_fit_is_told_and_left_alone() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        // Makes the file of an SQLite database.
        let database = open(&url).await;
        let report = Report::of(&mut command(&url));
        report.has("advice", "migrations-pending");
        let refused = Report::of(command(&url).env("WINDFALL__DATABASE__MIGRATE", "false"));
        refused.has("problem", "migrations-pending");
        assert_eq!(tables(&database).await, 0, "{engine:?}");
        database.migrate().await.unwrap();
        database.close().await.unwrap();
        Report::of(&mut command(&url)).lacks("migrations-pending");
        execute(&url, &[&format!("UPDATE installation SET format = {}", FORMAT + 1)]).await;
        Report::of(&mut command(&url)).has("problem", "database-newer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_differ_are_told() {
    for engine in ENGINES {
        let (url, _kept) = migrated(engine).await;
        let database = open(&url).await;
        let now = Clock::System.now().0;
        for (id, format, zone_data) in [(1, FORMAT, "2026a"), (2, FORMAT - 1, "2025b")] {
            let row = program::Model { id, format, zone_data: zone_data.to_owned(), last_seen: now };
            row.into_active_model().insert(database.write()).await.unwrap();
        }
        let report = Report::of(&mut command(&url));
        report.has("advice", "node-formats");
        assert!(report.has("problem", "node-zone-data").ends_with("2025b, 2026a"), "{:#}", report.document);
        // They ran an hour ago.
        database.write().execute_unprepared("UPDATE node SET last_seen = last_seen - 3600000000").await.unwrap();
        let report = Report::of(&mut command(&url));
        report.lacks("node-formats");
        report.lacks("node-zone-data");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_that_are_not_recorded_are_told() {
    for engine in ENGINES {
        let (url, _kept) = migrated(engine).await;
        let database = open(&url).await;
        let now = Clock::System.now().0;
        let letter = dead_letter::Model {
            id: 1,
            topic: "orders".to_owned(),
            partition: 0,
            message_offset: 7,
            hash: String::new(),
            reason: "broken".to_owned(),
            recorded_at: now,
            key: None,
            headers: "[]".to_owned(),
            size: None,
            payload: Vec::new(),
        };
        dead_letter::Entity::insert(letter.into_active_model()).exec_without_returning(database.write()).await.unwrap();
        let waiting = waiting_fact::Model {
            id: 1,
            purchase_external_id: "p".to_owned(),
            refund_external_id: "r".to_owned(),
            content: "{}".to_owned(),
            reason: "no purchase".to_owned(),
            tried_at: now,
            expires_at: now + 100_000_000_000,
            topic: "orders".to_owned(),
            partition: 0,
            message_offset: 8,
            hash: String::new(),
            recorded_at: now,
            key: None,
            headers: "[]".to_owned(),
            size: None,
            payload: Vec::new(),
        };
        waiting_fact::Entity::insert(waiting.into_active_model())
            .exec_without_returning(database.write())
            .await
            .unwrap();
        let position = ingest_position::Model {
            group_name: "windfall".to_owned(),
            topic: "orders".to_owned(),
            partition: 3,
            last_offset: Some(4),
            last_hash: None,
            stopped: Some("failing".to_owned()),
            stopped_at: Some(now),
            lost_from: None,
            lost_to: None,
            resumes: 0,
            updated_at: now,
        };
        ingest_position::Entity::insert(position.into_active_model())
            .exec_without_returning(database.write())
            .await
            .unwrap();
        let report = |topics: &str| {
            let mut command = command(&url);
            command.env("WINDFALL__KAFKA__BROKERS", nobody()).env("WINDFALL__KAFKA__FACTS_TOPICS", topics);
            Report::of(&mut command)
        };
        let of_topic = report("orders,others");
        assert_eq!(of_topic.has("problem", "dead-letters"), "1 dead letter");
        assert!(of_topic.has("advice", "waiting-facts").starts_with("1 refund waiting"), "{:#}", of_topic.document);
        assert_eq!(of_topic.has("problem", "partition-stopped"), "stopped: failing");
        report("others").lacks("partition-stopped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_postgres_that_lose_data_are_told() {
    // The shared server does not wait for its disk.
    let (url, _) = migrated(Engine::Postgres).await;
    let report = Report::of(&mut command(&url));
    report.has("problem", "postgres-synchronous-commit");
    report.has("problem", "postgres-fsync");
    report.has("problem", "postgres-full-page-writes");
    let postgres = Postgres::start(Durability::Fsync);
    let url = postgres.create_database().await;
    execute(&url, &["ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()"]).await;
    let database = open(&url).await;
    database.migrate().await.unwrap();
    let is_off = async || {
        let sql = Statement::from_string(DatabaseBackend::Postgres, "SELECT current_setting('autovacuum')");
        let row = database.read().query_one_raw(sql).await.unwrap().unwrap();
        row.try_get_by_index::<String>(0).unwrap() == "off"
    };
    while !is_off().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let report = Report::of(&mut command(&url));
    report.has("advice", "postgres-autovacuum");
    assert_eq!(report.findings().len(), 1, "{:#}", report.document);
    drop(database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_read_only_is_told() {
    let (url, _) = migrated(Engine::Postgres).await;
    Report::of(&mut command(&url)).lacks("database-read-only");
    let name = url.rsplit('/').next().unwrap();
    execute(&url, &[&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")]).await;
    Report::of(&mut command(&url)).has("problem", "database-read-only");
    let primary = Postgres::start(Durability::Relaxed);
    let url = primary.create_database().await;
    let standby = Postgres::standby_of(primary.address(), Durability::Relaxed);
    let url = standby.url(url.rsplit('/').next().unwrap());
    assert_eq!(Report::of(&mut command(&url)).has("problem", "database-read-only"), "the server is a standby");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_that_do_not_fit_are_told() {
    let (url, _) = migrated(Engine::Postgres).await;
    for (sessions, severity) in [(16, None), (15, Some("advice")), (7, Some("problem"))] {
        limit_sessions(&url, sessions).await;
        let report = Report::of(&mut command(&url));
        match severity {
            None => report.lacks("postgres-connections"),
            Some("advice") => drop(report.has("advice", "postgres-connections").to_owned()),
            _ => drop(report.has("problem", "postgres-connections").to_owned()),
        }
    }
    let report = Report::of(command(&url).env("WINDFALL__DATABASE__CONNECTIONS", "2"));
    report.lacks("postgres-connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_ignores_the_timeouts_is_told() {
    let (url, _) = migrated(Engine::Postgres).await;
    let pooler = PgBouncer::of_sessions(Postgres::shared());
    let report = Report::of(&mut command(&pooler.url(&url)));
    assert!(report.has("problem", "postgres-timeouts").contains("so there is no limit"), "{:#}", report.document);
    // This is what docs/operations asks for.
    let name = url.rsplit('/').next().unwrap();
    let set = |setting: &str| format!("ALTER DATABASE {name} SET {setting}");
    execute(&url, &[&set("statement_timeout = 30000"), &set("idle_in_transaction_session_timeout = 4000")]).await;
    let pooler = PgBouncer::of_sessions(Postgres::shared());
    let report = Report::of(&mut command(&pooler.url(&url)));
    report.has("advice", "postgres-timeouts");
    execute(&url, &[&set("idle_in_transaction_session_timeout = 5000")]).await;
    let pooler = PgBouncer::of_sessions(Postgres::shared());
    Report::of(&mut command(&pooler.url(&url))).lacks("postgres-timeouts");
    // Behind a pooler of transactions, each transaction has the timeouts of the node.
    let pooler = PgBouncer::start(Postgres::shared());
    Report::of(command(&pooler.url(&url)).env("WINDFALL__DATABASE__POOLER", "true")).lacks("postgres-timeouts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_stays_open_is_told() {
    let (url, _) = migrated(Engine::Postgres).await;
    let report = || Report::of(command(&url).env("WINDFALL__DATABASE__IDLE_TRANSACTION_TIMEOUT_MS", "1000"));
    report().lacks("postgres-idle-transactions");
    let forgotten = sea_orm::Database::connect(url.as_str()).await.unwrap();
    let transaction = forgotten.begin().await.unwrap();
    transaction.execute_unprepared("SELECT 1").await.unwrap();
    let watcher = sea_orm::Database::connect(url.as_str()).await.unwrap();
    let sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction' \
        AND state_change < clock_timestamp() - interval '1 second'";
    let is_old = async {
        while watcher.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_old).await.expect("the transaction becomes old");
    let report = report();
    assert!(
        report.has("advice", "postgres-idle-transactions").starts_with("1 idle transaction,"),
        "{:#}",
        report.document
    );
    transaction.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_clock_is_told() {
    let (url, _) = migrated(Engine::Postgres).await;
    let report = |seconds| {
        let clock = WrongClock::by(seconds);
        let mut command = command(&url);
        clock.give_to(&mut command);
        Report::of(&mut command)
    };
    let ahead = report(600);
    assert!(ahead.has("problem", "clock-skew").contains("ahead of"), "{:#}", ahead.document);
    let behind = report(-30);
    assert!(behind.has("advice", "clock-skew").contains("behind"), "{:#}", behind.document);
    report(0).lacks("clock-skew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sqlite_file_is_judged_by_its_journal_and_its_disk() {
    let (url, kept) = migrated(Engine::Sqlite).await;
    Report::of(&mut command(&url)).is_empty();
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy.db");
    assert_eq!(run(command(&url).arg("backup").arg(&copy)).code, Some(0));
    let backup = Report::of(&mut command(&format!("sqlite://{}", copy.display())));
    assert_eq!(backup.has("advice", "sqlite-journal-mode"), "the journal mode of the file is not `wal`");
    // Pretends that a server runs on it.
    let database = open(&format!("sqlite://{}", copy.display())).await;
    let row = program::Model { id: 1, format: FORMAT, zone_data: "2026a".to_owned(), last_seen: Clock::System.now().0 };
    row.into_active_model().insert(database.write()).await.unwrap();
    database.close().await.unwrap();
    let plain = sea_orm::Database::connect(format!("sqlite://{}", copy.display())).await.unwrap();
    plain.execute_unprepared("PRAGMA journal_mode = DELETE").await.unwrap();
    plain.close().await.unwrap();
    Report::of(&mut command(&format!("sqlite://{}", copy.display()))).has("problem", "sqlite-journal-mode");
    // A file that would not fit on its disk a second time. The end takes no room, and SQLite does not read it.
    let path = kept.as_ref().unwrap().path();
    let disk = fs::File::options().write(true).open(&path).unwrap();
    disk.set_len(1 << 43).unwrap();
    let report = Report::of(&mut command(&url));
    assert!(report.has("advice", "sqlite-disk-space").contains("have 8 TiB"), "{:#}", report.document);
}
