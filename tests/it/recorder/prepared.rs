//! A change deep in a long history is folded outside the transaction that posts it. The result is correct whatever is
//! recorded in the meantime.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::ConnectionTrait as _;
use serde_json::json;
use windfall::app::App;
use windfall::app::audit;
use windfall::app::purchase;
use windfall::app::refund::{self, RecordRefund};

use crate::support::app::{ENGINES, Engine, HOUR, NOW, TestApp, purchase_input, scratch};
use crate::support::node::{metric, node};
use crate::support::server::{command, run};

/// The most purchases that a transaction folds again in these tests.
const FOLD: usize = 40;

/// The most purchases that a customer makes. Their instants are one hour apart and end before [`NOW`].
const MOST: i64 = 7_000;

/// Records the `number`-th purchase of the customer.
async fn buy(app: &App, customer: &str, number: i64) {
    let at = NOW - (MOST - number) * HOUR;
    let input = purchase_input(customer, &format!("{customer}{number}"), at, "4.00");
    for answer in purchase::record(app, &TestApp::shop(), vec![(vec![], input)]).await.unwrap() {
        answer.unwrap();
    }
}

async fn refund(app: &App, customer: &str, number: i64) {
    let id = format!("{customer}{number}");
    let input = RecordRefund {
        external_id: id.clone(),
        purchase_external_id: id,
        refunded_at: "2026-11-02T12:00:00Z".into(),
        amount: None,
        lines: None,
    };
    refund::record(app, &TestApp::shop(), vec![], input).await.unwrap();
}

/// An application with a customer who made 200 purchases, and with campaigns of every kind.
async fn with_history(engine: Engine) -> TestApp {
    let test = TestApp::start_with(engine, |config| config.writer.fold_purchases = FOLD).await;
    let whole = json!({"campaign": "WHOLE"});
    for rule in [
        json!({"goal": {"purchases": {"atLeast": 3, "repeat": true}}, "window": whole}),
        json!({"goal": {"spend": {"amount": "9.00", "repeat": true}}, "window": whole, "budget": 700}),
        json!({"goal": {"purchases": {"atLeast": 5}}, "window": {"rolling": {"duration": "PT30H"}}}),
        json!({"goal": {"purchases": {"atLeast": 2}}, "window": {"session": {"gap": "PT2H"}}}),
        json!({"goal": {"purchases": {"atLeast": 2}}, "window": {"timer": {"duration": "PT5H", "reopens": true}},
            "maxPerCustomer": 20}),
        json!({"goal": {"streak": {"length": 2, "repeat": true}}, "window": {"calendar": {"unit": "DAY"}}}),
    ] {
        let mut input = json!({
            "name": "long", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "award": {"points": 10}
        });
        input.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        test.campaign(input).await;
    }
    for number in 0..200 {
        buy(&test.app, "c", number).await;
    }
    test
}

/// Records purchases through another node until the work is done. Returns the number of these purchases.
async fn while_the_customer_buys_on(test: &TestApp, work: impl AsyncFnOnce(&App)) -> i64 {
    let other = test.another().await;
    let done = Arc::new(AtomicBool::new(false));
    let buys_on = {
        let (other, done) = (Arc::clone(&other), Arc::clone(&done));
        tokio::spawn(async move {
            let mut bought = 0;
            while !done.load(Ordering::Relaxed) && 200 + bought < MOST {
                buy(&other, "c", 200 + bought).await;
                bought += 1;
            }
            bought
        })
    };
    work(&other).await;
    done.store(true, Ordering::Relaxed);
    let bought = buys_on.await.unwrap();
    other.stop().await.unwrap();
    bought
}

/// The awards beyond a cap are the last ones, also if a preparation found that most awards stay as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_change_at_a_cap_takes_away_the_last_award() {
    for engine in ENGINES {
        let test = TestApp::start_with(engine, |config| config.writer.fold_purchases = FOLD).await;
        test.campaign(json!({
            "name": "the first sixty", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR",
            // With this cap, a change changes the states of the whole year, and no award.
            "window": {"calendar": {"unit": "YEAR"}}, "maxPerWindow": 1_000_000,
            "goal": {"everyPurchase": "EACH"}, "award": {"points": 10}, "maxPerCustomer": 60,
        }))
        .await;
        for number in 0..200 {
            buy(&test.app, "c", number).await;
        }
        test.buy("c", "early", NOW - (MOST - 40) * HOUR + HOUR / 2, "4.00").await.unwrap();
        let awards = test.awards("c").await;
        let reached: Vec<&str> = awards.iter().map(|award| award.purchase_external_id.as_str()).collect();
        assert_eq!((reached.len(), reached[41], reached[59]), (60, "early", "c58"), "{engine:?}");
        test.audit_is_clean().await;
    }
}

