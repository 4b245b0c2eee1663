//! The commands of the operators' README dump and restore a database.

use serde_json::json;
use std::process::Command;
use windfall::http::auth::Role;

use super::{blocks, program};
use crate::support::app::{Engine, scratch};
use crate::support::server::{command, run, token};
use crate::support::shop::{BALANCE, Shop};

/// Returns the README's command that runs a program in the PostgreSQL container, adapted to this machine and to a database.
fn line(name: &str, url: &str, dump: &str) -> Command {
    let lines = blocks("sh").concat();
    let within = format!("docker compose exec -T postgres {name} ");
    let lines: Vec<&str> = lines.lines().filter_map(|line| line.strip_prefix(&within)).collect();
    let [line] = lines[..] else { panic!("not one line with {name}: {lines:?}") };
    let rest = url.strip_prefix("postgres://windfall@127.0.0.1:").expect("the user of compose.yaml");
    let (port, database) = rest.split_once('/').unwrap();
    let line = format!("{line} ");
    let line = line.replace(" windfall ", &format!(" {database} ")).replace("windfall.dump", &format!("'{dump}'"));
    // The user has the same name as the database, so the first replacement changed both.
    let line = line.replace(&format!("--username {database}"), "--username windfall");
    let mut shell = Command::new("bash");
    shell.args(["-euc", &format!("'{}' {line}", program(name).display())]);
    shell.env("PGHOST", "127.0.0.1").env("PGPORT", port);
    shell
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dumped_is_restored() {
    let (url, _) = scratch(Engine::Postgres).await;
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("windfall.dump").display().to_string();
    let shop = Shop::open(&url).await;
    shop.campaign(json!({})).await;
    shop.buy_many("ada", 0..7).await;
    let balance = shop.balance("ada").await;
    let dumped = run(&mut line("pg_dump", &url, &dump));
    assert_eq!(dumped.code, Some(0), "{dumped:?}");
    shop.buy_many("ada", 7..20).await;
    shop.buy("new", 0).await;
    assert_ne!(shop.balance("ada").await, balance);
    assert!(shop.server.terminate().success());

    let restored = run(&mut line("pg_restore", &url, &dump));
    assert_eq!((restored.code, restored.stderr.as_str()), (Some(0), ""), "{restored:?}");
    let audit = run(command(&url).arg("audit"));
    assert_eq!(audit.stdout, "1 customers, 0 differences, 0 customers repaired\n", "{audit:?}");
    let shop = Shop::open(&url).await;
    assert_eq!(shop.balance("ada").await, balance);
    // What was sent after the dump can be sent again.
    shop.buy_many("ada", 7..20).await;
    let again = shop.data(&token(Role::Customer, "ada"), BALANCE, json!({})).await;
    assert_eq!(again["me"]["balance"]["available"], 200);
    assert!(shop.server.terminate().success());
    assert_eq!(run(command(&url).arg("audit")).code, Some(0));
}
