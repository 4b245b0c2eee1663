//! Migrations: up and down, several at a time, while others read and write. The migrated schema equals that of the
//! entities.

use std::collections::BTreeMap;
use std::time::Duration;

use migration::online::{create_index, drop_index};
use migration::{MigrationName, MigrationTrait, Migrator, MigratorTrait, SchemaManager};
use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, EntityTrait, Schema, Statement};
use sea_orm_migration::prelude::async_trait::async_trait;
use serde_json::json;
use windfall::app::database::Database;
use windfall::app::purchase::{PurchaseLine, RecordPurchase};
use windfall::app::refund::{self, RecordRefund, RecordRefundLine};
use windfall::app::stored::running::Running;
use windfall::config;

use crate::support::app::{ENGINES, Engine, NOW, TestApp, open, purchase_input, settings};
use crate::support::postgres::Postgres;
use crate::support::sqlite::Sqlite;
use crate::support::websocket::PATIENCE;

/// An empty database. The second value keeps the file of an SQLite database.
async fn empty(engine: Engine) -> (Database, Option<Sqlite>) {
    let sqlite = (engine == Engine::Sqlite).then(Sqlite::new);
    let url = match &sqlite {
        Some(sqlite) => sqlite.url(),
        None => Postgres::shared().create_database().await,
    };
    (open(&url).await, sqlite)
}

/// Every column as a line: table, name, type, nullable, and the place in the primary key.
async fn columns(db: &impl ConnectionTrait) -> Vec<String> {
    let sql = match db.get_database_backend() {
        DatabaseBackend::Postgres => {
            "SELECT concat_ws(' ', c.table_name, c.column_name, c.data_type, c.is_nullable, \
                (SELECT k.ordinal_position FROM information_schema.table_constraints t \
                 JOIN information_schema.key_column_usage k USING (constraint_name, table_name) \
                 WHERE t.constraint_type = 'PRIMARY KEY' AND t.table_name = c.table_name \
                 AND k.column_name = c.column_name)) AS line \
             FROM information_schema.columns c WHERE c.table_schema = 'public' ORDER BY 1"
        }
        _ => {
            "SELECT m.name || ' ' || c.name || ' ' || lower(c.type) || ' ' || c.\"notnull\" || ' ' || c.pk AS line \
             FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY 1"
        }
    };
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    let lines = rows.iter().map(|row| row.try_get::<String>("", "line").unwrap());
    let lines = lines.filter(|line| !line.starts_with("seaql_migrations") && !line.starts_with("sqlite_"));
    // The segments of the outbox are tables on PostgreSQL, which have keys of their own.
    let lines = lines.filter(|line| !line.starts_with("outbox_"));
    lines.map(|line| line.replace("outbox id bigint NO 1", "outbox id bigint NO")).collect()
}

async fn create<E: EntityTrait>(db: &impl ConnectionTrait, entity: E) {
    let table = Schema::new(db.get_database_backend()).create_table_from_entity(entity);
    db.execute(&table).await.unwrap();
}

/// The number of migrations from this one on.
fn since(name: &str) -> u32 {
    let later = Migrator::migrations().iter().rev().take_while(|migration| migration.name() != name).count();
    u32::try_from(later + 1).unwrap()
}

