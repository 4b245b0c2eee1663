//! The job that posts what is due. Whether and when it runs, and on how many nodes, changes no read.

use std::sync::Arc;

use entity::{JobKind, JobState, LedgerEntryKind, campaign, customer, job, ledger_entry, lot};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, NotSet, PaginatorTrait, QueryFilter,
};
use serde_json::json;
use windfall::app::App;
use windfall::app::customer::Balance;
use windfall::app::jobs::periodic::{Requested, request_ticks};
use windfall::app::jobs::runner;
use windfall::app::reading::snapshot::Extent;
use windfall::app::recorder::fact::Fact;
use windfall::engine::time::Instant;

use crate::support::app::{DAY, ENGINES, Engine, HOUR, NOW, TestApp, cases};

const MINUTE: i64 = 60_000_000;

/// Ten points for each purchase, which wait for an hour and expire an hour later.
async fn start(engine: Engine) -> TestApp {
    let test = TestApp::start(engine).await;
    test.campaign(json!({
        "name": "each", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": { "campaign": "WHOLE" },
        "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 }, "holdFor": "PT1H", "expiresAfter": "PT1H",
    }))
    .await;
    test
}

/// Requests and runs the ticks that are due.
async fn run(app: &Arc<App>) {
    request_ticks(app, &mut Requested::default()).await.unwrap();
    runner::run_due(app).await.unwrap();
}

async fn balance(app: &Arc<App>, customer: &str, now: i64) -> (i64, i64, Option<i64>) {
    let found = app.snapshots().find(&[(customer.to_owned(), None)], Extent::Balance).await.unwrap();
    let balance = Balance::of_snapshot(&found[customer].snapshot, Instant(now));
    (balance.available, balance.pending, balance.expiring_next.map(|(at, _)| at.0))
}

async fn expiries(test: &TestApp, customer: &str) -> Vec<i64> {
    let entries = test.ledger(customer).await;
    entries.iter().filter(|entry| entry.kind == LedgerEntryKind::Expiry).map(|entry| entry.points).collect()
}

/// When the job runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Runs {
    Never,
    AtEachStep,
    TwiceAtEachStep,
    OnTwoNodes,
    AtTheEnd,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_depends_on_when_the_job_runs() {
    for engine in ENGINES {
        let mut reads = Vec::new();
        for runs in [Runs::Never, Runs::AtEachStep, Runs::TwiceAtEachStep, Runs::OnTwoNodes, Runs::AtTheEnd] {
            let test = start(engine).await;
            let other = test.another().await;
            for (n, ago) in [30, 20, 20, 0].into_iter().enumerate() {
                test.buy("ada", &format!("p{n}"), NOW - ago * MINUTE, "5.00").await.unwrap();
            }
            let mut seen = Vec::new();
            for (minutes, micros) in [(0, 0), (30, -1), (30, 0), (40, 0), (60, 1), (90, 0), (100, -1), (120, 0)] {
                let now = NOW + minutes * MINUTE + micros;
                test.set_now(now);
                match runs {
                    Runs::Never | Runs::AtTheEnd => {}
                    Runs::AtEachStep => run(&test.app).await,
                    Runs::TwiceAtEachStep => {
                        run(&test.app).await;
                        test.app
                            .recorder
                            .record(TestApp::shop().who(), vec![Fact::Expiry("ada".to_owned())])
                            .await
                            .unwrap();
                    }
                    Runs::OnTwoNodes => {
                        let post = async |app: &Arc<App>| {
                            run(app).await;
                            let answer = app.recorder.record_when_free(Fact::Expiry("ada".to_owned())).await;
                            answer.unwrap().await.unwrap().unwrap().unwrap();
                        };
                        tokio::join!(post(&test.app), post(&other));
                    }
                }
                for app in [&test.app, &other] {
                    seen.push((now, balance(app, "ada", now).await));
                }
                test.audit_is_clean().await;
            }
            if runs == Runs::AtTheEnd {
                run(&test.app).await;
            }
            let posted = expiries(&test, "ada").await;
            assert_eq!(posted, if runs == Runs::Never { vec![] } else { vec![-10, -20, -10] }, "{engine:?} {runs:?}");
            let due = test.customer("ada").await.unwrap().due_at;
            assert_eq!(due.is_none(), runs != Runs::Never, "{engine:?} {runs:?}: {due:?}");
            test.audit_is_clean().await;
            other.stop().await.unwrap();
            reads.push((runs, seen));
        }
        for (runs, seen) in &reads {
            assert_eq!(*seen, reads[0].1, "{engine:?} {runs:?}");
        }
    }
}

