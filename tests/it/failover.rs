//! A PostgreSQL primary is killed under load, and its standby takes over behind the same address.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::EntityTrait;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use windfall::app::clock::Clock;
use windfall::app::{App, audit};
use windfall::http::auth::Role;

use crate::live::{Follower, Transport};
use crate::support::app::{cases, open, settings};
use crate::support::graphql::text;
use crate::support::node::node;
use crate::support::postgres::{Durability, Postgres};
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::{ask, token};
use crate::support::shop::{BALANCE, Shop};

const CUSTOMERS: usize = 6;
/// The number of purchases that are acknowledged between two events.
const LOAD: usize = 60;
const RECORD: &str = "mutation($input: RecordPurchaseInput!) { \
    recordPurchase(input: $input) { replayed balance { version } userErrors { code } } }";

/// The URL of the same database behind the proxy.
fn behind(proxy: &Proxy, url: &str) -> String {
    let database = url.rsplit('/').next().expect("a database's name");
    format!("postgres://windfall@{}/{database}", proxy.address())
}

/// Kills the primary and promotes the standby. New connections to the proxy lead to the standby.
async fn fail_over(primary: &mut Postgres, standby: &Postgres, front: &Proxy) {
    primary.kill9();
    front.set(Mode::Refuse);
    standby.promote().await;
    front.lead_to(standby.address());
    front.set(Mode::Pass);
}

fn purchase(customer: usize, number: usize) -> Value {
    json!({
        "externalId": format!("f{customer}-{number}"), "customerExternalId": format!("c{customer}"), "total": "3.00",
        "currency": "EUR", "purchasedAt": format!("2026-0{}-1{}T12:00:00Z", 1 + number % 9, number % 10),
    })
}

/// Clients of two nodes, and what they have seen.
struct Load {
    http: reqwest::Client,
    addresses: [String; 2],
    /// The version of each customer that was acknowledged last.
    versions: [AtomicI64; CUSTOMERS],
    acknowledged: Mutex<BTreeSet<String>>,
    reads: AtomicUsize,
    codes: Mutex<BTreeSet<String>>,
    stop: AtomicBool,
}

impl Load {
    async fn answer(&self, turn: usize, token: &str, query: &str, variables: Value) -> Option<Value> {
        let answer =
            ask(&self.http, &self.addresses[turn % 2], token, query, variables).await.expect("a node that runs");
        let code = answer["errors"][0]["extensions"]["code"].as_str().map(str::to_owned);
        let failed = code.is_some();
        self.codes.lock().unwrap().extend(code);
        (!failed).then_some(answer)
    }

