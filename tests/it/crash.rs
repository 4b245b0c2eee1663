//! The server is killed, clients disconnect, and the database restarts. Each acknowledged purchase is recorded once.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;
use tokio::task::JoinSet;
use windfall::app::App;
use windfall::app::audit;
use windfall::app::clock::Clock;
use windfall::http::auth::Role;

use crate::support::app::{ENGINES, Engine, cases, open, settings};
use crate::support::postgres::{Durability, Postgres};
use crate::support::server::{Server, ask, token};
use crate::support::sqlite::Sqlite;

const CLIENTS: usize = 8;
/// The number of purchases that are acknowledged before the server is killed.
const LOAD: usize = 40;
const EDITED: &str = " edited";
pub(crate) const RECORD: &str = "mutation($input: RecordPurchaseInput!) { \
    recordPurchase(input: $input) { purchase { externalId } replayed userErrors { code } } }";

pub(crate) async fn activate_campaign(server: &Server) {
    let client = reqwest::Client::new();
    let admin = token(Role::Admin, "test");
    let create = "mutation($input: CampaignInput!) { createCampaign(input: $input) { campaign { id } } }";
    let input = json!({
        "name": "pairs", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": {"session": {"gap": "P1D"}},
        "goal": {"purchases": {"atLeast": 2, "repeat": true}}, "award": {"points": 5}, "budget": 100_000
    });
    let made = ask(&client, &server.address, &admin, create, json!({ "input": input })).await.unwrap();
    let id = &made["data"]["createCampaign"]["campaign"]["id"];
    let activate = "mutation($id: ID!) { activateCampaign(id: $id) { campaign { status } } }";
    let activated = ask(&client, &server.address, &admin, activate, json!({ "id": id })).await.unwrap();
    assert_eq!(activated["data"]["activateCampaign"]["campaign"]["status"], "ACTIVE");
}