#[tokio::test]
async fn entities_equal_migrations() {
    for engine in ENGINES {
        let (migrated, _kept) = empty(engine).await;
        migrated.migrate().await.unwrap();
        let (made, _kept) = empty(engine).await;
        // SQLite cannot open a file for reading before something was written to it.
        let tx = made.begin().await.unwrap();
        tx.execute_unprepared("CREATE TABLE first (id INT); DROP TABLE first").await.unwrap();
        tx.commit().await.unwrap();
        let db = made.read();
        create(db, entity::award::Entity).await;
        create(db, entity::budget::Entity).await;
        create(db, entity::budget_decision::Entity).await;
        create(db, entity::campaign::Entity).await;
        create(db, entity::campaign_stat::Entity).await;
        create(db, entity::checkpoint::Entity).await;
        create(db, entity::customer::Entity).await;
        create(db, entity::dead_letter::Entity).await;
        create(db, entity::erased_name::Entity).await;
        create(db, entity::ingest_position::Entity).await;
        create(db, entity::waiting_fact::Entity).await;
        create(db, entity::export_chunk::Entity).await;
        create(db, entity::idempotency_key::Entity).await;
        create(db, entity::installation::Entity).await;
        create(db, entity::job::Entity).await;
        create(db, entity::ledger_entry::Entity).await;
        create(db, entity::lot::Entity).await;
        create(db, entity::node::Entity).await;
        create(db, entity::outbox::Entity).await;
        create(db, entity::purchase::Entity).await;
        create(db, entity::purchase_revision::Entity).await;
        create(db, entity::raised_revision::Entity).await;
        create(db, entity::redemption::Entity).await;
        create(db, entity::refund::Entity).await;
        create(db, entity::reward::Entity).await;
        create(db, entity::reward_code::Entity).await;
        create(db, entity::stock::Entity).await;
        create(db, entity::taking::Entity).await;
        create(db, entity::trail_entry::Entity).await;
        create(db, entity::write_probe::Entity).await;
        let expected = columns(migrated.read()).await;
        assert!(expected.len() > 60, "{expected:#?}");
        assert_eq!(columns(db).await, expected, "{engine:?}");
    }
}

#[tokio::test]
async fn up_down_up() {
    for engine in ENGINES {
        let (database, _kept) = empty(engine).await;
        database.migrate().await.unwrap();
        let first = columns(database.read()).await;
        let tx = database.begin().await.unwrap();
        Migrator::down(&tx, None).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(columns(database.read()).await, Vec::<String>::new(), "{engine:?}");
        assert!(database.is_behind().await.unwrap());
        database.migrate().await.unwrap();
        assert_eq!(columns(database.read()).await, first);
        assert!(!database.is_behind().await.unwrap());
    }
}

/// The format that migrations raise a database to. Programs raise it further when the last older one is gone.
const MIGRATED_TO: i64 = 6;

/// Rows of older programs get the values that this program would have written.
#[tokio::test]
async fn rows_that_are_there_are_brought_along() {
    for engine in ENGINES {
        let (database, _kept) = empty(engine).await;
        let tx = database.begin().await.unwrap();
        Migrator::up(&tx, Some(1)).await.unwrap();
        let running = r#"{"4":{"s":{"l":{"t":9,"i":"ä"},"n":3},"c":1,"a":2,"d":0}}"#;
        tx.execute_unprepared(&format!(
            "INSERT INTO customer (id, external_id, recorded_at, version, stamp, evaluated_revision, ledger_sequence, \
             award_number, balance, lifetime, running) VALUES (1, 'ada', 0, 2, 7, 0, 2, 2, 20, 20, '{running}'), \
             (2, 'bob', 0, 0, 0, 0, 0, 0, 0, 0, '{{}}'); \
             INSERT INTO ledger_entry (customer_id, sequence, kind, points, balance_after, created_at, version) \
             VALUES (1, 1, 'adjustment', 10, 10, 111, 1), (1, 2, 'adjustment', 10, 20, 222, 2); \
             INSERT INTO installation (id, installation_id, revision) VALUES (1, 'i', 7)"
        ))
        .await
        .unwrap();
        tx.commit().await.unwrap();
        database.migrate().await.unwrap();
        let customers = entity::customer::Entity::find().all(database.read()).await.unwrap();
        let posted = customers.iter().map(|row| (row.external_id.as_str(), row.posted_at));
        assert_eq!(posted.collect::<BTreeMap<_, _>>(), BTreeMap::from([("ada", 222), ("bob", 0)]), "{engine:?}");
        for row in customers {
            let expected = if row.external_id == "ada" { running } else { "{}" };
            let expected = Running::parse(expected.as_bytes()).unwrap();
            assert_eq!(Running::parse(&row.head).unwrap(), expected, "{engine:?}");
        }
        // Programs of earlier formats cannot read the new names of columns.
        let installation = entity::installation::Entity::find().one(database.read()).await.unwrap().unwrap();
        assert_eq!((installation.format, installation.set_revision), (MIGRATED_TO, 7), "{engine:?}");
    }
}

