//! Programs of several versions on one database. A program that does not know the format of the database stops with a
//! clear message and loses nothing.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait as _};
use serde_json::json;
use windfall::app::clock::Clock;
use windfall::app::database::{CAMPAIGNS_LOCK, Database};
use windfall::app::jobs::presence;
use windfall::app::node::{self, FORMAT};
use windfall::app::{App, audit};
use windfall::http::auth::Role;

use crate::crash::{RECORD, activate_campaign};
use crate::support::app::{ENGINES, Engine, NOW, TestApp, open, scratch, settings};
use crate::support::node::reaches;
use crate::support::server::{Server, ask, command, run, token};
use crate::support::shop::Shop;

/// The exit code of a program that does not know the format of the database.
const OUTDATED: i32 = 3;
const CLIENTS: usize = 8;
/// The number of purchases that are acknowledged before the format is raised.
const LOAD: usize = 40;

fn purchase(id: &str) -> serde_json::Value {
    json!({
        "externalId": id, "customerExternalId": format!("c{}", id.len() % 5), "total": "3.00", "currency": "EUR",
        "purchasedAt": "2026-02-01T12:00:00Z",
    })
}

/// Sends purchases until the server does not acknowledge one. Adds the ids of the acknowledged ones to `acknowledged`.
async fn record_until_refused(address: String, client: usize, acknowledged: Arc<Mutex<BTreeSet<String>>>) {
    let (http, shop) = (reqwest::Client::new(), token(Role::Storefront, "test"));
    for n in 0.. {
        let id = format!("p{client}-{n}");
        let answer = ask(&http, &address, &shop, RECORD, json!({ "input": purchase(&id) })).await;
        match answer {
            Some(answer) if answer["data"]["recordPurchase"]["purchase"]["externalId"] == *id => {
                acknowledged.lock().unwrap().insert(id);
            }
            Some(answer) => return assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}"),
            None => return,
        }
    }
}

async fn set_format(database: &Database, format: i64) -> u64 {
    let tx = database.begin().await.unwrap();
    if database.backend() == sea_orm::DatabaseBackend::Postgres {
        tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({CAMPAIGNS_LOCK})")).await.unwrap();
    }
    tx.execute_unprepared(&format!("UPDATE installation SET format = {format}")).await.unwrap();
    let recorded = entity::purchase::Entity::find().count(&tx).await.unwrap();
    tx.commit().await.unwrap();
    recorded
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_node_stops_under_load_and_loses_nothing() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        let mut servers = Vec::new();
        for _ in 0..if engine == Engine::Postgres { 2 } else { 1 } {
            let (server, stderr) = Server::start_with(command(&url).stderr(Stdio::piped())).await;
            servers.push((server, stderr.unwrap()));
        }
        activate_campaign(&servers[0].0).await;
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let address = servers[client % servers.len()].0.address.clone();
                tokio::spawn(record_until_refused(address, client, Arc::clone(&acknowledged)))
            })
            .collect();
        while acknowledged.lock().unwrap().len() < LOAD {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let database = open(&url).await;
        let recorded = set_format(&database, FORMAT + 1).await;
        for (server, mut stderr) in servers {
            assert_eq!(server.stops().await.code(), Some(OUTDATED), "{engine:?}");
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            let word = format!("this program is outdated: the database has format {}", FORMAT + 1);
            assert!(said.contains(&word), "{said}");
        }
        for client in clients {
            client.await.unwrap();
        }
        let acknowledged = Arc::into_inner(acknowledged).unwrap().into_inner().unwrap();
        let stored = entity::purchase::Entity::find().all(database.read()).await.unwrap();
        assert_eq!(stored.len() as u64, recorded, "{engine:?}: something was written after the format had been raised");
        let stored: BTreeSet<String> = stored.into_iter().map(|row| row.external_id).collect();
        assert!(acknowledged.is_subset(&stored), "{engine:?}: {:?}", acknowledged.difference(&stored));
        others_serve(&url, &database, &acknowledged).await;
    }
}

/// Programs that do not know the format refuse to start. A program that knows it continues where the others stopped.
async fn others_serve(url: &str, database: &Database, acknowledged: &BTreeSet<String>) {
    for arguments in [&["serve"][..], &["audit"]] {
        let ran = run(command(url).args(arguments));
        assert_eq!(ran.code, Some(OUTDATED), "{ran:?}");
        assert!(ran.stderr.contains("this program is outdated"), "{ran:?}");
    }
    set_format(database, FORMAT).await;
    let server = Server::start(url).await;
    let (http, shop) = (reqwest::Client::new(), token(Role::Storefront, "test"));
    for id in acknowledged {
        let answer = ask(&http, &server.address, &shop, RECORD, json!({ "input": purchase(id) })).await.unwrap();
        assert_eq!(answer["data"]["recordPurchase"]["replayed"], true, "{answer}");
    }
    assert!(server.terminate().success());
    let app = App::start(open(url).await, Clock::System, &settings(url)).await.unwrap();
    let mut differences = Vec::new();
    audit::run(&app, None, |difference| differences.push(difference.to_string())).await.unwrap();
    assert_eq!(differences, Vec::<String>::new());
    app.stop().await.unwrap();
}