/// Records purchases through several clients until the server is killed. Every second one is then edited, and goes to another customer.
/// Returns the acknowledged external ids; those of edits have the suffix [`EDITED`].
async fn record_until_it_dies(server: Server, http: &reqwest::Client, round: usize) -> BTreeSet<String> {
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let acknowledged = Arc::clone(&acknowledged);
            let address = server.address.clone();
            let http = http.clone();
            tokio::spawn(async move {
                let shop = token(Role::Storefront, "test");
                for n in 0.. {
                    let id = format!("p{round}-{client}-{n}");
                    for revision in 0..=n % 2 {
                        let input = json!({
                            "externalId": id, "customerExternalId": format!("c{}", (n + revision) % 5), "total": "3.00",
                            "currency": "EUR", "revision": revision,
                            "purchasedAt": format!("2026-0{}-1{}T12:00:00Z", 1 + (n + revision) % 9, n % 10),
                        });
                        match ask(&http, &address, &shop, RECORD, json!({ "input": input })).await {
                            Some(answer) if answer["data"]["recordPurchase"]["purchase"]["externalId"] == *id => {
                                let suffix = if revision > 0 { EDITED } else { "" };
                                acknowledged.lock().unwrap().insert(format!("{id}{suffix}"));
                            }
                            _ => return,
                        }
                    }
                }
            })
        })
        .collect();
    while acknowledged.lock().unwrap().len() < LOAD && !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The delay varies, so that the server is killed at different points of a commit.
    tokio::time::sleep(Duration::from_millis(7 * (round as u64 % 11))).await;
    server.kill9();
    for client in clients {
        client.await.unwrap();
    }
    Arc::into_inner(acknowledged).unwrap().into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_keeps_what_it_acknowledged() {
    let postgres = Postgres::start(Durability::Fsync);
    for engine in ENGINES {
        let sqlite = Sqlite::new();
        let url = match engine {
            Engine::Sqlite => sqlite.url(),
            Engine::Postgres => postgres.create_database().await,
        };
        let http = reqwest::Client::new();
        let mut acknowledged = BTreeSet::new();
        let mut slowest = Duration::ZERO;
        for round in 0..cases(20, 100) {
            let server = Server::start(&url).await;
            if round == 0 {
                activate_campaign(&server).await;
            } else {
                slowest = slowest.max(server.ready_after);
            }
            acknowledged.extend(record_until_it_dies(server, &http, round).await);
            // No other process has the database open, so this reads what the next start finds.
            let opened = open(&url).await;
            let rows = entity::purchase::Entity::find().all(opened.read()).await.unwrap();
            let edited = rows.iter().filter(|row| row.revision > 0).map(|row| format!("{}{EDITED}", row.external_id));
            let stored: BTreeSet<String> = rows.iter().map(|row| row.external_id.clone()).chain(edited).collect();
            let lost: Vec<_> = acknowledged.difference(&stored).collect();
            assert!(lost.is_empty(), "{engine:?}: acknowledged purchases are lost: {lost:?}");
            let app = App::start(opened, Clock::System, &settings(&url)).await.unwrap();
            let mut differences = Vec::new();
            audit::run(&app, None, |difference| differences.push(difference.to_string())).await.unwrap();
            assert_eq!(differences, Vec::<String>::new(), "{engine:?}");
            app.stop().await.unwrap();
        }
        assert!(acknowledged.len() >= LOAD * cases(20, 100), "{engine:?}: only {} acknowledged", acknowledged.len());
        println!("{engine:?}: {} acknowledged, slowest restart ready after {slowest:?}", acknowledged.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_cancel_nothing_half_way() {
    for engine in ENGINES {
        let sqlite = Sqlite::new();
        let url = match engine {
            Engine::Sqlite => sqlite.url(),
            Engine::Postgres => Postgres::shared().create_database().await,
        };
        let server = Server::start(&url).await;
        activate_campaign(&server).await;
        let shop = token(Role::Storefront, "test");
        let host = server.address.strip_prefix("http://").unwrap();
        for n in 0..1_000 {
            let body = json!({ "query": RECORD, "variables": { "input": {
                "externalId": format!("h{n}"), "customerExternalId": "c", "total": "3.00", "currency": "EUR",
                "purchasedAt": "2026-01-01T12:00:00Z",
            }}})
            .to_string();
            let mut socket = TcpStream::connect(host).unwrap();
            write!(
                socket,
                "POST /graphql HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {shop}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
            // The client disconnects at some moment between the request's arrival and its response.
            std::thread::sleep(Duration::from_micros(37 * (n % 23)));
        }
        let client = reqwest::Client::new();
        for n in 0..20 {
            let input = json!({
                "externalId": format!("p{n}"), "customerExternalId": "c", "total": "3.00", "currency": "EUR",
                "purchasedAt": "2026-01-01T12:00:00Z",
            });
            let answer = ask(&client, &server.address, &shop, RECORD, json!({ "input": input })).await.unwrap();
            assert_eq!(answer["data"]["recordPurchase"]["replayed"], false, "{answer}");
        }
        assert!(server.terminate().success());
        let opened = open(&url).await;
        let count = entity::purchase::Entity::find().count(opened.read()).await.unwrap();
        assert!(count > 20, "{engine:?}: no abandoned request was recorded");
        let app = App::start(opened, Clock::System, &settings(&url)).await.unwrap();
        let mut differences = Vec::new();
        audit::run(&app, None, |difference| differences.push(difference.to_string())).await.unwrap();
        assert_eq!(differences, Vec::<String>::new(), "{engine:?}");
        app.stop().await.unwrap();
    }
}

/// Sends the same purchase until it is acknowledged, and collects the codes of the errors until then.
async fn record_in_the_end(
    http: &reqwest::Client,
    addresses: &[String; 2],
    input: &serde_json::Value,
    codes: &Mutex<BTreeSet<String>>,
) {
    let shop = token(Role::Storefront, "test");
    for attempt in 0.. {
        let answer = ask(http, &addresses[attempt % 2], &shop, RECORD, json!({ "input": input })).await;
        let answer = answer.expect("the nodes keep running");
        if answer["data"]["recordPurchase"]["purchase"]["externalId"] == input["externalId"] {
            return;
        }
        let code = answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{answer}"));
        codes.lock().unwrap().insert(code.to_owned());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// PostgreSQL is killed and restarted while clients write and read through two nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_restarts_costs_retries_alone() {
    let mut postgres = Postgres::start(Durability::Fsync);
    let url = postgres.create_database().await;
    let (one, other) = (Server::start(&url).await, Server::start(&url).await);
    activate_campaign(&one).await;
    let addresses = Arc::new([one.address.clone(), other.address.clone()]);
    let http = reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(5)).build().unwrap();
    let (stop, codes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
    let recorded = Arc::new(Mutex::new(BTreeSet::new()));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (http, addresses, stop) = (http.clone(), Arc::clone(&addresses), Arc::clone(&stop));
        let (codes, recorded) = (Arc::clone(&codes), Arc::clone(&recorded));
        clients.spawn(async move {
            for n in 0.. {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let id = format!("r{client}-{n}");
                let input = json!({
                    "externalId": id, "customerExternalId": format!("c{}", n % 5), "total": "3.00", "currency": "EUR",
                    "purchasedAt": format!("2026-0{}-1{}T12:00:00Z", 1 + n % 9, n % 10),
                });
                record_in_the_end(&http, &addresses, &input, &codes).await;
                recorded.lock().unwrap().insert(id);
            }
        });
    }
    let reader = {
        let (http, addresses, stop, codes) =
            (http.clone(), Arc::clone(&addresses), Arc::clone(&stop), Arc::clone(&codes));
        tokio::spawn(async move {
            let ada = token(Role::Customer, "c1");
            while !stop.load(Ordering::SeqCst) {
                for address in &*addresses {
                    let answer =
                        ask(&http, address, &ada, "{ me { balance { available } } }", json!({})).await.unwrap();
                    if let Some(code) = answer["errors"][0]["extensions"]["code"].as_str() {
                        codes.lock().unwrap().insert(code.to_owned());
                    }
                }
            }
        })
    };
    for _ in 0..cases(3, 30) {
        let before = recorded.lock().unwrap().len();
        while recorded.lock().unwrap().len() < before + LOAD {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        postgres.kill9();
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..500))).await;
        postgres.restart();
    }
    let before = recorded.lock().unwrap().len();
    while recorded.lock().unwrap().len() < before + LOAD {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::SeqCst);
    clients.join_all().await;
    reader.await.unwrap();
    // No connection of the pools is stuck: each node answers many requests in a row.
    let ada = token(Role::Customer, "c1");
    for address in addresses.iter().flat_map(|address| std::iter::repeat_n(address, 50)) {
        let answer = ask(&http, address, &ada, "{ me { balance { available } } }", json!({})).await.unwrap();
        assert_eq!(answer.get("errors"), None, "{answer}");
    }
    assert!(one.terminate().success() && other.terminate().success());
    let codes = codes.lock().unwrap().clone();
    assert!(codes.iter().all(|code| code == "UNAVAILABLE"), "{codes:?}");
    let opened = open(&url).await;
    let rows = entity::purchase::Entity::find().all(opened.read()).await.unwrap();
    let stored: BTreeSet<String> = rows.into_iter().map(|row| row.external_id).collect();
    assert_eq!(stored, *recorded.lock().unwrap());
    let app = App::start(opened, Clock::System, &settings(&url)).await.unwrap();
    let mut differences = Vec::new();
    audit::run(&app, None, |difference| differences.push(difference.to_string())).await.unwrap();
    assert_eq!(differences, Vec::<String>::new());
    app.stop().await.unwrap();
    println!("{} purchases recorded over {} restarts of PostgreSQL; errors: {codes:?}", stored.len(), cases(3, 30));
}