/// A release without revisions recorded the total of a purchase as the amount of a refund that has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_before_revisions_keeps_its_awards_and_its_meaning() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        test.campaign(json!({
            "name": "a point a euro", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": { "campaign": "WHOLE" },
            "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" }, "budget": 100,
        }))
        .await;
        let lines = Some(vec![PurchaseLine { sku: "a".into(), category: None, quantity: 1, amount: "10".into() }]);
        for id in ["whole", "part", "lines"] {
            let input = RecordPurchase { lines: lines.clone(), ..purchase_input("ada", id, NOW, "20.00") };
            test.send(input).await.unwrap();
        }
        let refund = |of: &str, amount: Option<&str>, lines: Option<Vec<RecordRefundLine>>| RecordRefund {
            external_id: format!("r-{of}"),
            purchase_external_id: of.into(),
            refunded_at: "2026-11-02T12:00:00Z".into(),
            amount: amount.map(str::to_owned),
            lines,
        };
        let of_lines = || Some(vec![RecordRefundLine { sku: "a".into(), amount: "3".into() }]);
        let record = async |test: &TestApp, input| refund::record(&test.app, &TestApp::shop(), vec![], input).await;
        for input in [refund("whole", None, None), refund("part", Some("5"), None), refund("lines", None, of_lines())] {
            record(&test, input).await.unwrap();
        }
        let everything =
            async |test: &TestApp| (test.awards("ada").await, test.ledger("ada").await, test.customer("ada").await);
        let before = everything(&test).await;
        let tx = test.app.database.begin().await.unwrap();
        Migrator::down(&tx, Some(since("m20261130_000001_revise_purchases"))).await.unwrap();
        tx.commit().await.unwrap();
        let amounts = "SELECT CAST(SUM(amount) AS bigint) AS sum FROM refund";
        let db = test.app.database.read();
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), amounts)).await.unwrap().unwrap();
        assert_eq!(row.try_get::<i64>("", "sum").unwrap(), 2_000 + 500 + 300, "{engine:?}");
        test.app.database.migrate().await.unwrap();
        let test = test.again().await;
        assert_eq!(everything(&test).await, before, "{engine:?}");
        test.audit_is_clean().await;
        // It is unknown whether the shop gave the amount, so both are the same refund. Any other amount is not.
        for amount in [None, Some("20")] {
            assert!(record(&test, refund("whole", amount, None)).await.unwrap().replayed, "{engine:?} {amount:?}");
        }
        assert!(record(&test, refund("whole", Some("5"), None)).await.is_err(), "{engine:?}");
        assert!(record(&test, refund("part", Some("5.0"), None)).await.unwrap().replayed, "{engine:?}");
        assert!(record(&test, refund("lines", None, of_lines())).await.unwrap().replayed, "{engine:?}");
        // A refund of the whole follows the total.
        for (id, points) in [("whole", 0), ("part", 25)] {
            let edited = RecordPurchase { revision: 1, ..purchase_input("ada", id, NOW, "30.00") };
            test.send(edited).await.unwrap();
            let awards = test.awards("ada").await;
            let of_it: i64 =
                awards.iter().filter(|award| award.purchase_external_id == id).map(|award| award.points).sum();
            assert_eq!(of_it, points, "{engine:?} {id}");
        }
        test.audit_is_clean().await;
    }
}