/// Thousands of customers whose points expired, while others buy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_due_customers_are_posted_while_others_buy() {
    for engine in ENGINES {
        let test = start(engine).await;
        let due = cases(1_000, 10_000);
        let facts = (0..due).map(|n| test.buy_fact(&format!("c{n}"), &format!("p{n}"), NOW, "5.00"));
        test.record(facts.collect()).await;
        test.set_now(NOW + 2 * HOUR);
        let buy = async {
            for n in 0..50 {
                test.buy(&format!("d{n}"), &format!("q{n}"), NOW + 2 * HOUR, "5.00").await.unwrap();
            }
        };
        tokio::join!(run(&test.app), buy);
        let db = test.app.database.read();
        let left =
            customer::Entity::find().filter(customer::Column::DueAt.lte(NOW + 2 * HOUR)).count(db).await.unwrap();
        assert_eq!(left, 0, "{engine:?}");
        let of_kind = ledger_entry::Entity::find().filter(ledger_entry::Column::Kind.eq(LedgerEntryKind::Expiry));
        assert_eq!(of_kind.count(db).await.unwrap(), due as u64, "{engine:?}");
        test.audit_is_clean().await;
    }
}

/// What cannot be posted for one customer fails the tick, but keeps no other customer waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_that_fails_keeps_no_other_one_waiting() {
    for engine in ENGINES {
        let test = start(engine).await;
        for name in ["ada", "bob", "eve"] {
            test.buy(name, name, NOW, "5.00").await.unwrap();
        }
        test.set_now(NOW + 2 * HOUR);
        let hidden = "UPDATE customer SET head = 'hidden' WHERE external_id = 'bob'";
        test.app.database.write().execute_unprepared(hidden).await.unwrap();
        request_ticks(&test.app, &mut Requested::default()).await.unwrap();
        runner::run_due(&test.app).await.unwrap_err();
        for name in ["ada", "eve"] {
            assert_eq!(expiries(&test, name).await, [-10], "{engine:?} {name}");
        }
        assert_eq!(expiries(&test, "bob").await, Vec::<i64>::new(), "{engine:?}");
        let jobs =
            job::Entity::find().filter(job::Column::Kind.eq(JobKind::Expiry)).all(test.app.database.read()).await;
        let [tick] = &jobs.unwrap()[..] else { panic!("one tick") };
        assert_eq!((tick.state, tick.attempts), (JobState::Waiting, 1), "{engine:?}");
        assert!(tick.error.as_deref().is_some_and(|error| error.starts_with("internal error")), "{:?}", tick.error);
    }
}

/// More lots mature at one instant than one commit processes. No commit forgets the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_lots_of_one_instant_mature() {
    const CAMPAIGNS: i64 = 600;
    for engine in ENGINES {
        let test = start(engine).await;
        // Campaigns that differ in `expiresAfter` alone.
        let db = test.app.database.write();
        let first = campaign::Entity::find().one(db).await.unwrap().unwrap();
        let copies = (2..=CAMPAIGNS).map(|minutes| {
            let mut rule = first.rule.clone();
            rule["expires_after"] = json!(format!("PT{}M", 60 + minutes));
            campaign::ActiveModel {
                id: NotSet,
                ..campaign::Model { rule, ..first.clone() }.into_active_model().reset_all()
            }
        });
        campaign::Entity::insert_many(copies).exec_without_returning(db).await.unwrap();
        // A change of any campaign makes the program read all of them.
        test.campaign(json!({
            "name": "none", "startsAt": "2026-01-01T00:00:00Z", "currency": "USD", "window": { "campaign": "WHOLE" },
            "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 },
        }))
        .await;
        test.buy("ada", "p", NOW, "5.00").await.unwrap();
        assert_eq!(balance(&test.app, "ada", NOW).await, (0, 10 * CAMPAIGNS, None), "{engine:?}");
        test.set_now(NOW + HOUR);
        let read = balance(&test.app, "ada", NOW + HOUR).await;
        assert_eq!((read.0, read.1), (10 * CAMPAIGNS, 0), "{engine:?}: before anything is posted");
        run(&test.app).await;
        let pending = lot::Entity::find().filter(lot::Column::MaturesAt.gt(0)).count(db).await.unwrap();
        assert_eq!(pending, 0, "{engine:?}");
        let (available, pending, _) = balance(&test.app, "ada", NOW + HOUR).await;
        assert_eq!((available, pending), (10 * CAMPAIGNS, 0), "{engine:?}");
        test.audit_is_clean().await;
        test.set_now(NOW + DAY);
        run(&test.app).await;
        assert_eq!(expiries(&test, "ada").await, vec![-10; 600], "{engine:?}");
        test.audit_is_clean().await;
    }
}
