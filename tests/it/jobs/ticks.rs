//! Periodic jobs: each tick runs once, whatever the number of nodes and their clocks.

use std::collections::BTreeSet;
use std::time::Duration;

use entity::{JobKind, JobState, job};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use windfall::app::clock::Clock;
use windfall::app::database::Database;
use windfall::app::jobs::periodic::{Requested, request_ticks};
use windfall::app::jobs::queue::{self, MAX_ATTEMPTS};
use windfall::app::jobs::runner;

use crate::support::app::{DAY, ENGINES, Engine, HOUR, NOW, TestApp, open, scratch};
use crate::support::faketime::WrongClock;
use crate::support::node::metric;
use crate::support::server::{Server, command};
use crate::support::shop::Shop;
use crate::support::websocket::PATIENCE;

const MINUTE: i64 = 60_000_000;
const SECOND: i64 = 1_000_000;

async fn of_kind(database: &Database, kind: JobKind) -> Vec<job::Model> {
    let jobs = job::Entity::find().filter(job::Column::Kind.eq(kind)).order_by_asc(job::Column::Id);
    jobs.all(database.read()).await.unwrap()
}

/// Returns the keys of all ticks and their states, oldest first.
async fn settlements(test: &TestApp) -> Vec<(String, JobState)> {
    let jobs = of_kind(&test.app.database, JobKind::Settlement).await;
    jobs.into_iter().map(|job| (job.unique_key, job.state)).collect()
}

fn key(at: i64) -> String {
    format!("settlement:{}", at / SECOND)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_is_requested_once_and_missed_ones_collapse() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let other = test.another().await;
        let (mut here, mut there) = (Requested::default(), Requested::default());
        for now in [NOW, NOW + MINUTE / 2] {
            test.set_now(now);
            request_ticks(&test.app, &mut here).await.unwrap();
            request_ticks(&other, &mut there).await.unwrap();
            // A node that has just started.
            request_ticks(&other, &mut Requested::default()).await.unwrap();
        }
        assert_eq!(settlements(&test).await, [(key(NOW), JobState::Waiting)], "{engine:?}");
        for kind in [JobKind::Expiry, JobKind::Retention, JobKind::Audit] {
            assert_eq!(of_kind(&test.app.database, kind).await.len(), 1, "{engine:?} {kind:?}");
        }
        // The job takes longer than its period.
        test.set_now(NOW + MINUTE);
        request_ticks(&test.app, &mut here).await.unwrap();
        assert_eq!(settlements(&test).await.len(), 1, "{engine:?}: requested beside an unfinished one");
        assert_eq!(runner::run_due(&test.app).await.unwrap(), 4, "{engine:?}");
        request_ticks(&other, &mut there).await.unwrap();
        assert_eq!(settlements(&test).await[1..], [(key(NOW + MINUTE), JobState::Waiting)], "{engine:?}");
        runner::run_due(&other).await.unwrap();
        // No node was up for a day.
        test.set_now(NOW + DAY + MINUTE / 3);
        request_ticks(&test.app, &mut Requested::default()).await.unwrap();
        request_ticks(&other, &mut there).await.unwrap();
        assert_eq!(settlements(&test).await[2..], [(key(NOW + DAY), JobState::Waiting)], "{engine:?}");
        assert_eq!(runner::run_due(&test.app).await.unwrap(), 4, "{engine:?}");
        other.stop().await.unwrap();
    }
}

/// A clock that was weeks ahead leaves a job behind that waits for weeks. Ticks go on without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_wrong_clock_keeps_no_tick_waiting() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        test.set_now(NOW + 60 * DAY);
        request_ticks(&test.app, &mut Requested::default()).await.unwrap();
        test.set_now(NOW);
        request_ticks(&test.app, &mut Requested::default()).await.unwrap();
        assert_eq!(settlements(&test).await[1..], [(key(NOW), JobState::Waiting)], "{engine:?}");
    }
}

