//! Redis with TLS, as a cluster, and behind Sentinels. In each case entries are shared, and hints pass between nodes.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::logs;
use crate::support::certificates::{Authority, Certificate};
use crate::support::node::{metric, node, reaches};
use crate::support::postgres::Postgres;
use crate::support::redis::{Redis, Sentinel, next_port, replica_in_cluster, start_cluster};
use crate::support::shop::Shop;
use crate::support::websocket::PATIENCE;

const UP: &str = "windfall_redis_up";
const LISTENING: &str = "windfall_live_listening";
const RECEIVED: &str = "windfall_live_hints_total{direction=\"received\"}";
const FROM_REDIS: &str = "windfall_cache_reads_total{tier=\"l2\"}";

/// Two nodes on an empty database, which use this Redis.
struct Pair {
    one: Shop,
    other: Shop,
    database: String,
}

impl Pair {
    async fn start(redis_url: &str, more: &[(&str, &str)]) -> Self {
        let database = Postgres::shared().create_database().await;
        let (one, other) = (node(&database, Some(redis_url), more).await, node(&database, Some(redis_url), more).await);
        one.campaign(json!({})).await;
        let pair = Self { one, other, database };
        pair.is_up().await;
        pair
    }

    async fn is_up(&self) {
        for shop in [&self.one, &self.other] {
            reaches(shop, UP, 1.0).await;
            reaches(shop, LISTENING, 1.0).await;
        }
    }

    /// Commits of one node wake the other, which then reads what the first has stored in Redis. `stored` returns the number of
    /// entries in Redis.
    async fn shares(&self, customers: &[String], stored: impl Fn() -> usize) {
        let (received, read) = (metric(&self.other, RECEIVED).await, metric(&self.other, FROM_REDIS).await);
        let (before, count) = (stored(), customers.len());
        for customer in customers {
            self.one.buy(customer, 0).await;
            self.one.balance(customer).await;
        }
        reaches(&self.other, RECEIVED, received + 1.0).await;
        let all_stored = async {
            while stored() < before + count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all_stored).await.expect("all entries are stored in time");
        for customer in customers {
            assert_eq!(self.other.balance(customer).await["available"], json!(10));
        }
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let expected = read + count as f64;
        assert_eq!(metric(&self.other, FROM_REDIS).await, expected);
    }
}

