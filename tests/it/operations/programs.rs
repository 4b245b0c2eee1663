//! The commands of compose.yaml and the Dockerfile, run without containers. Each health check succeeds for a healthy program
//! and fails for any other.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::json;

use super::container::{json_words, only, services, words_of};
use super::{blocks, program};
use crate::support::app::{Engine, scratch};
use crate::support::node::{metric, node, reaches};
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::sqlite::Sqlite;

/// Returns a free port below those of outgoing connections, so that nothing takes the port between two uses.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other test processes begin with other ports.
    let begin = std::process::id() % 5_000;
    let ports = (0..5_000).map(|_| 10_000 + (begin + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % 5_000);
    let mut ports = ports.map(|port| u16::try_from(port).unwrap());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// Returns a container's command for this machine, with its port replaced.
fn native(words: &[String], port: &str, here: u16) -> Command {
    let command = words.join("\n");
    assert_eq!(command.matches(port).count(), 1, "{command}: {port}");
    let mut words = words.iter().map(|word| word.replace(port, &here.to_string()));
    let mut command = Command::new(program(&words.next().expect("a program")));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn is_well(words: &[String], port: &str, here: u16) -> bool {
    native(words, port, here).status().unwrap().success()
}

/// Listens on a port and responds to one request with this status. Returns the port.
fn answer_once(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ =
            stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes());
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_s_and_the_proxy_s_checks() {
    let services = services();
    let sqlite = Sqlite::new();
    let server = Server::start(&sqlite.url()).await;
    let port: u16 = server.address.rsplit(':').next().unwrap().parse().unwrap();
    let checks = [
        (json_words(&only("HEALTHCHECK")), "/healthz", "8080"),
        (words_of(&services["windfall-1"]["healthcheck"]["test"]), "/readyz", "9090"),
        (words_of(&services["proxy"]["healthcheck"]["test"]), "/healthz", "8080"),
    ];
    for (words, path, own_port) in &checks {
        assert!(words.join(" ").contains(path), "{words:?}");
        assert!(is_well(words, own_port, port), "{words:?}");
        assert!(!is_well(words, own_port, answer_once("503 Service Unavailable")), "{words:?}");
        assert!(is_well(words, own_port, answer_once("200 OK")), "{words:?}");
    }
    assert!(server.terminate().success());
    for (words, _, own_port) in &checks {
        assert!(!is_well(words, own_port, port), "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_s_check() {
    let words = words_of(&services()["postgres"]["healthcheck"]["test"]);
    let (url, _) = scratch(Engine::Postgres).await;
    let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next()).unwrap().parse().unwrap();
    assert!(is_well(&words, "5432", port), "{words:?}");
    assert!(!is_well(&words, "5432", free_port()), "{words:?}");
}

/// Starts a Redis with the settings of compose.yaml.
pub(super) fn redis() -> Redis {
    let words = words_of(&services()["redis"]["command"]);
    assert_eq!(words[0], "redis-server");
    Redis::start_with(&words[1..].iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn redis_is_set_up_as_the_readme_says() {
    let services = services();
    let redis = redis();
    let check = words_of(&services["redis"]["healthcheck"]["test"]);
    assert!(is_well(&check, "6379", redis.port()), "{check:?}");
    assert!(!is_well(&check, "6379", free_port()), "{check:?}");
    for (name, value) in
        [("maxmemory", "268435456"), ("maxmemory-policy", "allkeys-lru"), ("save", ""), ("appendonly", "no")]
    {
        assert_eq!(redis.command(&["CONFIG", "GET", name]), format!("{name}\n{value}"));
    }
    let blocks = blocks("text");
    let [settings, _] = &blocks[..] else { panic!("not one block of settings and one with a user") };
    let told: Vec<String> = settings
        .lines()
        .filter_map(|line| line.split_once(' '))
        .flat_map(|(name, value)| [format!("--{name}"), value.trim_matches('"').to_owned()])
        .collect();
    assert_eq!(told, words_of(&services["redis"]["command"])[1..]);
}

/// A node works with the Redis user of the README.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_redis_needs_no_more_rights_than_the_readme_gives() {
    let (url, _) = scratch(Engine::Postgres).await;
    let (redis, blocks) = (redis(), blocks("text"));
    let user: Vec<&str> = blocks[1].trim().strip_prefix("user ").expect("a user").split(' ').collect();
    let password = user.iter().find_map(|word| word.strip_prefix('>')).expect("a password");
    assert_eq!(redis.command(&[&["ACL", "SETUSER"], &user[..]].concat()), "OK");
    let redis_url = format!("redis://{}:{password}@{}", user[0], redis.address());
    let (one, other) = (node(&url, Some(&redis_url), &[]).await, node(&url, Some(&redis_url), &[]).await);
    for shop in [&one, &other] {
        reaches(shop, "windfall_redis_up", 1.0).await;
        reaches(shop, "windfall_live_listening", 1.0).await;
    }
    one.campaign(json!({})).await;
    one.buy("ada", 0).await;
    reaches(&other, "windfall_live_hints_total{direction=\"received\"}", 1.0).await;
    one.balance("ada").await;
    while redis.command(&["DBSIZE"]) == "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.balance("ada").await;
    assert_eq!(metric(&other, "windfall_cache_reads_total{tier=\"l2\"}").await, 1.0);
    for shop in [&one, &other] {
        for kind in ["timeout", "connection", "reply", "garbage"] {
            let failures = format!("windfall_redis_failures_total{{kind=\"{kind}\"}}");
            assert_eq!(metric(shop, &failures).await, 0.0, "{kind}");
        }
    }
}
