//! The command line of the real program.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use entity::purchase;
use sea_orm::{ConnectionTrait as _, EntityTrait};
use serde_json::json;
use tokio::net::TcpStream;
use windfall::http::auth::Role;

use crate::support::app::{ENGINES, Engine, cases, open, scratch};
use crate::support::server::{Server, ask, command, run, token};
use crate::support::sqlite::Sqlite;

const RECORD: &str = "mutation($input: RecordPurchaseInput!) { \
    recordPurchase(input: $input) { purchase { externalId } userErrors { code } } }";

fn input(id: &str) -> serde_json::Value {
    json!({ "input": {
        "externalId": id, "customerExternalId": format!("c{}", id.len()), "total": "3.00", "currency": "EUR",
        "purchasedAt": "2026-02-01T12:00:00Z",
    }})
}

async fn stored(url: &str) -> BTreeSet<String> {
    let database = open(url).await;
    let rows = purchase::Entity::find().all(database.read()).await.unwrap();
    database.close().await.unwrap();
    rows.into_iter().map(|row| row.external_id).collect()
}

/// Control characters in an external id are escaped, so they have no effect on a terminal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_prints_no_control_characters() {
    let sqlite = Sqlite::new();
    let server = Server::start(&sqlite.url()).await;
    let mut input = input("p1");
    input["input"]["customerExternalId"] = json!("ada\u{1b}[2J\u{9b}31m\r\n\u{202e}0 differences");
    let shop = token(Role::Storefront, "shop");
    let answer = ask(&reqwest::Client::new(), &server.address, &shop, RECORD, input).await.unwrap();
    assert_eq!(answer["data"]["recordPurchase"]["userErrors"], json!([]), "{answer}");
    assert!(server.terminate().success());
    let database = open(&sqlite.url()).await;
    let tx = database.begin().await.unwrap();
    tx.execute_unprepared("UPDATE customer SET balance = balance + 1").await.unwrap();
    tx.commit().await.unwrap();
    database.close().await.unwrap();
    let audit = run(command(&sqlite.url()).arg("audit"));
    assert_eq!(audit.code, Some(1), "{audit:?}");
    let shown = r"customer ada\u{1b}[2J\u{9b}31m\r\n\u{202e}0 differences: ";
    assert!(audit.stdout.contains(shown), "{audit:?}");
    assert!(audit.stdout.chars().all(|character| character == '\n' || !character.is_control()), "{audit:?}");
}

