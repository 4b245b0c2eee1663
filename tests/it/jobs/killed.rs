//! The process of a worker is killed at each step of a job. The job completes once.

use std::time::Duration;

use entity::{JobState, job};
use sea_orm::EntityTrait;
use serde_json::json;
use windfall::app::App;
use windfall::app::audit;
use windfall::app::clock::Clock;
use windfall::app::jobs::queue::MAX_ATTEMPTS;

use crate::support::app::{ENGINES, Engine, open, scratch, settings};
use crate::support::server::Server;
use crate::support::shop::Shop;
use crate::support::stall::{self, Stall};
use crate::support::websocket::PATIENCE;

const CUSTOMERS: [&str; 3] = ["ada", "bob", "eve"];

/// The step of a job at which its worker stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// In the statement that claims the job.
    Claim,
    /// In the transaction that does the work.
    Work,
    /// After the work, in the statement that ends the job.
    End,
    /// After a part of the work of an export.
    Chunk,
}

impl Step {
    /// The event of the database at which the worker stalls.
    fn event(self) -> stall::Step {
        match self {
            Self::Claim => {
                ("UPDATE", "job", "NEW.kind = 'evaluation' AND NEW.state = 'running' AND OLD.state = 'waiting'")
            }
            Self::Work => ("INSERT", "ledger_entry", "true"),
            Self::End => ("UPDATE", "job", "NEW.kind = 'evaluation' AND NEW.state = 'done'"),
            Self::Chunk => ("INSERT", "export_chunk", "NEW.number = 2"),
        }
    }
}

/// Ends the statements of a worker that was killed, and lets its lease expire.
async fn bury(stall: &Stall) {
    stall.bury().await;
    stall.execute("UPDATE job SET leased_until = 0 WHERE state = 'running'").await;
}

/// Returns the job of the backfill.
async fn job(stall: &Stall) -> job::Model {
    let jobs = job::Entity::find().all(stall.database.read()).await.unwrap();
    jobs.into_iter().find(|job| job.campaign_id.is_some()).expect("the job of the backfill")
}

async fn job_becomes(stall: &Stall, state: JobState) -> job::Model {
    let became = async {
        loop {
            let job = job(stall).await;
            if job.state == state {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, became).await.unwrap_or_else(|_| panic!("the job becomes {state:?}"))
}

/// Records a purchase of each customer and activates a campaign that counts them. A worker stalls in its backfill.
async fn stalled(engine: Engine, url: &str, step: Step) -> (Shop, Stall) {
    let shop = Shop::open(url).await;
    for customer in CUSTOMERS {
        shop.buy(customer, 0).await;
    }
    let stall = Stall::at(engine, url, step.event()).await;
    shop.campaign(json!({})).await;
    stall.is_reached().await;
    (shop, stall)
}

async fn is_complete(url: &str, shop: Shop) {
    for customer in CUSTOMERS {
        let ledger = shop.ledger(customer).await;
        assert_eq!(ledger.len(), 1, "{customer}: {ledger:?}");
        assert_eq!(ledger[0].1["points"], 10);
    }
    assert!(shop.server.terminate().success());
    let app = App::start(open(url).await, Clock::System, &settings(url)).await.unwrap();
    let mut differences = Vec::new();
    audit::run(&app, None, |difference| differences.push(difference.to_string())).await.unwrap();
    assert_eq!(differences, Vec::<String>::new());
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_worker_is_killed_completes_once() {
    for engine in ENGINES {
        for step in [Step::Claim, Step::Work, Step::End] {
            let (url, _kept) = scratch(engine).await;
            let (shop, stall) = stalled(engine, &url, step).await;
            let expected = if step == Step::Claim { JobState::Waiting } else { JobState::Running };
            assert_eq!(job(&stall).await.state, expected, "{engine:?} {step:?}");
            shop.server.kill9();
            bury(&stall).await;
            stall.end().await;
            let shop = Shop::open(&url).await;
            let job = job_becomes(&stall, JobState::Done).await;
            assert_eq!((job.done, job.total), (Some(3), Some(3)), "{engine:?} {step:?}");
            is_complete(&url, shop).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_kills_its_process_each_time_is_given_up() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        let (shop, stall) = stalled(engine, &url, Step::Work).await;
        let mut server = shop.server;
        for attempt in 1..=MAX_ATTEMPTS {
            let job = job(&stall).await;
            assert_eq!((job.state, job.attempts), (JobState::Running, attempt), "{engine:?}");
            server.kill9();
            bury(&stall).await;
            server = Server::start(&url).await;
            if attempt < MAX_ATTEMPTS {
                stall.is_reached().await;
            }
        }
        let dead = job_becomes(&stall, JobState::Dead).await;
        assert_eq!(dead.error.as_deref(), Some("the process that ran this job ended 8 times"), "{engine:?}");
        stall.end().await;
        // An admin sees it and lets it run again.
        let shop = Shop::of(server);
        let dead = shop.data(&shop.admin, "{ jobs(state: [DEAD]) { nodes { id error } } }", json!({})).await;
        let retry = "mutation($id: ID!) { retryJob(id: $id) { job { state attempts } userErrors { code } } }";
        let retried = shop.data(&shop.admin, retry, json!({ "id": dead["jobs"]["nodes"][0]["id"] })).await;
        let expected = json!({ "job": { "state": "WAITING", "attempts": 0 }, "userErrors": [] });
        assert_eq!(retried["retryJob"], expected, "{engine:?}: {dead}");
        job_becomes(&stall, JobState::Done).await;
        is_complete(&url, shop).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_whose_worker_is_killed_is_complete_after_all() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        let shop = Shop::open(&url).await;
        shop.campaign(json!({})).await;
        let purchases = 600;
        shop.buy_many("ada", 0..purchases).await;
        let stall = Stall::at(engine, &url, Step::Chunk.event()).await;
        let request = "mutation { exportCustomer(externalId: \"ada\") { job { id } userErrors { code } } }";
        let requested = shop.data(&shop.admin, request, json!({})).await;
        let id = requested["exportCustomer"]["job"]["id"].clone();
        stall.is_reached().await;
        shop.server.kill9();
        bury(&stall).await;
        stall.end().await;
        let chunks = entity::export_chunk::Entity::find().all(stall.database.read()).await.unwrap();
        assert_eq!(chunks.len(), 1, "{engine:?}: what the first worker has written");
        // The worker that takes over begins again.
        stall.execute("UPDATE export_chunk SET number = 7").await;
        let shop = Shop::open(&url).await;
        let query = "query($id: ID!) { job(id: $id) { resultUrl } }";
        let done = async {
            loop {
                let mut job = shop.data(&shop.admin, query, json!({ "id": id })).await["job"].take();
                if let serde_json::Value::String(url) = job["resultUrl"].take() {
                    return url;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let result = tokio::time::timeout(PATIENCE, done).await.expect("the export is done");
        let response = shop.client.get(format!("{}{result}", shop.address())).bearer_auth(&shop.admin);
        let text = response.send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for name in ["purchase", "award", "ledgerEntry"] {
            assert_eq!(lines.iter().filter(|line| line["type"] == name).count(), purchases, "{engine:?}: {name}");
        }
        assert!(shop.server.terminate().success());
    }
}
