//! Cached snapshots are compared with the database, and clients can ask where an answer was found.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::app::{ENGINES, Engine, scratch, settings};
use crate::support::graphql::{GraphqlApp, customer};
use crate::support::node::{metric, node};
use crate::support::server::token;
use windfall::app::reading::snapshot::Extent;
use windfall::http::auth::Role;

#[tokio::test]
async fn a_difference_is_found() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let app = GraphqlApp::on(settings(&url)).await;
        app.campaign(
            json!({ "window": { "rolling": { "duration": "P9D" } }, "goal": { "purchases": { "atLeast": 3 } } }),
        )
        .await;
        app.purchase("p1", "ada", "2026-11-02T10:00:00Z", "5").await;
        let view = async || {
            app.app
                .snapshots()
                .find(&[("ada".to_owned(), None)], Extent::Progress)
                .await
                .unwrap()
                .remove("ada")
                .unwrap()
        };
        let kept = view().await;
        assert_eq!(app.app.snapshots().check(&kept).await, Some(true), "{engine:?}");
        // A later clock makes no difference, although progress is computed again.
        app.set_clock("2026-11-02T12:00:40Z");
        assert_eq!(app.app.snapshots().check(&kept).await, Some(true), "{engine:?}");
        for tampered in
            ["UPDATE purchase SET purchased_at = purchased_at + 1", "UPDATE customer SET balance = balance + 1"]
        {
            app.execute(tampered).await;
            assert_eq!(app.app.snapshots().check(&kept).await, Some(false), "{engine:?}: {tampered}");
        }
        // A version that is no longer current cannot be compared.
        app.purchase("p2", "ada", "2026-11-02T11:00:00Z", "5").await;
        assert_eq!(app.app.snapshots().check(&kept).await, None, "{engine:?}");
        assert_eq!(app.data(&customer("ada"), "{ me { externalId } }", json!({})).await["me"]["externalId"], "ada");
    }
}

/// A backfill that gives no award still changes `evaluating`, which readers see. So it must give the customer a new version.
#[tokio::test]
async fn a_backfill_without_effect_is_a_version_of_its_own() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let app = GraphqlApp::on(settings(&url)).await;
        app.purchase("p1", "ada", "2026-11-02T10:00:00Z", "5").await;
        app.campaign(json!({ "filter": { "channels": ["nowhere"] } })).await;
        let find = async || {
            let found = app.app.snapshots().find(&[("ada".to_owned(), None)], Extent::Progress).await;
            found.unwrap().remove("ada").unwrap()
        };
        let evaluating = async || app.data(&customer("ada"), "{ me { progress { evaluating } } }", json!({})).await;
        let before = find().await;
        assert_eq!(evaluating().await["me"]["progress"], json!([{ "evaluating": true }]));
        windfall::app::jobs::runner::finish(&app.app).await.unwrap();
        assert_eq!(evaluating().await["me"]["progress"], json!([{ "evaluating": false }]));
        assert_eq!(app.app.snapshots().check(&before).await, None, "{engine:?}: the backfill made a new version");
        assert_eq!(app.app.snapshots().check(&find().await).await, Some(true), "{engine:?}");
    }
}

#[tokio::test]
async fn who_asks_is_told_where_an_answer_was_found() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let shop = node(&url, None, &[]).await;
        shop.buy("ada", 0).await;
        let ada = token(Role::Customer, "ada");
        let ask = async |told: Option<&str>| {
            let body = json!({ "query": "{ me { balance { version } } }" });
            let mut request = shop.client.post(format!("{}/graphql", shop.address())).bearer_auth(&ada).json(&body);
            if let Some(told) = told {
                request = request.header("windfall-tell", told);
            }
            request.send().await.unwrap().json::<serde_json::Value>().await.unwrap()
        };
        for source in ["sql", "l1"] {
            let answer = ask(Some("reads")).await;
            let [read] = answer["extensions"]["reads"].as_array().unwrap().as_slice() else { panic!("{answer}") };
            assert_eq!(
                (&read["customer"], &read["version"], &read["source"]),
                (&json!("ada"), &json!(1), &json!(source))
            );
            assert!(read["ageMs"].as_u64().is_some_and(|age| age < 60_000), "{answer}");
        }
        assert_eq!(ask(None).await.get("extensions"), None);
        assert_eq!(ask(Some("everything")).await.get("extensions"), None);
    }
}

/// Look-ups of many requests are merged into one statement, but each response reports only the customers of its own request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_others_ask_for_is_not_told() {
    let (url, _sqlite) = scratch(Engine::Postgres).await;
    let shop = Arc::new(node(&url, None, &[]).await);
    let mut asking = JoinSet::new();
    for number in 0..50 {
        shop.buy(&format!("c{number}"), 0).await;
    }
    for number in 0..500 {
        let (shop, name) = (Arc::clone(&shop), format!("c{}", number % 50));
        asking.spawn(async move {
            let body = json!({ "query": "{ me { externalId balance { version } } }" });
            let request =
                shop.client.post(format!("{}/graphql", shop.address())).bearer_auth(token(Role::Customer, &name));
            let answer = request.header("windfall-tell", "reads").json(&body).send().await.unwrap();
            let answer: serde_json::Value = answer.json().await.unwrap();
            let [read] = answer["extensions"]["reads"].as_array().unwrap().as_slice() else { panic!("{answer}") };
            assert_eq!((&read["customer"], &answer["data"]["me"]["externalId"]), (&json!(name), &json!(name)));
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
    let (lookups, names) = (
        metric(&shop, "windfall_cache_lookup_names_count").await,
        metric(&shop, "windfall_cache_lookup_names_sum").await,
    );
    assert!(names > 1.2 * lookups, "hardly any look-ups were merged: {names} names in {lookups} look-ups");
}
