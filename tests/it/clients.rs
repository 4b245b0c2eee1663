//! Third-party software against a running server: the audits of `graphql-http`, graphql-js as an oracle for execution, the
//! snippets of docs/clients.md with their libraries, these libraries during restarts of the server, their caches, and random
//! requests by `schemathesis`.
//!
//! The programs are in tests/clients. `scripts/test` installs their dependencies.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;
use windfall::http::auth::Role;

use crate::support::app::cases;
use crate::support::server::{Server, command, run, token};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

/// The customer of most customer tokens. In the sample data, this customer has a ledger of some length.
const CUSTOMER: &str = "emil";

struct Clients {
    server: Server,
    _folder: tempfile::TempDir,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn are_installed() {
    for needed in [root().join("tests/clients/node_modules"), python()] {
        assert!(needed.exists(), "{} is missing: scripts/test installs it", needed.display());
    }
}

fn python() -> PathBuf {
    root().join("tests/clients/.venv/bin/python")
}

impl Clients {
    /// Starts a server with the sample data.
    async fn start() -> Self {
        are_installed();
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/windfall.db", folder.path().display());
        let sample = |name: &str| root().join("data").join(name);
        let mut import = command(&url);
        let import = import.arg("import").arg(sample("sample.ndjson")).arg("--campaigns").arg(sample("campaigns.json"));
        let imported = run(import);
        assert_eq!(imported.code, Some(0), "{imported:?}");
        Self { server: Server::start(&url).await, _folder: folder }
    }

    /// Runs a program of tests/clients with the token of a caller. It must pass and report how many checks passed.
    fn pass(&self, program: &mut Command, role: Role, subject: &str) {
        let ran = on_behalf(program, &self.server, role, subject).stdin(Stdio::null()).output();
        passed(&ran.unwrap_or_else(|error| panic!("{program:?}: {error}")));
    }
}

/// Gives a program of tests/clients the address of the server and the tokens.
fn on_behalf<'a>(program: &'a mut Command, server: &Server, role: Role, subject: &str) -> &'a mut Command {
    program
        .current_dir(root().join("tests/clients"))
        .env("WINDFALL_URL", format!("{}/graphql", server.address))
        .env("WINDFALL_SCHEMA", root().join("schema.graphql"))
        .env("WINDFALL_TOKEN", token(role, subject))
        .env("WINDFALL_ADMIN_TOKEN", token(Role::Admin, "eve"))
        .env("WINDFALL_SHOP_TOKEN", token(Role::Storefront, "shop"))
        .env("WINDFALL_PYTHON", python())
}

/// Asserts that a program succeeded and reported at least one passed check and no failed one.
#[track_caller]
fn passed(ran: &Output) {
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}");
    let counted = said.lines().rev().find_map(|line| line.split_once(" passed, 0 failed"));
    assert!(counted.is_some_and(|(passed, _)| passed.parse::<u32>().is_ok_and(|passed| passed > 0)), "{said}");
}

fn node(program: &str) -> Command {
    let mut node = Command::new("node");
    node.arg(program);
    node
}

#[tokio::test]
async fn the_audits_of_graphql_over_http_pass() {
    Clients::start().await.pass(&mut node("audit.mjs"), Role::Admin, "eve");
}

#[tokio::test]
async fn what_is_executed_is_what_graphql_js_executes() {
    Clients::start().await.pass(&mut node("oracle.mjs"), Role::Customer, CUSTOMER);
}

#[tokio::test]
async fn the_snippets_of_the_client_documentation_run() {
    Clients::start().await.pass(&mut node("snippets.mjs"), Role::Customer, CUSTOMER);
}

/// The campaign gives points for each purchase, so every purchase changes the balance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_in_a_normalised_cache_follows() {
    are_installed();
    let sqlite = Sqlite::new();
    let shop = Shop::open(&sqlite.url()).await;
    shop.campaign(json!({})).await;
    let mut program = node("caches.mjs");
    passed(&on_behalf(&mut program, &shop.server, Role::Customer, "ada").stdin(Stdio::null()).output().unwrap());
}

/// Starts a server on this port, so that a restarted server has the same address.
async fn shop_on(port: u16, database_url: &str) -> Shop {
    Shop::open_with(command(database_url).env("WINDFALL__HTTP__LISTEN", format!("127.0.0.1:{port}"))).await
}

/// Returns a free port outside the range that the system assigns, so that nothing takes it while the server is down.
fn free_port() -> u16 {
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let begin = rand::random_range(10_000..30_000);
    (begin..32_000).find(is_free).expect("a free port")
}

/// After each restart, the clients receive every entry, including those that were posted before they were connected again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_back_when_the_server_does() {
    const ENTRIES: usize = 5;
    are_installed();
    let (sqlite, port) = (Sqlite::new(), free_port());
    let mut shop = shop_on(port, &sqlite.url()).await;
    shop.campaign(json!({})).await;
    let mut program = node("restart.mjs");
    let program = on_behalf(&mut program, &shop.server, Role::Customer, "ada");
    let mut clients = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut count = clients.stdin.take().unwrap();
    let mut heard = BufReader::new(clients.stdout.take().unwrap()).lines();
    // The clients must miss nothing from now on.
    assert_eq!(heard.next().and_then(Result::ok).as_deref(), Some("following"));
    for round in 1..=cases(4, 40) {
        shop.buy_many("ada", (round - 1) * ENTRIES..round * ENTRIES).await;
        // The program reports failures when it ends.
        let said = writeln!(count, "{}", round * ENTRIES).ok().and_then(|()| heard.next()?.ok());
        if said != Some(format!("heard of {}", round * ENTRIES)) {
            break;
        }
        if round % 4 == 0 {
            shop.server.kill9();
        } else {
            assert!(shop.server.terminate().success());
        }
        shop = shop_on(port, &sqlite.url()).await;
    }
    drop(count);
    let rest: Vec<String> = heard.map_while(Result::ok).collect();
    let mut ran = clients.wait_with_output().unwrap();
    ran.stdout = rest.join("\n").into_bytes();
    passed(&ran);
}

#[tokio::test]
async fn nonsense_is_answered_as_the_schema_says() {
    let full = std::env::var("WINDFALL_TEST_SIZE").is_ok_and(|size| size == "full");
    for (role, subject) in [(Role::Customer, CUSTOMER), (Role::Storefront, "shop"), (Role::Admin, "eve")] {
        // The random requests write data, so each role gets its own server.
        let clients = Clients::start().await;
        let mut fuzz = Command::new(python());
        fuzz.arg("fuzz.py").env("WINDFALL_FUZZ_EXAMPLES", if full { "300" } else { "25" });
        clients.pass(&mut fuzz, role, subject);
    }
}
