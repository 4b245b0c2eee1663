//! The clock changes a balance without a commit. Subscribers are told at that instant, with the entry that the server posts then, where it
//! can.

use futures_util::StreamExt as _;
use serde_json::json;
use windfall::app::customer::Balance;
use windfall::app::reading::points_update::{Feed, Update};
use windfall::app::reading::snapshot::Extent;
use windfall::engine::time::Instant;

use crate::support::app::{ENGINES, Engine, HOUR, NOW, TestApp};
use crate::support::graphql::{GraphqlApp, customer};
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
                Some(windfall::app::reading::points_update::Cursor::of(&row).to_text())
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