/// A tick that keeps failing dies like any job. It shows as dead until a later tick succeeds, and there is never more than one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_tick_takes_the_place_of_a_dead_one() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let mut now = NOW;
        let mut requested = Requested::default();
        for round in 0..3 {
            request_ticks(&test.app, &mut requested).await.unwrap();
            for _ in 0..MAX_ATTEMPTS {
                let tick = queue::claim(&test.app, &[JobKind::Settlement]).await.unwrap().unwrap();
                // The last round succeeds, through the runner.
                if round == 2 {
                    queue::end(&test.app, &tick, queue::End::Again(test.app.clock.now())).await.unwrap();
                    break;
                }
                let end = queue::End::Failed("no".to_owned());
                queue::end(&test.app, &tick, end).await.unwrap();
                now += 6 * MINUTE;
                test.set_now(now);
            }
            runner::run_due(&test.app).await.unwrap();
            now += 6 * MINUTE;
            test.set_now(now);
        }
        let states: Vec<JobState> = settlements(&test).await.into_iter().map(|(_, state)| state).collect();
        assert_eq!(states, [JobState::Cancelled, JobState::Cancelled, JobState::Done], "{engine:?}");
    }
}

/// A tick that kills its process each time must not do so for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_that_kills_its_workers_dies_and_replaces_an_earlier_one() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let mut now = NOW;
        let mut requested = Requested::default();
        for _ in 0..2 {
            request_ticks(&test.app, &mut requested).await.unwrap();
            for _ in 0..MAX_ATTEMPTS {
                assert!(queue::claim(&test.app, &[JobKind::Audit]).await.unwrap().is_some(), "{engine:?}");
                now += 2 * MINUTE;
                test.set_now(now);
            }
            runner::run_due(&test.app).await.unwrap_err();
            now += HOUR;
            test.set_now(now);
        }
        let audits = of_kind(&test.app.database, JobKind::Audit).await;
        let states: Vec<JobState> = audits.iter().map(|job| job.state).collect();
        assert_eq!(states, [JobState::Cancelled, JobState::Dead], "{engine:?}");
        assert!(audits[1].error.as_deref().is_some_and(|error| error.contains("ended 8 times")), "{engine:?}");
    }
}

async fn with_clock(url: &str, clock: &WrongClock) -> Shop {
    let mut command = command(url);
    command.env("WINDFALL__JOBS__AUDIT_PERIOD_SECONDS", "2").env("WINDFALL__JOBS__RETENTION_PERIOD_SECONDS", "2");
    clock.give_to(&mut command);
    Shop::of(Server::start_with(&mut command).await.0)
}

/// The ticks follow the database's clock, which is also that of this process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_whose_clocks_differ_run_each_tick_once() {
    const TICKS: usize = 4;
    let (url, _) = scratch(Engine::Postgres).await;
    let began = Clock::System.now().0;
    let (right, ahead) = (WrongClock::by(0), WrongClock::by(5));
    let nodes = [with_clock(&url, &right).await, with_clock(&url, &ahead).await];
    let database = open(&url).await;
    let kinds = [(JobKind::Audit, "audit"), (JobKind::Retention, "retention")];
    for (kind, name) in kinds {
        let attempts = async || {
            let mut attempts = 0.0;
            for node in &nodes {
                attempts += metric(node, &format!("windfall_job_attempts_total{{kind=\"{name}\"}}")).await;
            }
            attempts
        };
        let prefix = format!("{name}:");
        let began = |job: &job::Model| job.unique_key.strip_prefix(&prefix).unwrap().parse::<i64>().unwrap() * SECOND;
        // Between two ticks, both nodes together have made one attempt for each.
        let once = async {
            loop {
                let made = attempts().await;
                let jobs = of_kind(&database, kind).await;
                assert!(
                    jobs.iter().all(|job| began(job) <= Clock::System.now().0),
                    "{name}: a tick that is ahead: {jobs:?}"
                );
                let done = jobs.iter().filter(|job| job.state == JobState::Done).count();
                if done >= TICKS && made == done as f64 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, once).await.unwrap_or_else(|_| panic!("{name}: one attempt for each tick"));
    }
    let ended = Clock::System.now().0;
    for (kind, name) in kinds {
        let jobs = of_kind(&database, kind).await;
        let ticks: BTreeSet<i64> =
            jobs.iter().map(|job| job.unique_key.strip_prefix(&format!("{name}:")).unwrap().parse().unwrap()).collect();
        assert_eq!(ticks.len(), jobs.len());
        assert!(ticks.iter().all(|tick| tick % 2 == 0), "{ticks:?}");
        let (first, last) = (ticks.first().unwrap() * SECOND, ticks.last().unwrap() * SECOND);
        assert!(first > began - 2 * SECOND && last <= ended, "{name}: from {began} to {ended}: {ticks:?}");
    }
    for node in nodes {
        assert!(node.server.terminate().success());
    }
}
