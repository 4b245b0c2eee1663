//! Retention deletes what nobody needs any more, in bounded commits, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use entity::{JobState, job};
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait};
use windfall::app::App;
use windfall::app::jobs::periodic::{Requested, request_ticks};
use windfall::app::jobs::runner;

use super::draft;
use crate::support::app::{DAY, ENGINES, HOUR, NOW, TestApp};

/// Runs all ticks that are due.
async fn tick(app: &Arc<App>) {
    request_ticks(app, &mut Requested::default()).await.unwrap();
    runner::run_due(app).await.unwrap();
}

async fn execute(test: &TestApp, sql: &str) {
    test.app.database.write().execute_unprepared(sql).await.unwrap();
}

/// Inserts a finished or unfinished job. `finished` is in days before now.
async fn put(test: &TestApp, kind: &str, key: &str, state: &str, finished: Option<i64>) {
    let finished = finished.map_or_else(|| "NULL".to_owned(), |days| (NOW - days * DAY).to_string());
    execute(
        test,
        &format!(
            "INSERT INTO job (kind, unique_key, state, requests, attempts, run_at, created_at, finished_at) \
             VALUES ('{kind}', '{key}', '{state}', 1, 0, {}, 0, {finished})",
            NOW + 9_000 * DAY
        ),
    )
    .await;
}

/// Returns the keys of all jobs but the ticks of now.
async fn keys(test: &TestApp) -> BTreeSet<String> {
    let jobs = job::Entity::find().all(test.app.database.read()).await.unwrap();
    jobs.into_iter().filter(|job| job.created_at < NOW || job.campaign_id.is_some()).map(|job| job.unique_key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_nobody_needs_is_deleted() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        test.buy("ada", "p", NOW - 30 * DAY, "1.00").await.unwrap();
        let id = draft(&test, serde_json::json!({})).await;
        windfall::app::campaign::activate(&test.app, &TestApp::actor(), id).await.unwrap();
        // A backfill that was cancelled weeks ago and is still open.
        let sql = format!("UPDATE job SET state = 'cancelled', finished_at = {}", NOW - 30 * DAY);
        execute(&test, &sql).await;
        for (key, state, finished) in [
            ("old done", "done", Some(8)),
            ("old cancelled", "cancelled", Some(8)),
            ("done", "done", Some(6)),
            ("cancelled", "cancelled", Some(6)),
            ("dead", "dead", Some(30)),
            ("waiting", "waiting", None),
        ] {
            put(&test, "evaluation", key, state, finished).await;
        }
        put(&test, "audit", "audit:1", "done", Some(40)).await;
        put(&test, "audit", "audit:2", "cancelled", Some(30)).await;
        execute(
            &test,
            &format!(
                "INSERT INTO node (id, format, zone_data, last_seen) VALUES (1, 1, 'z', {}), (2, 1, 'z', {})",
                NOW - 25 * HOUR,
                NOW - 23 * HOUR
            ),
        )
        .await;
        tick(&test.app).await;
        let kept = ["cancelled", "dead", "done", "waiting"].map(str::to_owned);
        let backfill = format!("evaluation:campaign:{}", id.0);
        assert_eq!(keys(&test).await, kept.into_iter().chain([backfill]).collect(), "{engine:?}");
        let nodes = entity::node::Entity::find().all(test.app.database.read()).await.unwrap();
        assert_eq!(nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [2], "{engine:?}");
        // What was recorded is recognised for ever.
        test.set_now(NOW + 3_000 * DAY);
        tick(&test.app).await;
        assert!(test.buy("ada", "p", NOW - 30 * DAY, "1.00").await.unwrap().replayed, "{engine:?}");
        test.audit_is_clean().await;
    }
}