/// A node that nobody writes to checks the format by itself, and a read also detects a new format.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_node_that_only_reads_stops_too() {
    let (url, _) = scratch(Engine::Postgres).await;
    let shop = Shop::open_with(command(&url).env("WINDFALL__LOG__FILTER", "off")).await;
    shop.buy("ada", 0).await;
    let idle = Server::start_with(command(&url).env("WINDFALL__LOG__FILTER", "off")).await.0;
    set_format(&open(&url).await, FORMAT + 1).await;
    let ada = token(Role::Customer, "ada");
    let answer = ask(&shop.client, shop.address(), &ada, "{ me { balance { available } } }", json!({})).await.unwrap();
    assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
    assert_eq!(shop.server.stops().await.code(), Some(OUTDATED));
    assert_eq!(idle.stops().await.code(), Some(OUTDATED));
}

/// Announces a program in the database, as a running program announces itself.
async fn put_node(test: &TestApp, id: i64, format: i64, last_seen: i64) {
    let tx = test.app.database.begin().await.unwrap();
    let zone_data = node::zone_data();
    let sql = format!(
        "DELETE FROM node WHERE id = {id}; \
         INSERT INTO node (id, format, zone_data, last_seen) VALUES ({id}, {format}, '{zone_data}', {last_seen})"
    );
    tx.execute_unprepared(&sql).await.unwrap();
    tx.commit().await.unwrap();
}

async fn stored_format(test: &TestApp) -> i64 {
    entity::installation::Entity::find().one(test.app.database.read()).await.unwrap().unwrap().format
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_format_moves_on_when_the_last_older_node_is_gone() {
    const SECOND: i64 = 1_000_000;
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        set_format(&test.app.database, FORMAT - 1).await;
        put_node(&test, 1, FORMAT - 1, NOW - 59 * SECOND).await;
        put_node(&test, 2, FORMAT, NOW).await;
        presence::appear(&test.app).await.unwrap();
        assert_eq!(stored_format(&test).await, FORMAT - 1, "{engine:?}: raised while an older program was present");
        test.buy("ada", "p0", NOW, "1.00").await.unwrap();
        put_node(&test, 1, FORMAT - 1, NOW - 61 * SECOND).await;
        presence::appear(&test.app).await.unwrap();
        assert_eq!(stored_format(&test).await, FORMAT, "{engine:?}: not raised after the older program was gone");
        // The presence of a newer program changes nothing.
        put_node(&test, 1, FORMAT + 1, NOW).await;
        presence::appear(&test.app).await.unwrap();
        assert_eq!(stored_format(&test).await, FORMAT);
        test.buy("ada", "p1", NOW, "1.00").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_other_zone_data_say_so() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        let database = open(&url).await;
        database.migrate().await.unwrap();
        let tx = database.begin().await.unwrap();
        let now = Clock::System.now().0;
        let sql = format!("INSERT INTO node (id, format, zone_data, last_seen) VALUES (1, {FORMAT}, '1999a', {now})");
        tx.execute_unprepared(&sql).await.unwrap();
        tx.commit().await.unwrap();
        let shop = Shop::open(&url).await;
        reaches(&shop, "windfall_zone_data_versions", 2.0).await;
        let ready = shop.client.get(format!("{}/readyz", shop.address())).send().await.unwrap();
        let told = "degraded: nodes with 2 versions of the time zone database share this database";
        assert_eq!((ready.status().as_u16(), ready.text().await.unwrap().as_str()), (200, told), "{engine:?}");
    }
}

/// During a rolling upgrade, a node of the older version that restarts finds a newer schema of a known format.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_of_a_known_format_is_served() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        let database = open(&url).await;
        database.migrate().await.unwrap();
        let tx = database.begin().await.unwrap();
        let sql = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000001_of_later', 0)";
        tx.execute_unprepared(sql).await.unwrap();
        tx.commit().await.unwrap();
        for migrate in ["true", "false"] {
            let shop = Shop::open_with(command(&url).env("WINDFALL__DATABASE__MIGRATE", migrate)).await;
            shop.buy("ada", usize::from(migrate == "true")).await;
            assert!(shop.server.terminate().success(), "{engine:?}");
        }
    }
}

/// The first statements of programs that do not check the format: a batch or a transition, a look-up, a load of the
/// campaigns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_from_before_the_fence_fail_at_once() {
    let firsts = [
        "SELECT revision AS set_revision, revision_stamp FROM installation",
        "SELECT (SELECT i.revision FROM installation i) AS set_revision",
        "SELECT i.revision AS set_revision, i.revision_stamp, b.points_limit, c.* FROM installation i \
         LEFT JOIN campaign c ON c.id = c.id LEFT JOIN budget b ON b.campaign_id = c.id",
    ];
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        let database = open(&url).await;
        database.migrate().await.unwrap();
        for first in firsts {
            database.read().execute_unprepared(first).await.unwrap_err();
        }
    }
}