/// A migration may wait for a lock longer than the statements of a request may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_outlasts_the_statement_time_out() {
    let url = Postgres::shared().create_database().await;
    let (statement_timeout, longer) = (Duration::from_millis(100), Duration::from_millis(500));
    let options = config::Database { statement_timeout, ..settings(&url).database };
    let database = Database::connect(&options).await.unwrap();
    let tx = database.begin().await.unwrap();
    Migrator::up(&tx, Some(1)).await.unwrap();
    tx.commit().await.unwrap();
    let locked = open(&url).await.begin().await.unwrap();
    locked.execute_unprepared("LOCK TABLE customer IN ACCESS SHARE MODE").await.unwrap();
    let (migrated, ()) = tokio::join!(database.migrate(), async {
        tokio::time::sleep(longer).await;
        locked.rollback().await.unwrap();
    });
    migrated.unwrap();
}

/// A statement that waits for the lock of a table holds up all later users of the table. So a migration waits only
/// briefly at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_waits_for_a_dump_holds_up_no_read() {
    let url = Postgres::shared().create_database().await;
    let options = config::Database { statement_timeout: Duration::from_secs(5), ..settings(&url).database };
    let database = Database::connect(&options).await.unwrap();
    let tx = database.begin().await.unwrap();
    Migrator::up(&tx, Some(1)).await.unwrap();
    tx.commit().await.unwrap();
    let dump = sea_orm::Database::connect(&url).await.unwrap();
    dump.execute_unprepared("BEGIN; LOCK TABLE customer IN ACCESS SHARE MODE").await.unwrap();
    let migrating = {
        let database = database.clone();
        tokio::spawn(async move { database.migrate().await })
    };
    let read = async |sql: &str| -> i64 {
        let row = database.read().query_one_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await;
        row.unwrap().unwrap().try_get_by_index(0).unwrap()
    };
    for _ in 0..3 {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'relation'";
        while read(waiting).await == 0 {
            assert!(!migrating.is_finished());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..20 {
            assert_eq!(read("SELECT count(*) FROM customer").await, 0);
        }
    }
    dump.close().await.unwrap();
    migrating.await.unwrap().unwrap();
    assert!(!database.is_behind().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_migrate_at_once() {
    for engine in ENGINES {
        let sqlite = Sqlite::new();
        let url = match engine {
            Engine::Sqlite => sqlite.url(),
            Engine::Postgres => Postgres::shared().create_database().await,
        };
        let starts = (0..4).map(|_| {
            let url = url.clone();
            tokio::spawn(async move { open(&url).await.migrate().await })
        });
        for start in starts.collect::<Vec<_>>() {
            start.await.unwrap().unwrap();
        }
    }
}

/// The migrations with one more at the end, which creates an index online.
struct WithIndex;

struct IndexPurchases;

const INDEX: &str = "purchase_by_total";

impl MigrationName for IndexPurchases {
    fn name(&self) -> &'static str {
        "m20990101_000001_index_purchases"
    }
}

#[async_trait]
impl MigrationTrait for IndexPurchases {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_index(manager, INDEX, "purchase", "total").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_index(manager, INDEX, "purchase").await
    }
}

#[async_trait]
impl MigratorTrait for WithIndex {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Migrator::migrations().into_iter().chain([Box::new(IndexPurchases) as Box<dyn MigrationTrait>]).collect()
    }
}

/// The single value that a query returns on PostgreSQL, as text.
async fn ask(database: &Database, sql: &str) -> Option<String> {
    let row = database.read().query_one_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await.unwrap();
    row.map(|row| row.try_get_by_index(0).unwrap())
}

const IS_VALID: &str =
    "SELECT (indisvalid AND indisready)::text FROM pg_index WHERE indexrelid = to_regclass('purchase_by_total')";
const BUILDER: &str = "SELECT pid::text FROM pg_stat_activity WHERE query LIKE '%INDEX CONCURRENTLY%' \
    AND datname = current_database() AND wait_event_type = 'Lock'";

