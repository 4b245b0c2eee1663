//! The statements and the rows that an audit reads grow only with the amount of recorded data, and its memory does not grow
//! at all, even if one customer has all the data.

use std::time::Duration;

use entity::{award, checkpoint, ledger_entry, purchase};
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait};
use serde_json::json;
use windfall::app::clock::Clock;
use windfall::app::database::Database;
use windfall::app::purchase::PurchaseLine;
use windfall::app::recorder::fact::Fact;
use windfall::app::refund::{self, RecordRefund};
use windfall::app::{App, audit};
use windfall::engine::time::Instant;

use crate::support::alloc;
use crate::support::app::{DAY, Engine, HOUR, NOW, TestApp, cases, purchase_input, settings};
use crate::support::rows::rows_read;

const SMALL: usize = 1_000;
const WIDE: usize = 40;

/// Makes a campaign for each kind of fold: per purchase, per month, and in a rolling window with more purchases than are kept
/// in memory.
async fn campaigns(test: &TestApp) {
    let rest = json!({ "startsAt": "2020-01-01T00:00:00Z", "currency": "EUR", "award": { "points": 10 } });
    for (name, window, goal) in [
        ("each", json!({ "campaign": "WHOLE" }), json!({ "everyPurchase": "EACH" })),
        ("months", json!({ "calendar": { "unit": "MONTH" } }), json!({ "spend": { "amount": "100", "repeat": true } })),
        ("rolling", json!({ "rolling": { "duration": "P30D" } }), json!({ "purchases": { "atLeast": 1_000_000 } })),
    ] {
        let mut input = rest.clone();
        for (key, value) in [("name", json!(name)), ("window", window), ("goal", goal)] {
            input[key] = value;
        }
        test.campaign(input).await;
    }
}

/// Records `count` purchases of one customer, an hour apart, with `lines` lines each. Some of them are refunded.
async fn record(test: &TestApp, count: usize, lines: usize) {
    campaigns(test).await;
    let first = NOW - i64::try_from(count).unwrap() * HOUR;
    let purchase = |number: usize| {
        let at = first + i64::try_from(number).unwrap() * HOUR;
        let mut input = purchase_input("guest", &format!("purchase-{number:06}"), at, "15.00");
        let line = |line: usize| PurchaseLine {
            sku: format!("{number}-{line}-{}", "x".repeat(150)),
            category: None,
            quantity: 1,
            amount: "0.01".to_owned(),
        };
        input.lines = Some((0..lines).map(line).collect());
        Fact::Purchase(input.check(&[], Instant(NOW)).unwrap())
    };
    let numbers: Vec<usize> = (0..count).collect();
    for numbers in numbers.chunks(250) {
        test.record(numbers.iter().map(|number| purchase(*number)).collect()).await;
        for number in numbers.iter().rev().take(numbers.len() / 50 + 1) {
            let refund = RecordRefund {
                external_id: format!("refund-{number}"),
                purchase_external_id: format!("purchase-{number:06}"),
                refunded_at: "2026-11-02T12:00:00Z".into(),
                amount: None,
                lines: None,
            };
            refund::record(&test.app, &TestApp::shop(), vec![], refund).await.unwrap();
        }
    }
}

/// Returns how many rows of each table an audit may read. A purchase is read once more when it leaves a window that has more
/// purchases than are kept in memory. Each time, its refunds are measured and then read. An award is read with its purchase,
/// with each of its ledger entries, and for the counters of its campaign. The search for orphans reads each row once more, and the
/// purchase of each refund.
async fn rows(database: &Database) -> Vec<(&'static str, u64)> {
    let db = database.read();
    let (awards, entries) = (award::Entity::find().count(db).await, ledger_entry::Entity::find().count(db).await);
    let (awards, entries) = (awards.unwrap(), entries.unwrap());
    let refunds = entity::refund::Entity::find().count(db).await.unwrap();
    vec![
        ("purchase", 3 * purchase::Entity::find().count(db).await.unwrap() + refunds),
        ("refund", 5 * refunds),
        ("award", 3 * awards + entries),
        ("ledger_entry", 3 * entries),
        ("checkpoint", 3 * checkpoint::Entity::find().count(db).await.unwrap()),
    ]
}