    /// Records purchases of a customer. Each is sent again until it is acknowledged.
    async fn write(&self, customer: usize) {
        let shop = token(Role::Storefront, "test");
        for number in 0.. {
            let input = purchase(customer, number);
            let mut turn = number;
            loop {
                if let Some(answer) = self.answer(turn, &shop, RECORD, json!({ "input": input })).await {
                    let version = answer["data"]["recordPurchase"]["balance"]["version"].as_i64().expect("a version");
                    self.versions[customer].fetch_max(version, Ordering::SeqCst);
                    break;
                }
                turn += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.acknowledged.lock().unwrap().insert(text(&input["externalId"]));
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Reads a customer. Each response must show at least the version that was acknowledged before the request.
    async fn read(&self, customer: usize) {
        let me = token(Role::Customer, &format!("c{customer}"));
        let mut turn = 0;
        while !self.stop.load(Ordering::SeqCst) {
            turn += 1;
            let acknowledged = self.versions[customer].load(Ordering::SeqCst);
            let Some(answer) = self.answer(turn, &me, BALANCE, json!({})).await else { continue };
            let version = answer["data"]["me"]["balance"]["version"].as_i64().unwrap_or(0);
            assert!(version >= acknowledged, "stale: {version} after {acknowledged} was acknowledged");
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until [`LOAD`] more purchases are acknowledged.
    async fn goes_on(&self) {
        let before = self.acknowledged.lock().unwrap().len();
        while self.acknowledged.lock().unwrap().len() < before + LOAD {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_standby_takes_over_without_loss() {
    for _ in 0..cases(1, 10) {
        let mut primary = Postgres::start(Durability::Fsync);
        let url = primary.create_database().await;
        let standby = Postgres::standby_of(primary.address(), Durability::Fsync);
        primary.wait_for_standby().await;
        let front = Proxy::start(primary.address());
        let url = behind(&front, &url);
        let nodes = [node(&url, None, &[]).await, node(&url, None, &[]).await];
        nodes[0].campaign(json!({})).await;
        let load = Arc::new(Load {
            http: nodes[0].client.clone(),
            addresses: [nodes[0].address().to_owned(), nodes[1].address().to_owned()],
            versions: std::array::from_fn(|_| AtomicI64::new(0)),
            acknowledged: Mutex::default(),
            reads: AtomicUsize::new(0),
            codes: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let mut clients = JoinSet::new();
        for customer in 0..CUSTOMERS {
            let (writer, reader) = (Arc::clone(&load), Arc::clone(&load));
            clients.spawn(async move { writer.write(customer).await });
            clients.spawn(async move { reader.read(customer).await });
        }
        load.goes_on().await;
        fail_over(&mut primary, &standby, &front).await;
        let reads = load.reads.load(Ordering::SeqCst);
        load.goes_on().await;
        load.stop.store(true, Ordering::SeqCst);
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        assert!(load.reads.load(Ordering::SeqCst) > reads, "no read succeeded after the failover");
        for node in nodes {
            assert!(node.server.terminate().success());
        }
        let codes = load.codes.lock().unwrap().clone();
        assert!(codes.iter().all(|code| code == "UNAVAILABLE"), "{codes:?}");
        let acknowledged = load.acknowledged.lock().unwrap().clone();
        assert_eq!(recorded(&url).await, acknowledged);
        audit_is_clean(&url).await;
    }
}

/// The external ids of all purchases in the database.
async fn recorded(url: &str) -> BTreeSet<String> {
    let rows = entity::purchase::Entity::find().all(open(url).await.read()).await.unwrap();
    rows.into_iter().map(|row| row.external_id).collect()
}

async fn audit_is_clean(url: &str) {
    let app = App::start(open(url).await, Clock::System, &settings(url)).await.unwrap();
    let mut differences = Vec::new();
    audit::run(&app, None, |difference| differences.push(difference.to_string())).await.unwrap();
    assert_eq!(differences, Vec::<String>::new());
    app.stop().await.unwrap();
}

/// A primary with a standby that lags behind it. What the primary committed last is lost with it.
struct Lagging {
    primary: Postgres,
    standby: Postgres,
    /// Stands between the primary and the standby.
    wal: Proxy,
    front: Proxy,
    url: String,
}

impl Lagging {
    async fn start() -> Self {
        let primary = Postgres::start(Durability::Fsync);
        let url = primary.create_database().await;
        let wal = Proxy::start(primary.address());
        let standby = Postgres::standby_of(wal.address(), Durability::Fsync);
        let front = Proxy::start(primary.address());
        let url = behind(&front, &url);
        Self { primary, standby, wal, front, url }
    }

    /// From now on the standby receives nothing.
    async fn lags(&self) {
        self.primary.is_followed().await;
        self.wal.set(Mode::Refuse);
    }
}

/// Records the first `count` purchases of the customer, whether they were recorded before or not. Returns how many of
/// them were not.
async fn send_again(shop: &Shop, customer: usize, count: usize) -> usize {
    let mut lost = 0;
    for number in 0..count {
        let input = json!({ "input": purchase(customer, number) });
        let answer = shop.data(&shop.storefront, RECORD, input).await;
        assert_eq!(answer["recordPurchase"]["userErrors"], json!([]));
        lost += usize::from(answer["recordPurchase"]["replayed"] == false);
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_saw_what_an_asynchronous_standby_lacks_is_told() {
    const KEPT: usize = 5;
    const ALL: usize = 9;
    let mut database = Lagging::start().await;
    let shop = node(&database.url, None, &[]).await;
    shop.campaign(json!({})).await;
    let seen = async |customer: usize| text(&shop.balance(&format!("c{customer}")).await["cursor"]);
    for customer in 0..CUSTOMERS {
        assert_eq!(send_again(&shop, customer, KEPT).await, KEPT);
    }
    let kept = seen(CUSTOMERS - 1).await;
    database.lags().await;
    let mut followers = Vec::new();
    let (losing, spared) = (0..CUSTOMERS - 1, CUSTOMERS - 1);
    for customer in losing.clone() {
        let name = format!("c{customer}");
        let (transport, before) = ([Transport::WebSocket, Transport::Events][customer % 2], seen(customer).await);
        let mut follower = Follower::of(transport, &shop, &name, Some(&before)).await;
        send_again(&shop, customer, ALL).await;
        let mut told = 0;
        while told < ALL - KEPT {
            told += follower.update().await["entries"].as_array().expect("a list").len();
        }
        followers.push((customer, follower, seen(customer).await));
    }

    fail_over(&mut database.primary, &database.standby, &database.front).await;
    shop.is_back().await;
    assert_eq!(recorded(&database.url).await.len(), CUSTOMERS * KEPT);
    // Subscribers that are connected get the error, and so do those that come back.
    for (customer, follower, cursor) in &mut followers {
        assert_eq!(follower.ending().await.0, "CURSOR_UNKNOWN", "c{customer}");
        let mut late = Follower::of(Transport::WebSocket, &shop, &format!("c{customer}"), Some(cursor)).await;
        assert_eq!(late.ending().await.0, "CURSOR_UNKNOWN", "c{customer}");
    }
    for customer in losing {
        assert_eq!(send_again(&shop, customer, ALL).await, ALL - KEPT);
        assert_eq!(shop.balance(&format!("c{customer}")).await["available"], 10 * ALL);
        let lost = &followers[customer].2;
        let mut late = Follower::of(Transport::WebSocket, &shop, &format!("c{customer}"), Some(lost)).await;
        assert_eq!(late.ending().await.0, "CURSOR_UNKNOWN", "c{customer}: another history of the same length");
    }
    // A subscriber that saw nothing of what was lost continues.
    let mut follower = Follower::of(Transport::WebSocket, &shop, &format!("c{spared}"), Some(&kept)).await;
    assert_eq!(send_again(&shop, spared, KEPT + 1).await, 1);
    assert_eq!(follower.update().await["change"], 10);
    assert!(shop.server.terminate().success());
    audit_is_clean(&database.url).await;
}
