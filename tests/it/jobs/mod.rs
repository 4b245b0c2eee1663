//! Jobs: their leases and failures, and the evaluation of long histories in bounded commits.

mod audit;
mod erasure;
mod expiry;
mod export;
mod fairness;
mod killed;
mod retention;
mod ticks;

use std::time::Duration;

use entity::{JobKind, JobState, job};
use sea_orm::{ConnectionTrait, EntityTrait, Statement};
use serde_json::json;
use windfall::app::campaign;
use windfall::app::database::Database;
use windfall::app::error::Error;
use windfall::app::jobs::queue::{self, LEASE, MAX_ATTEMPTS};
use windfall::app::jobs::request::{Wanted, request};
use windfall::app::jobs::{evaluation, runner, transition};
use windfall::app::recorder::fact::{Fact, Recorded};
use windfall::app::refund::{self, RecordRefund};
use windfall::engine::time::Instant;

use crate::support::app::{DAY, ENGINES, Engine, HOUR, NOW, TestApp, open, purchase_input, settings};
use crate::support::websocket::PATIENCE;

/// The most purchases that one commit may evaluate in these tests.
const FOLD: usize = 40;

async fn start(engine: Engine) -> TestApp {
    TestApp::start_with(engine, |config| config.writer.fold_purchases = FOLD).await
}

/// Records `count` purchases of a customer, an hour apart. The latest is two days old.
async fn buy_many(test: &TestApp, customer: &str, count: i64) {
    let inputs = (0..count).map(|n| {
        let at = NOW - 2 * DAY - (count - n) * HOUR;
        (vec![], purchase_input(customer, &format!("{customer}{n:05}"), at, "4.00"))
    });
    let shop = TestApp::shop();
    for answer in windfall::app::purchase::record(&test.app, &shop, inputs.collect()).await.unwrap() {
        answer.unwrap();
    }
}

async fn draft(test: &TestApp, over: serde_json::Value) -> entity::CampaignId {
    let mut input = json!({
        "name": "each", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": {"campaign": "WHOLE"},
        "goal": {"everyPurchase": "EACH"}, "award": {"points": 10}
    });
    input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    campaign::create(&test.app, &TestApp::actor(), serde_json::from_value(input).unwrap(), None).await.unwrap().id()
}

async fn evaluate(test: &TestApp, customer: &str) -> Recorded {
    test.record(vec![Fact::Evaluation(customer.to_owned())]).await.remove(0)
}

async fn job_of(test: &TestApp, key: &str) -> job::Model {
    let jobs = job::Entity::find().all(test.app.database.read()).await.unwrap();
    jobs.into_iter().find(|job| job.unique_key.starts_with(key)).unwrap()
}

/// A history that is too long for one commit is evaluated from mark to mark. At each mark the ledger is exact: new
/// facts before the mark count at once, and those after it wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_history_is_evaluated_in_bounded_commits() {
    for engine in ENGINES {
        let test = start(engine).await;
        let count = 3 * i64::try_from(FOLD).unwrap() + 7;
        buy_many(&test, "guest", count).await;
        let each = draft(&test, json!({})).await;
        campaign::activate(&test.app, &TestApp::actor(), each).await.unwrap();
        let mut commits = 0;
        loop {
            let before = test.customer("guest").await.unwrap();
            let recorded = evaluate(&test, "guest").await;
            commits += 1;
            test.audit_is_clean().await;
            assert!(recorded.customer.ledger_sequence - before.ledger_sequence <= i64::try_from(FOLD).unwrap());
            if !recorded.deferred {
                break;
            }
            if commits == 1 {
                assert_eq!(recorded.customer.balance, 10 * i64::try_from(FOLD).unwrap(), "{engine:?}");
                // A purchase after the mark is recorded, and its evaluation is left to the job.
                assert_eq!(test.buy("guest", "new", NOW, "4.00").await.unwrap().customer.balance, 400);
                // A purchase before the mark is counted at once.
                let early = NOW - 2 * DAY - count * HOUR - 1;
                assert_eq!(test.buy("guest", "early", early, "4.00").await.unwrap().customer.balance, 410);
                let input = RecordRefund {
                    external_id: "r".into(),
                    purchase_external_id: "guest00003".into(),
                    refunded_at: "2026-11-02T12:00:00Z".into(),
                    amount: None,
                    lines: None,
                };
                let refunded = refund::record(&test.app, &TestApp::shop(), vec![], input).await.unwrap();
                assert_eq!(refunded.customer.balance, 400);
                test.audit_is_clean().await;
            }
        }
        assert_eq!(commits, 4, "{engine:?}");
        assert_eq!(test.customer("guest").await.unwrap().balance, 10 * (count + 1));
        runner::finish(&test.app).await.unwrap();
        assert_eq!(test.customer("guest").await.unwrap().balance, 10 * (count + 1));
        test.audit_is_clean().await;
    }
}

