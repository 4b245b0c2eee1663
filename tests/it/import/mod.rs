//! `windfall import`, as a shop runs it: what it records, what it reports, and what a second run changes.

mod exports;
mod files;
mod hostile;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use entity::{AwardStatus, award, campaign, customer, ledger_entry, purchase, refund, trail_entry};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::{Value, json};
use tempfile::TempDir;
use windfall::http::auth::Role;

use crate::support::app::{ENGINES, Engine, cases, open, scratch};
use crate::support::server::{Ran, Server, ask, command, ended, run, signal, token};

/// The path of a file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn import(url: &str, file: impl AsRef<Path>) -> Command {
    let mut command = command(url);
    command.arg("import").arg(file.as_ref());
    command
}

fn with_campaigns(url: &str, file: &Path, campaigns: &Path) -> Command {
    let mut command = import(url, file);
    command.arg("--campaigns").arg(campaigns);
    command
}

/// Files that a test writes. They are removed with this value.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// Two campaigns: each pair of purchases in a session is worth 5 points, and each euro 1 point.
fn campaigns() -> String {
    json!([
        {
            "name": "pairs", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR",
            "window": {"session": {"gap": "P1D"}}, "goal": {"purchases": {"atLeast": 2, "repeat": true}},
            "award": {"points": 5}
        },
        {
            "name": "euros", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR",
            "window": {"campaign": "WHOLE"}, "goal": {"everyPurchase": "EACH"}, "award": {"pointsPerUnit": "1"}
        }
    ])
    .to_string()
}

fn purchase_line(customer: &str, id: &str, minute: usize) -> String {
    let (hour, minute) = (minute / 60, minute % 60);
    json!({
        "externalId": id, "customerExternalId": customer, "total": "3.00", "currency": "EUR",
        "purchasedAt": format!("2026-02-{:02}T{:02}:{minute:02}:00Z", 1 + hour / 24, hour % 24),
    })
    .to_string()
}

fn refund_line(id: &str, of: &str) -> String {
    json!({"refund": {"externalId": id, "purchaseExternalId": of, "refundedAt": "2026-03-01T00:00:00Z"}}).to_string()
}

async fn purchases(url: &str) -> BTreeSet<String> {
    let database = open(url).await;
    let rows = purchase::Entity::find().all(database.read()).await.unwrap();
    database.close().await.unwrap();
    rows.into_iter().map(|row| row.external_id).collect()
}

async fn versions(url: &str) -> Vec<(String, i64, i64)> {
    let database = open(url).await;
    let rows = customer::Entity::find().all(database.read()).await.unwrap();
    database.close().await.unwrap();
    let mut versions: Vec<_> = rows.into_iter().map(|row| (row.external_id, row.version, row.balance)).collect();
    versions.sort();
    versions
}

/// Customers, awards and ledger entries: what must not depend on how often an import was run and where it was stopped.
async fn state(url: &str) -> (BTreeSet<String>, BTreeSet<String>, BTreeSet<String>) {
    let database = open(url).await;
    let read = database.read();
    let mut customers = BTreeSet::new();
    let mut names = std::collections::BTreeMap::new();
    for row in customer::Entity::find().all(read).await.unwrap() {
        customers.insert(format!("{} {} {}", row.external_id, row.balance, row.lifetime));
        names.insert(row.id, row.external_id);
    }
    let awards = award::Entity::find().filter(award::Column::Status.ne(AwardStatus::Reversed)).all(read).await.unwrap();
    let awards = awards.into_iter().map(|row| {
        format!(
            "{} {} {} {} {} {} {:?} {} {:?} {}",
            names[&row.customer_id],
            row.campaign_id.0,
            row.purchase_external_id,
            row.nth,
            row.ordinal,
            row.points,
            row.status,
            row.opens_at,
            row.closes_at,
            row.evidence_from_external_id
        )
    });
    let awards = awards.collect();
    // The order of the entries depends on the number of commits, so only their content is compared.
    let mut entries = BTreeSet::new();
    for row in ledger_entry::Entity::find().all(read).await.unwrap() {
        let mut entry =
            format!("{} {:?} {:?} {}", names[&row.customer_id], row.kind, row.purchase_external_id, row.points);
        while !entries.insert(entry.clone()) {
            entry.push('+');
        }
    }
    database.close().await.unwrap();
    (customers, awards, entries)
}

