//! The job of an export under a lease: one that lost it adds nothing, and one that kills its process each time is given up.

use entity::{JobKind, JobState, export_chunk, job};
use sea_orm::{ConnectionTrait as _, EntityTrait as _, QueryOrder as _};
use windfall::app::error::Error;
use windfall::app::export;
use windfall::app::jobs::queue::{self, LEASE, MAX_ATTEMPTS};
use windfall::app::jobs::{export as work, runner};

use crate::support::app::{DAY, ENGINES, Engine, NOW, TestApp, purchase_input};

/// Requests an export of a customer with one purchase.
async fn requested(test: &TestApp) -> job::Model {
    test.buy("ada", "p", NOW - DAY, "1.00").await.unwrap();
    export::request(&test.app, &TestApp::actor(), "ada").await.unwrap()
}

async fn chunks(test: &TestApp) -> Vec<export_chunk::Model> {
    export_chunk::Entity::find().order_by_asc(export_chunk::Column::Number).all(test.app.database.read()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_has_lost_its_lease_changes_no_result() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let id = entity::CustomerId(requested(&test).await.customer_id.unwrap());
        let zombie = queue::claim(&test.app, &[JobKind::Export]).await.unwrap().unwrap();
        test.set_now(NOW + i64::try_from(LEASE.as_micros()).unwrap());
        runner::run_due(&test.app).await.unwrap();
        let result = chunks(&test).await;
        assert_eq!(result.len(), 1, "{engine:?}");
        test.buy("ada", "q", NOW - DAY, "1.00").await.unwrap();
        assert!(matches!(work::run(&test.app, &zombie, id).await, Err(Error::Internal(_))), "{engine:?}");
        assert_eq!(chunks(&test).await, result, "{engine:?}");
    }
}

/// A worker loses its lease right after its first chunk, as if another one had taken over while it was frozen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_loses_its_lease_midway_adds_nothing_more() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let id = entity::CustomerId(requested(&test).await.customer_id.unwrap());
        // Larger than one chunk.
        let inputs = (0..1_000).map(|n| (vec![], purchase_input("ada", &format!("{n:0>200}"), NOW - DAY, "1.00")));
        for answer in windfall::app::purchase::record(&test.app, &TestApp::shop(), inputs.collect()).await.unwrap() {
            answer.unwrap();
        }
        let losing = match engine {
            Engine::Postgres => {
                "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN UPDATE job SET lease = 1; RETURN NULL; END $$; \
                 CREATE TRIGGER lose AFTER INSERT ON export_chunk FOR EACH ROW EXECUTE FUNCTION lose()"
            }
            Engine::Sqlite => "CREATE TRIGGER lose AFTER INSERT ON export_chunk BEGIN UPDATE job SET lease = 1; END",
        };
        test.app.database.write().execute_unprepared(losing).await.unwrap();
        let claimed = queue::claim(&test.app, &[JobKind::Export]).await.unwrap().unwrap();
        assert!(matches!(work::run(&test.app, &claimed, id).await, Err(Error::Internal(_))), "{engine:?}");
        assert_eq!(chunks(&test).await.len(), 1, "{engine:?}");
    }
}

/// What an attempt has written is no progress, because the next one begins again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_kills_its_process_each_time_is_given_up() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let id = entity::CustomerId(requested(&test).await.customer_id.unwrap());
        for attempt in 1..=MAX_ATTEMPTS {
            let claimed = queue::claim(&test.app, &[JobKind::Export]).await.unwrap().unwrap();
            assert_eq!(claimed.attempts, attempt, "{engine:?}");
            // The process dies before it ends the job.
            work::run(&test.app, &claimed, id).await.unwrap();
            assert_eq!(chunks(&test).await.len(), 1, "{engine:?}");
            test.app.database.write().execute_unprepared("UPDATE job SET leased_until = 0").await.unwrap();
        }
        runner::run_due(&test.app).await.unwrap_err();
        let row = job::Entity::find().one(test.app.database.read()).await.unwrap().unwrap();
        assert_eq!(row.state, JobState::Dead, "{engine:?}");
        assert!(row.error.unwrap().contains("ended 8 times"), "{engine:?}");
    }
}

/// The customer may be gone when the job runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_export_of_a_customer_that_is_gone_is_empty() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let row = requested(&test).await;
        test.app.database.write().execute_unprepared("DELETE FROM customer").await.unwrap();
        runner::run_due(&test.app).await.unwrap();
        let mut download = export::open(&test.app, &TestApp::admin(), row.id).await.unwrap();
        assert_eq!(download.next(&test.app).await.unwrap(), None, "{engine:?}");
    }
}
