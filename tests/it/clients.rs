//! Other people's software against a running server: the audits of `graphql-http`, graphql-js as an oracle for execution, the snippets of
//! docs/clients.md with the libraries that they are for, and `schemathesis` with nonsense.
//!
//! The programs are in tests/clients; `scripts/test` installs what they need there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use windfall::http::auth::Role;

use crate::support::server::{Server, command, run, token};

/// Who some tokens speak for; of the sample's customers one with a ledger of some length.
const CUSTOMER: &str = "emil";

struct Clients {
    server: Server,
    _folder: tempfile::TempDir,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python() -> PathBuf {
    root().join("tests/clients/.venv/bin/python")
}

impl Clients {
    /// A server with the sample's purchases.
    async fn start() -> Self {
        for needed in [root().join("tests/clients/node_modules"), python()] {
            assert!(needed.exists(), "{} is missing: scripts/test installs it", needed.display());
        }
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/windfall.db", folder.path().display());
        let sample = |name: &str| root().join("data").join(name);
        let mut import = command(&url);
        let import = import.arg("import").arg(sample("sample.ndjson")).arg("--campaigns").arg(sample("campaigns.json"));
        let imported = run(import);
        assert_eq!(imported.code, Some(0), "{imported:?}");
        Self { server: Server::start(&url).await, _folder: folder }
    }

    /// Runs a program of tests/clients for a caller; it must pass, and count what passed.
    fn pass(&self, program: &mut Command, role: Role, subject: &str) {
        let ran = program
            .current_dir(root().join("tests/clients"))
            .env("WINDFALL_URL", format!("{}/graphql", self.server.address))
            .env("WINDFALL_SCHEMA", root().join("schema.graphql"))
            .env("WINDFALL_TOKEN", token(role, subject))
            .env("WINDFALL_ADMIN_TOKEN", token(Role::Admin, "eve"))
            .env("WINDFALL_SHOP_TOKEN", token(Role::Storefront, "shop"))
            .env("WINDFALL_PYTHON", python())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{program:?}:\n{said}");
        let counted = said.lines().rev().find_map(|line| line.split_once(" passed, 0 failed"));
        assert!(counted.is_some_and(|(passed, _)| passed.parse::<u32>().is_ok_and(|passed| passed > 0)), "{said}");
    }
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

#[tokio::test]
async fn nonsense_is_answered_as_the_schema_says() {
    let full = std::env::var("WINDFALL_TEST_SIZE").is_ok_and(|size| size == "full");
    for (role, subject) in [(Role::Customer, CUSTOMER), (Role::Storefront, "shop"), (Role::Admin, "eve")] {
        // It writes what it likes: a server for each.
        let clients = Clients::start().await;
        let mut fuzz = Command::new(python());
        fuzz.arg("fuzz.py").env("WINDFALL_FUZZ_EXAMPLES", if full { "300" } else { "25" });
        clients.pass(&mut fuzz, role, subject);
    }
}