/// The first write of a customer after an activation evaluates no more than one commit may. A job does the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_defers_what_does_not_fit() {
    for engine in ENGINES {
        let test = start(engine).await;
        buy_many(&test, "guest", 100).await;
        let each = draft(&test, json!({})).await;
        campaign::activate(&test.app, &TestApp::actor(), each).await.unwrap();
        let bought = test.buy("guest", "new", NOW, "4.00").await.unwrap();
        assert!(bought.deferred);
        assert_eq!(bought.customer.balance, 10 * i64::try_from(FOLD).unwrap(), "{engine:?}");
        assert_eq!(job_of(&test, "evaluation:customer").await.state, JobState::Waiting);
        test.audit_is_clean().await;
        runner::finish(&test.app).await.unwrap();
        assert_eq!(test.customer("guest").await.unwrap().balance, 1_010);
        assert_eq!(job_of(&test, "evaluation:customer").await.state, JobState::Done);
        test.audit_is_clean().await;
    }
}

/// Campaigns of every kind that are deferred at different marks end with the same awards as without marks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_lead_to_the_same_awards() {
    let rules = [
        json!({}),
        json!({"goal": {"purchases": {"atLeast": 3, "repeat": true}}, "startsAt": "2026-10-27T05:30:00Z"}),
        json!({"goal": {"purchases": {"atLeast": 5}}, "window": {"rolling": {"duration": "PT30H"}}}),
        json!({"goal": {"distinct": {"of": "SKU", "atLeast": 1}}, "window": {"session": {"gap": "PT2H"}}}),
        json!({"goal": {"purchases": {"atLeast": 2}}, "window": {"timer": {"duration": "PT5H", "reopens": true}},
            "maxPerCustomer": 20}),
        json!({"goal": {"streak": {"length": 2, "repeat": true}}, "window": {"calendar": {"unit": "DAY"}}}),
    ];
    for engine in ENGINES {
        let (deferred, at_once) = (start(engine).await, TestApp::start(engine).await);
        for test in [&deferred, &at_once] {
            buy_many(test, "guest", 150).await;
            for rule in &rules {
                let id = draft(test, rule.clone()).await;
                campaign::activate(&test.app, &TestApp::actor(), id).await.unwrap();
            }
            evaluate(test, "guest").await;
            test.audit_is_clean().await;
            let last = draft(test, json!({"goal": {"purchases": {"atLeast": 7}}})).await;
            campaign::activate(&test.app, &TestApp::actor(), last).await.unwrap();
            runner::finish(&test.app).await.unwrap();
            test.audit_is_clean().await;
        }
        let reached = async |test: &TestApp| {
            let awards = test.awards("guest").await.into_iter();
            let mut reached: Vec<_> =
                awards.map(|award| (award.campaign_id.0, award.earned_at, award.nth, award.points)).collect();
            reached.sort_unstable();
            reached
        };
        let (one, other) = (reached(&deferred).await, reached(&at_once).await);
        assert!(one.len() > 150, "{engine:?}: {}", one.len());
        assert_eq!(one, other, "{engine:?}");
    }
}

/// A campaign is settled only when no customer waits for its evaluation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settlement_waits_for_marks() {
    let test = start(Engine::Sqlite).await;
    buy_many(&test, "guest", 100).await;
    let over = json!({"endsAt": "2026-11-02T00:00:00Z", "lateness": "P1D"});
    let id = draft(&test, over).await;
    campaign::activate(&test.app, &TestApp::actor(), id).await.unwrap();
    assert!(evaluate(&test, "guest").await.deferred);
    // Pretends that the job of the campaign itself is complete.
    let close = format!("UPDATE campaign SET backfilled_to = NULL WHERE id = {}", id.0);
    test.app.database.write().execute_unprepared(&close).await.unwrap();
    test.set_now(NOW + 2 * DAY);
    let settle = async || windfall::app::jobs::settlement::run(&test.app).await.unwrap();
    assert_eq!(settle().await, 0);
    runner::finish(&test.app).await.unwrap();
    assert_eq!(test.customer("guest").await.unwrap().balance, 1_000);
    assert_eq!(settle().await, 1);
    test.audit_is_clean().await;
}

