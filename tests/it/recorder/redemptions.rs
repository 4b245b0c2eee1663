//! Redemptions and reservations race the clock, each other and other nodes. Nothing is spent twice, and no unit is given twice.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use serde_json::json;
use windfall::app::App;
use windfall::app::recorder::fact::{Fact, NewAdjustment, NewRedemption, Recorded, RedemptionStep, Refusal, StepKind};
use windfall::app::reward::{self, RewardInput};
use windfall::engine::external_id::ExternalId;

use crate::support::app::{ENGINES, Engine, HOUR, NOW, TestApp, cases};
use crate::support::websocket::PATIENCE;

async fn reward(test: &TestApp, cost: i64, stock: Option<i64>) -> entity::RewardId {
    let input = RewardInput {
        name: "Mug".into(),
        description: None,
        image_url: None,
        cost,
        stock,
        max_per_customer: None,
        starts_at: None,
        ends_at: None,
        active: true,
        self_service: false,
    };
    reward::create(&test.app, &TestApp::actor(), input, None).await.unwrap().id
}

async fn record(app: &Arc<App>, fact: Fact) -> Result<Recorded, Refusal> {
    app.recorder.record(TestApp::shop().who(), vec![fact]).await.unwrap().remove(0).unwrap()
}

fn redemption(customer: &str, reward: entity::RewardId, key: &str, reserve_for: Option<i64>) -> Fact {
    Fact::Redemption(NewRedemption {
        customer_external_id: ExternalId::stored(customer),
        reward,
        quantity: 1,
        idempotency_key: key.to_owned(),
        reserve_for,
        by_customer: false,
    })
}

async fn give(test: &TestApp, customer: &str, points: i64) {
    let fact = Fact::Adjustment(NewAdjustment {
        customer_external_id: ExternalId::stored(customer),
        points,
        reason: "gift".into(),
        idempotency_key: format!("gift for {customer}"),
        expires_at: None,
        allow_negative: true,
        actor: None,
    });
    record(&test.app, fact).await.unwrap();
}

/// The kinds and points of the entries that follow the first one.
async fn rest(test: &TestApp, customer: &str) -> Vec<(String, i64)> {
    let entries = test.ledger(customer).await.into_iter().skip(1);
    entries.map(|entry| (format!("{:?}", entry.kind), entry.points)).collect()
}

/// Lets the instant come: before anything else in some rounds, after a while in others, and at last in a few.
async fn come(round: i64) {
    let millis = [0, 1, 2, 4, 6, 9, 13, 100];
    tokio::time::sleep(Duration::from_millis(millis[usize::try_from(round).unwrap() % millis.len()])).await;
}

/// Points are redeemed on two nodes while the instant comes at which they expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redemption_races_the_expiry_of_its_points() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let other = test.another().await;
        let mug = reward(&test, 30, None).await;
        test.campaign(json!({
            "name": "each", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": { "campaign": "WHOLE" },
            "goal": { "everyPurchase": "EACH" }, "award": { "points": 50 }, "expiresAfter": "PT1H",
        }))
        .await;
        let (mut spent, mut expired) = (0, 0);
        for round in 0..i64::try_from(cases(30, 300)).unwrap() {
            let (name, bought) = (format!("c{round}"), NOW + round * 2 * HOUR);
            test.set_now(bought);
            test.buy(&name, &name, bought, "5.00").await.unwrap();
            let expiry = bought + HOUR;
            test.set_now(expiry - 1);
            let pass = async {
                come(round).await;
                test.set_now(expiry);
                record(&other, Fact::Expiry(name.clone())).await.unwrap();
            };
            let (here, there, ()) = tokio::join!(
                record(&test.app, redemption(&name, mug, &format!("here {name}"), None)),
                record(&other, redemption(&name, mug, &format!("there {name}"), None)),
                pass
            );
            let times = [here, there].iter().filter(|answer| answer.is_ok()).count();
            let entries = rest(&test, &name).await;
            let (redeemed, gone) = ("Redemption".to_owned(), "Expiry".to_owned());
            match times {
                0 => assert_eq!(entries, [(gone, -50)], "{engine:?} {round}"),
                1 => assert_eq!(entries, [(redeemed, -30), (gone, -20)], "{engine:?} {round}"),
                _ => panic!("{engine:?} {round}: {entries:?}"),
            }
            spent += times;
            expired += 1 - times;
        }
        println!("{engine:?}: {spent} were redeemed, {expired} expired first");
        test.audit_is_clean().await;
        other.stop().await.unwrap();
    }
}

