//! The commands of the README print what it shows. The paths, links and tests that the documents name exist.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use windfall::app::campaign::input::CampaignInput;
use windfall::app::purchase::{PurchaseLine, RecordPurchase};

use crate::support::app::{DAY, Engine, NOW, TestApp, purchase_input};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The fenced blocks of the README.
fn blocks() -> Vec<(String, String)> {
    blocks_of("README.md")
}

/// The fenced blocks of a document: the info string after the fence, and the text.
fn blocks_of(document: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((kind.to_owned(), text.join("\n")));
        }
    }
    blocks
}

/// A directory that looks like the repository to the commands of the README, and a shell function that runs the program
/// under test in place of `cargo run`.
fn scratch() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("data"), directory.path().join("data")).unwrap();
    let cargo = format!(
        "cargo() {{ while [ \"$1\" != -- ]; do shift; done; shift; '{}' \"$@\"; }}\n",
        env!("CARGO_BIN_EXE_windfall")
    );
    (directory, cargo)
}

fn shell(directory: &Path, script: &str) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", script]).current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WINDFALL__")) {
        shell.env_remove(name);
    }
    shell
}

fn output(directory: &Path, script: &str) -> String {
    let output = shell(directory, script).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands of docs/import.md print what it shows, and its map is usable.
#[test]
fn the_lines_of_the_import_page_print_what_it_says() {
    let blocks = blocks_of("docs/import.md");
    let [(_, dry_run), (_, understood), (_, with_map), (_, map)] = &blocks[..] else { panic!("four blocks") };
    let (directory, cargo) = scratch();
    assert_eq!(output(directory.path(), &format!("{cargo}{dry_run}")).trim_end(), understood);
    let imported = output(directory.path(), &format!("{cargo}{with_map}"));
    assert!(imported.starts_with("3 recorded, 0 known already, 0 left out, 0 faulty"), "{imported}");
    let file = directory.path().join("map.toml");
    fs::write(&file, map).unwrap();
    windfall::ingest::map::Map::read(&file).unwrap();
}

/// A process that is killed when the test ends, also if it fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn its_lines_print_what_it_says() {
    let blocks = blocks();
    let shown =
        |kind: &str| -> Vec<&String> { blocks.iter().filter(|(of, _)| of == kind).map(|(_, text)| text).collect() };
    let [demo, test, import, exports, serve, purchase, query, follow, campaign, _, _, reward, export, erase] =
        shown("sh")[..]
    else {
        panic!("fourteen shell blocks");
    };
    // These two are not run here: `demo` has tests of its own, and `scripts/test` runs this test.
    assert_eq!((demo.as_str(), test.as_str()), ("cargo run --release -- demo", "scripts/test"));
    let [summary, event, _, erased] = shown("text")[..] else { panic!("four blocks of text") };
    let (directory, cargo) = scratch();
    let imported = output(directory.path(), &format!("{cargo}{import}"));
    assert!(imported.contains(summary.as_str()), "{imported}");
    let imported = output(directory.path(), &format!("{cargo}{exports}"));
    assert_eq!(imported.matches(" 0 faulty in ").count(), exports.lines().count(), "{imported}");

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("export WINDFALL__HTTP__LISTEN=127.0.0.1:{port}\n");
    // With `exec` the shell becomes the server, so killing the shell kills the server.
    let program = format!("exec '{}' serve", env!("CARGO_BIN_EXE_windfall"));
    let serve = serve.replace("cargo run --release -- serve", &program);
    assert!(serve.contains(&program));
    let server = shell(directory.path(), &format!("{listen}{serve}")).stdout(Stdio::null()).spawn().unwrap();
    let _server = Killed(server);
    while reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let here = |lines: &str| lines.replace(":8080", &format!(":{port}"));
    let purchased = output(directory.path(), &here(&format!("{cargo}{purchase}")));
    let queried = output(directory.path(), &here(&format!("{cargo}{purchase} >/dev/null\n{query}")));

    let before = format!("{cargo}{purchase} >/dev/null\n{query} >/dev/null\nexec {follow}");
    let mut follower = shell(directory.path(), &here(&before)).stdout(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(follower.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert_eq!(events.next().as_deref(), Some(":"), "the stream is open");
    let another = purchase.replace("order-9001", "order-9002").replace("20.00", "12.00");
    output(directory.path(), &here(&format!("{cargo}{another}")));
    let told: Vec<String> = events.filter(|line| !line.is_empty() && line != ":").take(2).collect();
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert_eq!(told.join("\n"), *event);

    let before = format!("{cargo}{purchase} >/dev/null\n{query} >/dev/null\n");
    let both = output(directory.path(), &here(&format!("{before}{campaign}\necho\n{reward}")));
    let (activated, redeemed) = both.trim().split_once('\n').unwrap_or_else(|| panic!("two answers: {both}"));
    let admin = campaign.lines().next().unwrap();
    output(directory.path(), &here(&format!("{cargo}{before}{admin}\n{export}")));
    let exported = fs::read_to_string(directory.path().join("customer-9001.ndjson")).unwrap();
    let exported: Vec<serde_json::Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported[0]["externalId"], "customer-9001", "{exported:?}");
    assert_eq!(exported.iter().filter(|line| line["type"] == "purchase").count(), 2, "{exported:?}");
    let printed = output(directory.path(), &here(&format!("{cargo}{before}{admin}\n{erase}")));
    assert_eq!(printed.trim(), *erased);
    let answers = shown("json");
    assert_eq!(purchased.trim(), answers[0]);
    assert_eq!(queried.trim(), answers[1]);
    assert_eq!(activated.trim(), answers[2]);
    assert_eq!(redeemed.trim(), answers[3]);
}

/// The recipe with Kafka, on a real broker in place of `localhost:9092`.
#[cfg(feature = "kafka")]
#[tokio::test(flavor = "multi_thread")]
async fn its_recipe_with_kafka_prints_what_it_says() {
    let blocks = blocks();
    let shown =
        |kind: &str| -> Vec<&String> { blocks.iter().filter(|(of, _)| of == kind).map(|(_, text)| text).collect() };
    let (import, serve, send, printed) = (shown("sh")[2], shown("sh")[9], shown("sh")[10], shown("text")[2]);
    let kafka = crate::support::kafka::Kafka::start().await;
    for topic in ["orders", "points"] {
        crate::kafka::make_topic(&kafka.brokers(), topic, 2, 1).await;
    }
    let (directory, cargo) = scratch();
    // The campaigns of the section before.
    output(directory.path(), &format!("{cargo}{import}"));
    let here = |lines: &str| lines.replace("localhost:9092", &kafka.brokers());
    let program = format!("export WINDFALL__HTTP__LISTEN=127.0.0.1:0\nexec '{}' serve", env!("CARGO_BIN_EXE_windfall"));
    let serve = serve.replace("cargo run --release --features kafka -- serve", &program);
    assert!(serve.contains(&program) && serve.contains("localhost:9092"));
    let server = shell(directory.path(), &here(&serve)).stdout(Stdio::piped()).spawn().unwrap();
    let mut server = Killed(server);
    let first = BufReader::new(server.0.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(first.starts_with("listening on"), "{first}");
    let read = tokio::task::spawn_blocking({
        let (folder, send) = (directory.path().to_owned(), here(send));
        move || output(&folder, &send)
    });
    let read = tokio::time::timeout(Duration::from_secs(60), read).await.expect("an event").unwrap();
    assert_eq!(read.trim(), *printed);
}

#[test]
fn its_campaigns_are_legal() {
    let campaigns: Vec<_> = blocks().into_iter().filter(|(kind, _)| kind == "json campaign").collect();
    assert_eq!(campaigns.len(), 7);
    let mut windows = Vec::new();
    for (_, text) in campaigns {
        let input: CampaignInput = serde_json::from_str(&text).unwrap();
        windows.push(json!(input.window).as_object().unwrap().keys().next().unwrap().clone());
        input.check(&[]).unwrap();
    }
    for window in ["campaign", "calendar", "recurring", "session", "timer", "rolling"] {
        assert!(windows.iter().any(|shown| shown == window), "{window}");
    }
}

/// The rows of the table of rules: the input of a campaign, the purchases, and the points.
fn rules() -> Vec<[String; 3]> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let rows = readme.lines().skip_while(|line| !line.starts_with("| rule | `input` |")).skip(2);
    let cells = |line: &str| -> Vec<String> {
        line.split(" | ").map(|cell| cell.trim_matches([' ', '|']).to_owned()).collect()
    };
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let [_, input, purchases, points] = &cells(line)[..] else { panic!("{line}") };
            [input.trim_matches('`').to_owned(), purchases.clone(), points.clone()]
        })
        .collect()
}