/// A worker holds a job by a lease. After the lease another worker takes the job over; after too many attempts the job
/// is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_dead_worker_is_taken_over_and_given_up_at_last() {
    for engine in ENGINES {
        let test = start(engine).await;
        test.buy("c", "p", NOW, "1.00").await.unwrap();
        let id = draft(&test, json!({})).await;
        campaign::activate(&test.app, &TestApp::actor(), id).await.unwrap();
        let lease = i64::try_from(LEASE.as_micros()).unwrap();
        let first = queue::claim(&test.app, &[JobKind::Evaluation]).await.unwrap().unwrap();
        assert!(
            queue::claim(&test.app, &[JobKind::Evaluation]).await.unwrap().is_none(),
            "{engine:?}: a leased job was claimed"
        );
        test.set_now(NOW + lease);
        let second = queue::claim(&test.app, &[JobKind::Evaluation]).await.unwrap().unwrap();
        assert_eq!((second.id, second.attempts), (first.id, 2));
        assert!(matches!(queue::renew(&test.app, &first, None).await, Err(Error::Internal(_))), "a lost lease renewed");
        assert_eq!(queue::end(&test.app, &first, queue::End::Done).await.unwrap(), None);
        assert_eq!(job_of(&test, "evaluation").await.state, JobState::Running, "{engine:?}: ended without its lease");
        for attempt in 2..=MAX_ATTEMPTS {
            test.set_now(NOW + attempt * lease);
            assert!(
                attempt == MAX_ATTEMPTS || queue::claim(&test.app, &[JobKind::Evaluation]).await.unwrap().is_some()
            );
        }
        runner::run_due(&test.app).await.unwrap_err();
        let dead = job_of(&test, "evaluation").await;
        assert_eq!(dead.state, JobState::Dead, "{engine:?}");
        assert!(dead.error.unwrap().contains("ended 8 times"));
        assert_eq!(queue::revive(&test.app).await.unwrap(), 1);
        runner::finish(&test.app).await.unwrap();
        assert_eq!(test.customer("c").await.unwrap().balance, 10);
    }
}

/// A customer that cannot be evaluated stops neither other customers nor other jobs. It shows as a dead job.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_that_fails_stops_nobody() {
    for engine in ENGINES {
        let test = start(engine).await;
        for customer in ["a", "b", "c", "d"] {
            test.buy(customer, customer, NOW, "1.00").await.unwrap();
        }
        // `b` fails with an error. `c` fails with a panic, because its next version overflows.
        let spoil = "UPDATE customer SET head = 'no state' WHERE external_id = 'b'; \
            UPDATE customer SET version = 9223372036854775807 WHERE external_id = 'c'";
        test.app.database.write().execute_unprepared(spoil).await.unwrap();
        let id = draft(&test, json!({})).await;
        campaign::activate(&test.app, &TestApp::actor(), id).await.unwrap();
        let mut now = NOW;
        for _ in 0..4 * MAX_ATTEMPTS {
            // The queue waits after each failure, so the clock has to move on.
            let _ = runner::run_due(&test.app).await;
            now += 5 * 60_000_000;
            test.set_now(now);
        }
        for (customer, balance) in [("a", 10), ("b", 0), ("c", 0), ("d", 10)] {
            assert_eq!(test.customer(customer).await.unwrap().balance, balance, "{engine:?}: {customer}");
        }
        let jobs = job::Entity::find().all(test.app.database.read()).await.unwrap();
        assert_eq!(jobs.iter().filter(|job| job.state == JobState::Dead).count(), 2, "{engine:?}: {jobs:?}");
        let counts = queue::counts(&test.app).await.unwrap();
        assert!(counts.contains(&(JobKind::Evaluation, JobState::Dead, 2)), "{engine:?}: {counts:?}");
        let backfills = evaluation::load_backfills(&test.app, &[id]).await.unwrap();
        assert_eq!(backfills[&id], (2, 4), "{engine:?}");
        let mend = "UPDATE customer SET head = '{}' WHERE external_id = 'b'; \
            UPDATE customer SET version = 1 WHERE external_id = 'c'";
        test.app.database.write().execute_unprepared(mend).await.unwrap();
        assert_eq!(queue::revive(&test.app).await.unwrap(), 2);
        runner::finish(&test.app).await.unwrap();
        assert!(evaluation::load_backfills(&test.app, &[id]).await.unwrap().is_empty());
        assert_eq!(test.customer("b").await.unwrap().balance + test.customer("c").await.unwrap().balance, 20);
        test.audit_is_clean().await;
    }
}

