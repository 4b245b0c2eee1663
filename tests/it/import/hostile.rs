//! Files that are damaged, or that mean something else than they seem to: what a reviewer found that lost, doubled or merged orders.

use std::process::Stdio;

use entity::refund;
use sea_orm::EntityTrait as _;
use serde_json::json;

use super::exports::{HEADER, ROW, Row, balances, dry_run, options, recorded, shopify};
use super::{Files, audit_is_clean, campaigns, import, purchase_line, with_campaigns};
use crate::support::app::{ENGINES, Engine, open, scratch};
use crate::support::server::{Ran, ended, run};

const ITEMS: &str = "order_id,order_number,order_date,status,order_total,order_currency,customer_id,billing_email,item_name,item_quantity,item_total\n";

fn told(ran: &Ran, code: i32, text: &str) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.stderr.contains(text), "{text}: {ran:?}");
}

/// Neither part is the whole order. So none of it is recorded, and a mended file is imported as if nothing had been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_rows_are_apart_is_faulty_as_a_whole() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let rest = "#1,,,,,,,,,,,,1,Mug,4.00,mug,\n";
    let other = shopify(&[Row { name: "#2", id: "2", ..ROW }]).split_once('\n').unwrap().1.to_owned();
    let apart = files.put("apart.csv", format!("{}{other}{rest}", shopify(&[ROW])));
    let ran = options(&mut import(&url, &apart), &["--as-of", "2026-02-10T00:00:00Z"]);
    told(&ran, 2, "line 2: the rows of this order are not together: they are on lines 2 and 4");
    told(&ran, 2, "line 4: the rows of this order are not together: they are on lines 4 and 2");
    let (header, order) =
        shopify(&[ROW]).split_once('\n').map(|(header, order)| (format!("{header}\n"), order.to_owned())).unwrap();
    let before = files.put("before.csv", [header.as_str(), rest, &other, &order].concat());
    let ran = dry_run(&url, &before, &["--as-of", "2026-02-10T00:00:00Z"]);
    told(&ran, 2, "line 4: the rows of this order are not together: they are on lines 4 and 2");
    let mended = files.put("mended.csv", format!("{}{rest}{other}", shopify(&[ROW])));
    let ran = options(&mut import(&url, &mended), &["--as-of", "2026-02-10T00:00:00Z"]);
    assert!(ran.stdout.starts_with("1 recorded, 1 known already, 0 left out, 0 faulty"), "{ran:?}");
    let row = |order: &str, item: &str| format!("{order},{order},2026-02-01,completed,30,EUR,7,,{item},1,10\n");
    let apart = [ITEMS, &row("2", "a"), &row("3", "x"), &row("2", "b")].concat();
    let ran = dry_run(&url, &files.put("items.csv", apart), &["--time-zone", "UTC"]);
    told(&ran, 2, "line 2: the rows of this order are not together");
    assert!(ran.stdout.contains("\n1 purchase; 1 customer\n"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_neither_merged_nor_doubled() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let zone = ["--time-zone", "UTC"];
    let woo = |rows: &str| dry_run(&url, &files.put("woo.csv", format!("{ITEMS}{rows}")), &zone);
    // Another id or another customer under one number.
    let ran =
        woo("1,100,2026-02-01,completed,30,EUR,0,a@x.de,A,1,10\n2,100,2026-02-01,completed,30,EUR,7,a@x.de,B,1,20\n");
    told(&ran, 1, "order_id is `1` here and `2` on line 3");
    // A copy cannot be told from items that were bought twice.
    let row = "1,100,2026-02-01,completed,30,EUR,0,a@x.de,A,1,10\n";
    told(&woo(&[row, row].concat()), 1, "has the same rows several times");
    // Customers as a spreadsheet writes them.
    let rows = "1,1,2026-02-01,completed,1,EUR,0.0,a@x.de,A,1,1\n2,2,2026-02-01,completed,1,EUR,0.0,b@x.de,A,1,1\n\
        3,3,2026-02-01,completed,1,EUR,17.0,c@x.de,A,1,1\n4,4,2026-02-01,completed,1,EUR,NULL,d@x.de,A,1,1\n";
    let ran = woo(rows);
    told(&ran, 2, "line 5: customer_id: must be a whole number, 0 for a guest");
    for customer in ["purchase 1 of the guest a@x.de", "purchase 2 of the guest b@x.de", "purchase 3 of 17 at"] {
        assert!(ran.stdout.contains(customer), "{customer}: {ran:?}");
    }
    // Numbers that no sum can hold.
    let huge = "7".repeat(29);
    let rows = format!("1,1,2026-02-01,completed,1,EUR,1,,A,1,{huge}\n1,1,2026-02-01,completed,1,EUR,1,,B,1,{huge}\n");
    let file = files.put("huge.csv", format!("{ITEMS}{rows}"));
    told(&dry_run(&url, &file, &["--time-zone", "UTC", "--total", "goods"]), 1, "the items are too large");
    // The same order with another total is told in a dry run too.
    let twice =
        files.put("twice.csv", shopify(&[ROW, Row { name: "#2", id: "2", ..ROW }, Row { total: "11.00", ..ROW }]));
    told(&dry_run(&url, &twice, &[]), 2, "the order occurs in this file twice, with different content");
    let empty = files.put("empty.csv", shopify(&[Row { status: "", ..ROW }]));
    let ran = dry_run(&url, &empty, &[]);
    assert!(ran.stdout.contains("left out: 1 × no status (#1)"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_not_older_than_its_orders() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let file = files.put("export.csv", shopify(&[ROW]));
    let as_of = ["--as-of", "2025-02-10T00:00:00Z"];
    let ran = dry_run(&url, &file, &as_of);
    told(&ran, 1, "the file has an instant after --as-of, 2026-02-01T10:00:00Z");
    assert_eq!(ran.stderr.lines().count(), 1);
    let ran = run(import(&url, "-").arg("--dry-run").args(as_of).stdin(std::fs::File::open(&file).unwrap()));
    told(&ran, 1, "Created at: is after --as-of");
}

/// A void order keeps its lines, so that an order that comes back still has its categories.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_comes_back_has_its_categories() {
    let files = Files::new();
    let by_api = json!({
        "externalId": "#1", "customerExternalId": "ada@example.com", "purchasedAt": "2026-02-01T10:00:00Z", "total": "10.00",
        "currency": "EUR", "channel": "store", "lines": [{"sku": "tea", "category": "DRINKS", "amount": "10.00"}],
    });
    let by_api = files.put("api.ndjson", by_api.to_string());
    let void = files.put("void.csv", shopify(&[Row { status: "voided", ..ROW }]));
    let paid = files.put("paid.csv", shopify(&[ROW]));
    for engine in ENGINES {
        let mut ends = Vec::new();
        for order in [[(&void, "12"), (&paid, "13")], [(&paid, "13"), (&void, "12")]] {
            let (url, _sqlite) = scratch(engine).await;
            assert_eq!(run(&mut import(&url, &by_api)).code, Some(0));
            for (file, day) in order {
                let ran = options(&mut import(&url, file), &["--as-of", &format!("2026-02-{day}T00:00:00Z")]);
                assert_eq!(ran.code, Some(0), "{ran:?}");
            }
            audit_is_clean(&url);
            ends.push(recorded(&url).await);
        }
        assert_eq!(ends[0], ends[1]);
        assert!(ends[0][0].4.contains("DRINKS") && ends[0][0].1 == 1_000, "{ends:?}");
    }
}

/// Each row of an order may state a refund, and nothing that a row states is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_takes_every_row() {
    let files = Files::new();
    let campaigns = files.put("campaigns.json", campaigns());
    let columns = "currency = \"EUR\"\n[columns]\nid = \"externalId\"\nc = \"customerExternalId\"\nat = \"purchasedAt\"\ntot = \"total\"\n\
        sku = \"lines.sku\"\namt = \"lines.amount\"\n";
    let refunds = files.put(
        "refunds.toml",
        format!("{columns}rid = \"refund.externalId\"\nramt = \"refund.amount\"\nst = \"status\"\n"),
    );
    let text = "id,c,at,tot,sku,amt,rid,ramt,st\n\
        1,a,2026-02-01T10:00:00Z,30,A,10,,,paid\n1,a,2026-02-01T10:00:00Z,30,B,20,r1,20,paid\n\
        2,a,2026-02-03T10:00:00Z,30,A,10,r2,5,paid\n2,a,2026-02-03T10:00:00Z,30,B,20,r3,6,paid\n\
        3,a,2026-02-05T10:00:00Z,30,A,10,r4,30,cancelled\n";
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    for known in [false, true] {
        let file = files.put("refunds.csv", text);
        let ran = run(with_campaigns(&url, &file, &campaigns).arg("--map").arg(&refunds));
        let start = if known { "0 recorded, 6 known already" } else { "6 recorded, 0 known already" };
        assert!(ran.code == Some(0) && ran.stdout.starts_with(start), "{ran:?}");
    }
    let database = open(&url).await;
    let mut ids: Vec<String> =
        refund::Entity::find().all(database.read()).await.unwrap().into_iter().map(|row| row.external_id).collect();
    ids.sort();
    assert_eq!(ids, ["r1", "r2", "r3"]);
    // (30 − 20) + (30 − 11).
    assert_eq!(balances(&url).await, [("a".to_owned(), 29)]);
    let sums = files.put("sums.toml", format!("{columns}back = \"refunded\"\n"));
    let text = "id,c,at,tot,sku,amt,back\n1,b,2026-02-01T10:00:00Z,30,A,10,0\n1,b,2026-02-01T10:00:00Z,30,B,20,20\n";
    let ran = run(import(&url, files.put("sums.csv", text)).arg("--map").arg(&sums));
    told(&ran, 1, "refunded is `0` here and `20` on line 3");
    // A negative row of an order that does not count is no refund.
    let map = files.put(
        "negative.toml",
        format!("negative_rows = \"refunds\"\n{columns}of = \"refund.purchaseExternalId\"\nst = \"status\"\n"),
    );
    let text = "id,c,at,tot,sku,amt,of,st\n9,a,2026-02-01T10:00:00Z,-5,A,5,1,pending\n";
    let ran = run(import(&url, files.put("negative.csv", text)).arg("--dry-run").arg("--map").arg(&map));
    assert!(ran.stdout.contains("left out: 1 × status `pending` (9)"), "{ran:?}");
    // Rows that are apart are told beside refunds too. A purchase and its refund with one id are not apart.
    let map =
        files.put("receipts.toml", format!("negative_rows = \"refunds\"\n{columns}rid = \"refund.externalId\"\n"));
    let text = "id,c,at,tot,sku,amt,rid\n1,a,2026-02-01T10:00:00Z,30,A,10,\n2,a,2026-02-01T10:00:00Z,9,A,9,\n\
        1,a,2026-02-01T10:00:00Z,30,B,20,\n2,a,2026-02-01T11:00:00Z,-9,A,9,r\n";
    let ran = run(import(&url, files.put("receipts.csv", text)).arg("--dry-run").arg("--map").arg(&map));
    told(&ran, 2, "line 2: the rows of this order are not together: they are on lines 2 and 4");
    assert!(ran.stdout.contains("\n1 purchase, 1 refund; 1 customer\n"), "{ran:?}");
    let twice = files.put("twice.toml", format!("{columns}[constants]\ncurrency = \"USD\"\n"));
    let ran = run(import(&url, files.put("x.csv", text)).arg("--map").arg(&twice));
    told(&ran, 1, "the field `currency` is mapped twice");
    let form = files.put("form.toml", format!("instant_format = \"%Q%d\"\n{columns}"));
    told(&run(import(&url, files.put("x.csv", text)).arg("--map").arg(&form)), 1, "must have the form of a whole date");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_archive_is_told() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let lines: Vec<String> = (0..400).map(|n| purchase_line("c", &format!("p{n:03}"), n)).collect();
    let plain = files.put("plain.ndjson", lines.join("\n"));
    let packed =
        |level: &str| std::process::Command::new("zstd").args([level, "-c"]).arg(&plain).output().unwrap().stdout;
    let whole = packed("-1");
    // A frame without content, as parallel packers write, is skipped.
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &whole].concat();
    let ran = run(import(&url, files.put("skipped.zst", skipped)).arg("--dry-run"));
    assert!(ran.code == Some(0) && ran.stdout.contains("400 would be recorded"), "{ran:?}");
    // The last four bytes are the checksum.
    let mut damaged = whole;
    *damaged.last_mut().unwrap() ^= 1;
    told(&run(import(&url, files.put("damaged.zst", damaged)).arg("--dry-run")), 1, "a checksum does not match");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_were_put_together_or_mended() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let plain = shopify(&[ROW]);
    let other = shopify(&[Row { name: "#2", id: "2", ..ROW }]);
    // The columns of the second file are in another order.
    let swapped = other.replacen("Subtotal,Total", "Total,Subtotal", 1);
    told(
        &dry_run(&url, &files.put("drift.csv", format!("{plain}{swapped}")), &[]),
        1,
        "line 3 has the columns in another order",
    );
    let marked = format!("{plain}\u{feff}{other}");
    let ran = dry_run(&url, &files.put("marked.csv", marked), &[]);
    assert!(ran.code == Some(0) && ran.stdout.contains("2 purchases"), "{ran:?}");
    let blank = format!("{plain}{}\n", ",".repeat(HEADER.split(',').count() - 1));
    let ran = dry_run(&url, &files.put("blank.csv", blank), &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let twice = plain.replacen("Payment Method", "Lineitem discount", 1);
    told(&dry_run(&url, &files.put("twice.csv", twice), &[]), 1, "names the column `Lineitem discount` twice");
    // Equal faults are counted together.
    let dates: Vec<Row> = (0..30).map(|_| Row { created: "05/01/2026", ..ROW }).collect();
    let ran = dry_run(&url, &files.put("dates.csv", shopify(&dates)), &[]);
    assert!(ran.stdout.contains("faulty: 30 × Created at: must be a date and time"), "{ran:?}");
    // The zone is asked for once, wherever the first such time stands.
    let naive = shopify(&[ROW, Row { name: "#2", id: "2", created: "2026-02-01 11:00:00", ..ROW }]);
    let ran = dry_run(&url, &files.put("naive.csv", naive), &[]);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    told(&ran, 1, "the time on line 3 has no offset from UTC");
    let naive = files.put(
        "naive.csv",
        shopify(&[Row { created: "2026-02-01 11:00:00", ..ROW }, Row { created: "2026-02-01 11:00:00", ..ROW }]),
    );
    let ran = run(import(&url, "-")
        .args(["--dry-run", "--as-of", "2026-03-01T00:00:00Z"])
        .stdin(std::fs::File::open(naive).unwrap()));
    told(&ran, 1, "give the shop's time zone");
    // What the clock refuses is told by a dry run too.
    let future = files.put("future.csv", shopify(&[Row { created: "2090-01-01 10:00:00 +0000", ..ROW }]));
    told(&dry_run(&url, &future, &[]), 1, "must not be more than 5 minutes ahead");
    // All lines are conflicts, so nothing was usable.
    let line = purchase_line("c", "p", 0);
    assert_eq!(run(&mut import(&url, files.put("good.ndjson", &line))).code, Some(0));
    told(
        &run(&mut import(&url, files.put("conflict.ndjson", line.replace("3.00", "4.00")))),
        1,
        "total: was recorded as 3",
    );
}

/// Whatever is rejected, its file has it whole and can be imported once it is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_rejected_rows_are_written() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let rejects = files.put("rejects.csv", "");
    // A header in the middle of an order, and a table from a pipe.
    let more = "#1,,,,,,,,,,,,1,Mug,4.00,mug,\n";
    let wrong = format!("{}{HEADER}\n{more}", shopify(&[Row { total: "ten", ..ROW }]));
    let file = files.put("wrong.csv", wrong);
    for from_stdin in [false, true] {
        let mut command = import(&url, if from_stdin { "-".as_ref() } else { file.as_path() });
        command.arg("--rejects").arg(&rejects).args(["--as-of", "2026-02-10T00:00:00Z"]);
        command.stdin(if from_stdin { Stdio::from(std::fs::File::open(&file).unwrap()) } else { Stdio::null() });
        told(&run(&mut command), 1, "total: must be a decimal");
        let rejected = std::fs::read_to_string(&rejects).unwrap();
        assert!(rejected.starts_with(&format!("{HEADER},\"rejectedBecause\"\n#1,")), "{rejected}");
        assert_eq!(rejected.lines().count(), 3, "{rejected}");
    }
    let mended = std::fs::read_to_string(&rejects).unwrap().replace("ten", "10.00");
    let ran = options(&mut import(&url, files.put("mended.csv", mended)), &["--as-of", "2026-02-10T00:00:00Z"]);
    assert!(ran.code == Some(0) && ran.stdout.starts_with("1 recorded"), "{ran:?}");
    assert!(recorded(&url).await[0].4.contains("mug"));
    // A line that is too long is written whole.
    let long = format!("{{\"externalId\":\"{}\"}}", "x".repeat(3 << 20));
    let mut child = import(&url, files.put("long.ndjson", format!("{long}\n")))
        .arg("--rejects")
        .arg(&rejects)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take();
    told(&ended(child.wait_with_output().unwrap()), 1, "is longer than 1048576 bytes");
    assert!(std::fs::read_to_string(&rejects).unwrap().ends_with(&format!("\n{long}\n")));
}
