//! `windfall simulate ingest`: what is predicted, from which traces and costs, and what is refused.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::server::{Ran, Server, command, run};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

mod replay;

const GIVEN: [&str; 4] = ["--cost-batch-ms", "5", "--cost-message-ms", "1"];
const SALE: [&str; 10] =
    ["--pattern", "flash-sale", "--rate", "50", "--peak", "30", "--duration", "5m", "--customers", "2000"];

/// A command that has no database.
fn simulate(arguments: &[&str]) -> Command {
    let mut command = command("sqlite:///nowhere/windfall.db");
    command.args(["simulate", "ingest"]).args(arguments);
    command
}

fn predicted(arguments: &[&str]) -> String {
    let Ran { code, stdout, stderr } = run(&mut simulate(arguments));
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

/// The rows of the table, each as words.
fn rows(report: &str) -> Vec<Vec<&str>> {
    let table = report.lines().skip_while(|line| !line.contains("partitions  batch")).skip(1);
    table.take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn a_sale_is_predicted_for_a_grid_and_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let (svg, trace) = (directory.path().join("lag.svg"), directory.path().join("trace.ndjson"));
    let grid = ["--partitions", "1,4", "--nodes", "1,2", "--pool", "2", "--batch", "256", "--outage", "20s"];
    let files = ["--svg", svg.to_str().unwrap(), "--save-trace", trace.to_str().unwrap()];
    let report = predicted(&[&SALE[..], &GIVEN, &grid, &files].concat());
    let rows = rows(&report);
    let settings: Vec<&[&str]> = rows.iter().map(|row| &row[..4]).collect();
    assert_eq!(
        settings,
        [["1", "256", "2", "1"], ["4", "256", "2", "1"], ["1", "256", "2", "2"], ["4", "256", "2", "2"]]
    );
    assert!(report.contains("outage  20 s after 75 s"), "{report}");
    assert!(
        report.contains("  nodes 2 instead of 1: p99 ") && report.contains("partitions 4, batch 256, pool 2)"),
        "{report}"
    );
    let svg = std::fs::read_to_string(svg).unwrap();
    for setting in ["partitions 1, batch 256, pool 2, nodes 1", "partitions 4, batch 256, pool 2, nodes 2"] {
        assert!(svg.contains(setting), "{setting}");
    }
    // What was saved is the same load.
    let again = predicted(&[&["--trace", trace.to_str().unwrap()][..], &GIVEN, &grid].concat());
    assert_eq!(again, report);
}

#[test]
fn too_much_is_marked() {
    let steady = ["--pattern", "steady", "--rate", "1200", "--duration", "1m", "--partitions", "4"];
    let report = predicted(&[&steady[..], &GIVEN].concat());
    assert!(report.contains("database: UNSTABLE\n") && report.contains("\nUNSTABLE: more arrives"), "{report}");
    let calm = ["--pattern", "steady", "--rate", "200", "--duration", "1m", "--partitions", "4"];
    assert!(!predicted(&[&calm[..], &GIVEN].concat()).contains("UNSTABLE"));
}

#[test]
fn wrong_arguments_are_refused_with_their_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (empty, bad) = (file("empty", ""), file("bad", "{\"at\": 5, \"bytes\": 1}\n"));
    let pattern = ["--pattern", "steady", "--duration", "1m"];
    let with = |more: &[&'static str]| [&pattern[..], &GIVEN, more].concat();
    for (arguments, code, reason) in [
        (GIVEN.to_vec(), 2, "<--topic <TOPIC>|--trace <FILE>|--pattern <NAME>>"),
        (pattern.to_vec(), 2, "--metrics <URL>"),
        ([&pattern[..], &GIVEN[..2]].concat(), 2, "--cost-message-ms"),
        (with(&["--trace", "x"]), 2, "cannot be used with"),
        (with(&["--partitions", "0"]), 2, "1..=1000"),
        (with(&["--partitions", "1,2,x"]), 2, "'x'"),
        (with(&["--poison", "0.9"]), 2, "a number from 0 to 0.5"),
        (with(&["--outage", "10"]), 2, "such as 30d"),
        (with(&["--outage-at", "10s"]), 2, "--outage <SPAN>"),
        (with(&["--last", "2h"]), 2, "cannot be used with"),
        (with(&["--rate", "0"]), 2, "a number from 0.001"),
        ([&pattern[..], &["--calibrate", "3m"]].concat(), 2, "at most 2m"),
        (with(&["--outage", "10m"]), 1, "make the outage shorter or the trace longer"),
        (with(&["--rate", "100000"]), 1, "more than 1000000 messages"),
        (with(&["--partitions", "1,2,3,4,5,6,7,8,9", "--nodes", "1,2,3,4"]), 1, "at most 32"),
        ([&["--trace", &*empty, "--rate", "5"][..], &GIVEN].concat(), 2, "cannot be used with"),
        ([&["--trace", &*empty][..], &GIVEN].concat(), 1, "there are no messages"),
        ([&["--trace", &*bad][..], &GIVEN].concat(), 1, "line 1: "),
        ([&["--trace", "/nowhere/trace"][..], &GIVEN].concat(), 1, "/nowhere/trace"),
        (
            [&pattern[..], &["--metrics", "http://127.0.0.1:1/metrics"]].concat(),
            1,
            "--metrics http://127.0.0.1:1/metrics",
        ),
        ([&["--topic", "orders"][..], &GIVEN].concat(), 1, "`kafka.brokers`"),
    ] {
        let ran = run(&mut simulate(&arguments));
        assert_eq!((ran.code, &*ran.stdout), (Some(code), ""), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(reason), "{arguments:?}: {reason}: {}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn costs_are_taken_from_a_running_server() {
    let sqlite = Sqlite::new();
    let shop = Shop::of(Server::start(&sqlite.url()).await);
    shop.campaign(json!({})).await;
    let url = format!("{}/metrics", shop.address());
    let arguments = ["--pattern", "steady", "--rate", "20", "--duration", "30s", "--metrics", &url];
    let early = run(&mut simulate(&arguments));
    assert!(early.code == Some(1) && early.stderr.contains("let the server record something first"), "{early:?}");
    for n in 0..30 {
        shop.buy_many("ada", n * 50..n * 50 + 1 + n).await;
    }
    let report = predicted(&arguments);
    let costs = report.lines().find(|line| line.starts_with("costs ")).unwrap();
    assert!(costs.contains(" batches of a server"), "{costs}");
    // The server was busy for some time, so one of the costs is not zero.
    let figures: Vec<f64> = costs.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(figures.iter().any(|figure| *figure > 0.0), "{costs}");
    let page = reqwest::get(format!("{}/healthz", shop.address())).await.unwrap();
    assert!(page.status().is_success());
    let healthz = format!("{}/healthz", shop.address());
    let other = run(&mut simulate(&["--pattern", "steady", "--metrics", &healthz]));
    assert!(other.stderr.contains("not the metrics of a Windfall server"), "{other:?}");
}

#[test]
fn a_calibration_touches_no_configured_database() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("windfall.db");
    let mut command = command(&format!("sqlite://{}", database.display()));
    let ran =
        run(command.args(["simulate", "ingest", "--pattern", "steady", "--duration", "20s", "--calibrate", "2s"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("batches on a throwaway SQLite database"), "{ran:?}");
    assert!(!database.exists());
}

/// The fenced block of the documentation that follows a text.
pub(crate) fn block_after(text: &str) -> String {
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md")).unwrap();
    let (_, rest) = document.split_once(text).expect("the text of the documentation");
    let (_, block) = rest.split_once("```text\n").expect("its example");
    block.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_example_of_the_documentation_is_what_is_printed() {
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md")).unwrap();
    let (_, rest) = document.split_once("windfall simulate ingest --pattern").expect("the command");
    let arguments = rest.split_once("```").unwrap().0.replace("\\\n", " ");
    let directory = tempfile::tempdir().unwrap();
    let drawn = directory.path().join("lag.svg");
    let mut command = simulate(&["--pattern"]);
    let ran = run(command.args(arguments.split_whitespace()).arg("--svg").arg(&drawn));
    assert_eq!((ran.code, ran.stdout), (Some(0), block_after("windfall simulate ingest --pattern")), "{}", ran.stderr);
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images/flash-sale.svg");
    let [drawn, shown] = [drawn, image].map(|file| std::fs::read_to_string(file).unwrap());
    assert!(drawn == shown, "the drawing is another one: write it again with --svg docs/images/flash-sale.svg");
}

#[test]
fn a_trace_has_hashes_in_place_of_keys() {
    let directory = tempfile::tempdir().unwrap();
    let (named, saved) = (directory.path().join("named"), directory.path().join("saved"));
    std::fs::write(&named, "{\"at\": \"2026-11-27T09:00:00Z\", \"bytes\": 900, \"key\": \"foobar\"}\n").unwrap();
    predicted(&[&["--trace", named.to_str().unwrap(), "--save-trace", saved.to_str().unwrap()][..], &GIVEN].concat());
    let line: Value = serde_json::from_str(&std::fs::read_to_string(saved).unwrap()).unwrap();
    // What Kafka's own test expects of murmur2, without a sign.
    assert_eq!(line["key"], json!(3_504_634_814_u32));
}