/// A statement that exceeds its timeout fails the item at fault, not its whole batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_too_long_is_alone_with_it() {
    let (url, _) = crate::support::app::scratch(Engine::Postgres).await;
    let statement_timeout = Duration::from_millis(200);
    let mut config = settings(&url);
    (config.database.connections, config.database.statement_timeout) = (4, statement_timeout);
    let test = TestApp::on(config).await;
    for customer in ["a", "b", "c"] {
        test.buy(customer, customer, NOW, "1.00").await.unwrap();
    }
    let other = test.another().await;
    let lock = other.database.begin().await.unwrap();
    lock.execute_unprepared("SELECT 1 FROM customer WHERE external_id = 'b' FOR UPDATE").await.unwrap();
    let inputs = ["a", "b", "c"].map(|name| (vec![], purchase_input(name, &format!("{name}2"), NOW, "1.00")));
    let answers = windfall::app::purchase::record(&test.app, &TestApp::shop(), inputs.into()).await.unwrap();
    lock.rollback().await.unwrap();
    let recorded: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(recorded, [true, false, true], "{answers:?}");
    assert!(answers[1].as_ref().unwrap_err().is_retryable());
    test.buy("b", "b2", NOW, "1.00").await.unwrap();
    test.audit_is_clean().await;
}

/// Waits until a session waits for a lock (PostgreSQL).
async fn somebody_waits(database: &Database) {
    let sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waits = async {
        while database.read().query_one_raw(Statement::from_string(database.backend(), sql)).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("a session that waits for a lock");
}

/// A worker is held up just before it saves the progress of a backfill. Meanwhile another worker completes the backfill. The first
/// one must not open it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_commit_of_a_zombie_is_fenced_off() {
    for engine in ENGINES {
        let test = start(engine).await;
        test.buy("c", "p", NOW, "1.00").await.unwrap();
        let id = draft(&test, json!({})).await;
        campaign::activate(&test.app, &TestApp::actor(), id).await.unwrap();
        let zombie = queue::claim(&test.app, &[JobKind::Evaluation]).await.unwrap().unwrap();
        // On SQLite, this transaction keeps everybody else from writing.
        let database = open(&test.url).await;
        let other = database.begin().await.unwrap();
        if engine == Engine::Postgres {
            other.execute_unprepared("SELECT FROM job FOR UPDATE; SELECT FROM campaign FOR UPDATE").await.unwrap();
        }
        let running = {
            let (app, job) = (std::sync::Arc::clone(&test.app), zombie.clone());
            tokio::spawn(async move { evaluation::run_campaign(&app, &job, id).await })
        };
        let waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waits = Statement::from_string(database.backend(), waits);
        let is_held_up = async || match engine {
            Engine::Postgres => database.read().query_one_raw(waits.clone()).await.unwrap().is_some(),
            // The evaluation of the customer cannot be written.
            Engine::Sqlite => test.app.recorder.queued().0 > 0,
        };
        let held_up = async {
            while !is_held_up().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, held_up).await.expect("the zombie waits for its commit");
        let complete = "UPDATE job SET state = 'done', lease = NULL, leased_until = NULL, done = 9, total = 9; \
            UPDATE campaign SET backfilled_to = NULL";
        other.execute_unprepared(complete).await.unwrap();
        other.commit().await.unwrap();
        assert!(matches!(running.await.unwrap(), Err(Error::Internal(_))), "{engine:?}: a lost lease was not noticed");
        let row = entity::campaign::Entity::find_by_id(id).one(database.read()).await.unwrap().unwrap();
        assert_eq!(row.backfilled_to, None, "{engine:?}: the backfill was opened again");
        let job = job_of(&test, "evaluation").await;
        assert_eq!((job.state, job.done), (JobState::Done, Some(9)), "{engine:?}");
        assert_eq!(queue::end(&test.app, &zombie, queue::End::Done).await.unwrap(), None);
        // What it had handed to the write path does no harm.
        assert_eq!(test.customer("c").await.unwrap().balance, 10, "{engine:?}");
        test.audit_is_clean().await;
    }
}

