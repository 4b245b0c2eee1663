//! A read that the cache answers sends one statement: the version look-up.

use std::time::Duration;

use serde_json::json;
use windfall::app::reading::snapshot::Extent;
use windfall::cache::Tier;
use windfall::engine::time::parse_instant;
use windfall::redis_servers::{RedisServers, Tls};

use crate::support::app::{ENGINES, Engine, scratch, settings};
use crate::support::graphql::{GraphqlApp, customer};
use crate::support::redis::Redis;

/// The first screen of a mobile app. Progress in a rolling window and awards need more than the customer's row.
const HOME: &str = "{ me { balance { available version } progress { current campaign { name } } \
    awards { nodes { points campaign { name } } pageInfo { hasNextPage } } } }";

async fn shop(app: &GraphqlApp) {
    app.campaign(json!({})).await;
    let rolling = json!({ "rolling": { "duration": "P30D" } });
    app.campaign(json!({ "name": "rolling", "window": rolling, "goal": { "purchases": { "atLeast": 9 } } })).await;
    for (name, count) in [("ada", 5), ("bob", 4)] {
        for n in 0..count {
            app.purchase(&format!("{name}-{n}"), name, &format!("2026-11-02T0{n}:00:00Z"), "5").await;
        }
    }
}

/// A node on this database.
async fn node(url: &str, max_staleness: Duration, redis: Option<&Redis>) -> GraphqlApp {
    let mut config = settings(url);
    config.cache.max_staleness = max_staleness;
    config.redis.servers = redis.map(|redis| RedisServers::new(&redis.url(), Tls::default()).unwrap());
    GraphqlApp::on(config).await
}

#[tokio::test]
async fn a_hit_sends_the_look_up_alone() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let redis = Redis::start();
        let one = node(&url, Duration::ZERO, Some(&redis)).await;
        let other = node(&url, Duration::ZERO, Some(&redis)).await;
        for node in [&one, &other] {
            while !node.app.snapshots().cache().shared().unwrap().is_up() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        shop(&one).await;
        let cold = one.statements(&customer("ada"), HOME, json!({})).await;
        assert!((4..=9).contains(&cold), "{engine:?}: {cold}");
        assert_eq!(one.statements(&customer("ada"), HOME, json!({})).await, 1, "{engine:?}: L1");
        // The node sends the entry to Redis in the background, after it has responded.
        while redis.command(&["DBSIZE"]) == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // This loads the campaign set on the other node, which keeps it until the revision changes.
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
        // A write makes the next read a miss on every node.
        one.purchase("ada-9", "ada", "2026-11-02T11:59:00Z", "5").await;
        for node in [&other, &one] {
            let answer = node.data(&customer("ada"), HOME, json!({})).await;
            assert_eq!(answer["me"]["balance"], json!({ "available": 20, "version": 6 }));
            assert_eq!(answer["me"]["progress"][0]["current"], "6", "{answer}");
        }
    }
}

/// A purchase within the clock's margin does not make a snapshot contain purchases from long before it.
#[tokio::test]
async fn a_fresh_purchase_loads_no_history() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let app = node(&url, Duration::ZERO, None).await;
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
    let app = node(&url, Duration::from_secs(60), None).await;
    shop(&app).await;
    app.data(&customer("ada"), HOME, json!({})).await;
    assert_eq!(app.statements(&customer("ada"), HOME, json!({})).await, 0);
    let writer = node(&url, Duration::ZERO, None).await;
    let bought = writer.purchase("ada-9", "ada", "2026-11-02T11:59:00Z", "5").await;
    let version = &bought["balance"]["version"];
    // This node does not know the new version. A client that has seen it can ask for it.
    let stale = app.data(&customer("ada"), HOME, json!({})).await;
    assert_eq!(stale["me"]["balance"]["version"], 5);
    let asks = "query($v: Count) { me(atLeastVersion: $v) { balance { available version } } }";
    let fresh = app.data(&customer("ada"), asks, json!({ "v": version })).await;
    assert_eq!(fresh["me"]["balance"], json!({ "available": 20, "version": 6 }));
    assert_eq!(app.data(&customer("ada"), HOME, json!({})).await["me"]["balance"]["version"], 6);
}

/// The node may still use an older campaign set. An award of a newer campaign is returned with its campaign nevertheless.
#[tokio::test]
async fn where_staleness_is_allowed_an_award_s_campaign_is_found() {
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let app = node(&url, Duration::from_secs(60), None).await;
    app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
    for number in 0..25 {
        app.purchase(&format!("ada-{number}"), "ada", "2026-11-02T10:00:00Z", "5").await;
    }
    // These are more awards than a snapshot contains, so the database is read.
    let all = "{ me { awards(first: 50) { nodes { campaign { name } } } } }";
    let names = async || app.data(&customer("ada"), all, json!({})).await["me"]["awards"]["nodes"].to_string();
    assert!(!names().await.contains("later"));
    let writer = node(&url, Duration::ZERO, None).await;
    writer.campaign(json!({ "name": "later", "goal": { "everyPurchase": "EACH" } })).await;
    writer.purchase("ada-25", "ada", "2026-11-02T11:59:00Z", "5").await;
    assert!(names().await.contains("later"));
}
