//! `windfall demo`, as a new user runs it. Every command that it prints works when pasted, and a second run continues where the
//! first stopped.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use entity::purchase;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::Value;

use crate::support::app::open;
use crate::support::server::{command, run, signal};

pub(crate) struct Demo {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Demo {
    pub(crate) fn start(folder: &Path, more: &[&str]) -> Self {
        let mut command = command("sqlite://never-used.db");
        command.arg("demo").arg("--folder").arg(folder).args(more);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads and returns the lines up to the one that begins with `beginning`.
    pub(crate) fn until(&mut self, beginning: &str) -> Vec<String> {
        let mut read = Vec::new();
        for line in self.lines.by_ref().map(|line| line.unwrap()) {
            read.push(line);
            if read.last().unwrap().starts_with(beginning) {
                return read;
            }
        }
        panic!("no line begins with `{beginning}`: {read:#?}");
    }

    pub(crate) fn stop(mut self) {
        signal(&self.child, "INT");
        self.until("The shop is closed.");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a line in a shell, as a user who pastes it would. Returns the first JSON object that it prints.
fn paste(line: &str) -> Value {
    let mut shell = Command::new("sh").args(["-c", &format!("exec {line}")]).stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(shell.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let answer = said.map(|line| line.trim_start_matches("data: ").to_owned()).find(|line| line.starts_with('{'));
    let _ = shell.kill();
    shell.wait().unwrap();
    serde_json::from_str(&answer.unwrap_or_else(|| panic!("no answer to {line}"))).unwrap()
}

async fn count(folder: &Path, kind: &str) -> u64 {
    let database = open(&format!("sqlite://{}/windfall.db", folder.display())).await;
    let of_kind = purchase::Entity::find().filter(purchase::Column::ExternalId.starts_with(kind));
    let count = of_kind.count(database.read()).await.unwrap();
    database.close().await.unwrap();
    count
}

#[tokio::test]
async fn every_printed_line_works_and_the_shop_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut demo = Demo::start(folder, &[]);
    let banner = demo.until("Points as they come and go");
    let pasted: Vec<Value> = banner.iter().filter(|line| line.starts_with("  curl")).map(|line| paste(line)).collect();
    let [asked, bought, followed] = pasted.as_slice() else { panic!("not three lines to paste: {banner:#?}") };
    assert!(asked["data"]["me"]["balance"]["available"].as_i64().is_some_and(|points| points > 0), "{asked}");
    assert_eq!(asked["data"]["me"]["progress"].as_array().map(Vec::len), Some(5), "{asked}");
    assert_eq!(bought["data"]["recordPurchase"]["userErrors"], serde_json::json!([]), "{bought}");
    let awards = bought["data"]["recordPurchase"]["awards"].as_array().unwrap();
    assert!(awards.iter().any(|award| award["points"].as_i64() >= Some(12)), "{bought}");
    assert!(followed["data"]["pointsUpdated"]["change"].is_i64(), "{followed}");
    for token in ["ada", "storefront", "admin"] {
        let token = std::fs::read_to_string(folder.join(format!("{token}.token"))).unwrap();
        let link = banner.iter().find(|line| line.contains(token.trim())).expect("a link with the token");
        let page = reqwest::get(link.trim()).await.unwrap();
        assert!(page.status().is_success() && page.text().await.unwrap().contains("graphiql.min.js"), "{link}");
    }
    // The demo makes purchases by itself. Points mature, expire and are spent within a minute.
    let mut missing = vec!["(pending)", "can be spent now", "expired", "A mug"];
    while !missing.is_empty() {
        let line = demo.until("  ").remove(0);
        missing.retain(|part| !line.contains(part));
    }
    demo.stop();

    let url = format!("sqlite://{}/windfall.db", folder.display());
    let audit = run(command(&url).arg("audit"));
    assert_eq!(audit.code, Some(0), "{audit:?}");
    let (past, visits) = (count(folder, "day-").await, count(folder, "visit-").await);
    assert!(past > 2_000 && visits > 0, "{past} {visits}");

    let mut again = Demo::start(folder, &[]);
    again.until("Points as they come and go");
    again.stop();
    assert!(count(folder, "day-").await >= past && count(folder, "visit-").await >= visits);

    let mut fresh = Demo::start(folder, &["--fresh"]);
    fresh.until("Points as they come and go");
    fresh.stop();
    assert!(count(folder, "visit-").await < visits);
}