fn customers(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

fn size(redis: &Redis) -> usize {
    redis.command(&["DBSIZE"]).parse().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Redis asks for a certificate of the client, as it does by default. A node that does not trust Redis serves without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_and_hints_pass_over_tls() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (own, client) = (authority.sign("IP:127.0.0.1"), authority.sign("DNS:windfall.example"));
    let (tls_port, ca) = (next_port(), authority.certificate());
    let port = tls_port.to_string();
    let redis = Redis::start_with(&[&["--tls-port", &port], &certified(&own, &ca)[..]].concat());
    let url = format!("rediss://127.0.0.1:{tls_port}");
    let trust = [
        ("WINDFALL__REDIS__CA_FILE", text(&ca)),
        ("WINDFALL__REDIS__CLIENT_CERT_FILE", text(&client.certificate)),
        ("WINDFALL__REDIS__CLIENT_KEY_FILE", text(&client.key)),
    ];
    let pair = Pair::start(&url, &trust).await;
    pair.shares(&customers("tls", 3), || size(&redis)).await;

    let foreign = stranger.certificate();
    let other_name = format!("rediss://localhost:{tls_port}");
    for (url, ca, problem) in [
        (&url, text(&foreign), "UnknownIssuer"),
        (&url, "", "UnknownIssuer"),
        (&other_name, text(&ca), "not valid for name"),
    ] {
        let variables = [("WINDFALL__REDIS__URL", url.as_str()), trust[1], trust[2], (trust[0].0, ca)];
        let wary = logs(&pair.database, &variables, problem).await;
        assert_eq!(wary.balance("tls-0").await["available"], json!(10));
        assert_eq!(metric(&wary, UP).await, 0.0);
    }
}

/// When a master of the cluster is gone, reads go to the database, and hints pass through another server. Then a replica takes
/// over, and the cluster is used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_and_hints_pass_through_a_cluster() {
    let mut cluster = start_cluster(3, None);
    let pair = Pair::start(&cluster_url("redis-cluster", &cluster), &[]).await;
    let entries = customers("cluster", 30);
    pair.shares(&entries, || cluster.iter().map(|(node, _)| size(node)).sum()).await;
    assert!(cluster.iter().all(|(node, _)| size(node) > 0), "every node has entries");

    let replica = replica_in_cluster(&cluster[0].0);
    cluster[0].0.kill();
    let received = metric(&pair.other, RECEIVED).await;
    let mut number = 1;
    let hinted = async {
        while metric(&pair.other, RECEIVED).await == received {
            pair.one.buy("cluster-0", number).await;
            number += 1;
            assert_eq!(pair.other.balance("cluster-0").await["available"], json!(10 * number));
        }
    };
    tokio::time::timeout(PATIENCE, hinted).await.expect("a hint in time");
    for customer in &entries[1..] {
        pair.one.buy(customer, 1).await;
        assert_eq!(pair.other.balance(customer).await["available"], json!(20));
    }
    let promoted = async {
        while !replica.command(&["ROLE"]).starts_with("master") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, promoted).await.expect("a new master in time");
    pair.is_up().await;
    let masters = [&replica, &cluster[1].0, &cluster[2].0];
    pair.shares(&customers("after", 10), || masters.iter().map(|node| size(node)).sum()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_and_hints_pass_through_a_cluster_over_tls() {
    let authority = Authority::new();
    let (ca, own) = (authority.certificate(), authority.sign("IP:127.0.0.1"));
    let cluster = start_cluster(3, Some(&certified(&own, &ca)));
    let trust = [
        ("WINDFALL__REDIS__CA_FILE", text(&ca)),
        ("WINDFALL__REDIS__CLIENT_CERT_FILE", text(&own.certificate)),
        ("WINDFALL__REDIS__CLIENT_KEY_FILE", text(&own.key)),
    ];
    let pair = Pair::start(&cluster_url("rediss-cluster", &cluster), &trust).await;
    pair.shares(&customers("cluster", 10), || cluster.iter().map(|(node, _)| size(node)).sum()).await;
}

fn cluster_url(scheme: &str, cluster: &[(Redis, u16)]) -> String {
    let hosts: Vec<String> = cluster.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
    format!("{scheme}://{}", hosts.join(","))
}

/// The arguments of a server with this certificate, which accepts clients that the authority has certified.
fn certified<'a>(own: &'a Certificate, ca: &'a Path) -> [&'a str; 6] {
    let (certificate, key) = (text(&own.certificate), text(&own.key));
    ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", text(ca)]
}

/// The master is killed, and a Sentinel promotes the replica. The Sentinel that the URL names first does not run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_by_sentinels_is_followed() {
    let mut master = Redis::start();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let sentinel = Sentinel::watch(&master);
    let name = Sentinel::MASTER;
    let url = format!("redis-sentinel://127.0.0.1:{},127.0.0.1:{}?master={name}", next_port(), sentinel.port);
    let pair = Pair::start(&url, &[]).await;
    pair.shares(&customers("before", 3), || size(&master)).await;

    master.kill();
    let promoted = async {
        while !replica.command(&["ROLE"]).starts_with("master") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, promoted).await.expect("a new master in time");
    // A node finds out that its connection is gone when it uses it.
    let read = metric(&pair.other, FROM_REDIS).await;
    let shared = async {
        let mut number = 0;
        while metric(&pair.other, FROM_REDIS).await == read {
            let customer = format!("meanwhile-{number}");
            pair.one.buy(&customer, 0).await;
            assert_eq!(pair.one.balance(&customer).await["available"], json!(10));
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(pair.other.balance(&customer).await["available"], json!(10));
            number += 1;
        }
    };
    tokio::time::timeout(PATIENCE, shared).await.expect("an entry from the new master in time");
    pair.is_up().await;
    pair.shares(&customers("after", 3), || size(&replica)).await;
}