/// Runs in a process of its own. Returns the peak of allocated bytes, the number of statements and, on PostgreSQL, the number
/// of tables that were read too often.
async fn measure(engine: Engine, count: usize, lines: usize) -> [u64; 3] {
    let test = TestApp::start(engine).await;
    let url = test.url();
    record(&test, count, lines).await;
    let allowed = rows(&test.app.database).await;
    test.app.stop().await.unwrap();
    let read = async || if engine == Engine::Postgres { rows_read(&url).await } else { Default::default() };
    let before = read().await;
    let again = test.another().await;
    let statements = again.database.statements();
    let (audited, peak) = alloc::peak_during(audit::run(&again, None, |found| panic!("{found}"))).await;
    let statements = again.database.statements() - statements;
    assert_eq!(audited.unwrap().customers, 1);
    again.stop().await.unwrap();
    let after = read().await;
    let mut too_often = 0;
    for (table, allowed) in allowed {
        let read = after.get(table).unwrap_or(&0) - before.get(table).unwrap_or(&0);
        too_often += u64::from(read > allowed);
        assert!(engine == Engine::Sqlite || read > 0, "{table} was not read");
    }
    [peak, statements, too_often]
}

fn engine(name: &str) -> Engine {
    if name == "sqlite" { Engine::Sqlite } else { Engine::Postgres }
}

/// Runs a test of this module with `count` purchases and with eight times as many, and compares what they take.
fn compare(test: &str, engine: &str, count: usize, lines: usize) {
    let measured = |count: usize| alloc::alone::<3>(test, &format!("{engine} {count} {lines}"));
    let ([small, few, read_small], [big, many, read_big]) = (measured(count), measured(8 * count));
    assert!(big * 10 <= small * 13, "{engine}: {small} bytes, {big} for eight times as many purchases");
    assert!(many <= 8 * few, "{engine}: {few} statements, {many} for eight times as many purchases");
    assert_eq!((read_small, read_big), (0, 0), "{engine}: rows were read too often");
}

async fn measure_if_asked() -> bool {
    let Some(case) = alloc::case() else { return false };
    let parts: Vec<&str> = case.split(' ').collect();
    let [name, count, lines] = parts[..] else { panic!("{case}") };
    alloc::tell(&measure(engine(name), count.parse().unwrap(), lines.parse().unwrap()).await);
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_customer_with_eight_times_as_much_takes_no_more_memory_on_sqlite() {
    const TEST: &str = "audit::size::one_customer_with_eight_times_as_much_takes_no_more_memory_on_sqlite";
    if !measure_if_asked().await {
        compare(TEST, "sqlite", cases(SMALL, 25 * SMALL), 1);
        // With wide rows, the limit on bytes ends a page long before the limit on rows does.
        compare(TEST, "sqlite", WIDE, 300);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_customer_with_eight_times_as_much_takes_no_more_memory_on_postgres() {
    const TEST: &str = "audit::size::one_customer_with_eight_times_as_much_takes_no_more_memory_on_postgres";
    if !measure_if_asked().await {
        compare(TEST, "postgres", cases(SMALL, 25 * SMALL), 1);
    }
}

/// The statement timeout of requests does not apply to an audit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_outlasts_the_statement_time_out() {
    let test = TestApp::start(Engine::Postgres).await;
    campaigns(&test).await;
    for number in 0..40 {
        test.buy("ada", &format!("p{number}"), NOW - DAY + number, "5.00").await.unwrap();
    }
    let tx = test.app.database.begin().await.unwrap();
    tx.execute_unprepared(
        "ALTER TABLE checkpoint RENAME TO kept; \
         CREATE VIEW checkpoint AS SELECT kept.* FROM kept, (SELECT pg_sleep(2.5)) AS slept",
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let statement_timeout = Duration::from_secs(2);
    let mut config = settings(&test.url());
    (config.database.connections, config.database.statement_timeout) = (2, statement_timeout);
    let database = Database::connect(&config.database).await.unwrap();
    let app = App::start(database, Clock::System, &config).await.unwrap();
    let audited = audit::run(&app, None, |found| panic!("{found}")).await.unwrap();
    assert_eq!((audited.customers, audited.differences), (1, 0));
    // A request's statement on the same table exceeds the timeout.
    let slow = checkpoint::Entity::find().all(app.database.read()).await;
    assert!(slow.unwrap_err().to_string().contains("statement timeout"));
}