/// Asserts that the program exits with 1, prints nothing to the standard output and all reasons to the standard error. Returns
/// the standard error.
#[track_caller]
fn refused(command: &mut Command, reasons: &[&str]) -> String {
    let ran = run(command);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    for reason in reasons {
        assert!(ran.stderr.contains(reason), "{reason}: {}", ran.stderr);
    }
    ran.stderr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_is_safe_twice_and_at_once() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let at_once: Vec<_> = (0..4)
            .map(|_| {
                let mut command = command(&url);
                command.arg("migrate").stdout(Stdio::piped()).stderr(Stdio::piped());
                command.spawn().unwrap()
            })
            .collect();
        for child in at_once {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{engine:?}: {output:?}");
        }
        let again = run(command(&url).arg("migrate"));
        assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "{again:?}");
        // A program that may not migrate accepts a migrated database.
        let audit = run(command(&url).env("WINDFALL__DATABASE__MIGRATE", "false").arg("audit"));
        assert_eq!(
            (audit.code, audit.stdout.as_str()),
            (Some(0), "0 customers, 0 differences, 0 customers repaired\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_refuses_what_cannot_work() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let mut unmigrated = command(&url);
        unmigrated.env("WINDFALL__DATABASE__MIGRATE", "false").arg("serve");
        refused(&mut unmigrated, &["schema is older than this program", "run `windfall migrate`"]);
    }
    let sqlite = Sqlite::new();
    let url = sqlite.url();
    let mut keyless = command(&url);
    keyless.env("WINDFALL__AUTH__HS256_SECRET", "").arg("serve");
    refused(&mut keyless, &["auth.hs256_secret", "WINDFALL__AUTH__HS256_SECRET", "auth.jwks"]);
    for (variable, value, reasons) in [
        ("WINDFALL__WRITER__BATCH_ITEMS", "none-of-it", ["`writer.batch_items`", "a whole number from 1 to 1000"]),
        ("WINDFALL__HTTP__LISTEN", "none-of-it", ["`http.listen`", "an address and a port"]),
        ("WINDFALL__HTTP__LISTENS", "none-of-it", ["`http.listens`", "does not exist"]),
        ("WINDFALL__AUTH__JWKS", "none-of-it.json", ["`auth.jwks`", "cannot be"]),
    ] {
        let told = refused(command(&url).env(variable, value).arg("serve"), &reasons);
        assert!(!told.contains("none-of-it\""), "{told}");
    }
    // Another program listens on the address.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut second = command(&url);
    second.env("WINDFALL__HTTP__LISTEN", &address).arg("serve");
    refused(&mut second, &["`http.listen`", &address, "cannot listen on"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_database_is_told_without_its_password() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for subcommand in ["serve", "migrate"] {
        let url = format!("postgres://someone:pa55word@{nobody}/shop");
        let told =
            refused(command(&url).arg(subcommand), &["the database cannot be opened", "WINDFALL__DATABASE__URL"]);
        assert!(!told.contains("pa55word"), "{told}");
    }
    let nowhere = "sqlite:///no/such/directory/windfall.db";
    refused(command(nowhere).arg("migrate"), &["the database cannot be opened", "unable to open database file"]);
    refused(command(nowhere).arg("serve"), &["/no/such/directory/windfall.db"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_tells_its_address_and_is_alone_on_an_sqlite_file() {
    let sqlite = Sqlite::new();
    let server = Server::start(&sqlite.url()).await;
    let port: u16 = server.address.strip_prefix("http://127.0.0.1:").expect("an address").parse().unwrap();
    assert_ne!(port, 0);
    refused(command(&sqlite.url()).arg("serve"), &["another `windfall serve` has this database open"]);
    // The first server still works, and commands other than `serve` may run at the same time.
    let shop = token(Role::Storefront, "test");
    let answer = ask(&reqwest::Client::new(), &server.address, &shop, RECORD, input("p")).await.unwrap();
    assert_eq!(answer["data"]["recordPurchase"]["purchase"]["externalId"], "p");
    assert_eq!(run(command(&sqlite.url()).arg("audit")).code, Some(0));
    assert!(server.terminate().success());
    // The lock is released when the server exits.
    assert!(Server::start(&sqlite.url()).await.terminate().success());
}

/// A purchase is recorded if and only if it is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_under_load_it_answers_what_it_has_taken() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let mut acknowledged = BTreeSet::new();
        for round in 0..cases(6, 60) {
            let server = Server::start(&url).await;
            let shop = token(Role::Storefront, "test");
            let requests: Vec<_> = (0..50)
                .map(|n| {
                    let (address, shop) = (server.address.clone(), shop.clone());
                    let id = format!("p{round}-{n}");
                    tokio::spawn(async move {
                        let client = reqwest::Client::new();
                        let answer = ask(&client, &address, &shop, RECORD, input(&id)).await?;
                        assert_eq!(answer["data"]["recordPurchase"]["purchase"]["externalId"], id, "{answer}");
                        Some(id)
                    })
                })
                .collect();
            // The delays range from zero to a time when most requests have been answered.
            tokio::time::sleep(Duration::from_millis(12 * round as u64 % 120)).await;
            let stopped = tokio::task::spawn_blocking(|| server.terminate()).await.unwrap();
            assert_eq!(stopped.code(), Some(0), "{engine:?}");
            for request in requests {
                acknowledged.extend(request.await.unwrap());
            }
            assert_eq!(stored(&url).await, acknowledged, "{engine:?}, round {round}");
        }
        assert!(!acknowledged.is_empty(), "{engine:?}: nothing was acknowledged");
        assert_eq!(run(command(&url).arg("audit")).code, Some(0));
    }
}

/// An open connection that sends no request does not keep the server from exiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_do_not_keep_it_alive() {
    let sqlite = Sqlite::new();
    let server = Server::start(&sqlite.url()).await;
    let host = server.address.strip_prefix("http://").unwrap().to_owned();
    let silent = TcpStream::connect(&host).await.unwrap();
    let stopped = tokio::task::spawn_blocking(|| server.terminate());
    let stopped = tokio::time::timeout(Duration::from_secs(5), stopped).await.expect("the server exits").unwrap();
    assert_eq!(stopped.code(), Some(0));
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_while_a_server_writes_is_whole() {
    let sqlite = Sqlite::new();
    let copies = tempfile::tempdir().unwrap();
    let campaigns = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/campaigns.json");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample.ndjson");
    let imported = run(command(&sqlite.url()).arg("import").arg(sample).arg("--campaigns").arg(campaigns));
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let server = Server::start(&sqlite.url()).await;
    let (address, shop) = (server.address.clone(), token(Role::Storefront, "test"));
    let writing = tokio::spawn(async move {
        let client = reqwest::Client::new();
        let mut written = 0;
        while let Some(answer) = ask(&client, &address, &shop, RECORD, input(&format!("b{written}"))).await {
            assert_eq!(answer["data"]["recordPurchase"]["purchase"]["externalId"], format!("b{written}"));
            written += 1;
        }
        written
    });
    let mut sizes = Vec::new();
    for n in 0..cases(3, 20) {
        let copy = copies.path().join(format!("it's copy {n}.db"));
        let made = run(command(&sqlite.url()).arg("backup").arg(&copy));
        assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""), "{made:?}");
        let url = format!("sqlite://{}", copy.display());
        let audit = run(command(&url).arg("audit"));
        assert_eq!(audit.code, Some(0), "{audit:?}");
        sizes.push(stored(&url).await.len());
        refused(command(&sqlite.url()).arg("backup").arg(&copy), &["exists already"]);
        assert_eq!(stored(&url).await.len(), sizes[n], "the existing file is unchanged");
    }
    assert!(sizes[0] >= 625 && sizes.is_sorted(), "{sizes:?}");
    assert!(server.terminate().success());
    assert!(writing.await.unwrap() > 0);
    // A wrong name creates neither a database nor a backup.
    let nothing = copies.path().join("nothing.db");
    let wrong = format!("sqlite://{}", nothing.display());
    refused(command(&wrong).arg("backup").arg(copies.path().join("copy of nothing.db")), &["there is no database"]);
    assert!(!nothing.exists() && !copies.path().join("copy of nothing.db").exists());
    let (url, _) = scratch(Engine::Postgres).await;
    refused(command(&url).arg("backup").arg(copies.path().join("pg.db")), &["use pg_dump"]);
}