#[track_caller]
fn audit_is_clean(url: &str) {
    let audit = run(command(url).arg("audit"));
    assert_eq!((audit.code, audit.stderr.as_str()), (Some(0), ""), "{audit:?}");
    assert!(audit.stdout.contains(" 0 differences, 0 customers repaired"), "{audit:?}");
}

/// The table that is printed after the first line.
fn table(ran: &Ran) -> &str {
    ran.stdout.split_once("\n\n").map_or("", |(_, table)| table)
}

const SAMPLE_TABLE: &str = "\
campaign             awards  customers  points
A point a euro          620         40   18697
Regular of the week      95         33    4750
Friday reading          140         35    2100
Spree                   179         40    5370
Four in seven days       63         32    5040
Bookworm                114         36   11400
";

/// An import creates and activates campaigns as an admin would. What it records from the file leaves no entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_campaigns_are_in_the_trail() {
    let files = Files::new();
    let campaigns = files.put("campaigns.json", campaigns());
    let gift = json!({"customerExternalId": "ada", "points": 5, "reason": "r", "idempotencyKey": "k"});
    let lines = format!("{}\n{}", purchase_line("ada", "p", 0), json!({ "adjustment": gift }));
    let facts = files.put("facts.ndjson", lines);
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        for _ in 0..2 {
            let ran = run(&mut with_campaigns(&url, &facts, &campaigns));
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
            let database = open(&url).await;
            let rows = trail_entry::Entity::find().all(database.read()).await.unwrap();
            database.close().await.unwrap();
            let actions: Vec<&str> = rows.iter().map(|row| row.action.as_str()).collect();
            let [create, activate] = ["createCampaign", "activateCampaign"];
            assert_eq!(actions, [create, activate, create, activate], "{engine:?}");
            for row in rows {
                let who = (row.role.as_str(), row.subject_of_token.as_str(), row.address);
                assert_eq!(who, ("process", "import", None), "{engine:?}");
                assert_eq!((row.refused.as_str(), row.request_id.len()), ("[]", 32), "{engine:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sample_gives_its_table_however_often_it_is_imported() {
    let (sample, campaigns) = (repository("data/sample.ndjson"), repository("data/campaigns.json"));
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let first = run(&mut with_campaigns(&url, &sample, &campaigns));
        assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""), "{first:?}");
        assert!(
            first.stdout.starts_with("637 recorded, 0 known already, 0 left out, 0 faulty in "),
            "{}",
            first.stdout
        );
        assert_eq!(table(&first), SAMPLE_TABLE, "{engine:?}");
        audit_is_clean(&url);
        let before = (versions(&url).await, state(&url).await);
        let second = run(&mut with_campaigns(&url, &sample, &campaigns));
        assert_eq!(second.code, Some(0), "{second:?}");
        assert!(
            second.stdout.starts_with("0 recorded, 637 known already, 0 left out, 0 faulty in "),
            "{}",
            second.stdout
        );
        assert_eq!(table(&second), SAMPLE_TABLE);
        assert_eq!((versions(&url).await, state(&url).await), before, "a second run changes nothing");
        audit_is_clean(&url);
    }
}

