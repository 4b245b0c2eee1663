//! Campaigns over time, through the real write path: activation with a past, settlement, changes of a budget, several
//! servers on one database.

use std::sync::Arc;

use sea_orm::EntityTrait;
use serde_json::json;
use windfall::app::campaign::input::CampaignUpdate;
use windfall::app::error::{Error, UserErrorCode};
use windfall::app::jobs::{runner, settlement};
use windfall::app::refund::{self, RecordRefund};
use windfall::app::{App, campaign};
use windfall::engine::lifecycle::Status;

use crate::support::app::{DAY, ENGINES, Engine, HOUR, NOW, TestApp, purchase_input};

fn each_purchase(over: &serde_json::Value) -> serde_json::Value {
    let mut input = json!({
        "name": "each", "startsAt": "2026-10-01T00:00:00Z", "currency": "EUR", "window": {"campaign": "WHOLE"},
        "goal": {"everyPurchase": "EACH"}, "award": {"points": 10}
    });
    input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    input
}

async fn refund_of(test: &TestApp, id: &str, purchase: &str) {
    let input = RecordRefund {
        external_id: id.into(),
        purchase_external_id: purchase.into(),
        refunded_at: "2026-11-02T12:00:00Z".into(),
        amount: None,
        lines: None,
    };
    refund::record(&test.app, &TestApp::shop(), vec![], input).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_backfill_a_first_change_evaluates_the_whole_period() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        for customer in ["a", "b"] {
            for n in 0..3 {
                test.buy(customer, &format!("{customer}{n}"), NOW - n * HOUR, "1.00").await.unwrap();
            }
        }
        let input = serde_json::from_value(each_purchase(&json!({}))).unwrap();
        let draft = campaign::create(&test.app, &TestApp::actor(), input, None).await.unwrap();
        campaign::activate(&test.app, &TestApp::actor(), draft.id()).await.unwrap();
        // A replay changes nothing. A new purchase evaluates the whole period.
        assert_eq!(test.buy("a", "a0", NOW, "1.00").await.unwrap().customer.balance, 0);
        assert_eq!(test.buy("a", "a3", NOW - 3 * HOUR, "1.00").await.unwrap().customer.balance, 40);
        assert_eq!(test.customer("b").await.unwrap().balance, 0);
        test.audit_is_clean().await;
        // Two concurrent workers do the work once.
        let (one, two) = tokio::join!(runner::finish(&test.app), runner::finish(&test.app));
        one.and(two).unwrap();
        assert_eq!(test.customer("b").await.unwrap().balance, 30);
        assert_eq!(runner::run_due(&test.app).await.unwrap(), 0);
        test.audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settled_it_counts_nothing_any_more() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let over = json!({"endsAt": "2026-11-03T00:00:00Z", "lateness": "P1D"});
        let id = test.campaign(each_purchase(&over)).await;
        test.buy("c", "p0", NOW, "1.00").await.unwrap();
        test.set_now(NOW + DAY);
        // A late purchase before the settlement counts.
        assert_eq!(test.buy("c", "p1", NOW + 1, "1.00").await.unwrap().customer.balance, 20);
        assert_eq!(settlement::run(&test.app).await.unwrap(), 0, "settled before the lateness was over");
        test.set_now(NOW + 2 * DAY);
        assert_eq!(settlement::run(&test.app).await.unwrap(), 1);
        assert_eq!(settlement::run(&test.app).await.unwrap(), 0);
        let settled = Arc::clone(test.app.campaigns().await.unwrap().get(id).unwrap());
        assert_eq!(settled.life.status(test.app.clock.now()), Status::Settled);
        assert_eq!(test.buy("c", "p2", NOW + 2, "1.00").await.unwrap().customer.balance, 20);
        refund_of(&test, "r", "p0").await;
        assert_eq!(test.customer("c").await.unwrap().balance, 20);
        test.audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_settle_while_a_backfill_is_open() {
    let test = TestApp::start(Engine::Sqlite).await;
    test.buy("c", "p0", NOW - DAY, "1.00").await.unwrap();
    let over = json!({"endsAt": "2026-11-02T00:00:00Z", "lateness": "P1D"});
    let input = serde_json::from_value(each_purchase(&over)).unwrap();
    let draft = campaign::create(&test.app, &TestApp::actor(), input, None).await.unwrap();
    campaign::activate(&test.app, &TestApp::actor(), draft.id()).await.unwrap();
    test.set_now(NOW + 2 * DAY);
    assert_eq!(settlement::run(&test.app).await.unwrap(), 0);
    runner::finish(&test.app).await.unwrap();
    assert_eq!(settlement::run(&test.app).await.unwrap(), 1);
    assert_eq!(test.customer("c").await.unwrap().balance, 10);
    test.audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_may_change_and_reverses_nothing() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let id = test.campaign(each_purchase(&json!({}))).await;
        let set_budget = async |limit: Option<i64>| {
            let revision = test.app.campaigns().await.unwrap().get(id).unwrap().row.set_revision;
            let update = CampaignUpdate { if_revision: revision, budget: Some(limit), ..CampaignUpdate::default() };
            campaign::update(&test.app, &TestApp::actor(), id, update).await.unwrap();
            test.audit_is_clean().await;
        };
        for n in 0..3 {
            test.buy("c", &format!("p{n}"), NOW + n, "1.00").await.unwrap();
        }
        // The new budget is below the points that already stand.
        set_budget(Some(20)).await;
        assert_eq!(test.customer("c").await.unwrap().balance, 30);
        assert_eq!(test.buy("c", "p3", NOW + 3, "1.00").await.unwrap().customer.balance, 30);
        refund_of(&test, "r0", "p0").await;
        refund_of(&test, "r1", "p1").await;
        assert_eq!(test.customer("c").await.unwrap().balance, 10);
        // The declined award stays declined. The next award fits.
        assert_eq!(test.buy("c", "p4", NOW + 4, "1.00").await.unwrap().customer.balance, 20);
        set_budget(None).await;
        assert_eq!(test.buy("c", "p5", NOW + 5, "1.00").await.unwrap().customer.balance, 30);
        set_budget(Some(40)).await;
        assert_eq!(test.buy("c", "p6", NOW + 6, "1.00").await.unwrap().customer.balance, 40);
        assert_eq!(test.buy("c", "p7", NOW + 7, "1.00").await.unwrap().customer.balance, 40);
        test.audit_is_clean().await;
    }
}