/// One customer commits a reservation of the last unit while it ends, and another customer redeems that unit on another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_ends_while_it_commits() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let other = test.another().await;
        let (mut committed, mut lapsed) = (0, 0);
        for round in 0..i64::try_from(cases(30, 300)).unwrap() {
            let mug = reward(&test, 10, Some(1)).await;
            let [ada, bob] = ["ada", "bob"].map(|name| format!("{name}{round}"));
            let now = NOW + round * HOUR;
            test.set_now(now);
            give(&test, &ada, 15).await;
            give(&test, &bob, 15).await;
            let reserved = record(&test.app, redemption(&ada, mug, &ada, Some(60_000_000))).await.unwrap();
            let number = reserved.redemption.unwrap().number;
            let step = RedemptionStep {
                customer_external_id: ExternalId::stored(&ada),
                number,
                kind: StepKind::Commit,
                by_customer: false,
            };
            test.set_now(now + 60_000_000 - 1);
            let pass = async {
                come(round).await;
                test.set_now(now + 60_000_000);
                record(&other, redemption(&bob, mug, &bob, None)).await
            };
            let (hers, his) = tokio::join!(record(&test.app, Fact::RedemptionStep(step)), pass);
            assert!(hers.is_err() || his.is_err(), "{engine:?} {round}: the unit was given twice");
            assert!(hers.is_ok() || his.is_ok(), "{engine:?} {round}: the unit was given to nobody");
            for (name, answer) in [(&ada, &hers), (&bob, &his)] {
                let expected: &[(String, i64)] = if answer.is_ok() { &[("Redemption".to_owned(), -10)] } else { &[] };
                assert_eq!(rest(&test, name).await, expected, "{engine:?} {round} {name}");
            }
            committed += usize::from(hers.is_ok());
            lapsed += usize::from(hers.is_err());
        }
        println!("{engine:?}: {committed} were committed, {lapsed} ended first");
        test.audit_is_clean().await;
        other.stop().await.unwrap();
    }
}

/// Waits until as many statements wait for this kind of lock.
async fn waiting(test: &TestApp, what: &str, count: i64) {
    let sql = format!(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
         AND wait_event {what} 'advisory'"
    );
    let db = test.app.database.read();
    let reached = async {
        loop {
            let statement = Statement::from_string(DatabaseBackend::Postgres, sql.as_str());
            let row = db.query_one_raw(statement).await.unwrap().unwrap();
            if row.try_get_by_index::<i64>(0).unwrap() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("statements wait");
}

/// A commit takes its instant before it waits for the stock. Meanwhile the reservation ends, and another node gives its unit away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_ends_while_its_commit_waits_for_the_stock() {
    const MINUTE: i64 = 60_000_000;
    let test = TestApp::start(Engine::Postgres).await;
    let other = test.another().await;
    let mug = reward(&test, 10, Some(1)).await;
    give(&test, "ada", 15).await;
    give(&test, "bob", 15).await;
    let reserved = record(&test.app, redemption("ada", mug, "r", Some(MINUTE))).await.unwrap();
    let step = RedemptionStep {
        customer_external_id: ExternalId::stored("ada"),
        number: reserved.redemption.unwrap().number,
        kind: StepKind::Commit,
        by_customer: false,
    };
    // Whoever inserts a redemption waits for the test, with the stock locked.
    for sql in [
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$",
        "CREATE TRIGGER wait BEFORE INSERT ON redemption FOR EACH ROW EXECUTE FUNCTION wait()",
    ] {
        test.app.database.write().execute_unprepared(sql).await.unwrap();
    }
    let gate = test.app.database.begin().await.unwrap();
    gate.execute_unprepared("SELECT pg_advisory_xact_lock(7)").await.unwrap();
    let race = async {
        test.set_now(NOW + MINUTE);
        let his = record(&other, redemption("bob", mug, "b", None));
        let hers = async {
            waiting(&test, "=", 1).await;
            test.set_now(NOW + MINUTE - 1);
            record(&test.app, Fact::RedemptionStep(step)).await
        };
        let open = async {
            waiting(&test, "<>", 1).await;
            test.set_now(NOW + MINUTE);
            gate.commit().await.unwrap();
        };
        let (his, hers, ()) = tokio::join!(his, hers, open);
        (his, hers)
    };
    let (his, hers) = race.await;
    his.expect("the unit is free");
    hers.expect_err("the reservation is over");
    assert!(rest(&test, "ada").await.is_empty());
    test.audit_is_clean().await;
    other.stop().await.unwrap();
}

/// The units of a reservation that is over are free once, also in the commit that ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_reservation_frees_its_unit_once() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let mug = reward(&test, 10, Some(1)).await;
        for name in ["ada", "bob", "eve"] {
            give(&test, name, 15).await;
        }
        record(&test.app, redemption("ada", mug, "r", Some(60_000_000))).await.unwrap();
        test.set_now(NOW + 60_000_000);
        // One batch: customers come in the order of their ids, so Ada's reservation is ended before the others redeem.
        let facts =
            vec![Fact::Expiry("ada".to_owned()), redemption("bob", mug, "b", None), redemption("eve", mug, "e", None)];
        let answers = test.app.recorder.record(TestApp::shop().who(), facts).await.unwrap();
        let given: Vec<bool> = answers.into_iter().map(|answer| answer.unwrap().is_ok()).collect();
        assert_eq!(given, [true, true, false], "{engine:?}");
        test.audit_is_clean().await;
    }
}