/// Waits until the process that builds the index waits for a lock. Returns its process id.
async fn builder(database: &Database) -> String {
    let waits = async {
        loop {
            if let Some(pid) = ask(database, BUILDER).await {
                return pid;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("the process that builds the index waits for a lock")
}

const BUY: &str = "INSERT INTO purchase (external_id, customer_id, purchased_at, recorded_at, total, currency, lines, set_revision, \
    version) SELECT gen_random_uuid()::text, 1, 0, 0, 1, 'EUR', '[]', 0, 1 FROM generate_series(1, 100)";

/// A build that is killed half-way leaves an index that cannot be used, and the next run builds it again. Writers wait
/// for neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_made_while_others_write() {
    let url = Postgres::shared().create_database().await;
    // The statement timeout is shorter than the build of the index.
    let (statement_timeout, longer) = (Duration::from_millis(200), Duration::from_millis(500));
    let options = config::Database { connections: 2, statement_timeout, ..settings(&url).database };
    let database = Database::connect(&options).await.unwrap();
    database.migrate().await.unwrap();
    let others = open(&url).await;
    let write = async || {
        let tx = others.begin().await.unwrap();
        tx.execute_unprepared(BUY).await.unwrap();
        tx.commit().await.unwrap();
    };
    let customer = "INSERT INTO customer (external_id, recorded_at, version, stamp, evaluated_revision, ledger_sequence, \
        award_number, balance, lifetime, head) VALUES ('ada', 0, 0, 0, 0, 0, 0, 0, 0, '')";
    let tx = others.begin().await.unwrap();
    tx.execute_unprepared(customer).await.unwrap();
    tx.commit().await.unwrap();
    write().await;
    for killed in [true, false] {
        // The build waits for transactions that are writing when it begins.
        let writing = others.begin().await.unwrap();
        writing.execute_unprepared(BUY).await.unwrap();
        let building = database.clone();
        let building = tokio::spawn(async move { building.migrate_with::<WithIndex>().await });
        let pid = builder(&others).await;
        write().await;
        if killed {
            ask(&others, &format!("SELECT pg_terminate_backend({pid})::text")).await;
            building.await.unwrap().unwrap_err();
            writing.commit().await.unwrap();
            assert_eq!(ask(&others, IS_VALID).await.as_deref(), Some("false"));
            assert!(WithIndex::get_pending_migrations(others.read()).await.unwrap().len() == 1);
        } else {
            // Another node migrates at the same time. It waits and holds up nobody.
            let other = others.clone();
            let other = tokio::spawn(async move { other.migrate_with::<WithIndex>().await });
            tokio::time::sleep(longer).await;
            write().await;
            writing.commit().await.unwrap();
            building.await.unwrap().unwrap();
            other.await.unwrap().unwrap();
            assert_eq!(ask(&others, IS_VALID).await.as_deref(), Some("true"));
        }
    }
    assert!(WithIndex::get_pending_migrations(others.read()).await.unwrap().is_empty());
    database.migrate_with::<WithIndex>().await.unwrap();
}

#[tokio::test]
async fn on_sqlite_an_index_is_made_with_the_rest() {
    let (database, _kept) = empty(Engine::Sqlite).await;
    database.migrate_with::<WithIndex>().await.unwrap();
    let sql = "SELECT count(*) FROM sqlite_master WHERE name = 'purchase_by_total'";
    let row = database.read().query_one_raw(Statement::from_string(DatabaseBackend::Sqlite, sql)).await.unwrap();
    assert_eq!(row.unwrap().try_get_by_index::<i64>(0).unwrap(), 1);
    let tx = database.begin().await.unwrap();
    WithIndex::down(&tx, None).await.unwrap();
    tx.commit().await.unwrap();
    database.migrate_with::<WithIndex>().await.unwrap();
}
