//! A cache entry does not depend on the clock. Whether the clock shows a time before or after the load, progress is the same
//! as on a node without a cache.

use serde_json::json;

use crate::support::app::{ENGINES, cases, scratch, settings};
use crate::support::graphql::{GraphqlApp, customer};

const PROGRESS: &str = "{ me { balance { version } progress { state current target window { opensAt closesAt } \
    nextWindow { opensAt } awardsEarned awardsLeft campaign { name } } } }";
/// The initial time of the clock in these tests, 2026-11-02T12:00:00Z, in Unix seconds.
const NOON: i64 = 1_793_620_800;

fn at(seconds: i64) -> String {
    windfall::engine::time::Instant((NOON + seconds) * 1_000_000).to_string()
}

#[tokio::test]
async fn whatever_the_clock_shows_progress_is_as_without_a_cache() {
    // With a budget of zero bytes, nothing is cached.
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let mut none = settings(&url);
        none.cache.l1_bytes = 0;
        let (warm, cold) = (GraphqlApp::on(settings(&url)).await, GraphqlApp::on(none).await);
        let goal = json!({ "purchases": { "atLeast": 9 } });
        for (name, window) in [
            ("rolling", json!({ "rolling": { "duration": "PT1H" } })),
            ("daily", json!({ "calendar": { "unit": "DAY" } })),
            ("evenings", json!({ "recurring": { "weekdays": ["MONDAY"], "from": "12:01", "to": "12:04" } })),
            ("hours", json!({ "timer": { "duration": "PT1H", "reopens": true } })),
        ] {
            warm.campaign(json!({ "name": name, "window": window, "goal": goal })).await;
        }
        // A campaign that begins and one that ends while the clock moves.
        let streak = json!({ "streak": { "length": 2 } });
        let starts = json!({ "name": "starts", "startsAt": at(600), "window": { "rolling": { "duration": "PT1H" } }, "goal": goal });
        let ends =
            json!({ "name": "ends", "endsAt": at(900), "window": { "calendar": { "unit": "DAY" } }, "goal": streak });
        warm.campaign(starts).await;
        warm.campaign(ends).await;
        // A purchase may be up to five minutes ahead of the clock.
        for (number, seconds) in [-7_200, -3_500, -3_000, -60, 0, 100, 200, 290].into_iter().enumerate() {
            warm.purchase(&format!("p{number}"), "ada", &at(seconds), "5").await;
        }
        let mut moved = 0;
        let mut last = json!(null);
        for _ in 0..cases(60, 2_000) {
            let seconds = rand::random_range(-4_000..8_000);
            for app in [&warm, &cold] {
                app.set_clock(&at(seconds));
            }
            let expected = cold.data(&customer("ada"), PROGRESS, json!({})).await;
            let told = warm.data(&customer("ada"), PROGRESS, json!({})).await;
            assert_eq!(told, expected, "{engine:?}: {seconds} s");
            moved += usize::from(told != last);
            last = told;
        }
        assert!(moved > 10, "{engine:?}: the clock changed progress only {moved} times");
    }
}
