//! The cost of a write. The numbers of rows and statements do not grow with the history, and the number of statements
//! does not grow with the customers in a batch.

use entity::checkpoint;
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait, Statement};
use serde_json::{Value, json};
use windfall::app::recorder::fact::Fact;
use windfall::app::refund::{self, RecordRefund};
use windfall::engine::time::Instant;

use crate::support::app::{ENGINES, Engine, HOUR, NOW, TestApp, purchase_input};

const MINUTE: i64 = HOUR / 60;
const SHORT: i64 = 240;
const LONG: i64 = 8 * SHORT;
const START: i64 = NOW - 3_000 * HOUR;

/// Campaigns in which a change has local effects, one with a cap that is never reached, one with a cap that is, and
/// rolling windows of several lengths.
fn campaigns(purchases: i64) -> Vec<Value> {
    let campaign = |name: &str, window: Value, goal: Value, cap: Option<i64>| {
        json!({
            "name": name, "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": window, "goal": goal,
            "award": {"points": 10}, "maxPerCustomer": cap,
        })
    };
    let every = || json!({"everyPurchase": "EACH"});
    let days = json!({"calendar": {"unit": "DAY"}});
    let rolling = |duration: &str| json!({"rolling": {"duration": duration}});
    let many = || json!({"purchases": {"atLeast": 5_000}});
    vec![
        campaign("days", days, json!({"purchases": {"atLeast": 3, "repeat": true}}), None),
        campaign("far cap", json!({"campaign": "WHOLE"}), every(), Some(1_000_000)),
        campaign("cap", json!({"campaign": "WHOLE"}), every(), Some(purchases / 2)),
        campaign("ten hours", rolling("PT10H"), many(), None),
        campaign("two days", rolling("P2D"), many(), None),
        campaign("five days", rolling("P5D"), many(), None),
    ]
}

fn fact(customer: &str, id: &str, at: i64) -> Fact {
    Fact::Purchase(purchase_input(customer, id, at, "10.00").check(&[], Instant(NOW)).unwrap())
}

/// A shop with one customer, who bought once an hour.
async fn shop(engine: Engine, purchases: i64) -> TestApp {
    let test = TestApp::start(engine).await;
    if engine == Engine::Postgres {
        // Statistics of a single customer would make PostgreSQL search by time alone.
        for table in ["award", "checkpoint", "customer", "ledger_entry", "purchase", "refund"] {
            let unknown = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
            test.app.database.write().execute_unprepared(&unknown).await.unwrap();
        }
    }
    for campaign in campaigns(purchases) {
        test.campaign(campaign).await;
    }
    let facts: Vec<Fact> = (0..purchases).map(|n| fact("c", &format!("p{n:05}"), START + n * HOUR)).collect();
    for chunk in facts.chunks(250) {
        test.record(chunk.to_vec()).await;
    }
    test
}

fn refund_input(purchase: &str) -> RecordRefund {
    RecordRefund {
        external_id: format!("r-{purchase}"),
        purchase_external_id: purchase.to_owned(),
        refunded_at: Instant(NOW).to_string(),
        amount: None,
        lines: None,
    }
}

async fn refund_of(test: &TestApp, purchase: &str) {
    refund::record(&test.app, &TestApp::shop(), vec![], refund_input(purchase)).await.unwrap();
}

