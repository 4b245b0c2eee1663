//! Jobs that are due let purchases pass: while purchases wait, at most one commit of a job comes between two batches.

use std::sync::Arc;
use std::time::Duration;

use entity::{JobState, job};
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseBackend, EntityTrait, PaginatorTrait, QueryFilter, Statement};
use tokio_util::sync::CancellationToken;
use windfall::app::database::MAX_OPEN_BATCHES;
use windfall::app::jobs::{queue, runner};
use windfall::app::recorder::fact::Fact;
use windfall::engine::time::Instant;

use crate::support::app::{ENGINES, NOW, TestApp, cases, purchase_input};

/// Makes the database note the order in which purchases and changes of jobs are written. On PostgreSQL, where both are written at
/// the same time, batches take longer than they would, so that jobs could commit many times meanwhile.
async fn note_writes(test: &TestApp) {
    let postgres = test.app.database.backend() == DatabaseBackend::Postgres;
    let steps: &[&str] = if postgres {
        &[
            "CREATE TABLE written (place bigserial PRIMARY KEY, what text NOT NULL)",
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO written (what) VALUES (TG_ARGV[0]); RETURN NULL; END $$",
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$",
            "CREATE TRIGGER slow BEFORE INSERT ON purchase FOR EACH ROW EXECUTE FUNCTION slow()",
            "CREATE TRIGGER note AFTER INSERT ON purchase FOR EACH ROW EXECUTE FUNCTION note('batch')",
            "CREATE TRIGGER note AFTER UPDATE ON job FOR EACH ROW EXECUTE FUNCTION note('job')",
        ]
    } else {
        &[
            "CREATE TABLE written (place INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL)",
            "CREATE TRIGGER note_purchase AFTER INSERT ON purchase BEGIN INSERT INTO written (what) VALUES ('batch'); END",
            "CREATE TRIGGER note_job AFTER UPDATE ON job BEGIN INSERT INTO written (what) VALUES ('job'); END",
        ]
    };
    for sql in steps {
        test.app.database.write().execute_unprepared(sql).await.unwrap();
    }
}

/// Inserts customers without purchases, and a job that is due for each of them.
async fn put_jobs(test: &TestApp, jobs: usize) {
    let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {jobs})");
    for sql in [
        format!(
            "INSERT INTO customer (external_id, recorded_at, version, stamp, evaluated_revision, ledger_sequence, posted_at, \
             award_number, balance, lifetime, head) {numbers} SELECT 'j' || i, 0, 1, i, 0, 0, 0, 0, 0, 0, {} FROM n",
            if test.app.database.backend() == DatabaseBackend::Postgres { "''::bytea" } else { "x''" }
        ),
        format!(
            "INSERT INTO job (kind, unique_key, customer_id, state, requests, attempts, run_at, created_at) \
             SELECT 'evaluation', 'evaluation:customer:' || id, id, 'waiting', 1, 0, {NOW}, {NOW} FROM customer"
        ),
    ] {
        test.app.database.write().execute_unprepared(&sql).await.unwrap();
    }
}

/// Returns what was written, in order, up to the last purchase.
async fn written(test: &TestApp) -> Vec<String> {
    let sql =
        "SELECT what FROM written WHERE place <= (SELECT MAX(place) FROM written WHERE what = 'batch') ORDER BY place";
    let db = test.app.database.read();
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    rows.iter().map(|row| row.try_get("", "what").unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn due_jobs_let_purchases_pass() {
    for engine in ENGINES {
        let (jobs, purchases) = (cases(300, 10_000), cases(1_500, 40_000));
        // Each purchase is a batch of its own.
        let test = TestApp::start_with(engine, |config| {
            config.writer.batch_items = 1;
            config.writer.queue_items = 2 * purchases;
        })
        .await;
        put_jobs(&test, jobs).await;
        note_writes(&test).await;
        let mut answers = Vec::with_capacity(purchases);
        for n in 0..purchases {
            let input = purchase_input(&format!("b{}", n % 50), &format!("p{n}"), NOW, "1.00");
            let purchase = input.check(&[], Instant(NOW)).unwrap();
            answers.push(test.app.recorder.record_when_free(Fact::Purchase(purchase)).await.unwrap());
        }
        let stop = CancellationToken::new();
        let running = tokio::spawn(runner::run(Arc::clone(&test.app), stop.clone()));
        for answer in answers {
            answer.await.unwrap().unwrap().unwrap();
        }
        let written = written(&test).await;
        while queue::has_unfinished_evaluations(&test.app).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
        running.await.unwrap();

        // How many more commits of jobs than batches there are in any stretch. Several batches may be under way on PostgreSQL.
        let most = if test.app.database.backend() == DatabaseBackend::Postgres { 1 + MAX_OPEN_BATCHES } else { 1 };
        let (mut ahead, mut of_jobs) = (0_usize, 0);
        for (place, what) in written.iter().enumerate() {
            if what == "job" {
                (ahead, of_jobs) = (ahead + 1, of_jobs + 1);
            } else {
                ahead = ahead.saturating_sub(1);
            }
            assert!(ahead <= most, "{engine:?}: {ahead} commits of jobs too many at {place} of {}", written.len());
        }
        assert!(of_jobs > 10, "{engine:?}: {of_jobs} commits of jobs beside {purchases} purchases");
        let done =
            job::Entity::find().filter(job::Column::State.eq(JobState::Done)).filter(job::Column::CustomerId.gt(0));
        assert_eq!(done.count(test.app.database.read()).await.unwrap(), jobs as u64, "{engine:?}");
        println!("{engine:?}: {of_jobs} commits of jobs beside {purchases} batches");
    }
}