/// A file with wrong lines, and the number of each with the reason that the import must report.
fn damaged() -> (Vec<u8>, Vec<(usize, &'static str)>) {
    let mut text: Vec<Vec<u8>> = Vec::new();
    let mut wrong = Vec::new();
    let good = |n: usize| purchase_line("c", &format!("p{n}"), n).into_bytes();
    let mut bom = b"\xef\xbb\xbf".to_vec();
    bom.extend(good(0));
    text.push(bom);
    let mut bad = |text: &mut Vec<Vec<u8>>, line: Vec<u8>, reason| {
        text.push(line);
        wrong.push((text.len(), reason));
        text.push(good(text.len()));
    };
    bad(&mut text, b"{\"externalId\":".to_vec(), "EOF while parsing");
    bad(&mut text, b"hello".to_vec(), "expected value");
    let change = |field: &str, value: serde_json::Value| {
        let mut json: serde_json::Value = serde_json::from_str(&purchase_line("c", "bad", 5)).unwrap();
        json[field] = value;
        json.to_string().into_bytes()
    };
    bad(&mut text, change("colour", json!("red")), "colour: there is no such field");
    bad(&mut text, b"{\"externalId\":\"bad\"}".to_vec(), "customerExternalId: is missing");
    bad(&mut text, change("total", json!(3.5)), "total: write a decimal as a string, such as \"19.99\"");
    bad(&mut text, change("externalId", json!(1001)), "externalId: write an id as text, such as \"1001\"");
    bad(&mut text, b"[\"bad\",\"c\",\"2026-02-01T00:00:00Z\",\"3.00\",\"EUR\"]".to_vec(), "write an object");
    bad(&mut text, change("total", json!("3.001")), "total: must have at most 2 decimals");
    bad(&mut text, change("total", json!("three")), "total: must be a decimal such as 19.99");
    bad(&mut text, change("total", json!("-3.00")), "total: must not be negative");
    bad(
        &mut text,
        change("currency", json!("EURO")),
        "currency: must be an ISO 4217 currency in upper case, such as EUR",
    );
    bad(
        &mut text,
        change("purchasedAt", json!("2090-01-01T00:00:00Z")),
        "purchasedAt: must not be more than 5 minutes ahead of the server",
    );
    bad(&mut text, change("purchasedAt", json!("yesterday")), "purchasedAt: ");
    let two = json!([{"sku": "a", "amount": "1.00"}, {"sku": "a", "amount": "-1.00"}]);
    bad(&mut text, change("lines", two), "lines[1].amount: must not be negative");
    // The id of the first line with another total.
    let conflict = purchase_line("c", "p0", 0).replace("3.00", "4.00");
    bad(&mut text, conflict.into_bytes(), "total: was recorded as 3 under this id, but 4 was sent");
    bad(&mut text, change("externalId", json!("x".repeat(2 << 20))), "is longer than 1048576 bytes");
    bad(&mut text, b"{\"externalId\":\"\xff\"}".to_vec(), "invalid unicode code point");
    bad(&mut text, b"{\"refund\":{\"externalId\":\"r\"}}".to_vec(), "refund.purchaseExternalId: is missing");
    bad(&mut text, refund_line("r", "nowhere").into_bytes(), "purchaseExternalId: no such purchase has been recorded");
    text.push(Vec::new());
    text.push(b"   \t\r".to_vec());
    text.push(good(text.len()));
    // The last line ends without a line feed.
    (text.join(&b'\n'), wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_lines_are_told_and_nothing_else_is_lost() {
    let files = Files::new();
    let (content, wrong) = damaged();
    let file = files.put("damaged.ndjson", &content);
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let rejects = files.0.path().join("rejects.ndjson");
        let ran = run(import(&url, &file).arg("--rejects").arg(&rejects));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        // Ten are told on stderr, then their number. The file has all of them, as they were.
        let told: Vec<&str> = ran.stderr.lines().collect();
        assert_eq!(told.len(), 11, "{}", ran.stderr);
        assert!(told[10].starts_with(&format!("{} lines are faulty", wrong.len())), "{}", ran.stderr);
        let rejected = std::fs::read(&rejects).unwrap();
        let rejected: Vec<&[u8]> = rejected.split(|byte| *byte == b'\n').collect();
        let text: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
        assert_eq!(rejected.len(), 2 * wrong.len() + 1);
        for (number, reason) in &wrong {
            let start = format!("# line {number}: ");
            let at = rejected.iter().position(|line| line.starts_with(start.as_bytes()));
            let at = at.unwrap_or_else(|| panic!("line {number} is not reported: {}", ran.stderr));
            let told = String::from_utf8_lossy(rejected[at]);
            assert!(told.contains(reason), "{told}: {reason}");
            assert!(rejected[at + 1] == text[number - 1], "line {number}");
        }
        // There is one good line before, one after each wrong line, and one at the end.
        let good = wrong.len() + 2;
        let start = format!("{good} recorded, 0 known already, 0 left out, {} faulty", wrong.len());
        assert!(ran.stdout.starts_with(&start), "{}", ran.stdout);
        assert_eq!(purchases(&url).await.len(), good);
        audit_is_clean(&url);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_stops_at_the_first_wrong_line_and_loses_nothing() {
    let files = Files::new();
    let lines: Vec<String> = (0..40).map(|n| purchase_line("c", &format!("p{n:02}"), n)).collect();
    let (before, after) = lines.split_at(20);
    let text = [before.join("\n"), "nonsense".to_owned(), after.join("\n"), "more nonsense".to_owned()].join("\n");
    let file = files.put("one-wrong.ndjson", text);
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let strict = run(import(&url, &file).arg("--strict"));
        assert_eq!(strict.code, Some(2), "{strict:?}");
        assert_eq!(strict.stderr.lines().count(), 1, "{}", strict.stderr);
        assert!(strict.stderr.starts_with("line 21: expected "), "{}", strict.stderr);
        assert!(strict.stdout.starts_with("20 recorded, 0 known already, 0 left out, 1 faulty"), "{}", strict.stdout);
        assert!(strict.stdout.contains("stopped at the first faulty line"), "{}", strict.stdout);
        assert_eq!(purchases(&url).await.len(), 20);
        let again = run(&mut import(&url, &file));
        assert_eq!(again.code, Some(2), "{again:?}");
        assert!(again.stdout.starts_with("20 recorded, 20 known already, 0 left out, 2 faulty"), "{}", again.stdout);
        assert_eq!(purchases(&url).await.len(), 40);
    }
    // A line that the database refuses also stops the import.
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let conflict = purchase_line("d", "p00", 0);
    let file = files.put("conflict.ndjson", [before.join("\n"), conflict].join("\n"));
    let strict = run(import(&url, &file).arg("--strict"));
    assert_eq!((strict.code, strict.stderr.lines().count()), (Some(2), 1), "{strict:?}");
    assert!(
        strict.stderr.starts_with("line 21: customerExternalId: was recorded as c under this id"),
        "{}",
        strict.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_may_come_before_its_purchase() {
    let files = Files::new();
    let lines = [
        refund_line("r1", "p1"),
        refund_line("lost", "never"),
        purchase_line("c", "p0", 0),
        purchase_line("c", "p1", 1),
        purchase_line("c", "p2", 2),
        refund_line("r2", "p2"),
    ];
    let file = files.put("refunds.ndjson", lines.join("\n"));
    let campaigns = files.put("campaigns.json", campaigns());
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let ran = run(&mut with_campaigns(&url, &file, &campaigns));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert_eq!(ran.stderr, "line 2: purchaseExternalId: no such purchase has been recorded\n");
        assert!(ran.stdout.starts_with("5 recorded, 0 known already, 0 left out, 1 faulty"), "{}", ran.stdout);
        let database = open(&url).await;
        assert_eq!(refund::Entity::find().count(database.read()).await.unwrap(), 2);
        database.close().await.unwrap();
        // One of three purchases is left, so the balance is three euros.
        assert_eq!(versions(&url).await[0].2, 3);
        audit_is_clean(&url);
        // A later import contains the missing purchase.
        let later =
            files.put("later.ndjson", [refund_line("lost", "never"), purchase_line("c", "never", 9)].join("\n"));
        let ran = run(&mut import(&url, &later));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        assert_eq!(versions(&url).await[0].2, 3);
        audit_is_clean(&url);
    }
}

/// Refunds are looked up together. One that no content allows yet is tried again after the last line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_may_come_before_the_revision_that_allows_it() {
    let files = Files::new();
    // The lines of a file are recorded in the order of time.
    let revision = |id: &str, currency: &str, revision: i64, total: &str| {
        format!(
            r#"{{"externalId":"{id}","customerExternalId":"c","purchasedAt":"2026-0{}-01T00:00:00Z","currency":"{currency}","total":"{total}","revision":{revision}}}"#,
            2 + revision
        )
    };
    let refund = |id: &str, amount: &str| {
        format!(
            r#"{{"refund":{{"externalId":"of {id}","purchaseExternalId":"{id}","refundedAt":"2026-02-01T00:00:00Z","amount":"{amount}"}}}}"#
        )
    };
    let mut lines = vec![revision("p", "EUR", 0, "2.00"), refund("p", "3.00")];
    // The revision that allows this refund is in a currency with three decimals.
    lines.extend([revision("q", "EUR", 0, "2.00"), refund("q", "1.005")]);
    // So many that the refunds are recorded before the next line is read.
    lines.extend((0..600).map(|number| refund_line(&format!("r{number}"), "nowhere")));
    lines.extend([revision("p", "EUR", 1, "4.00"), revision("q", "KWD", 1, "4.000")]);
    let file = files.put("before.ndjson", lines.join("\n"));
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let ran = run(&mut with_campaigns(&url, &file, &files.put("campaigns.json", campaigns())));
    assert!(ran.stdout.starts_with("6 recorded, 0 known already, 0 left out, 600 faulty"), "{}", ran.stdout);
    assert_eq!(versions(&url).await[0].2, 1);
}

/// Each content of a purchase is a line of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_have_revisions_and_running_sums() {
    let files = Files::new();
    let purchase = |id: &str, more: &str| {
        format!(
            "{{\"externalId\":\"{id}\",\"customerExternalId\":\"c\",\"purchasedAt\":\"2026-02-01T00:00:00Z\",\"currency\":\"EUR\",{more}}}"
        )
    };
    let lines = [
        purchase("edited", r#""total":"9.00","revision":1769904000000"#),
        purchase("edited", r#""total":"5.00""#),
        purchase("summed", r#""total":"10.00","refunded":"4.00","refundedUntil":"2026-02-03T00:00:00Z""#),
        // The last content allows this refund of 3.00 and the first one does not.
        purchase("late", r#""total":"2.00","lines":[]"#),
        r#"{"refund":{"externalId":"r","purchaseExternalId":"late","refundedAt":"2026-02-01T00:00:00Z","amount":"3.00"}}"#.to_owned(),
        r#"{"refund":{"externalId":"s","purchaseExternalId":"late","refundedAt":"2026-02-01T00:00:00Z","amount":"3.50"}}"#.to_owned(),
        purchase("late", r#""total":"3.00","revision":2"#),
    ];
    let file = files.put("revisions.ndjson", lines.join("\n"));
    let csv = "externalId,customerExternalId,purchasedAt,total,currency,revision,refunded,refundedUntil\n\
        summed,c,2026-02-01T00:00:00Z,10.00,EUR,3,4.50,\n\
        edited,c,2026-02-01T00:00:00Z,5.00,EUR,,,\n";
    let csv = files.put("revisions.csv", csv);
    let campaigns = files.put("campaigns.json", campaigns());
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let ran = run(&mut with_campaigns(&url, &file, &campaigns));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert_eq!(ran.stderr, "line 6: amount: is above the purchase's total\n");
        assert!(ran.stdout.starts_with("6 recorded, 0 known already, 0 left out, 1 faulty"), "{}", ran.stdout);
        // A point a euro, 9 + (10 − 4) + (3 − 3), and 5 for the pair of purchases of which something is left.
        assert_eq!(versions(&url).await[0].2, 15 + 5);
        let ran = run(&mut import(&url, &csv));
        assert!(ran.stdout.starts_with("1 recorded, 1 known already, 0 left out, 0 faulty"), "{}", ran.stdout);
        // floor(10 − 4.50) in place of 6.
        assert_eq!(versions(&url).await[0].2, 14 + 5);
        audit_is_clean(&url);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn csv_has_a_header() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let plain = "\u{feff}purchasedAt,total, externalId ,customerExternalId,currency\r\n\
        2026-02-01T00:00:00Z,3.00,a1,\"Doe, Jane\",EUR\r\n\
        \r\n\
        2026-02-01T00:00:00Z,three,a2,c,EUR\r\n\
        2026-02-01T00:00:00Z,3.00,a3,c\r\n\
        2026-02-02T00:00:00Z,4.00,a4,c,EUR";
    let ran = run(&mut import(&url, files.put("plain.CSV", plain)));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let told: Vec<&str> = ran.stderr.lines().collect();
    let expected = ["line 4: total: must be a decimal such as 19.99", "line 5: has 4 cells where the header has 5"];
    assert_eq!(told, expected);
    assert!(ran.stdout.starts_with("2 recorded, 0 known already, 0 left out, 2 faulty"), "{}", ran.stdout);

    let mut with_lines = b"externalId,customerExternalId,purchasedAt,total,currency,channel,lines\n".to_vec();
    for (id, channel, lines) in [
        ("b1", "app", r#""[{""sku"":""tea"",""category"":""DRINKS"",""quantity"":2,""amount"":""2.00""}]""#),
        ("b2", "", ""),
        ("b3", "", r#""[{""sku"":""tea""}]""#),
        ("b4", "store", "\"[\n{\"\"sku\"\":\"\"tea\"\",\"\"amount\"\":\"\"2.00\"\"}\n]\""),
        ("b5", "\u{fffd}", ""),
        ("b6", "", "none"),
    ] {
        let row = format!("{id},Doe,2026-02-01T00:00:00Z,3.00,EUR,{channel},{lines}\n");
        with_lines.extend(row.into_bytes());
    }
    // Replaces the replacement character by a byte that is not UTF-8.
    let at = with_lines.windows(3).position(|bytes| bytes == "\u{fffd}".as_bytes()).unwrap();
    with_lines.splice(at..at + 3, [0xff]);
    let ran = run(&mut import(&url, files.put("lines.csv", &with_lines)));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let told: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0], "line 4: lines[0].amount: is missing");
    // The row before this one takes three lines of the file.
    assert_eq!(told[1], "line 8: is not UTF-8");
    assert!(told[2].starts_with("line 9: lines: write a list of objects"), "{told:?}");
    let database = open(&url).await;
    let rows = purchase::Entity::find().all(database.read()).await.unwrap();
    let find = |id: &str| rows.iter().find(|row| row.external_id == id).unwrap();
    assert_eq!(rows.len(), 5, "{rows:?}");
    assert_eq!(find("b1").channel.as_deref(), Some("app"));
    let sku = |id: &str| serde_json::from_str::<Value>(&find(id).lines).unwrap()[0]["sku"].clone();
    assert_eq!(sku("b1"), "tea");
    assert_eq!((find("b2").channel.as_deref(), find("b2").lines.as_str()), (None, "[]"));
    assert_eq!(sku("b4"), "tea");
    // A row may be as long as a line of NDJSON.
    let long = format!("externalId,customerExternalId,purchasedAt,total,currency\n{},c,x,1,EUR\n", "x".repeat(2 << 20));
    let ran = run(&mut import(&url, files.put("long.csv", long)));
    assert_eq!(ran.stderr, "line 2: is longer than 1048576 bytes\n", "{ran:?}");
    // The same purchase from NDJSON is recognised as a duplicate.
    let same = json!({
        "externalId": "a4", "customerExternalId": "c", "total": "4", "currency": "EUR",
        "purchasedAt": "2026-02-02T01:00:00+01:00"
    });
    let ran = run(&mut import(&url, files.put("same.ndjson", same.to_string())));
    assert!(ran.stdout.starts_with("0 recorded, 1 known already, 0 left out, 0 faulty"), "{ran:?}");

    for (header, reason) in [
        ("externalId,customerExternalId,purchasedAt,total,currency,colour", "names a column `colour`"),
        ("externalId,customerExternalId,purchasedAt,total", "has no column `currency`"),
        ("externalId,externalId,customerExternalId,purchasedAt,total,currency", "names the column `externalId` twice"),
        ("", "has no column `externalId`"),
    ] {
        let refused = run(&mut import(&url, files.put("refused.csv", format!("{header}\n1,2,3,4,5\n"))));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let reason = if header.is_empty() { "the format cannot be told: the file begins with `" } else { reason };
        assert!(refused.stderr.contains(reason), "{refused:?}");
    }
    assert_eq!(purchases(&url).await.len(), 5);
    audit_is_clean(&url);
}

/// A file is recorded in the order of time, whatever the order of its lines. Each purchase is worth points by itself, so the
/// ledger shows the order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_recorded_in_the_order_of_time() {
    let files = Files::new();
    let campaigns = files.put("campaigns.json", campaigns());
    let expected: Vec<String> = (0..40).map(|n| format!("p{n:02}")).collect();
    let backwards = |header: &str, line: &dyn Fn(usize) -> String| -> String {
        let lines: Vec<String> = (0..40).rev().map(line).collect();
        format!("{header}{}\nnonsense\n\n{}\n", lines[..20].join("\n"), lines[20..].join("\n"))
    };
    let json = backwards("\u{feff}", &|n| purchase_line("c", &format!("p{n:02}"), n));
    let csv = backwards("externalId,customerExternalId,purchasedAt,total,currency\r\n", &|n| {
        format!("p{n:02},c,2026-02-01T00:{n:02}:00Z,\"3.00\",EUR\r")
    });
    for file in [files.put("backwards.ndjson", json), files.put("backwards.csv", csv)] {
        let (url, _sqlite) = scratch(Engine::Sqlite).await;
        let ran = run(&mut with_campaigns(&url, &file, &campaigns));
        assert!(ran.stdout.starts_with("40 recorded, 0 known already, 0 left out, 1 faulty"), "{ran:?}");
        let line = if file.ends_with("backwards.csv") { "line 22" } else { "line 21" };
        assert!(ran.stderr.starts_with(line), "{ran:?}");
        let database = open(&url).await;
        let euros = award::Column::Points.eq(3);
        let mut awards = award::Entity::find().filter(euros).all(database.read()).await.unwrap();
        awards.sort_by_key(|award| award.number);
        let recorded: Vec<&str> = awards.iter().map(|award| award.purchase_external_id.as_str()).collect();
        assert_eq!(recorded, expected, "{}", file.display());
        audit_is_clean(&url);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dash_is_the_standard_input() {
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let mut child =
        import(&url, "-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for n in 0..30 {
        writeln!(input, "{}", purchase_line("c", &format!("p{n}"), n)).unwrap();
    }
    drop(input);
    let ran = ended(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stdout.starts_with("30 recorded"), "{}", ran.stdout);

    // An open input does not keep an interrupted import alive.
    let mut child =
        import(&url, "-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for n in 30..60 {
        writeln!(input, "{}", purchase_line("c", &format!("p{n}"), n)).unwrap();
    }
    while purchases(&url).await.len() < 60 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    signal(&child, "INT");
    let ran = ended(child.wait_with_output().unwrap());
    drop(input);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("run the same command again to continue"), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_refused_before_anything_is_made() {
    let files = Files::new();
    let (url, sqlite) = scratch(Engine::Sqlite).await;
    let good = files.put("good.ndjson", purchase_line("c", "p", 0));
    let missing = files.0.path().join("missing.ndjson");
    let refused = |ran: Ran, reasons: &[&str]| {
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        for reason in reasons {
            assert!(ran.stderr.contains(reason), "{reason}: {}", ran.stderr);
        }
    };
    refused(run(&mut import(&url, &missing)), &["missing.ndjson cannot be read", "No such file"]);
    refused(run(&mut with_campaigns(&url, &good, &missing)), &["missing.ndjson cannot be read"]);
    let text = files.put("text.json", "[{\"name\": 1}]");
    refused(run(&mut with_campaigns(&url, &good, &text)), &["text.json is not an array of campaigns", "line 1"]);
    let mut illegal: serde_json::Value = serde_json::from_str(&campaigns()).unwrap();
    illegal[1]["goal"] = json!({"spend": {"amount": "0.001"}});
    let illegal = files.put("illegal.json", illegal.to_string());
    let reasons = ["campaign `euros`: goal.spend.amount: must have at most 2 decimals"];
    refused(run(&mut with_campaigns(&url, &good, &illegal)), &reasons);
    assert!(!sqlite.unwrap().path().exists(), "a database was created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_keeps_its_name_and_its_content() {
    let files = Files::new();
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let good = files.put("good.ndjson", [purchase_line("c", "p", 0), purchase_line("c", "q", 1)].join("\n"));
        let file = files.put("campaigns.json", campaigns());
        assert_eq!(run(&mut with_campaigns(&url, &good, &file)).code, Some(0));
        let file = files.put("campaigns.json", campaigns().replace("\"points\":5", "\"points\":6"));
        let changed = run(&mut with_campaigns(&url, &good, &file));
        assert_eq!(changed.code, Some(1), "{changed:?}");
        assert!(changed.stderr.contains("campaign `pairs`: was imported before with different content"), "{changed:?}");
        let database = open(&url).await;
        assert_eq!(campaign::Entity::find().count(database.read()).await.unwrap(), 2);
        database.close().await.unwrap();
        let balances: Vec<i64> = versions(&url).await.into_iter().map(|(_, _, balance)| balance).collect();
        assert_eq!(balances, [11]);
        audit_is_clean(&url);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_and_run_again_it_ends_where_it_would_have() {
    let files = Files::new();
    let campaigns = files.put("campaigns.json", campaigns());
    let mut text = String::new();
    let count = cases(12_000, 40_000);
    for n in 0..count {
        writeln!(text, "{}", purchase_line(&format!("c{}", n % 37), &format!("p{n}"), n)).unwrap();
        if n % 50 == 49 {
            writeln!(text, "{}", refund_line(&format!("r{n}"), &format!("p{}", n - 20))).unwrap();
        }
    }
    let file = files.put("large.ndjson", text);
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let whole = run(&mut with_campaigns(&url, &file, &campaigns));
        assert_eq!((whole.code, whole.stderr.as_str()), (Some(0), ""), "{whole:?}");
        let expected = state(&url).await;

        let (url, _sqlite) = scratch(engine).await;
        // Creates the schema first, so that the test can watch what the child writes.
        assert_eq!(run(command(&url).arg("migrate")).code, Some(0));
        let watched = open(&url).await;
        let mut command = with_campaigns(&url, &file, &campaigns);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while purchase::Entity::find().count(watched.read()).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        signal(&child, if engine == Engine::Sqlite { "INT" } else { "TERM" });
        let ran = ended(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""), "{engine:?}: {ran:?}");
        assert!(ran.stdout.contains("stopped: run the same command again to continue"), "{}", ran.stdout);
        let recorded = purchase::Entity::find().count(watched.read()).await.unwrap();
        assert!(recorded > 0 && recorded < count as u64, "{recorded}");
        watched.close().await.unwrap();
        audit_is_clean(&url);
        let again = run(&mut with_campaigns(&url, &file, &campaigns));
        assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "{again:?}");
        assert_eq!(table(&again), table(&whole));
        let (customers, awards, _) = state(&url).await;
        assert_eq!((&customers, &awards), (&expected.0, &expected.1), "{engine:?}");
        audit_is_clean(&url);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_beside_a_server_on_the_same_database() {
    let files = Files::new();
    let campaigns = files.put("campaigns.json", campaigns());
    let lines: Vec<String> = (0..600).map(|n| purchase_line(&format!("c{}", n % 7), &format!("p{n}"), n)).collect();
    let file = files.put("beside.ndjson", lines.join("\n"));
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let server = Server::start(&url).await;
        let mut command = with_campaigns(&url, &file, &campaigns);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (client, shop) = (reqwest::Client::new(), token(Role::Storefront, "test"));
        let record =
            "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { purchase { externalId } } }";
        let mut served = 0;
        while child.try_wait().unwrap().is_none() || served < 20 {
            let input = json!({
                "externalId": format!("s{served}"), "customerExternalId": format!("c{}", served % 11), "total": "3.00",
                "currency": "EUR", "purchasedAt": "2026-02-01T12:00:00Z",
            });
            let answer = ask(&client, &server.address, &shop, record, json!({ "input": input })).await.unwrap();
            assert_eq!(answer["data"]["recordPurchase"]["purchase"]["externalId"], format!("s{served}"), "{answer}");
            served += 1;
        }
        let ran = ended(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        assert!(ran.stdout.starts_with("600 recorded, 0 known already, 0 left out, 0 faulty"), "{}", ran.stdout);
        assert!(server.terminate().success());
        assert_eq!(purchases(&url).await.len(), 600 + served, "{engine:?}");
        audit_is_clean(&url);
    }
}
