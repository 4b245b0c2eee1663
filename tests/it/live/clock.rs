//! The clock changes a balance without a commit. Subscribers are told at that instant, with the entry that the server posts then, where it
//! can.

use futures_util::StreamExt as _;
use serde_json::json;
use windfall::app::clock::Clock;
use windfall::app::customer::Balance;
use windfall::app::reading::points_update::{Feed, Update};
use windfall::app::reading::snapshot::Extent;
use windfall::engine::time::Instant;

use crate::support::app::{ENGINES, Engine, HOUR, NOW, TestApp, scratch};
use crate::support::faketime::WrongClock;
use crate::support::graphql::{GraphqlApp, customer};
use crate::support::server::{Server, command};
use crate::support::shop::Shop;
use crate::support::websocket::PATIENCE;

/// Points of a purchase an hour ago are pending for another hour, and gone an hour later.
async fn with_points(engine: Engine) -> GraphqlApp {
    let test = TestApp::start(engine).await;
    test.campaign(json!({
        "name": "each", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": { "campaign": "WHOLE" },
        "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 }, "holdFor": "PT2H", "expiresAfter": "PT1H",
    }))
    .await;
    test.buy("ada", "p", NOW - HOUR, "5.00").await.unwrap();
    GraphqlApp::of(test)
}

async fn available(app: &GraphqlApp, now: i64) -> i64 {
    let found = app.app.snapshots().find(&[("ada".to_owned(), None)], Extent::Balance).await.unwrap();
    Balance::of_snapshot(&found["ada"].snapshot, Instant(now)).available
}

fn points(update: &Update) -> Vec<i64> {
    update.entries.iter().map(|entry| entry.points).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_are_told_when_points_mature_and_expire() {
    for engine in ENGINES {
        for (after, writes) in [(false, true), (true, true), (false, false)] {
            let app = with_points(engine).await;
            let ada = customer("ada");
            let feed = async |after: Option<String>| {
                let reader = ada.require_reader().unwrap();
                Feed::open(app.app.clone(), reader, Instant::FOREVER, None, after).await.unwrap()
            };
            let after = if after {
                let row = app.customer("ada").await.unwrap();
                Some(windfall::app::cursor::Cursor::of(&row).to_text())
            } else {
                None
            };
            let mut stream = Box::pin(feed(after).await.stream());
            let mut next = async || {
                let update = tokio::time::timeout(PATIENCE, stream.next()).await.expect("an update in time");
                update.expect("no end").expect("no error")
            };
            if !writes {
                app.execute(match engine {
                    Engine::Sqlite => {
                        "CREATE TRIGGER sabotage BEFORE UPDATE ON customer BEGIN SELECT RAISE(ABORT, 'no'); END"
                    }
                    Engine::Postgres => {
                        "CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; \
                         CREATE TRIGGER sabotage BEFORE UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION sabotage()"
                    }
                })
                .await;
            }
            // Nothing is due yet.
            assert_eq!(available(&app, NOW).await, 0);
            app.set_now(NOW + HOUR);
            let matured = next().await;
            assert_eq!((points(&matured), available(&app, NOW + HOUR).await), (vec![], 10), "{engine:?}");
            app.set_now(NOW + 2 * HOUR);
            let expired = next().await;
            let posted = if writes { vec![-10] } else { vec![] };
            assert_eq!((points(&expired), available(&app, NOW + 2 * HOUR).await), (posted, 0), "{engine:?}");
            app.audit_is_clean().await;
        }
    }
}

/// Points mature and expire while two nodes answer in turn whose clocks are five seconds apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_whose_clocks_differ_never_flicker() {
    let (url, _) = scratch(Engine::Postgres).await;
    let (right, ahead) = (WrongClock::by(0), WrongClock::by(5));
    let mut nodes = Vec::new();
    for clock in [&right, &ahead] {
        let mut command = command(&url);
        clock.give_to(&mut command);
        nodes.push(Shop::of(Server::start_with(&mut command).await.0));
    }
    nodes[0]
        .campaign(json!({
            "startsAt": "2026-01-01T00:00:00Z", "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 },
            "holdFor": "PT2S", "expiresAfter": "PT3S",
        }))
        .await;
    let at = Instant(Clock::System.now().0);
    let purchase = json!({ "externalId": "p", "customerExternalId": "ada", "purchasedAt": at.to_string(), "total": "5.00", "currency": "EUR" });
    let record = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { code } } }";
    let recorded = nodes[0].data(&nodes[0].storefront, record, json!({ "input": purchase })).await;
    assert_eq!(recorded["recordPurchase"]["userErrors"], json!([]));
    let query = "{ customer(by: { externalId: \"ada\" }) { balance { available pending asOf version } } }";
    let mut seen = vec![(10, 0)];
    let mut last = (0, String::new());
    let reads = async {
        for turn in 0_usize.. {
            let node = &nodes[turn % 2];
            let read = node.data(&node.storefront, query, json!({})).await["customer"]["balance"].take();
            let now = (read["pending"].as_i64().unwrap(), read["available"].as_i64().unwrap());
            if seen.last() != Some(&now) {
                seen.push(now);
            }
            // Of two balances, the one with the greater version and instant is newer.
            let order = (read["version"].as_i64().unwrap(), read["asOf"].as_str().unwrap().to_owned());
            assert!(order.0 >= last.0, "{order:?} after {last:?}");
            last = order;
            if now == (0, 0) && turn % 2 == 1 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reads).await.expect("the points expire");
    assert_eq!(seen, [(10, 0), (0, 10), (0, 0)]);
    // A few reads more: the points do not come back.
    for turn in 0..20 {
        let node = &nodes[turn % 2];
        let read = node.data(&node.storefront, query, json!({})).await["customer"]["balance"].take();
        assert_eq!((&read["pending"], &read["available"]), (&json!(0), &json!(0)));
    }
    for node in nodes {
        assert!(node.server.terminate().success());
    }
}