/// Two nodes change the past of a customer who keeps buying, in campaigns of every kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_in_meanwhile_counts() {
    for engine in ENGINES {
        let test = with_history(engine).await;
        let bought = while_the_customer_buys_on(&test, async |other| {
            for number in [0, 1, 40, 7, 150] {
                let refunds = [refund(&test.app, "c", number), refund(other, "c", number + 2)];
                futures_util::future::join_all(refunds).await;
            }
        })
        .await;
        assert!(bought > 2, "{engine:?}");
        test.audit_is_clean().await;
    }
}

/// Repairs awards that were tampered with while the customer keeps buying.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_counts_what_comes_in_meanwhile() {
    for engine in ENGINES {
        let test = with_history(engine).await;
        for _ in 0..3 {
            let tamper = "UPDATE award SET points = points + 1 WHERE number % 7 = 0; \
                DELETE FROM award WHERE number % 11 = 0; \
                UPDATE award SET status = 'declined' WHERE number % 13 = 0 AND status = 'standing'; \
                DELETE FROM checkpoint WHERE campaign_id = 2; \
                UPDATE customer SET lifetime = 0";
            test.app.database.write().execute_unprepared(tamper).await.unwrap();
            while_the_customer_buys_on(&test, async |_| {
                audit::run(&test.app, Some(&TestApp::admin()), |_| {}).await.unwrap();
            })
            .await;
            test.audit_is_clean().await;
        }
    }
}

/// A batch that must be repeated, because it does not have the lock of the former customer of a purchase, keeps what was prepared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handing_over_an_old_purchase_is_prepared_once() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        let shop = node(&url, None, &[("WINDFALL__WRITER__FOLD_PURCHASES", "40")]).await;
        shop.campaign(json!({"goal": {"purchases": {"atLeast": 3, "repeat": true}}})).await;
        shop.buy_many("c", 0..1_000).await;
        shop.hand_over("c", 0, "d").await;
        assert_eq!(metric(&shop, "windfall_write_batches_total{outcome=\"prepared\"}").await, 1.0, "{engine:?}");
        assert_eq!(shop.balance("c").await["available"], 999 / 3 * 10, "{engine:?}");
        assert!(shop.server.terminate().success());
        let audit = run(command(&url).arg("audit"));
        assert_eq!(audit.code, Some(0), "{engine:?}: {}", audit.stdout);
    }
}

/// A preparation stays valid while the customer keeps buying. Otherwise it would have to be repeated without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_change_is_prepared_once_though_the_customer_buys_on() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        let shop = node(&url, None, &[("WINDFALL__WRITER__FOLD_PURCHASES", "40")]).await;
        shop.campaign(json!({"goal": {"purchases": {"atLeast": 3, "repeat": true}}})).await;
        shop.buy_many("c", 0..1_000).await;
        let prepared = "windfall_write_batches_total{outcome=\"prepared\"}";
        assert_eq!(metric(&shop, prepared).await, 0.0, "{engine:?}: an append was prepared");
        let (mut number, mut changes, mut interleaved) = (1_000, 0, 0);
        while interleaved < 3 {
            let (began, done) = (number, Cell::new(false));
            let buys_on = async {
                while !done.get() {
                    shop.buy("c", number).await;
                    number += 1;
                }
            };
            let refunds = async {
                shop.refund("c", changes).await;
                done.set(true);
            };
            tokio::join!(refunds, buys_on);
            changes += 1;
            interleaved += usize::from(number > began + 1);
            assert!(changes < 200, "{engine:?}: no purchase came in while a change was prepared");
        }
        // A refund that shares its batch with a purchase can need a single round of loads. Such a change is not
        // prepared.
        let prepared = metric(&shop, prepared).await;
        assert!(prepared >= 1.0 && prepared <= changes as f64, "{engine:?}: {prepared} times for {changes}");
        let stands = number - changes;
        assert_eq!(shop.balance("c").await["available"], stands / 3 * 10, "{engine:?}");
        assert!(shop.server.terminate().success());
        let audit = run(command(&url).arg("audit"));
        assert_eq!(audit.code, Some(0), "{engine:?}: {}", audit.stdout);
    }
}
