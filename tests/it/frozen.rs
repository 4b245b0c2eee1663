//! A frozen node or database keeps its locks and its connections, and answers nothing.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, Statement};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use windfall::app::App;
use windfall::app::audit;
use windfall::app::clock::Clock;

use crate::support::app::{open, settings};
use crate::support::postgres::{Durability, Postgres};
use crate::support::server::{Server, ask, command};
use crate::support::shop::Shop;
use crate::support::websocket::PATIENCE;

const RECORD: &str = "mutation($input: RecordPurchaseInput!) { \
    recordPurchase(input: $input) { replayed userErrors { code } } }";
const CREATE: &str = "mutation { createCampaign(input: { name: \"later\", startsAt: \"2026-11-01T00:00:00Z\", \
    currency: \"EUR\", window: { campaign: WHOLE }, goal: { everyPurchase: EACH }, award: { points: 1 } }) \
    { campaign { id } userErrors { code } } }";

fn purchase(id: &str) -> Value {
    json!({ "input": {
        "externalId": id, "customerExternalId": "ada", "purchasedAt": "2020-01-01T12:00:00Z", "total": "5.00",
        "currency": "EUR",
    }})
}

/// The process ids of the sessions of Windfall on this database for which the condition holds.
async fn sessions(db: &DatabaseConnection, condition: &str) -> Vec<i32> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'windfall' AND {condition}"
    );
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// Waits for such a session and returns its process id.
async fn session(db: &DatabaseConnection, condition: &str) -> i32 {
    let found = async {
        loop {
            if let Some(pid) = sessions(db, condition).await.first() {
                return *pid;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no session: {condition}"))
}

/// Locks the row of the customer `ada` until the connection is closed. Meanwhile a batch with one of her purchases
/// waits in its transaction.
async fn lock_ada(url: &str) -> DatabaseConnection {
    let locked = Database::connect(url).await.unwrap();
    locked.execute_unprepared("BEGIN; SELECT FROM customer WHERE external_id = 'ada' FOR UPDATE").await.unwrap();
    locked
}

/// Sends a purchase of `ada`, which waits for that lock.
fn unlucky(shop: &Shop) -> JoinHandle<Option<Value>> {
    let (client, address, token) = (shop.client.clone(), shop.address().to_owned(), shop.storefront.clone());
    tokio::spawn(async move { ask(&client, &address, &token, RECORD, purchase("unlucky")).await })
}

/// The frozen node holds the campaign lock (shared) and the row of a customer. Changes of campaigns through another
/// node wait until PostgreSQL ends the transaction of the frozen node. Purchases of other customers pass meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_frozen_in_a_batch_holds_up_others_briefly() {
    let url = Postgres::shared().create_database().await;
    let (frozen, other) = (Shop::open(&url).await, Shop::open(&url).await);
    frozen.campaign(json!({})).await;
    frozen.buy("ada", 0).await;
    let (db, locked) = (Database::connect(&url).await.unwrap(), lock_ada(&url).await);
    let unlucky = unlucky(&frozen);
    let batch = session(&db, "wait_event_type = 'Lock'").await;
    frozen.server.signal("STOP");
    locked.close().await.unwrap();
    let in_batch = format!("pid = {batch} AND state = 'idle in transaction'");
    session(&db, &in_batch).await;

    let (client, address, token) = (other.client.clone(), other.address().to_owned(), other.admin.clone());
    let creating = tokio::spawn(async move { ask(&client, &address, &token, CREATE, json!({})).await });
    session(&db, "wait_event = 'advisory'").await;
    let mut passed = 0;
    while !creating.is_finished() {
        other.buy(&format!("fresh-{passed}"), 0).await;
        if sessions(&db, &in_batch).await.is_empty() {
            break;
        }
        passed += 1;
    }
    assert!(passed > 0, "no purchase passed while the change of a campaign waited");
    let created = creating.await.unwrap().unwrap();
    assert!(created["data"]["createCampaign"]["campaign"]["id"].is_string(), "{created}");
    println!("{passed} purchases of other customers were acknowledged while the node was frozen");

    frozen.server.signal("CONT");
    let unlucky = unlucky.await.unwrap().unwrap();
    assert_eq!(unlucky["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{unlucky}");
    for (shop, replayed) in [(&frozen, false), (&other, true)] {
        let again = shop.data(&shop.storefront, RECORD, purchase("unlucky")).await;
        assert_eq!(again["recordPurchase"]["replayed"], json!(replayed), "{again}");
    }
    assert!(frozen.server.terminate().success() && other.server.terminate().success());
    let app = App::start(open(&url).await, Clock::System, &settings(&url)).await.unwrap();
    let mut differences = Vec::new();
    audit::run(&app, None, |difference| differences.push(difference.to_string())).await.unwrap();
    assert_eq!(differences, Vec::<String>::new());
    app.stop().await.unwrap();
}

/// With these settings, PostgreSQL ends the sessions of nodes that are gone.
#[tokio::test]
async fn sessions_of_nodes_that_are_gone_are_ended() {
    let database = open(&Postgres::shared().create_database().await).await;
    let row = database.read();
    let sql = "SELECT string_agg(name || ' ' || setting, ', ' ORDER BY name) FROM pg_settings \
        WHERE name LIKE 'tcp_%' OR name = 'idle_in_transaction_session_timeout'";
    let row = row.query_one_raw(Statement::from_string(database.backend(), sql)).await.unwrap().unwrap();
    let expected = "idle_in_transaction_session_timeout 5000, tcp_keepalives_count 3, tcp_keepalives_idle 10, \
        tcp_keepalives_interval 5, tcp_user_timeout 10000";
    assert_eq!(row.try_get_by_index::<String>(0).unwrap(), expected);
}

/// Silences the database while a batch waits for a lock, and then stops the node. Returns its exit code and its log.
async fn stop_without_database(silence: impl FnOnce(&mut Postgres)) -> (Option<i32>, String) {
    let mut postgres = Postgres::start(Durability::Relaxed);
    let url = postgres.create_database().await;
    let db = Database::connect(&url).await.unwrap();
    let mut command = command(&url);
    command.env("WINDFALL__HTTP__STOP_TIMEOUT_MS", "2000").stderr(Stdio::piped());
    let (server, stderr) = Server::start_with(&mut command).await;
    let shop = Shop::of(server);
    shop.buy("ada", 0).await;
    let locked = lock_ada(&url).await;
    let unlucky = unlucky(&shop);
    session(&db, "wait_event_type = 'Lock'").await;
    silence(&mut postgres);
    let status = shop.server.terminate();
    if let Some(answer) = unlucky.await.unwrap() {
        assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
    }
    drop((db, locked));
    let mut log = String::new();
    stderr.unwrap().read_to_string(&mut log).unwrap();
    (status.code(), log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_though_the_database_is_frozen() {
    let (code, log) = stop_without_database(|postgres| postgres.freeze()).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the stop takes longer than 2s") && log.contains("http.stop_timeout_ms"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_though_the_database_is_gone() {
    let (code, log) = stop_without_database(Postgres::kill9).await;
    assert!(code.is_some(), "{log}");
}
