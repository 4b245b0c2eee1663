//! Activations, pauses and ends that race writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use windfall::app::campaign;
use windfall::engine::lifecycle::Status;

use crate::support::app::{Engine, HOUR, NOW, TestApp, cases, purchase_input};

const WRITERS: usize = 16;

/// Rounds on one database. A campaign that has ended still counts late purchases, so each round makes the next one
/// slower.
const ROUNDS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transitions_slip_between_no_writers() {
    for _ in 0..cases(10, 40) {
        rounds().await;
    }
}

/// Activates a campaign with a past, pauses, resumes and ends it, while writers record without a break.
async fn rounds() {
    let test = TestApp::start(Engine::Postgres).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (app, stop) = (Arc::clone(&test.app), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut recorded = 0_i64;
                while !stop.load(Ordering::SeqCst) {
                    // Late and on time in turn, so that both appends and refolds race the transitions.
                    let late = if recorded % 3 == 0 { HOUR } else { 0 };
                    let at = NOW - late + recorded;
                    let customer = format!("c{}", writer % 10);
                    let input = purchase_input(&customer, &format!("p{writer}-{recorded}"), at, "3.00");
                    let shop = TestApp::shop();
                    let answers = windfall::app::purchase::record(&app, &shop, vec![(vec![], input)]).await.unwrap();
                    assert!(!answers[0].as_ref().unwrap().replayed);
                    recorded += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(4)).await;
                }
                recorded
            })
        })
        .collect();
    let actor = TestApp::actor();
    for round in 0..ROUNDS {
        let input = json!({
            "name": format!("round {round}"), "startsAt": "2026-11-01T00:00:00Z", "currency": "EUR",
            "window": {"timer": {"duration": "PT1H", "reopens": true}},
            "goal": {"purchases": {"atLeast": 5, "repeat": true}}, "award": {"points": 1},
            "maxPerWindow": 50
        });
        let input = serde_json::from_value(input).unwrap();
        let draft = campaign::create(&test.app, &actor, input, None).await.unwrap();
        campaign::activate(&test.app, &actor, draft.id()).await.unwrap();
        // In half of the rounds, the campaign is paused before its backfill has run.
        if round % 2 == 0 {
            windfall::app::jobs::runner::finish(&test.app).await.unwrap();
        }
        campaign::pause(&test.app, &actor, draft.id()).await.unwrap();
        let resumed = campaign::resume(&test.app, &actor, draft.id()).await.unwrap();
        assert_eq!(resumed.life.status(test.app.clock.now()), Status::Active);
        let ended = campaign::end(&test.app, &actor, draft.id()).await.unwrap();
        assert_eq!(ended.life.status(test.app.clock.now()), Status::Ended);
        windfall::app::jobs::runner::finish(&test.app).await.unwrap();
        test.audit_is_clean().await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut recorded = 0;
    for writer in writers {
        recorded += writer.await.unwrap();
    }
    assert!(recorded > 0);
    test.audit_is_clean().await;
}
