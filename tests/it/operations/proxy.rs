//! Two nodes with the settings of compose.yaml, behind nginx with the configuration in docs/operations.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use windfall::http::auth::Role;

use super::container::services;
use super::programs::{free_port, redis};
use super::{blocks, program, read, text};
use crate::support::app::{Engine, scratch};
use crate::support::events::{Event, Events};
use crate::support::redis::Redis;
use crate::support::server::{Server, ask, command, token};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;
use crate::support::websocket::{PATIENCE, PROTOCOL, Socket, host};

const FOLLOW: &str = "subscription { pointsUpdated { change balance { available } } }";

/// Runs nginx until the standard input ends. It ends with the test process, however that process ends.
const KEEPER: &str = r#"
"$@" &
read -r _
kill -TERM $!
wait $!
"#;

struct Proxy {
    keeper: Child,
    folder: tempfile::TempDir,
    address: String,
}

/// Replaces a text that the configuration contains exactly once.
fn replaced(configuration: &str, what: &str, with: &str) -> String {
    assert_eq!(configuration.matches(what).count(), 1, "{what}");
    configuration.replace(what, with)
}

impl Proxy {
    async fn start(nodes: [&str; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut configuration = read("docs/operations/nginx.conf");
        for (of_compose, node) in ["server windfall-1:8080", "server windfall-2:8080"].into_iter().zip(nodes) {
            configuration = replaced(&configuration, of_compose, &format!("server {}", host(node)));
        }
        configuration = replaced(&configuration, "listen 8080;", &format!("listen 127.0.0.1:{port};"));
        // Sets directories that nginx can write without root, and a header that names the node.
        let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|of| format!("{of}_temp_path {}/{of};\n", folder.path().display()))
            .collect();
        let seen = "add_header x-node $upstream_addr always;";
        configuration = replaced(&configuration, "\nhttp {\n", &format!("\nhttp {{\n{places}{seen}\n"));
        fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
        // If root starts nginx, the workers run as another user.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        Self::command(&folder, &["-t", "-q"], "nginx accepts the configuration");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(program("nginx")).args(Self::arguments(&folder));
        let keeper = keeper.stdin(Stdio::piped()).spawn().unwrap();
        let proxy = Self { keeper, folder, address: format!("http://127.0.0.1:{port}") };
        let up = async {
            while reqwest::get(format!("{}/readyz", proxy.address)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("nginx starts");
        proxy
    }

    fn arguments(folder: &tempfile::TempDir) -> Vec<String> {
        let folder = folder.path().display();
        let globals = format!("daemon off; pid {folder}/pid; error_log stderr crit;");
        let file = format!("{folder}/nginx.conf");
        ["-p", &folder.to_string(), "-c", &file, "-e", "stderr", "-g", &globals].map(str::to_owned).into()
    }

    /// Runs nginx and waits until it exits.
    fn command(folder: &tempfile::TempDir, arguments: &[&str], what: &str) {
        let mut nginx = Command::new(program("nginx"));
        let status = nginx.args(arguments).args(Self::arguments(folder)).status().unwrap();
        assert!(status.success(), "{what}");
    }

    /// Reloads the configuration with the command of the README.
    fn reload(&self) {
        let lines = blocks("sh").concat();
        let line = lines.lines().find_map(|line| line.trim().strip_prefix("docker compose exec proxy nginx "));
        let arguments: Vec<&str> = line.and_then(|line| line.split(" #").next()).unwrap().split(' ').collect();
        Self::command(&self.folder, &arguments, "nginx reloads its configuration");
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("{}{path}", self.address)).await.unwrap()
    }

    /// Sends a request and returns the address of the node that responded.
    async fn node(&self) -> String {
        let answer = self.get("/readyz").await;
        assert_eq!(answer.status(), 200);
        let told = answer.headers()["x-node"].to_str().unwrap();
        // The last address is that of the node that responded. The others accepted no connection.
        format!("http://{}", told.rsplit(", ").next().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Starts a node with the settings of compose.yaml, except for addresses and secrets.
async fn node(url: &str, redis: &Redis, listen: &str) -> Server {
    let mut command = command(url);
    let services = services();
    for (name, value) in services["windfall-1"]["environment"].as_object().unwrap() {
        match name.as_str() {
            "WINDFALL__DATABASE__URL" | "WINDFALL__AUTH__HS256_SECRET" => {}
            "WINDFALL__HTTP__LISTEN" => drop(command.env(name, listen)),
            "WINDFALL__HTTP__INTERNAL_LISTEN" => drop(command.env(name, "127.0.0.1:0")),
            "WINDFALL__HTTP__TRUSTED_PROXIES" => drop(command.env(name, "127.0.0.1")),
            "WINDFALL__REDIS__URL" => drop(command.env(name, redis.url())),
            _ => drop(command.env(name, text(value))),
        }
    }
    Server::start_with(&mut command).await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_the_proxy_are_told_apart() {
    const FIRST: [u8; 4] = [127, 0, 0, 2];
    const SECOND: [u8; 4] = [127, 0, 0, 3];
    let sqlite = Sqlite::new();
    let mut node = command(&sqlite.url());
    node.env("WINDFALL__HTTP__TRUSTED_PROXIES", "127.0.0.1/32").env("WINDFALL__HTTP__SOCKETS_PER_ADDRESS", "2");
    let node = Server::start_with(&mut node).await.0;
    let proxy = Proxy::start([&node.address, &node.address]).await;
    let mut open = Vec::new();
    let opened = async |source, headers: &[(&str, &str)]| Socket::connect_from(source, &proxy.address, headers).await;
    for source in [FIRST, FIRST, SECOND, SECOND] {
        let socket = opened(source, &[]).await.expect("a WebSocket");
        open.push(socket.initialized(&token(Role::Customer, "ada")).await);
    }
    // A header from the client has no effect, because its values are to the left of the one that the proxy adds.
    for headers in [&[][..], &[("x-forwarded-for", "203.0.113.9")], &[("x-forwarded-for", "203.0.113.9, 127.0.0.1")]] {
        for source in [FIRST, SECOND] {
            let refused = opened(source, headers).await.err().expect("no WebSocket");
            assert_eq!(refused.status, 429, "{source:?} {headers:?}");
        }
    }
    let other = opened([127, 0, 0, 4], &[]).await.expect("a WebSocket");
    drop(other.initialized(&token(Role::Customer, "ada")).await);
}

/// Records a purchase through an address. Returns whether the server accepted it.
async fn buys(address: &str, id: usize) -> bool {
    let query = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { code } } }";
    let input = json!({ "externalId": format!("p{id}"), "customerExternalId": "ada", "total": "1.00",
        "currency": "EUR", "purchasedAt": "2026-02-01T12:00:00Z" });
    let client = reqwest::Client::new();
    let shop = token(Role::Storefront, "shop");
    let answer = ask(&client, address, &shop, query, json!({ "input": input })).await;
    answer.is_some_and(|answer| answer["data"]["recordPurchase"]["userErrors"] == json!([]))
}

async fn change(events: &mut Events) -> Value {
    match events.next().await {
        Event::Next(mut answer) => answer["data"]["pointsUpdated"]["change"].take(),
        other => panic!("an update is expected, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_behind_the_proxy_are_one_server() {
    let (url, _) = scratch(Engine::Postgres).await;
    let redis = redis();
    // Both start at the same time on an empty database, and one of them migrates it.
    let listen = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let (first, second) = tokio::join!(node(&url, &redis, &listen[0]), node(&url, &redis, &listen[1]));
    let (here, there) = (first.address.clone(), second.address.clone());
    let proxy = Proxy::start([&here, &there]).await;
    let client = reqwest::Client::new();
    let shop = Shop::of(first);
    shop.campaign(json!({})).await;

    assert_eq!(proxy.get("/healthz").await.text().await.unwrap(), "ok");
    let metrics = proxy.get("/metrics").await;
    assert_eq!((metrics.status().as_u16(), metrics.headers().get("x-node")), (404, None), "it is not forwarded");
    let turns = [proxy.node().await, proxy.node().await, proxy.node().await, proxy.node().await];
    assert_eq!((&turns[0], &turns[1]), (&turns[2], &turns[3]));
    assert_eq!(BTreeSet::from(turns), BTreeSet::from([here.clone(), there.clone()]));

    // Both transports deliver live updates through either node, including those of purchases that the other node records.
    let ada = token(Role::Customer, "ada");
    let mut followers = Vec::new();
    let mut sockets = Vec::new();
    for _ in 0..2 {
        followers.push(Events::open(&client, &proxy.address, &ada, FOLLOW, &json!({})).await);
        // The headers are those of a browser's page with the same origin.
        let origin = [PROTOCOL, ("origin", proxy.address.as_str())];
        let socket = Socket::connect_with(&proxy.address, &origin).await.expect("an upgraded connection");
        let mut socket = socket.initialized(&ada).await;
        socket.subscribe("1", FOLLOW, json!({})).await;
        sockets.push(socket);
    }
    // A subscription that has not started would miss the purchase. The pong shows that the subscription has started.
    for socket in &mut sockets {
        socket.send(json!({ "type": "ping" })).await;
        assert_eq!(socket.message().await["type"], "pong");
    }
    assert!(buys(&here, 0).await);
    for events in &mut followers {
        assert_eq!(change(events).await, 10);
    }
    for socket in &mut sockets {
        assert_eq!(socket.message().await["payload"]["data"]["pointsUpdated"]["change"], 10);
    }

    // A body that is too large is refused by the node and not by the proxy.
    let large = json!({ "query": "{ me { externalId } }", "other": "x".repeat(2_200_000) });
    let refused = client
        .post(format!("{}/graphql", proxy.address))
        .bearer_auth(&shop.storefront)
        .json(&large)
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 413);
    assert!(refused.json::<Value>().await.unwrap()["errors"].is_array());

    // A node is replaced. Clients do not notice.
    let stopped = tokio::task::spawn_blocking(|| shop.server.terminate()).await.unwrap();
    assert!(stopped.success());
    for id in 1..12 {
        assert!(buys(&proxy.address, id).await, "{id}");
        assert_eq!(proxy.node().await, there);
    }
    let again = node(&url, &redis, host(&here)).await;
    let back = async {
        while proxy.node().await != here {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("the proxy uses the node again");
    proxy.reload();
    for id in 12..16 {
        assert!(buys(&proxy.address, id).await, "{id}");
    }
    let me = "{ me { balance { available } } }";
    for _ in 0..2 {
        let answer = ask(&client, &proxy.address, &ada, me, json!({})).await.unwrap();
        assert_eq!(answer["data"]["me"]["balance"]["available"], 160);
    }
    for server in [again, second] {
        assert!(tokio::task::spawn_blocking(|| server.terminate()).await.unwrap().success());
    }
}