/// The statements of an append, of a late purchase and of its refund. The late purchase comes before the last award
/// that the cap leaves.
async fn changes(test: &TestApp, purchases: i64) -> [u64; 3] {
    let count = || test.app.database.statements();
    let began = count();
    test.buy("c", "append", START + purchases * HOUR, "10.00").await.unwrap();
    let appended = count();
    test.buy("c", "late", START + purchases / 4 * HOUR + MINUTE, "10.00").await.unwrap();
    let late = count();
    refund_of(test, "late").await;
    [appended - began, late - appended, count() - late]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_sends_as_many_statements_in_a_long_history() {
    for engine in ENGINES {
        let mut statements = Vec::new();
        for purchases in [SHORT, LONG] {
            let test = shop(engine, purchases).await;
            statements.push(changes(&test, purchases).await);
            test.audit_is_clean().await;
        }
        for (short, long) in statements[0].into_iter().zip(statements[1]) {
            assert!(long * 10 <= short * 13 && long <= 60, "{engine:?}: {statements:?}");
        }
    }
}

/// The next change can then stop at a stored checkpoint as soon as this one did.
#[tokio::test]
async fn a_local_change_keeps_the_checkpoint_at_which_it_stopped() {
    for engine in ENGINES {
        let test = shop(engine, SHORT).await;
        let checkpoints = async || checkpoint::Entity::find().count(test.app.database.read()).await.unwrap();
        let before = checkpoints().await;
        for n in [30, 100, 101, 200] {
            let input = RecordRefund { amount: Some("0.01".into()), ..refund_input(&format!("p{n:05}")) };
            refund::record(&test.app, &TestApp::shop(), vec![], input).await.unwrap();
        }
        assert_eq!((checkpoints().await, before > 20), (before, true), "{engine:?}");
        test.audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_late_purchases_sends_as_many_statements_as_one() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        for campaign in campaigns(10) {
            test.campaign(campaign).await;
        }
        let customers: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
        for name in &customers {
            let facts = (0..60).map(|n| fact(name, &format!("{name}-{n}"), START + n * HOUR)).collect();
            test.record(facts).await;
        }
        let late = |name: &String, n: i64| fact(name, &format!("{name}-late{n}"), START + 20 * HOUR + n * MINUTE);
        let mut minutes = 1..;
        let mut record = async |customers: &[String]| {
            let (before, minute) = (test.app.database.statements(), minutes.next().unwrap());
            test.record(customers.iter().map(|name| late(name, minute)).collect()).await;
            test.app.database.statements() - before
        };
        let mut statements = vec![record(&customers[..1]).await];
        // On a busy machine, the writer may begin a batch before the call has queued all of its facts.
        let mut fewest = u64::MAX;
        for _ in 0..5 {
            fewest = fewest.min(record(&customers[1..]).await);
        }
        statements.push(fewest);
        assert!(statements[1] <= statements[0] + 1, "{engine:?}: {statements:?}");
        test.audit_is_clean().await;
    }
}

/// The rows that PostgreSQL has read from the tables of this database so far, by its own count. No other test uses the
/// database. PostgreSQL counts what a connection read once the connection has ended, so this waits for the others to
/// end.
async fn rows_read(test: &TestApp) -> i64 {
    let mut options = sea_orm::ConnectOptions::new(&test.url);
    options.max_connections(1);
    let database = sea_orm::Database::connect(options).await.unwrap();
    let number = async |sql: &str| -> i64 {
        let statement = Statement::from_string(sea_orm::DatabaseBackend::Postgres, sql);
        database.query_one_raw(statement).await.unwrap().unwrap().try_get("", "n").unwrap()
    };
    let others = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() \
        AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    while number(others).await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let rows = "SELECT (COALESCE(SUM(seq_tup_read), 0) + COALESCE(SUM(idx_tup_fetch), 0))::bigint AS n \
        FROM pg_stat_user_tables";
    let rows = number(rows).await;
    database.close().await.unwrap();
    rows
}

/// Starts an application for one write. Returns the rows that it reads, including those of its start, and an
/// application for the next write.
async fn rows_of(test: TestApp, write: impl AsyncFn(&TestApp)) -> (TestApp, i64) {
    test.app.stop().await.unwrap();
    let before = rows_read(&test).await;
    let test = test.again().await;
    write(&test).await;
    test.app.stop().await.unwrap();
    let rows = rows_read(&test).await - before;
    (test.again().await, rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_reads_as_many_rows_in_a_long_history() {
    let mut rows = Vec::new();
    for purchases in [SHORT, LONG] {
        let test = shop(Engine::Postgres, purchases).await;
        // Otherwise PostgreSQL reads small tables whole.
        let tx = test.app.database.begin().await.unwrap();
        let searched =
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET enable_seqscan = off', current_database()); END $$";
        tx.execute_unprepared(searched).await.unwrap();
        tx.commit().await.unwrap();
        let append = async |test: &TestApp| {
            test.buy("c", "append", START + purchases * HOUR, "10.00").await.unwrap();
        };
        let late = async |test: &TestApp| {
            test.buy("c", "late", START + purchases / 4 * HOUR + MINUTE, "10.00").await.unwrap();
        };
        let refund = async |test: &TestApp| refund_of(test, "late").await;
        let (test, appended) = rows_of(test, append).await;
        let (test, late) = rows_of(test, late).await;
        let (test, refunded) = rows_of(test, refund).await;
        rows.push([appended, late, refunded]);
        test.audit_is_clean().await;
    }
    for (short, long) in rows[0].into_iter().zip(rows[1]) {
        assert!(long * 10 <= short * 13, "{rows:?}");
    }
}