/// Two servers on one PostgreSQL database. Writers on both record purchases of the same customers, and both make
/// transitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_servers_changes_nothing() {
    let test = TestApp::start(Engine::Postgres).await;
    let other = test.another().await;
    let over = json!({"goal": {"purchases": {"atLeast": 3, "repeat": true}}, "budget": 500});
    let id = test.campaign(each_purchase(&over)).await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let app = Arc::clone(if writer % 2 == 0 { &test.app } else { &other });
            tokio::spawn(async move {
                for n in 0..40 {
                    // Each purchase is sent to both servers.
                    let input =
                        purchase_input(&format!("c{}", n % 4), &format!("p{}-{n}", writer / 2), NOW - n, "1.00");
                    let shop = TestApp::shop();
                    windfall::app::purchase::record(&app, &shop, vec![(vec![], input)])
                        .await
                        .unwrap()
                        .remove(0)
                        .unwrap();
                }
            })
        })
        .collect();
    for app in [&test.app, &other, &test.app] {
        campaign::pause(app, &TestApp::actor(), id).await.unwrap();
        campaign::resume(app, &TestApp::actor(), id).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let purchases = entity::purchase::Entity::find().all(test.app.database.read()).await.unwrap();
    assert_eq!(purchases.len(), 160);
    test.audit_is_clean().await;
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strings_are_exact_bytes_and_name_spaces_are_apart() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        test.campaign(each_purchase(&json!({}))).await;
        let longest = "ä".repeat(100);
        let names = [
            "1",
            "01",
            "1.0",
            "null",
            "[1]",
            "{\"a\":1}",
            "é",
            "e\u{301}",
            " a ",
            "A",
            "a",
            "'; --",
            "\u{1F600}",
            &longest,
        ];
        for (n, name) in names.iter().enumerate() {
            // The same text is the id of a customer, a purchase and a refund.
            let recorded = test.buy(name, name, NOW + n as i64, "1.00").await.unwrap();
            assert_eq!((recorded.replayed, recorded.customer.external_id.as_str()), (false, *name), "{engine:?}");
            refund_of(&test, name, name).await;
            assert!(test.buy(name, name, NOW + n as i64, "1.00").await.unwrap().replayed);
        }
        assert_eq!(entity::customer::Entity::find().all(test.app.database.read()).await.unwrap().len(), names.len());
        let too_long = format!("{longest}a");
        match test.buy(&too_long, "p", NOW, "1.00").await {
            Err(Error::Refused(errors)) => assert_eq!(errors[0].code, UserErrorCode::TooLong),
            other => panic!("{other:?}"),
        }
        test.audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_to_the_last_unit() {
    let test = TestApp::start(Engine::Sqlite).await;
    test.campaign(each_purchase(&json!({}))).await;
    let code = |result: Result<_, Error>| match result {
        Err(Error::Refused(errors)) => Some(errors[0].code),
        _ => None,
    };
    let ahead = 5 * 60 * 1_000_000;
    assert_eq!(code(test.buy("c", "p0", NOW + ahead, "1.00").await), None);
    assert_eq!(code(test.buy("c", "p1", NOW + ahead + 1, "1.00").await), Some(UserErrorCode::PurchasedInFuture));
    assert_eq!(code(test.buy("c", "p2", 0, "0").await), None);
    assert_eq!(code(test.buy("c", "p3", -1, "0").await), Some(UserErrorCode::OutOfRange));
    assert_eq!(code(test.buy("c", "p4", NOW, "100000000000.00").await), None);
    assert_eq!(code(test.buy("c", "p5", NOW, "100000000000.01").await), Some(UserErrorCode::OutOfRange));
    // A purchase with a total of zero is recorded and never eligible. Refunding it changes nothing.
    refund_of(&test, "r", "p2").await;
    assert_eq!(test.customer("c").await.unwrap().balance, 20);
    let refund = async |n: usize| {
        let input = RecordRefund {
            external_id: format!("r{n}"),
            purchase_external_id: "p0".into(),
            refunded_at: "2026-11-02T12:00:00Z".into(),
            amount: Some("0.50".into()),
            lines: None,
        };
        refund::record(&test.app, &TestApp::shop(), vec![], input).await
    };
    for n in 0..100 {
        assert_eq!(code(refund(n).await), None, "several refunds may exceed the total together");
    }
    assert_eq!(code(refund(100).await), Some(UserErrorCode::OutOfRange));
    assert!(refund(99).await.unwrap().replayed);
    assert_eq!(test.customer("c").await.unwrap().balance, 10);
    test.audit_is_clean().await;
}

#[tokio::test]
async fn a_keyed_campaign_is_made_once() {
    let test = TestApp::start(Engine::Sqlite).await;
    let (app, actor): (&App, _) = (&test.app, TestApp::actor());
    let key = || Some("k".to_owned());
    let input = |over| serde_json::from_value(each_purchase(&over)).unwrap();
    let made = campaign::create(app, &actor, input(json!({})), key()).await.unwrap();
    // The input is the same after parsing.
    let again = campaign::create(app, &actor, input(json!({"startsAt": "2026-10-01T02:00:00+02:00"})), key()).await;
    assert_eq!(again.unwrap().id(), made.id());
    let other = campaign::create(app, &actor, input(json!({"name": "other"})), key()).await;
    assert!(matches!(other, Err(Error::Refused(errors)) if errors[0].code == UserErrorCode::IdempotencyConflict));
    let copy = campaign::clone(app, &actor, made.id(), "copy".into(), Some("l".into())).await.unwrap();
    campaign::delete(app, &actor, made.id()).await.unwrap();
    let again = campaign::clone(app, &actor, made.id(), "copy".into(), Some("l".into())).await.unwrap();
    assert_eq!(again.id(), copy.id(), "the copy was not found again after its original was deleted");
    let gone = campaign::create(app, &actor, input(json!({})), key()).await;
    assert!(matches!(gone, Err(Error::Refused(errors)) if errors[0].code == UserErrorCode::NotFound));
}