/// A program that runs jobs before it ends does not fail because an admin cancels one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_cancelled_is_no_failure() {
    let test = start(Engine::Postgres).await;
    test.buy("c", "p", NOW, "1.00").await.unwrap();
    let id = draft(&test, json!({})).await;
    campaign::activate(&test.app, &TestApp::actor(), id).await.unwrap();
    let database = open(&test.url).await;
    let lock = database.begin().await.unwrap();
    lock.execute_unprepared("SELECT FROM customer FOR UPDATE").await.unwrap();
    let finishing = {
        let app = std::sync::Arc::clone(&test.app);
        tokio::spawn(async move { runner::finish(&app).await })
    };
    somebody_waits(&database).await;
    let running = job_of(&test, "evaluation").await;
    assert_eq!(running.state, JobState::Running);
    transition::cancel(&test.app, &TestApp::actor(), running.id).await.unwrap();
    lock.rollback().await.unwrap();
    finishing.await.unwrap().unwrap();
    let cancelled = job_of(&test, "evaluation").await;
    assert_eq!((cancelled.state, cancelled.error, cancelled.done), (JobState::Cancelled, None, None));
    transition::retry(&test.app, &TestApp::actor(), running.id).await.unwrap();
    runner::finish(&test.app).await.unwrap();
    assert_eq!(
        (job_of(&test, "evaluation").await.state, test.customer("c").await.unwrap().balance),
        (JobState::Done, 10)
    );
}

/// A request that comes in while the job runs makes it run again at once, whatever the running attempt plans.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_during_an_attempt_is_not_forgotten() {
    for engine in ENGINES {
        let test = start(engine).await;
        test.buy("c", "p", NOW, "1.00").await.unwrap();
        let wanted = [Wanted::Customer(test.customer("c").await.unwrap().id)];
        for end in [queue::End::Done, queue::End::Again(Instant(NOW + DAY)), queue::End::Failed("no".into())] {
            request(test.app.database.write(), &wanted, Instant(NOW)).await.unwrap();
            let job = queue::claim(&test.app, &[JobKind::Evaluation]).await.unwrap().unwrap();
            request(test.app.database.write(), &wanted, Instant(NOW)).await.unwrap();
            queue::end(&test.app, &job, end.clone()).await.unwrap();
            let job = job_of(&test, "evaluation").await;
            let seen = (job.state, job.run_at, job.attempts, job.finished_at);
            assert_eq!(seen, (JobState::Waiting, NOW, 0, None), "{engine:?} {end:?}");
        }
    }
}

/// The age of the queue is that of the job that became due first, be it that it waits or that its worker has died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_as_old_as_its_oldest_due_job() {
    const SECOND: i64 = 1_000_000;
    for engine in ENGINES {
        let test = start(engine).await;
        let age = async || queue::oldest_wait(&test.app).await.unwrap() / SECOND;
        assert_eq!(age().await, 0, "{engine:?}: no job");
        for (key, state, run_at, leased_until, expected) in [
            ("later", "waiting", NOW + HOUR, None, 0),
            ("running", "running", NOW - HOUR, Some(NOW + SECOND), 0),
            ("done", "done", NOW - HOUR, None, 0),
            ("dead", "dead", NOW - HOUR, None, 0),
            ("waiting", "waiting", NOW - 5 * SECOND, None, 5),
            ("abandoned", "running", NOW - HOUR, Some(NOW - 7 * SECOND), 7),
        ] {
            let leased_until = leased_until.map_or_else(|| "NULL".to_owned(), |at| at.to_string());
            let sql = format!(
                "INSERT INTO job (kind, unique_key, state, requests, attempts, run_at, created_at, leased_until) \
                 VALUES ('audit', '{key}', '{state}', 1, 0, {run_at}, 0, {leased_until})"
            );
            test.app.database.write().execute_unprepared(&sql).await.unwrap();
            assert_eq!(age().await, expected, "{engine:?}: {key}");
        }
    }
}
