//! A read that is answered from the cache sends one statement, the look-up.

use std::time::Duration;

use serde_json::json;
use windfall::app::reading::snapshot::Extent;
use windfall::cache::Tier;
use windfall::config;
use windfall::engine::time::parse_instant;

use crate::support::app::{TestApp, customer};
use crate::support::direct::{ENGINES, Engine, scratch};
use crate::support::redis::Redis;

/// What a mobile app shows first. The rolling window's progress and the awards take more than the customer's row.
const HOME: &str = "{ me { balance { available version } progress { current campaign { name } } \
    awards { nodes { points campaign { name } } pageInfo { hasNextPage } } } }";

async fn shop(app: &TestApp) {
    app.campaign(json!({})).await;
    let rolling = json!({ "rolling": { "duration": "P30D" } });
    app.campaign(json!({ "name": "rolling", "window": rolling, "goal": { "purchases": { "atLeast": 9 } } })).await;
    for (name, count) in [("ada", 5), ("bob", 4)] {
        for n in 0..count {
            app.purchase(&format!("{name}-{n}"), name, &format!("2026-11-02T0{n}:00:00Z"), "5").await;
        }
    }
}

fn cache(max_staleness: Duration) -> config::Cache {
    config::Cache { l1_bytes: 16 << 20, max_staleness }
}

#[tokio::test]
async fn a_hit_sends_the_look_up_alone() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let redis = Redis::start();
        let one = TestApp::with(&url, &cache(Duration::ZERO), Some(redis.url())).await;
        let other = TestApp::with(&url, &cache(Duration::ZERO), Some(redis.url())).await;
        for node in [&one, &other] {
            while !node.app.snapshots().cache().shared().unwrap().is_up() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        shop(&one).await;
        let cold = one.statements(&customer("ada"), HOME, json!({})).await;
        assert!((4..=9).contains(&cold), "{engine:?}: {cold}");
        assert_eq!(one.statements(&customer("ada"), HOME, json!({})).await, 1, "{engine:?}: L1");
        // It is sent to Redis some time after it was answered.
        while redis.command(&["DBSIZE"]) == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // So that the other node knows the campaigns; their set is kept until its revision moves on.
        other.data(&customer("bob"), HOME, json!({})).await;
        let name = [("ada".to_owned(), None)];
        let tier = async || other.app.snapshots().find(&name, Extent::Progress).await.unwrap()["ada"].tier;
        let before = other.app.database.statements();
        assert_eq!(tier().await, Tier::L2, "{engine:?}");
        assert_eq!(other.app.database.statements() - before, 1, "{engine:?}: L2");
        assert_eq!(other.statements(&customer("ada"), HOME, json!({})).await, 1, "{engine:?}: L1");
        assert_eq!(tier().await, Tier::L1);
        assert_eq!(
            one.data(&customer("ada"), HOME, json!({})).await,
            other.data(&customer("ada"), HOME, json!({})).await
        );
        // Whoever writes makes the next read a miss, on every node.
        one.purchase("ada-9", "ada", "2026-11-02T11:59:00Z", "5").await;
        for node in [&other, &one] {
            let answer = node.data(&customer("ada"), HOME, json!({})).await;
            assert_eq!(answer["me"]["balance"], json!({ "available": 20, "version": 6 }));
            assert_eq!(answer["me"]["progress"][0]["current"], "6", "{answer}");
        }
    }
}

/// A purchase that is newer than the clock's margin does not make a snapshot keep what came long before it.
#[tokio::test]
async fn a_fresh_purchase_loads_no_history() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let app = TestApp::with(&url, &cache(Duration::ZERO), None).await;
        let rolling =
            json!({ "window": { "rolling": { "duration": "PT1H" } }, "goal": { "purchases": { "atLeast": 9 } } });
        app.campaign(rolling).await;
        for (id, at) in [("long-ago", "02T08:00:00Z"), ("lately", "02T11:30:00Z"), ("now", "02T12:00:00Z")] {
            app.purchase(id, "ada", &format!("2026-11-{at}"), "5").await;
        }
        let view = app
            .app
            .snapshots()
            .find(&[("ada".to_owned(), None)], Extent::Progress)
            .await
            .unwrap()
            .remove("ada")
            .unwrap();
        let snapshot = serde_json::to_string(&*view.snapshot).unwrap();
        let shows = |at: &str| snapshot.contains(&parse_instant(&format!("2026-11-{at}")).unwrap().0.to_string());
        assert!(shows("02T11:30:00Z") && !shows("02T08:00:00Z"), "{engine:?}: {snapshot}");
    }
}

#[tokio::test]
async fn where_staleness_is_allowed_a_hit_sends_none() {
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let app = TestApp::with(&url, &cache(Duration::from_secs(60)), None).await;
    shop(&app).await;
    app.data(&customer("ada"), HOME, json!({})).await;
    assert_eq!(app.statements(&customer("ada"), HOME, json!({})).await, 0);
    let writer = TestApp::with(&url, &cache(Duration::ZERO), None).await;
    let bought = writer.purchase("ada-9", "ada", "2026-11-02T11:59:00Z", "5").await;
    let version = &bought["balance"]["version"];
    // Nobody has told this node; but whoever has seen the version gets it.
    let stale = app.data(&customer("ada"), HOME, json!({})).await;
    assert_eq!(stale["me"]["balance"]["version"], 5);
    let asks = "query($v: Count) { me(atLeastVersion: $v) { balance { available version } } }";
    let fresh = app.data(&customer("ada"), asks, json!({ "v": version })).await;
    assert_eq!(fresh["me"]["balance"], json!({ "available": 20, "version": 6 }));
    assert_eq!(app.data(&customer("ada"), HOME, json!({})).await["me"]["balance"]["version"], 6);
}

/// The node may still go by the campaigns of a while ago; an award that it reads of a later one has its campaign all the same.
#[tokio::test]
async fn where_staleness_is_allowed_an_award_s_campaign_is_found() {
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let app = TestApp::with(&url, &cache(Duration::from_secs(60)), None).await;
    app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
    for number in 0..25 {
        app.purchase(&format!("ada-{number}"), "ada", "2026-11-02T10:00:00Z", "5").await;
    }
    // More than a snapshot has, so they are read from the database.
    let all = "{ me { awards(first: 50) { nodes { campaign { name } } } } }";
    let names = async || app.data(&customer("ada"), all, json!({})).await["me"]["awards"]["nodes"].to_string();
    assert!(!names().await.contains("later"));
    let writer = TestApp::with(&url, &cache(Duration::ZERO), None).await;
    writer.campaign(json!({ "name": "later", "goal": { "everyPurchase": "EACH" } })).await;
    writer.purchase("ada-25", "ada", "2026-11-02T11:59:00Z", "5").await;
    assert!(names().await.contains("later"));
}