#[test]
fn schema_prints_the_schema() {
    let printed = run(command("sqlite://unused.db").arg("schema"));
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql");
    assert_eq!(printed.stdout, std::fs::read_to_string(file).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_works_also_with_a_short_secret() {
    let sqlite = Sqlite::new();
    for (secret, warns) in [("s3cret", true), ("0123456789abcdef0123456789abcdef", false)] {
        let with_secret = || {
            let mut command = command(&sqlite.url());
            command.env("WINDFALL__AUTH__HS256_SECRET", secret);
            command
        };
        let minted = run(with_secret().args(["token", "--role", "storefront", "--sub", "shop", "--expires-in", "1h"]));
        assert_eq!((minted.code, minted.stderr.as_str()), (Some(0), ""), "{minted:?}");
        let token = minted.stdout.lines().last().unwrap();
        assert!(token.split('.').count() == 3 && !token.contains(' '), "{token}");
        let mut serve = with_secret();
        let (server, mut stderr) = Server::start_with(serve.stderr(Stdio::piped())).await;
        let client = reqwest::Client::new();
        let answer = ask(&client, &server.address, token, RECORD, input(secret)).await.unwrap();
        assert_eq!(answer["data"]["recordPurchase"]["purchase"]["externalId"], secret, "{answer}");
        assert!(server.terminate().success());
        let mut told = String::new();
        stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(told.contains("auth.hs256_secret") && told.contains("fewer than 32 bytes"), warns, "{told}");
        assert!(!told.contains(secret), "{told}");
    }
    let mut keyless = command(&sqlite.url());
    keyless.env("WINDFALL__AUTH__HS256_SECRET", "").args(["token", "--role", "admin", "--sub", "me"]);
    refused(&mut keyless, &["WINDFALL__AUTH__HS256_SECRET"]);
    let unknown = run(command(&sqlite.url()).args(["token", "--role", "king", "--sub", "me"]));
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("customer, storefront, admin"), "{unknown:?}");
}

#[test]
fn help_says_what_each_subcommand_does() {
    for (subcommand, says) in [
        ("serve", "Run the server until it is interrupted"),
        ("migrate", "Bring the database's schema up to date"),
        ("import", "Import purchases, refunds and adjustments"),
        ("ingest", "Look after the ingestion of topics"),
        ("simulate", "Predict what a configuration will do"),
        ("audit", "Recompute all awards, balances and budgets"),
        ("backup", "Copy an SQLite database into a new file"),
        ("doctor", "Examine the configuration and everything that it names"),
        ("schema", "Print the GraphQL schema"),
        ("token", "Mint a token"),
    ] {
        let help = run(command("sqlite://unused.db").args([subcommand, "--help"]));
        assert_eq!(help.code, Some(0));
        assert!(help.stdout.contains(says), "{}", help.stdout);
        let all = run(command("sqlite://unused.db").arg("--help"));
        assert!(all.stdout.contains(says), "{subcommand}: {}", all.stdout);
    }
}
