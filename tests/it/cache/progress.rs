//! Readers of balances and of progress share loads. Every reader of progress gets a snapshot that is enough for progress, and
//! that has the same version as the balance.

use serde_json::json;
use windfall::app::campaign::input::CampaignUpdate;
use windfall::app::reading::progress::of_view;
use windfall::app::reading::snapshot::Extent;
use windfall::engine::lookback::MAX_STEPS;
use windfall::engine::time::Instant;

use crate::support::app::{ENGINES, HOUR, NOW, TestApp, cases};

/// A campaign changes while readers of both kinds load, so a loaded snapshot may belong to the new campaign set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_of_the_balance_s_version_though_a_campaign_changes() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let rolling = json!({
            "name": "rolling", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "award": {"points": 10},
            "window": {"rolling": {"duration": "P300D"}}, "goal": {"purchases": {"atLeast": 1_000_000}}
        });
        let id = test.campaign(rolling).await;
        let names = [("c".to_owned(), None)];
        let find = async |extent| test.app.snapshots().find(&names, extent).await.unwrap();
        for round in 0..cases(100, 1_000) {
            let at = NOW - 1_000 * HOUR + i64::try_from(round).unwrap();
            test.buy("c", &format!("p{round}"), at, "1.00").await.unwrap();
            let rename = async {
                let campaign = test.app.campaigns().await.unwrap();
                let if_revision = campaign.get(id).unwrap().row.set_revision;
                let name = Some(Some(round.to_string()));
                let update = CampaignUpdate { if_revision, name, ..CampaignUpdate::default() };
                windfall::app::campaign::update(&test.app, &TestApp::actor(), id, update).await.unwrap();
            };
            let told = async {
                let view = find(Extent::Progress).await.remove("c").expect("a view of the customer");
                let progress = of_view(&view, None, Instant(NOW)).expect("a snapshot that is enough for progress");
                assert_eq!(
                    progress[0].progress.current, view.snapshot.customer.version,
                    "{engine:?}: progress counts all purchases of the version"
                );
            };
            tokio::join!(find(Extent::Balance), rename, find(Extent::Balance), told);
        }
    }
}

/// A rolling window can change more often within a minute than a snapshot can tell, so that all it could tell is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_told_though_many_purchases_have_just_become_too_old() {
    const SECOND: i64 = 1_000_000;
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let rolling = json!({
            "name": "rolling", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "award": {"points": 10},
            "window": {"rolling": {"duration": "PT1H"}}, "goal": {"purchases": {"atLeast": 1_000}}
        });
        test.campaign(rolling).await;
        for number in 0..2 * MAX_STEPS {
            let ago = HOUR + 50 * SECOND - i64::try_from(number).unwrap() * SECOND / 4;
            test.buy("c", &format!("p{number}"), NOW - ago, "1.00").await.unwrap();
        }
        test.buy("c", "last", NOW - HOUR / 2, "1.00").await.unwrap();
        let found = test.app.snapshots().find(&[("c".to_owned(), None)], Extent::Progress).await.unwrap();
        let progress = of_view(&found["c"], None, Instant(NOW)).expect("a snapshot that is enough for progress");
        assert_eq!(progress[0].progress.current, 1, "{engine:?}");
    }
}