/// The last tick of a kind stays, however old it is. Otherwise a node that starts within a long period would run it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_that_was_deleted_is_not_run_again() {
    for engine in ENGINES {
        let configure = |config: &mut windfall::config::Config| {
            config.jobs.audit_period = std::time::Duration::from_hours(7 * 24);
            config.jobs.finished_kept_for = std::time::Duration::from_hours(24);
        };
        let test = TestApp::start_with(engine, configure).await;
        // The beginning of a period.
        let began = NOW.div_euclid(7 * DAY) * 7 * DAY;
        for day in 0..7 {
            test.set_now(began + day * DAY + HOUR);
            tick(&test.app).await;
            let audits = job::Entity::find().all(test.app.database.read()).await.unwrap();
            let audits: Vec<_> = audits.into_iter().filter(|job| job.kind == entity::JobKind::Audit).collect();
            let [audit] = &audits[..] else { panic!("{engine:?}: {audits:?}") };
            assert_eq!((audit.state, audit.started_at), (JobState::Done, Some(began + HOUR)), "{engine:?} {day}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_deletes_a_bounded_number_of_rows() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let mut sent = Vec::new();
        for (round, rows) in [500, 2_500].into_iter().enumerate() {
            let values =
                (0..rows).map(|n| format!("('evaluation', 'r{round}-{n}', 'done', 1, 0, 0, 0, {})", NOW - 30 * DAY));
            let values = values.collect::<Vec<_>>().join(", ");
            let columns = "kind, unique_key, state, requests, attempts, run_at, created_at, finished_at";
            execute(&test, &format!("INSERT INTO job ({columns}) VALUES {values}")).await;
            test.set_now(NOW + i64::try_from(round).unwrap() * HOUR);
            let before = test.app.database.statements();
            tick(&test.app).await;
            sent.push(test.app.database.statements() - before);
            let left = job::Entity::find().count(test.app.database.read()).await.unwrap();
            assert!(left < 10, "{engine:?}: {left} jobs are left");
        }
        // Two more deletes of jobs, each followed by the renewal of the lease.
        assert_eq!(sent[1], sent[0] + 4, "{engine:?}");
    }
}

/// The result of an export goes with its job. What cancelled and dead jobs have written goes at once, that of jobs that run stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_exports_are_deleted_with_their_jobs() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let states = [
            ("old", "done", Some(8)),
            ("new", "done", Some(6)),
            ("cancelled", "cancelled", Some(1)),
            ("dead", "dead", Some(1)),
            ("running", "running", None),
            ("waiting", "waiting", None),
        ];
        for (key, state, finished) in states {
            put(&test, "export", key, state, finished).await;
        }
        // More parts than one commit deletes.
        let numbers: Vec<String> = (1..=150).map(|number| format!("({number})")).collect();
        let sql = format!(
            "INSERT INTO export_chunk (job_id, number, content) SELECT j.id, n.column1, {} FROM job AS j, (VALUES {}) AS n",
            if engine == crate::support::app::Engine::Postgres { "'x'::bytea" } else { "x'78'" },
            numbers.join(", ")
        );
        execute(&test, &sql).await;
        execute(&test, "UPDATE job SET leased_until = 9000000000000000000 WHERE state = 'running'").await;
        tick(&test.app).await;
        assert_eq!(keys(&test).await, ["cancelled", "dead", "new", "running", "waiting"].map(str::to_owned).into());
        let jobs = job::Entity::find().all(test.app.database.read()).await.unwrap();
        let chunks = entity::export_chunk::Entity::find().all(test.app.database.read()).await.unwrap();
        let named = |id| jobs.iter().find(|job| job.id == id).map(|job| job.unique_key.as_str());
        for (key, ..) in states {
            let kept = ["new", "running", "waiting"].contains(&key);
            let left = chunks.iter().filter(|chunk| named(chunk.job_id) == Some(key)).count();
            assert_eq!(left, if kept { 150 } else { 0 }, "{engine:?} {key}");
        }
        assert_eq!(chunks.len(), 3 * 150, "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_entries_of_the_trail_are_deleted() {
    for engine in ENGINES {
        let test = TestApp::start_with(engine, |config| {
            config.jobs.trail_kept_for = std::time::Duration::from_hours(24 * 30);
        })
        .await;
        let columns = "at, action, subject_of_token, role, refused, request_id";
        let ages = (0..1_200).map(|_| 31).chain([29, 0]);
        let entries: Vec<String> =
            ages.map(|days| format!("({}, 'a {days}', 'eve', 'admin', '[]', 'r')", NOW - days * DAY)).collect();
        execute(&test, &format!("INSERT INTO trail_entry ({columns}) VALUES {}", entries.join(", "))).await;
        tick(&test.app).await;
        let left = entity::trail_entry::Entity::find().all(test.app.database.read()).await.unwrap();
        let left: Vec<&str> = left.iter().map(|entry| entry.action.as_str()).collect();
        assert_eq!(left, ["a 29", "a 0"], "{engine:?}");
    }
}
