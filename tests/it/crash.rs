//! The process dies, clients hang up, operators stop it: what was acknowledged is there, once.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;
use windfall::app::App;
use windfall::app::audit;
use windfall::app::clock::Clock;
use windfall::http::auth::Role;

use crate::support::direct::{ENGINES, Engine, cache, cases, open, redis, writer};
use crate::support::postgres::{Durability, Postgres};
use crate::support::server::{Server, ask, token};
use crate::support::sqlite::Sqlite;

const CLIENTS: usize = 8;
/// Purchases acknowledged before the server is killed.
const LOAD: usize = 40;
const RECORD: &str = "mutation($input: RecordPurchaseInput!) { \
    recordPurchase(input: $input) { purchase { externalId } replayed userErrors { code } } }";

async fn activate_campaign(server: &Server) {
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

/// Clients that record until the server goes away; the external ids that were acknowledged.
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
                    let input = json!({
                        "externalId": id, "customerExternalId": format!("c{}", n % 5), "total": "3.00", "currency": "EUR",
                        "purchasedAt": format!("2026-0{}-1{}T12:00:00Z", 1 + n % 9, n % 10),
                    });
                    match ask(&http, &address, &shop, RECORD, json!({ "input": input })).await {
                        Some(answer) if answer["data"]["recordPurchase"]["purchase"]["externalId"] == *id => {
                            acknowledged.lock().unwrap().insert(id);
                        }
                        _ => return,
                    }
                }
            })
        })
        .collect();
    while acknowledged.lock().unwrap().len() < LOAD && !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Anywhere between two commits.
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
            // Beside it nothing else has the database open: what is read is what the next start finds.
            let opened = open(&url).await;
            let rows = entity::purchase::Entity::find().all(opened.read()).await.unwrap();
            let stored: BTreeSet<String> = rows.iter().map(|row| row.external_id.clone()).collect();
            assert_eq!(stored.len(), rows.len());
            let lost: Vec<_> = acknowledged.difference(&stored).collect();
            assert!(lost.is_empty(), "{engine:?}: acknowledged and lost: {lost:?}");
            let app = App::start(opened, Clock::System, &writer(), &cache(), &redis(None)).await.unwrap();
            let mut differences = Vec::new();
            audit::run(&app, None, |difference| differences.push(difference.to_string())).await.unwrap();
            assert_eq!(differences, Vec::<String>::new(), "{engine:?}");
            app.stop().await.unwrap();
        }
        assert!(acknowledged.len() >= LOAD * cases(20, 100), "{engine:?}: hardly any load: {}", acknowledged.len());
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
            // Hangs up at some moment between the request's arrival and its answer.
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
        assert!(count >= 20, "{engine:?}");
        let app = App::start(opened, Clock::System, &writer(), &cache(), &redis(None)).await.unwrap();
        let mut differences = Vec::new();
        audit::run(&app, None, |difference| differences.push(difference.to_string())).await.unwrap();
        assert_eq!(differences, Vec::<String>::new(), "{engine:?}");
        app.stop().await.unwrap();
    }
}
