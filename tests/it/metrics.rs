//! `/metrics` counts each request once, with its outcome, whenever the request ends.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database};
use serde_json::json;
use windfall::http::auth::Role;

use crate::live::{Follower, Transport};
use crate::support::app::{Engine, scratch};
use crate::support::node::{metric, metrics, node, reaches};
use crate::support::server::{ask, token};
use crate::support::shop::{BALANCE, Shop};
use crate::support::websocket::PATIENCE;

async fn requests(shop: &Shop, operation: &str, field: &str, outcome: &str) -> f64 {
    let labels = format!("operation=\"{operation}\",field=\"{field}\",outcome=\"{outcome}\"");
    metric(shop, &format!("windfall_requests_total{{{labels}}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_counted_once() {
    let (url, _) = scratch(Engine::Postgres).await;
    let shop = node(&url, None, &[("WINDFALL__HTTP__REQUEST_TIMEOUT_MS", "1000")]).await;
    let told = metrics(&shop).await;
    for name in ["windfall_write_refused_total 0", "windfall_redis_failures_total{kind=\"timeout\"} 0"] {
        assert!(told.lines().any(|line| line == name), "{name}: {told}");
    }
    shop.campaign(json!({})).await;
    for number in 0..3 {
        shop.buy("ada", number).await;
    }
    shop.balance("ada").await;
    let ada = token(Role::Customer, "ada");
    let asked = async |query: &str| ask(&shop.client, shop.address(), &ada, query, json!({})).await.unwrap();
    assert!(asked("{ nonsense }").await["errors"].is_array());
    let forbidden = "mutation { recordPurchases(inputs: []) { replayed } }";
    assert!(asked(forbidden).await["errors"].is_array());

    // A lock keeps this query from ending in time.
    let locked = Database::connect(&url).await.unwrap();
    locked.execute_unprepared("BEGIN; LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
    assert_eq!(asked(BALANCE).await["errors"][0]["extensions"]["code"], "UNAVAILABLE");
    locked.close().await.unwrap();
    reaches(&shop, "windfall_requests_total{operation=\"query\",field=\"me\",outcome=\"error\"}", 1.0).await;

    for (operation, field, outcome, count) in [
        ("mutation", "createCampaign", "ok", 1.0),
        ("mutation", "activateCampaign", "ok", 1.0),
        ("mutation", "recordPurchases", "ok", 3.0),
        ("mutation", "recordPurchases", "refused", 1.0),
        ("query", "me", "ok", 1.0),
        ("query", "me", "error", 1.0),
        ("none", "none", "refused", 1.0),
        ("subscription", "pointsUpdated", "ok", 0.0),
    ] {
        assert_eq!(requests(&shop, operation, field, outcome).await, count, "{operation} {field} {outcome}");
    }
    assert_eq!(metric(&shop, "windfall_request_seconds_count{operation=\"query\",field=\"me\"}").await, 2.0);
    assert_eq!(metric(&shop, "windfall_write_batch_items_sum").await, 3.0);
    assert_eq!(metric(&shop, "windfall_write_batches_total{outcome=\"committed\"}").await, 3.0);
    assert_eq!(metric(&shop, "windfall_write_queue_items").await, 0.0);
    assert_eq!(metric(&shop, "windfall_database_max_connections").await, 8.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_and_what_they_are_told_are_counted() {
    let (url, _) = scratch(Engine::Postgres).await;
    let shop = node(&url, None, &[("WINDFALL__DATABASE__STATEMENT_TIMEOUT_MS", "1000")]).await;
    shop.campaign(json!({})).await;
    shop.buy("ada", 0).await;
    let cursor = shop.balance("ada").await["cursor"].as_str().unwrap().to_owned();
    shop.buy("ada", 1).await;
    let mut follower = Follower::of(Transport::WebSocket, &shop, "ada", Some(&cursor)).await;
    follower.update().await;
    assert_eq!(metric(&shop, "windfall_live_updates_total{source=\"sql\"}").await, 1.0);
    assert_eq!(metric(&shop, "windfall_live_subscribers").await, 1.0);
    assert_eq!(metric(&shop, "windfall_live_lag_seconds_count").await, 0.0);
    shop.buy("ada", 2).await;
    follower.update().await;
    assert_eq!(metric(&shop, "windfall_live_updates_total{source=\"hub\"}").await, 1.0);
    assert_eq!(metric(&shop, "windfall_live_lag_seconds_count").await, 1.0);
    assert_eq!(requests(&shop, "subscription", "pointsUpdated", "ok").await, 1.0);
    let told = metrics(&shop).await;
    assert!(told.lines().any(|line| {
        line == "windfall_requests_total{operation=\"subscription\",field=\"pointsUpdated\",outcome=\"error\"} 0"
    }));
    // A lock keeps this subscription from reading what it should send.
    let locked = Database::connect(&url).await.unwrap();
    locked.execute_unprepared("BEGIN; LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut failing = Follower::of(Transport::Events, &shop, "ada", Some(&cursor)).await;
    assert_eq!(failing.ending().await.0, "UNAVAILABLE");
    locked.close().await.unwrap();
    reaches(
        &shop,
        "windfall_requests_total{operation=\"subscription\",field=\"pointsUpdated\",outcome=\"error\"}",
        1.0,
    )
    .await;
    assert_eq!(requests(&shop, "subscription", "pointsUpdated", "ok").await, 2.0);
    drop(follower);
    let gone = async {
        while metric(&shop, "windfall_live_subscribers").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the subscription that ended is no longer counted");
}

/// The gauges show the jobs of the whole database, the counters the attempts of this node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_counted_by_kind() {
    let (url, _) = scratch(Engine::Postgres).await;
    let shop = node(&url, None, &[]).await;
    reaches(&shop, "windfall_job_attempts_total{kind=\"settlement\"}", 1.0).await;
    let failures = |kind: &str| format!("windfall_job_failures_total{{kind=\"{kind}\"}}");
    for kind in ["evaluation", "settlement", "expiry", "retention", "audit", "export"] {
        assert_eq!(metric(&shop, &failures(kind)).await, 0.0, "{kind}");
        let line = format!("windfall_jobs{{kind=\"{kind}\",state=\"dead\"}} 0");
        assert!(metrics(&shop).await.lines().any(|told| told == line), "{line}");
    }
    shop.buy("ada", 0).await;
    let database = Database::connect(&url).await.unwrap();
    let broken = "UPDATE customer SET head = 'no state'; \
        INSERT INTO job (kind, unique_key, state, requests, attempts, run_at, created_at) \
        VALUES ('audit', 'audit:1', 'dead', 1, 8, 0, 0); \
        INSERT INTO job (kind, unique_key, customer_id, state, requests, attempts, run_at, created_at) \
        SELECT 'evaluation', 'evaluation:customer:' || id, id, 'waiting', 1, 0, 0, 0 FROM customer";
    database.execute_unprepared(broken).await.unwrap();
    reaches(&shop, &failures("evaluation"), 1.0).await;
    assert!(metric(&shop, "windfall_job_attempts_total{kind=\"evaluation\"}").await >= 1.0);
    reaches(&shop, "windfall_jobs{kind=\"audit\",state=\"dead\"}", 1.0).await;
    assert_eq!(metric(&shop, "windfall_job_failures_total{kind=\"audit\"}").await, 0.0);
    assert!(metrics(&shop).await.contains("\nwindfall_job_wait_seconds "));
    database.close().await.unwrap();
}
