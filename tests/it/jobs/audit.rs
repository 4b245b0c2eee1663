//! The audit of a sample finds what was tampered with, and reports it without the shop's ids.

use std::io::Read as _;
use std::process::Stdio;

use sea_orm::{ConnectionTrait, EntityTrait};
use serde_json::json;
use windfall::app::audit;
use windfall::app::jobs::periodic::{Requested, request_ticks};

use crate::support::app::{ENGINES, NOW, TestApp, open, scratch};
use crate::support::node::{metric, reaches};
use crate::support::server::command;
use crate::support::shop::Shop;

const CUSTOMERS: f64 = 3.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_shows_in_the_metrics_and_in_the_log() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        let mut command = command(&url);
        command.env("WINDFALL__JOBS__AUDIT_PERIOD_SECONDS", "1").stderr(Stdio::piped());
        let (server, stderr) = crate::support::server::Server::start_with(&mut command).await;
        let shop = Shop::of(server);
        shop.campaign(json!({})).await;
        for customer in ["of-the-shop-1", "of-the-shop-2", "of-the-shop-3"] {
            shop.buy(customer, 0).await;
        }
        let audited = metric(&shop, "windfall_audit_customers_total").await;
        reaches(&shop, "windfall_audit_customers_total", audited + 2.0 * CUSTOMERS).await;
        assert_eq!(metric(&shop, "windfall_audit_differences_total").await, 0.0, "{engine:?}");
        let database = open(&url).await;
        let tampered = "UPDATE customer SET balance = balance + 1 WHERE external_id = 'of-the-shop-2'";
        database.write().execute_unprepared(tampered).await.unwrap();
        reaches(&shop, "windfall_audit_differences_total", 1.0).await;
        let row = entity::customer::Entity::find().all(database.read()).await.unwrap();
        let row = row.into_iter().find(|row| row.external_id == "of-the-shop-2").unwrap();
        assert_eq!(row.balance, 11, "{engine:?}: an audit repairs nothing");
        database.close().await.unwrap();
        assert!(shop.server.terminate().success());
        let mut log = String::new();
        stderr.unwrap().read_to_string(&mut log).unwrap();
        let told = log.lines().find(|line| line.contains("windfall audit")).unwrap_or_else(|| panic!("{log}"));
        assert!(told.contains(&format!("customer={}", row.id.0)) && !log.contains("of-the-shop"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_is_bounded_and_drawn_from_all() {
    for engine in ENGINES {
        let test = TestApp::start_with(engine, |config| config.jobs.audit_customers = 0).await;
        assert!(audit::sample(&test.app, 10).await.unwrap().is_empty(), "{engine:?}: there is nobody");
        for n in 0..20 {
            test.buy(&format!("c{n}"), &format!("p{n}"), NOW, "1.00").await.unwrap();
        }
        let mut drawn = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let sample = audit::sample(&test.app, 5).await.unwrap();
            assert!(!sample.is_empty() && sample.len() <= 5, "{engine:?}: {sample:?}");
            drawn.extend(sample);
        }
        // That one of them is not among 1 000 draws has a probability of 10^-21.
        assert_eq!(drawn.len(), 20, "{engine:?}");
        request_ticks(&test.app, &mut Requested::default()).await.unwrap();
        let jobs = entity::job::Entity::find().all(test.app.database.read()).await.unwrap();
        let audits = jobs.iter().filter(|job| job.kind == entity::JobKind::Audit).count();
        assert_eq!(audits, 0, "{engine:?}: a sample of 0 customers turns the audit off");
    }
}
