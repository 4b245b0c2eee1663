//! The write path: idempotency, budgets, late facts, the limits of the queue, and connections that callers abandon.

mod cost;
mod points;
mod prepared;
mod redemptions;

use std::sync::Arc;

use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait};
use serde_json::json;
use windfall::app::adjustment;
use windfall::app::adjustment::AdjustPoints;
use windfall::app::error::{Error, UserErrorCode};
use windfall::app::recorder::fact::Fact;
use windfall::app::refund::{self, RecordRefund};

use crate::support::app::{DAY, ENGINES, Engine, HOUR, NOW, TestApp, purchase_input};

fn every_third() -> serde_json::Value {
    json!({
        "name": "every third", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": {"campaign": "WHOLE"},
        "goal": {"purchases": {"atLeast": 3, "repeat": true}}, "award": {"points": 10}
    })
}

fn code(result: Result<windfall::app::recorder::fact::Recorded, Error>) -> (UserErrorCode, Vec<String>) {
    match result {
        Err(Error::Refused(errors)) => (errors[0].code, errors[0].path.clone()),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_copies_one_takes_effect() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        test.campaign(every_third()).await;
        let copies: Vec<_> = (0..200)
            .map(|_| {
                let app = Arc::clone(&test.app);
                let input = purchase_input("c", "p", NOW, "10.00");
                tokio::spawn(async move {
                    let shop = TestApp::shop();
                    windfall::app::purchase::record(&app, &shop, vec![(vec![], input)]).await.unwrap().remove(0)
                })
            })
            .collect();
        let mut replayed = 0;
        for copy in copies {
            replayed += usize::from(copy.await.unwrap().unwrap().replayed);
        }
        assert_eq!(replayed, 199, "{engine:?}");
        let customer = test.customer("c").await.unwrap();
        assert_eq!(customer.version, 1);
        let conflict = |field: &str| (UserErrorCode::IdempotencyConflict, vec![field.to_owned()]);
        assert_eq!(code(test.buy("c", "p", NOW, "10.01").await), conflict("total"));
        assert_eq!(code(test.buy("c", "p", NOW + 1, "10.00").await), conflict("purchasedAt"));
        assert_eq!(code(test.buy("d", "p", NOW, "10.00").await), conflict("customerExternalId"));
        // The content is the same after parsing.
        assert!(test.buy("c", "p", NOW, "10").await.unwrap().replayed);
        assert_eq!(test.customer("c").await.unwrap(), customer, "a replay or a conflict changes nothing");
        assert_eq!(test.customer("d").await, None, "a conflict creates no customer");
        test.audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refunds_and_adjustments_are_idempotent_too() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        test.campaign(every_third()).await;
        for n in 0..3 {
            test.buy("c", &format!("p{n}"), NOW + n, "10.00").await.unwrap();
        }
        let refund = |id: &str, of: &str, amount: Option<&str>| RecordRefund {
            external_id: id.into(),
            purchase_external_id: of.into(),
            refunded_at: "2026-11-02T12:00:00Z".into(),
            amount: amount.map(str::to_owned),
            lines: None,
        };
        let record = async |input| refund::record(&test.app, &TestApp::shop(), vec![], input).await;
        assert_eq!(code(record(refund("r", "nothing", None)).await).0, UserErrorCode::PurchaseNotFound);
        let first = record(refund("r", "p1", None)).await.unwrap();
        assert_eq!((first.replayed, first.customer.balance, first.awards.len()), (false, 0, 1));
        assert!(record(refund("r", "p1", None)).await.unwrap().replayed);
        // `null` stays null: it follows the total if the purchase is edited, and an amount does not.
        assert_eq!(code(record(refund("r", "p1", Some("10.00"))).await).0, UserErrorCode::IdempotencyConflict);
        assert_eq!(code(record(refund("r", "p1", Some("9.00"))).await).0, UserErrorCode::IdempotencyConflict);
        assert_eq!(code(record(refund("r", "p2", None)).await).0, UserErrorCode::IdempotencyConflict);
        assert_eq!(code(record(refund("s", "p2", Some("10.01"))).await).0, UserErrorCode::RefundTooLarge);

        let adjust = async |key: &str, points| {
            let input = AdjustPoints {
                customer_external_id: "c".into(),
                points,
                reason: "welcome".into(),
                idempotency_key: key.into(),
                expires_at: None,
                allow_negative: true,
            };
            adjustment::record(&test.app, &TestApp::actor(), vec![], input).await
        };
        let first = adjust("k", 5).await.unwrap();
        let again = adjust("k", 5).await.unwrap();
        assert_eq!((first.replayed, again.replayed), (false, true));
        assert_eq!(first.entry, again.entry);
        assert_eq!(first.entry.unwrap().balance_after, 5);
        assert_eq!(code(adjust("k", 6).await).0, UserErrorCode::IdempotencyConflict);
        assert_eq!(code(adjust("l", 0).await).0, UserErrorCode::OutOfRange);
        test.audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_for_three_stands_three() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let mut input = every_third();
        input["goal"] = json!({"everyPurchase": "EACH"});
        input["budget"] = json!(30);
        test.campaign(input).await;
        let writers: Vec<_> = (0..50)
            .map(|n| {
                let app = Arc::clone(&test.app);
                let input = purchase_input(&format!("c{n}"), &format!("p{n}"), NOW, "10.00");
                tokio::spawn(async move {
                    let shop = TestApp::shop();
                    windfall::app::purchase::record(&app, &shop, vec![(vec![], input)]).await.unwrap().remove(0)
                })
            })
            .collect();
        let mut standing = Vec::new();
        for (n, writer) in writers.into_iter().enumerate() {
            let recorded = writer.await.unwrap().unwrap();
            assert_eq!(recorded.awards.len(), 1);
            if recorded.customer.balance == 10 {
                standing.push(n);
            }
        }
        assert_eq!(standing.len(), 3, "{engine:?}");
        test.audit_is_clean().await;
        // A refund frees points for the next award, not for one that was declined.
        let freed = standing[0];
        let input = RecordRefund {
            external_id: "r".into(),
            purchase_external_id: format!("p{freed}"),
            refunded_at: "2026-11-02T12:00:00Z".into(),
            amount: None,
            lines: None,
        };
        let recorded = refund::record(&test.app, &TestApp::shop(), vec![], input).await.unwrap();
        assert_eq!(recorded.customer.balance, 0);
        assert_eq!(test.buy("late", "p50", NOW, "10.00").await.unwrap().customer.balance, 10);
        assert_eq!(test.buy("later", "p51", NOW, "10.00").await.unwrap().customer.balance, 0);
        let lifetime: i64 = entity::customer::Entity::find()
            .all(test.app.database.read())
            .await
            .unwrap()
            .iter()
            .map(|customer| customer.lifetime)
            .sum();
        assert_eq!(lifetime, 30);
        test.audit_is_clean().await;
        // The audit replays the decisions, so it reports a forged one.
        let forge = "UPDATE budget_decision SET kind = 'declined' WHERE decision_no = 2";
        let tx = test.app.database.begin().await.unwrap();
        tx.execute_unprepared(forge).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!test.audit().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_data_is_cheap() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        test.campaign(every_third()).await;
        let start = NOW - 900 * HOUR;
        let facts: Vec<Fact> = (0..900)
            .map(|n| {
                let input = purchase_input("c", &format!("p{n:04}"), start + n * HOUR, "10.00");
                Fact::Purchase(input.check(&[], windfall::engine::time::Instant(NOW)).unwrap())
            })
            .collect();
        for chunk in facts.chunks(100) {
            test.record(chunk.to_vec()).await;
        }
        let entries = test.ledger("c").await.len();
        assert_eq!(entries, 300);
        // 901 purchases still reach 300 awards. Every later award moves, and nothing is posted.
        let recorded = test.buy("c", "late", start + 450 * HOUR + 1, "10.00").await.unwrap();
        assert_eq!(test.ledger("c").await.len(), entries);
        assert_eq!((recorded.awards_changed, recorded.awards.len()), (150, 100));
        // Two more purchases reach one more award.
        test.buy("c", "later", start + 450 * HOUR + 2, "10.00").await.unwrap();
        test.buy("c", "latest", start + 450 * HOUR + 3, "10.00").await.unwrap();
        assert_eq!(test.ledger("c").await.len(), entries + 1);
        test.audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_before_anything_is_queued() {
    let test = TestApp::start_with(Engine::Sqlite, |config| config.writer.queue_items = 500).await;
    let inputs: Vec<_> = (0..501).map(|n| (vec![], purchase_input("c", &format!("p{n}"), NOW, "1.00"))).collect();
    let refused = windfall::app::purchase::record(&test.app, &TestApp::shop(), inputs.clone()).await;
    assert!(matches!(refused, Err(Error::Overloaded)));
    assert_eq!(test.customer("c").await, None, "a part of the refused purchases was recorded");
    let some = inputs[..500].to_vec();
    let recorded = windfall::app::purchase::record(&test.app, &TestApp::shop(), some).await.unwrap();
    assert!(recorded.iter().all(Result::is_ok));
    let test = TestApp::start_with(Engine::Sqlite, |config| config.writer.queue_bytes = 1 << 20).await;
    let refused = windfall::app::purchase::record(
        &test.app,
        &TestApp::shop(),
        [inputs.clone(), inputs.clone(), inputs.clone(), inputs.clone(), inputs].concat(),
    )
    .await;
    assert!(matches!(refused, Err(Error::Overloaded)));
}

/// A caller that disconnects between BEGIN and its response must not leave its transaction to the next user of the
/// connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_begin_poisons_no_connection() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        for n in 0..1_000_u32 {
            let app = Arc::clone(&test.app);
            let caller = tokio::spawn(async move { app.database.begin().await.map(drop) });
            for _ in 0..n % 7 {
                tokio::task::yield_now().await;
            }
            if n.is_multiple_of(5) {
                tokio::time::sleep(std::time::Duration::from_micros(u64::from(n % 300))).await;
            }
            caller.abort();
        }
        // A write inside an inherited transaction would be rolled back with it.
        for n in 0..20 {
            test.buy("c", &format!("p{n}"), NOW, "1.00").await.unwrap();
        }
        let count = entity::purchase::Entity::find().count(test.app.database.read()).await.unwrap();
        assert_eq!(count, 20, "{engine:?}");
        if engine == Engine::Postgres {
            let open = "SELECT count(*) AS open FROM pg_stat_activity \
                WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
            let statement = sea_orm::Statement::from_string(sea_orm::DatabaseBackend::Postgres, open);
            let row = test.app.database.read().query_one_raw(statement).await.unwrap().unwrap();
            assert_eq!(row.try_get::<i64>("", "open").unwrap(), 0);
        }
        test.audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_purchase_beside_new_ones_is_evaluated_in_its_place() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        test.campaign(json!({
            "name": "daily pair", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR",
            "window": {"calendar": {"unit": "DAY"}},
            "goal": {"purchases": {"atLeast": 2}}, "award": {"points": 10}
        }))
        .await;
        for n in 0..5 {
            test.buy("c", &format!("p{n}"), NOW - 10 * DAY + n * DAY, "1.00").await.unwrap();
        }
        assert_eq!(test.customer("c").await.unwrap().balance, 0);
        let recorded = test.buy("c", "late", NOW - 8 * DAY + 1, "1.00").await.unwrap();
        assert_eq!((recorded.customer.balance, recorded.awards.len()), (10, 1));
        test.audit_is_clean().await;
    }
}