/// Reads a purchase such as `2 Nov 10:00: 4 coffee 12.00, mugs 4.40`.
fn purchase(text: &str, id: &str) -> RecordPurchase {
    let (when, articles) = text.split_once(": ").unwrap();
    let [day, "Nov", time] = when.split(' ').collect::<Vec<_>>()[..] else { panic!("{when}") };
    let line = |article: &str| {
        let (quantity, category, amount) = match article.split(' ').collect::<Vec<_>>()[..] {
            [category, amount] => (1, category, amount),
            [quantity, category, amount] => (quantity.parse().unwrap(), category, amount),
            _ => panic!("{article}"),
        };
        PurchaseLine {
            sku: category.to_owned(),
            category: Some(category.to_owned()),
            quantity,
            amount: amount.to_owned(),
        }
    };
    let lines: Vec<PurchaseLine> = articles.split(", ").map(line).collect();
    let cents = |line: &PurchaseLine| line.amount.replace('.', "").parse::<u64>().unwrap();
    let total: u64 = lines.iter().map(cents).sum();
    RecordPurchase {
        purchased_at: format!("2026-11-{day:0>2}T{time}:00Z"),
        lines: Some(lines),
        ..purchase_input("ada", id, 0, &format!("{}.{:02}", total / 100, total % 100))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_rules_give_the_points_that_it_shows() {
    let rules = rules();
    assert_eq!(rules.len(), 7);
    for [input, purchases, points] in rules {
        let test = TestApp::start(Engine::Sqlite).await;
        test.set_now(NOW + 30 * DAY);
        let mut campaign = json!({
            "name": "a rule", "startsAt": "2026-11-01T00:00:00Z", "currency": "EUR", "window": { "campaign": "WHOLE" },
            "goal": { "everyPurchase": "EACH" },
        });
        let input: serde_json::Value = serde_json::from_str(&input).unwrap();
        campaign.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        test.campaign(campaign).await;
        for (number, text) in purchases.split("; ").enumerate() {
            test.send(purchase(text, &number.to_string())).await.unwrap();
        }
        assert_eq!(test.customer("ada").await.unwrap().balance.to_string(), points, "{input}");
    }
}

/// The Markdown documents of the repository's root, `docs` and `docs/operations`.
fn documents() -> Vec<PathBuf> {
    let markdown = |folder: &str| {
        let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect::<Vec<_>>()
    };
    ["", "docs", "docs/operations"].iter().flat_map(|folder| markdown(folder)).collect()
}

/// The texts in backticks that look like a path of the repository.
fn named_paths(text: &str) -> Vec<&str> {
    let tops: Vec<_> = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let is_of_repository = |path: &str| {
        let top = path.split('/').next().unwrap_or_default();
        tops.iter().any(|name| name == top) || path.ends_with(".rs")
    };
    let is_path = |path: &&str| {
        path.contains('/')
            && path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
            && is_of_repository(path)
    };
    // Blocks of code are left out.
    let prose = text.split("```").step_by(2);
    prose.flat_map(|prose| prose.split('`').skip(1).step_by(2)).filter(is_path).collect()
}

/// The targets of the links, except those outside the repository.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")).collect()
}

#[test]
fn every_path_that_a_document_names_exists() {
    let (mut named, mut linked) = (0, 0);
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for path in named_paths(&text) {
            assert!(root().join(path).exists(), "{} names {path}", document.display());
            named += 1;
        }
        for target in links(&text) {
            assert!(document.parent().unwrap().join(target).exists(), "{} links {target}", document.display());
            linked += 1;
        }
    }
    assert!(named > 40 && linked > 10, "{named} paths, {linked} links");
}

/// The Rust files below a directory: paths and texts.
fn test_sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources.extend(test_sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            sources.push((path, text));
        }
    }
    sources
}

/// Each promise of docs/reliability.md names the test that holds it. A renamed or deleted test must not stay there.
#[test]
fn the_fault_matrix_names_tests_that_exist() {
    let matrix = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let sources = test_sources(&root().join("tests/it"));
    let named: Vec<&str> = matrix.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
    assert!(named.len() > 40, "{named:?}");
    for name in named {
        let last = name.rsplit("::").next().unwrap();
        let exists = sources.iter().any(|(path, text)| {
            let is_module = path.file_stem().is_some_and(|stem| stem == last);
            is_module || text.contains(&format!("fn {last}(")) || text.contains(&format!("fn {last}_"))
        });
        assert!(exists, "docs/reliability.md names {name}, which is no test");
    }
}
