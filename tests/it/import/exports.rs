//! Exports of shops: each decision that `docs/import.md` lists, and what goes wrong most with such files.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use entity::purchase;
use sea_orm::EntityTrait as _;
use serde_json::json;

use super::{Files, audit_is_clean, campaigns, import, repository, with_campaigns};
use crate::support::app::{ENGINES, Engine, open, scratch};
use crate::support::server::{Ran, run};

/// A row of a Shopify file in the tests: the order's cells, and the cells of its first line.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) email: &'static str,
    pub(super) status: &'static str,
    pub(super) total: &'static str,
    pub(super) refunded: &'static str,
    pub(super) cancelled: &'static str,
    pub(super) created: &'static str,
    pub(super) method: &'static str,
    pub(super) id: &'static str,
    pub(super) line: &'static str,
}

pub(super) const ROW: Row = Row {
    name: "#1",
    email: "ada@example.com",
    status: "paid",
    total: "10.00",
    refunded: "0.00",
    cancelled: "",
    created: "2026-02-01 10:00:00 +0000",
    method: "Card",
    id: "5500000000001",
    line: "1,Tea,10.00,tea,0.00",
};
pub(super) const HEADER: &str = "Name,Email,Financial Status,Paid at,Currency,Subtotal,Total,Refunded Amount,Cancelled at,Created at,\
    Payment Method,Id,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Lineitem discount";

pub(super) fn shopify(rows: &[Row]) -> String {
    let mut text = format!("{HEADER}\n");
    for Row { name, email, status, total, refunded, cancelled, created, method, id, line } in rows {
        writeln!(
            text,
            "{name},{email},{status},,EUR,{total},{total},{refunded},{cancelled},{created},{method},{id},{line}"
        )
        .unwrap();
    }
    text
}

pub(super) fn dry_run(url: &str, file: &Path, options: &[&str]) -> Ran {
    run(import(url, file).arg("--dry-run").args(options))
}

pub(super) fn options(command: &mut Command, options: &[&str]) -> Ran {
    run(command.args(options))
}

/// The external id, customer, total in cents and channel of each purchase.
pub(super) async fn recorded(url: &str) -> Vec<(String, i64, Option<i64>, Option<String>, String)> {
    let database = open(url).await;
    let rows = purchase::Entity::find().all(database.read()).await.unwrap();
    database.close().await.unwrap();
    let mut rows: Vec<_> =
        rows.into_iter().map(|row| (row.external_id, row.total, row.refunded, row.channel, row.lines)).collect();
    rows.sort();
    rows
}

pub(super) async fn balances(url: &str) -> Vec<(String, i64)> {
    super::versions(url).await.into_iter().map(|(customer, _, balance)| (customer, balance)).collect()
}

/// What a dry run prints of the sample files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_samples_are_understood_as_before() {
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let zone = ["--time-zone", "Europe/Vienna"];
    let map = repository("data/own-map.toml");
    let map = ["--map", map.to_str().unwrap()];
    let cases: [(&str, &[&str]); 7] = [
        ("shopify-sample.csv", &["--as-of", "2026-09-20T00:00:00Z"]),
        ("woocommerce-orders-sample.csv", &zone),
        ("woocommerce-items-sample.csv", &zone),
        ("woocommerce-webtoffee-sample.csv", &zone),
        ("own-sample.csv", &map),
        ("sample.ndjson", &[]),
        ("purchases.csv", &[]),
    ];
    for (file, options) in cases {
        let folder = if file == "purchases.csv" { "tests/it/import/golden" } else { "data" };
        let ran = dry_run(&url, &repository(&format!("{folder}/{file}")), options);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{file}: {ran:?}");
        let golden = repository(&format!("tests/it/import/golden/{file}.txt"));
        // UPDATE_GOLDEN=1 writes the files anew, to be read before they are committed.
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &ran.stdout).unwrap();
        }
        assert_eq!(ran.stdout, std::fs::read_to_string(&golden).unwrap_or_default(), "{file}");
    }
}

/// Three orders are edited between two exports: one grows, one is refunded further, one is cancelled. A refund by the API lies between
/// them too. Whatever comes first and however often, the points are those of the last state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_a_state() {
    let files = Files::new();
    let campaigns = files.put("campaigns.json", campaigns());
    let orders = [
        Row { total: "10.00", ..ROW },
        Row {
            name: "#2",
            id: "2",
            created: "2026-02-01 11:00:00 +0000",
            total: "50.00",
            refunded: "5.00",
            status: "partially_refunded",
            ..ROW
        },
        Row { name: "#3", id: "3", created: "2026-02-01 12:00:00 +0000", total: "30.00", ..ROW },
        Row {
            name: "#4",
            id: "4",
            created: "2026-02-02 12:00:00 +0000",
            total: "7.00",
            email: "bob@example.com",
            ..ROW
        },
    ];
    let mut edited = orders.clone();
    edited[0].total = "12.00";
    // 5 of it were refunded by the API in between.
    edited[1].refunded = "25.00";
    edited[2].cancelled = "2026-02-03 09:00:00 +0000";
    edited[2].status = "voided";
    let (old, new) = (files.put("old.csv", shopify(&orders)), files.put("new.csv", shopify(&edited)));
    let refund = json!({"refund": {"externalId": "r", "purchaseExternalId": "#2", "refundedAt": "2026-02-05T00:00:00Z", "amount": "5.00"}});
    let refund = files.put("refund.ndjson", refund.to_string());
    let old_as_of = ["--as-of", "2026-02-04T00:00:00Z"];
    let new_as_of = ["--as-of", "2026-02-06T00:00:00Z"];
    for engine in ENGINES {
        let mut ends = Vec::new();
        for order in [[&old, &new, &old, &new], [&new, &old, &new, &old]] {
            let (url, _sqlite) = scratch(engine).await;
            for (index, file) in order.into_iter().enumerate() {
                let as_of = if file == &old { old_as_of } else { new_as_of };
                let ran = options(&mut with_campaigns(&url, file, &campaigns), &as_of);
                assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
                if index > 1 {
                    assert!(ran.stdout.starts_with("0 recorded, 4 known already, 0 left out, 0 faulty"), "{ran:?}");
                }
                if index == 0 {
                    assert_eq!(run(&mut import(&url, &refund)).code, Some(0));
                }
            }
            audit_is_clean(&url);
            ends.push(balances(&url).await);
        }
        let (url, _sqlite) = scratch(engine).await;
        assert_eq!(options(&mut with_campaigns(&url, &new, &campaigns), &new_as_of).code, Some(0));
        let alone = balances(&url).await;
        // 12 + (50 − 25) + 0, and 5 for the pair that is left of three.
        assert_eq!(alone, [("ada@example.com".to_owned(), 42), ("bob@example.com".to_owned(), 7)]);
        assert_eq!(ends, [alone.clone(), alone], "{engine:?}");
    }
    // A refund after the export is not in its sum, so it is added; one before is in it.
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    assert_eq!(options(&mut with_campaigns(&url, &new, &campaigns), &new_as_of).code, Some(0));
    for (id, day, points) in [("before", "05", 42), ("after", "07", 39)] {
        let refund = json!({"refund": {"externalId": id, "purchaseExternalId": "#2", "refundedAt": format!("2026-02-{day}T00:00:00Z"), "amount": "3.00"}});
        assert_eq!(run(&mut import(&url, files.put("one.ndjson", refund.to_string()))).code, Some(0));
        assert_eq!(balances(&url).await[0].1, points, "{id}");
    }
    audit_is_clean(&url);
    // The same revision with another content says what to do; without --as-of, the newest instant in the file is the revision.
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    assert_eq!(run(&mut import(&url, &old)).code, Some(0));
    let mut changed = orders.clone();
    changed[0].total = "11.00";
    let changed = files.put("changed.csv", shopify(&changed));
    let ran = run(&mut import(&url, &changed));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("total: was recorded as 10") && ran.stderr.contains("give --as-of"), "{ran:?}");
    assert!(ran.stdout.contains("revision 1770033600000. Without --as-of"), "{ran:?}");
    let future = options(&mut import(&url, &old), &["--as-of", "2090-01-01T00:00:00Z"]);
    assert_eq!(future.code, Some(1), "{future:?}");
    assert!(future.stderr.contains("--as-of is in the future"), "{future:?}");
}

/// The file knows neither channels nor categories. So those that the API recorded stay, and a replay stays a replay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_file_does_not_know_stays_as_recorded() {
    let files = Files::new();
    let by_api = json!({
        "externalId": "#1", "customerExternalId": "ada@example.com", "purchasedAt": "2026-02-01T10:00:00Z", "total": "10.00",
        "currency": "EUR", "channel": "app", "lines": [{"sku": "tea", "category": "DRINKS", "amount": "10.00"}],
    });
    let by_api = files.put("api.ndjson", by_api.to_string());
    let export = files.put("export.csv", shopify(&[Row { total: "12.00", line: "1,Tea,12.00,tea,0.00", ..ROW }]));
    let map = "currency = \"EUR\"\n[columns]\nNo = \"externalId\"\nWho = \"customerExternalId\"\nAt = \"purchasedAt\"\nSum = \"total\"\n";
    let in_yen = files.put("yen.toml", map.replace("EUR", "JPY"));
    let map = files.put("map.toml", map);
    let totals = files.put("totals.csv", "No,Who,At,Sum\n#1,ada@example.com,2026-02-01T10:00:00Z,13.00\n");
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        assert_eq!(run(&mut import(&url, &by_api)).code, Some(0));
        for replayed in [0, 1] {
            let ran = run(&mut import(&url, &export));
            assert!(ran.stdout.starts_with(&format!("{} recorded, {replayed} known", 1 - replayed)), "{ran:?}");
        }
        let rows = recorded(&url).await;
        assert_eq!((rows[0].1, rows[0].3.as_deref()), (1_200, Some("app")));
        assert!(rows[0].4.contains("DRINKS"), "{rows:?}");
        // A file without lines leaves those that are recorded.
        for replayed in [0, 1] {
            let ran = run(import(&url, &totals).arg("--map").arg(&map).args(["--as-of", "2026-02-20T00:00:00Z"]));
            assert!(ran.stdout.starts_with(&format!("{} recorded, {replayed} known", 1 - replayed)), "{ran:?}");
        }
        let with_totals = recorded(&url).await;
        assert_eq!((with_totals[0].1, &with_totals[0].4), (1_300, &rows[0].4));
        // Amounts of lines mean nothing in another currency.
        let ran = run(import(&url, &totals).arg("--map").arg(&in_yen).args(["--as-of", "2026-02-21T00:00:00Z"]));
        assert!(ran.stdout.starts_with("1 recorded"), "{ran:?}");
        assert_eq!((recorded(&url).await[0].1, recorded(&url).await[0].4.as_str()), (13, "[]"));
        // The same after a later revision of the API has changed the channel.
        let later = json!({
            "externalId": "#1", "customerExternalId": "ada@example.com", "purchasedAt": "2026-02-01T10:00:00Z", "total": "12.00",
            "currency": "EUR", "channel": "web", "revision": 9_000_000_000_000_i64,
        });
        assert_eq!(run(&mut import(&url, files.put("later.ndjson", later.to_string()))).code, Some(0));
        let ran = run(&mut import(&url, &export));
        assert!(ran.stdout.starts_with("0 recorded, 1 known already, 0 left out, 0 faulty"), "{ran:?}");
        assert!(ran.stdout.contains("1 superseded by what is recorded"), "{ran:?}");
        audit_is_clean(&url);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_of_another_customer_moves_only_when_asked() {
    let files = Files::new();
    let campaigns = files.put("campaigns.json", campaigns());
    let guest = files.put("guest.csv", shopify(&[Row { email: "guest@example.com", ..ROW }]));
    let account = files.put("account.csv", shopify(&[ROW]));
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let first = options(&mut with_campaigns(&url, &guest, &campaigns), &["--as-of", "2026-02-02T00:00:00Z"]);
        assert_eq!(first.code, Some(0), "{first:?}");
        let left_out = options(&mut import(&url, &account), &["--as-of", "2026-02-03T00:00:00Z"]);
        assert_eq!((left_out.code, left_out.stderr.as_str()), (Some(0), ""), "{left_out:?}");
        assert!(left_out.stdout.starts_with("0 recorded, 0 known already, 1 left out, 0 faulty"), "{left_out:?}");
        assert!(
            left_out
                .stdout
                .contains("left out: 1 × recorded under another customer: to hand such orders over, give --move (#1)"),
            "{left_out:?}"
        );
        let moved = options(&mut import(&url, &account), &["--as-of", "2026-02-03T00:00:00Z", "--move"]);
        assert!(moved.stdout.starts_with("1 recorded"), "{moved:?}");
        // The guest's file again is what is recorded already, not an order of another customer.
        let again = options(&mut import(&url, &guest), &["--as-of", "2026-02-02T00:00:00Z"]);
        assert!(again.stdout.starts_with("0 recorded, 1 known already, 0 left out, 0 faulty"), "{again:?}");
        let owners: Vec<_> = balances(&url).await.into_iter().filter(|(_, balance)| *balance > 0).collect();
        assert_eq!(owners, [("ada@example.com".to_owned(), 10)]);
        audit_is_clean(&url);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_total_is_the_whole_or_the_goods() {
    let files = Files::new();
    let header = "Name,Email,Financial Status,Currency,Subtotal,Shipping,Taxes,Total,Refunded Amount,Created at,Lineitem quantity,Lineitem price\n";
    let text = format!(
        "{header}#1,a@b.c,partially_refunded,EUR,20.00,5.00,4.00,25.00,24.00,2026-02-01 10:00:00 +0000,1,20.00\n"
    );
    let file = files.put("export.csv", text);
    for (option, total, refunded) in [("order", 2_500, 2_400), ("goods", 2_000, 2_000)] {
        let (url, _sqlite) = scratch(Engine::Sqlite).await;
        assert_eq!(options(&mut import(&url, &file), &["--total", option]).code, Some(0));
        let rows = recorded(&url).await;
        assert_eq!((rows[0].1, rows[0].2), (total, Some(refunded)), "taxes are never added");
    }
    // WooCommerce: the items with their taxes.
    let header = "order_number,order_date,status,order_total,refunded_total,order_currency,customer_id,line_items\n";
    let text = format!(
        "{header}7,2026-02-01 10:00:00,completed,44.80,0,EUR,9,name:A|quantity:1|total:24.92|total_tax:4.98;name:B|quantity:1|total:8.33|total_tax:1.67\n"
    );
    let file = files.put("woo.csv", text);
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let ran = options(&mut import(&url, &file), &["--total", "goods", "--time-zone", "UTC"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(recorded(&url).await[0].1, 3_990);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_decide_what_counts() {
    let files = Files::new();
    let statuses = [
        "paid",
        "partially_refunded",
        "REFUNDED",
        "wc-processing",
        "completed",
        "pending",
        "authorized",
        "expired",
        "partially_paid",
        "on-hold",
        "draft",
        "voided",
        "failed",
        "wc-cancelled",
        "trash",
        "lay-away",
    ];
    let mut text = format!("{HEADER}\n");
    for (index, status) in statuses.iter().enumerate() {
        writeln!(text, "#{index},c@d.e,{status},,EUR,3.00,3.00,0,,2026-02-01 10:00:00 +0000,Card,{index},1,Tea,3.00,,")
            .unwrap();
    }
    writeln!(
        text,
        "#c,c@d.e,pending,,EUR,3.00,3.00,0,2026-02-02 10:00:00 +0000,2026-02-01 10:00:00 +0000,Card,99,1,Tea,3.00,,"
    )
    .unwrap();
    let file = files.put("statuses.csv", text);
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let ran = run(&mut import(&url, &file));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stdout.starts_with("10 recorded, 0 known already, 7 left out, 0 faulty"), "{ran:?}");
    for told in [
        "1 × status `pending` (#5)",
        "1 × status `on-hold` (#9)",
        "unknown status `lay-away`: to count such orders, give --count-status \"lay-away\" (#15)",
    ] {
        assert!(ran.stdout.contains(told), "{told}: {}", ran.stdout);
    }
    let counted: Vec<String> = recorded(&url).await.into_iter().filter(|row| row.1 == 300).map(|row| row.0).collect();
    assert_eq!(counted, ["#0", "#1", "#2", "#3", "#4"]);
    let void: Vec<String> = recorded(&url).await.into_iter().filter(|row| row.1 == 0).map(|row| row.0).collect();
    assert_eq!(void, ["#11", "#12", "#13", "#14", "#c"], "so that an older file cannot bring them back");
    assert!(ran.stdout.contains("recorded with a total of 0: 1 × cancelled (#c)"), "{ran:?}");
    assert!(ran.stdout.contains("recorded with a total of 0: 1 × status `trash` (#14)"), "{ran:?}");
    let ran = options(&mut import(&url, &file), &["--count-status", "Lay-Away"]);
    assert!(ran.stdout.starts_with("1 recorded, 10 known already, 6 left out"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_orders_and_orders_without_customer_are_left_out() {
    let files = Files::new();
    let rows = [
        Row { method: "(for testing) Bogus Gateway", ..ROW },
        Row { name: "#2", id: "2", email: "", ..ROW },
        Row { name: "#3", id: "3", email: " Ada@Example.COM ", ..ROW },
    ];
    let file = files.put("export.csv", shopify(&rows));
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let ran = run(&mut import(&url, &file));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("left out: 1 × a test order (#1)"), "{ran:?}");
    assert!(ran.stdout.contains("left out: 1 × no customer (#2)"), "{ran:?}");
    assert_eq!(balances(&url).await, [("ada@example.com".to_owned(), 0)]);
    // WooCommerce: an id above 0, else the address; neither is left out, never a shared customer.
    let header = "order_id,order_date,status,order_total,order_currency,customer_id,billing_email\n";
    let text = format!(
        "{header}1,2026-02-01,completed,1,EUR,17,x@y.z\n2,2026-02-01,completed,1,EUR,0,Guest@y.z\n3,2026-02-01,completed,1,EUR,,\n4,2026-02-01,completed,1,EUR,0,\n"
    );
    let ran = options(&mut import(&url, files.put("woo.csv", text)), &["--time-zone", "UTC"]);
    assert!(ran.stdout.contains("2 purchases, 1 guest order; 2 customers"), "{ran:?}");
    assert!(ran.stdout.contains("left out: 2 × no customer (3, 4)"), "{ran:?}");
    let customers: Vec<String> = balances(&url).await.into_iter().map(|(customer, _)| customer).collect();
    assert_eq!(customers, ["17", "ada@example.com", "guest@y.z"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_fold_into_orders() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let more = "#1,,,,,,,,,,,,2,Mug,4.00,,1.00\n";
    let order = format!("{}{more}#1,,,,,,,,,,,,1,Poems,2.00,poems,\n", shopify(&[ROW]));
    // A second full copy is a replay.
    let again = order.split_once('\n').unwrap().1;
    let ran = run(&mut import(&url, files.put("copy.csv", format!("{order}{again}"))));
    assert!(ran.stdout.starts_with("1 recorded, 1 known already, 0 left out, 0 faulty"), "{ran:?}");
    let lines = &recorded(&url).await[0].4;
    for line in [
        r#""sku":"tea","quantity":1,"amount":1000"#,
        r#""sku":"Mug","quantity":2,"amount":700"#,
        r#""sku":"poems","quantity":1,"amount":200"#,
    ] {
        assert!(lines.contains(line), "{line}: {lines}");
    }
    // Another order of the same name is not folded in, wherever it stands.
    for (rows, told) in [
        (format!("{}#1,eve@example.com,,,,,,,,,,,1,Poems,2.00,poems,\n", shopify(&[ROW])), "two orders with one name"),
        (
            shopify(&[ROW, Row { name: "#9", id: "9", ..ROW }, Row { email: "eve@example.com", ..ROW }]),
            "another order of this file has the same name",
        ),
        (shopify(&[ROW, Row { id: "777", ..ROW }]), "another order of this file has the same name"),
        (
            format!("{HEADER}\n#5,,,,,,,,,,,,1,Poems,2.00,poems,\n"),
            "continues the order #5, which does not stand above it",
        ),
    ] {
        let ran = dry_run(&url, &files.put("mixed.csv", &rows), &[]);
        assert!(ran.stderr.contains(told), "{told}: {ran:?}");
        assert!(ran.code == Some(2) || ran.code == Some(1), "{ran:?}");
    }
    // One row per item: cells of the order are repeated, and compared.
    let header = "order_id,order_date,status,order_total,order_currency,customer_id,item_id,item_name,item_quantity,item_total,item_total_tax\n";
    let row =
        |total: &str, item: &str| format!("8,2026-02-01,completed,{total},EUR,17,{item},Item {item},1,5.00,1.00\n");
    let ran = dry_run(
        &url,
        &files.put("rows.csv", [header, &row("12", "1"), &row("12", "2")].concat()),
        &["--time-zone", "UTC"],
    );
    assert!(ran.stdout.contains("purchase 8 of 17 at 2026-02-01T00:00:00Z: 12.00 EUR, 2 lines"), "{ran:?}");
    let ran = dry_run(
        &url,
        &files.put("rows.csv", [header, &row("12", "1"), &row("13", "2")].concat()),
        &["--time-zone", "UTC"],
    );
    assert!(ran.stderr.contains("order_total is `12` here and `13` on line 3"), "{ran:?}");
    let copy = [header, &row("12", "1"), &row("12", "2"), &row("12", "1"), &row("12", "2")].concat();
    let ran = options(&mut import(&url, files.put("rows.csv", copy)), &["--time-zone", "UTC"]);
    assert!(ran.stdout.starts_with("1 recorded, 1 known already"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instants_have_an_offset_or_a_zone() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let naive = files.put(
        "naive.csv",
        shopify(&[
            Row { created: "2026-07-01 10:00:00", ..ROW },
            Row { name: "#2", id: "2", created: "2026-07-02", ..ROW },
        ]),
    );
    let ran = run(&mut import(&url, &naive));
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "one error, not one for each line: {ran:?}");
    assert!(ran.stderr.contains("give the shop's time zone, such as --time-zone Europe/Vienna"), "{ran:?}");
    let ran = dry_run(&url, &naive, &["--time-zone", "Europe/Vienna"]);
    assert!(
        ran.stdout.contains("at 2026-07-01T08:00:00Z") && ran.stdout.contains("at 2026-07-01T22:00:00Z"),
        "{ran:?}"
    );
    let slashes = files.put("slashes.csv", shopify(&[Row { created: "05/01/2026 10:00", ..ROW }]));
    let ran = dry_run(&url, &slashes, &["--time-zone", "Europe/Vienna"]);
    assert!(ran.stderr.contains("can be read in only one way"), "{ran:?}");
    let header = HEADER.replace("Paid at", "Other").replace("Lineitem discount", "Paid at");
    let paid = format!(
        "{header}\n#1,a@b.c,paid,,EUR,1,1,0,,2026-02-01 10:00:00 +0000,Card,1,1,Tea,1,tea,2026-02-03 10:00:00 +0000\n"
    );
    let ran = dry_run(&url, &files.put("paid.csv", paid), &["--instant", "paid"]);
    assert!(ran.stdout.contains("at 2026-02-03T10:00:00Z"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_decimal_text_in_its_currency() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    for (total, expected) in [("\"€1,234.50\"", "1234.50 EUR"), ("12.500", "12.50 EUR"), ("1’000", "1000.00 EUR")] {
        let file = files.put("money.csv", shopify(&[Row { total, line: "1.0,Tea,5.00,,", ..ROW }]));
        let ran = dry_run(&url, &file, &[]);
        assert!(ran.stdout.contains(expected), "{total}: {ran:?}");
    }
    for (total, told) in [
        ("12.505", "must have at most 2 decimals"),
        ("$5.00", "in the currency of the order"),
        ("\"5,50\"", "give --decimal-comma"),
        ("", "must be a decimal"),
    ] {
        let ran = dry_run(&url, &files.put("money.csv", shopify(&[Row { total, ..ROW }])), &[]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(told), "{total}: {ran:?}");
    }
    let file = files.put(
        "money.csv",
        shopify(&[Row { total: "\"1.005,50\"", refunded: "\"0,50\"", line: "1,Tea,\"1.005,50\",,", ..ROW }]),
    );
    let ran = dry_run(&url, &file, &["--decimal-comma"]);
    assert!(ran.stdout.contains("1005.50 EUR, refunded 0.50 EUR"), "{ran:?}");
    let none = shopify(&[ROW]).replace(",EUR,", ",,");
    let ran = dry_run(&url, &files.put("none.csv", none), &[]);
    assert!(ran.stderr.contains("has no currency"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_key_is_the_name_or_the_id() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let file = files.put("export.csv", shopify(&[ROW]));
    let ran = dry_run(&url, &file, &["--order-key", "id"]);
    assert!(ran.stdout.contains("purchase 5500000000001 of ada@example.com"), "{ran:?}");
    // Two shops have an order #1. Under their ids, they are two orders.
    let two = files.put("two.csv", shopify(&[ROW, Row { id: "777", ..ROW }]));
    let ran = dry_run(&url, &two, &["--order-key", "id"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("2 purchases; 1 customer"), "{ran:?}");
}

/// What spreadsheets and people do to a file between the shop and the import.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_went_through_a_spreadsheet() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let understood = |name: &str, text: String, options: &[&str]| {
        let ran = dry_run(&url, &files.put(name, text), options);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{name}: {ran:?}");
        assert!(
            ran.stdout.contains("purchase #1 of ada@example.com at 2026-02-01T10:00:00Z: 10.00 EUR"),
            "{name}: {ran:?}"
        );
        ran
    };
    let plain = shopify(&[ROW]);
    understood("mark.csv", format!("\u{feff}{plain}"), &[]);
    understood("quoted-mark.csv", format!("\u{feff}{}", plain.replacen("Name", "\"Name\"", 1)), &[]);
    understood("returns.csv", plain.replace('\n', "\r\n"), &[]);
    understood("sep.csv", format!("sep=;\r\n{}", plain.replace(',', ";")), &[]);
    understood(
        "semicolons.csv",
        plain.replace(',', ";").replace("10.00", "10,00").replace("0.00", "0,00"),
        &["--decimal-comma"],
    );
    understood("title.csv", format!("Orders of February\n\n{plain}"), &[]);
    understood("twice.csv", format!("{plain}{}", plain.replace("#1,", "#2,").replace("5500000000001", "2")), &[]);
    understood(
        "moved.csv",
        {
            let mut rows: Vec<Vec<&str>> = plain.lines().map(|line| line.split(',').collect()).collect();
            rows.iter_mut().for_each(|row| row.reverse());
            rows.iter().map(|row| row.join(",") + "\n").collect()
        },
        &[],
    );
    understood("more.csv", plain.replacen("Name,", "New column,Name,", 1).replace("#1,", "x,#1,"), &[]);
    // A number that was rounded would make all orders one. A footer is told, and the rest is understood.
    let rounded =
        dry_run(&url, &files.put("rounded.csv", shopify(&[Row { id: "5.51E+12", ..ROW }])), &["--order-key", "id"]);
    assert!(rounded.stderr.contains("a number that a spreadsheet has rounded"), "{rounded:?}");
    let footer = dry_run(&url, &files.put("footer.csv", format!("{plain}Total,,10.00\n")), &[]);
    assert_eq!(footer.code, Some(2), "{footer:?}");
    assert_eq!(footer.stderr, "line 3: has 3 cells where the header has 17\n");
    // A note with line ends belongs to its row; a stray quote makes its own row faulty and no other.
    let notes = "Name,Email,Financial Status,Currency,Total,Created at,Lineitem quantity,Lineitem price,Notes\n\
        #1,ada@example.com,paid,EUR,10.00,2026-02-01 10:00:00 +0000,1,10.00,\"first\nsecond \"\"line\"\"\"\n\
        #2,ada@example.com,paid,EUR,10.00,2026-02-01 10:00:00 +0000,1,10.00,he said \"no\"\n\
        #3,ada@example.com,paid,EUR,10.00,2026-02-01 10:00:00 +0000,1,10.00,\"never closed\n\
        #4,ada@example.com,paid,EUR,10.00,2026-02-01 10:00:00 +0000,1,10.00,fine\n";
    let ran = dry_run(&url, &files.put("notes.csv", notes), &[]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stdout.contains("2 purchases; 1 customer"), "{ran:?}");
    assert!(ran.stderr.contains("line 4: has a quote inside a field"), "{ran:?}");
    assert!(ran.stderr.contains("line 5: a quote opens on line 5 and is not closed"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_changes_nothing() {
    let campaigns = repository("data/campaigns.json");
    let zone = ["--time-zone", "Europe/Vienna"];
    let map = repository("data/own-map.toml");
    let map = ["--map", map.to_str().unwrap()];
    let cases: [(&str, &[&str], u64); 5] = [
        ("shopify-sample.csv", &[], 6),
        ("woocommerce-orders-sample.csv", &zone, 4),
        ("woocommerce-items-sample.csv", &zone, 3),
        ("woocommerce-webtoffee-sample.csv", &zone, 2),
        ("own-sample.csv", &map, 3),
    ];
    for engine in ENGINES {
        for (name, extra, records) in cases {
            let (url, _sqlite) = scratch(engine).await;
            let file = repository(&format!("data/{name}"));
            let first = options(&mut with_campaigns(&url, &file, &campaigns), extra);
            assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""), "{first:?}");
            assert!(first.stdout.starts_with(&format!("{records} recorded, 0 known already")), "{name}: {first:?}");
            let before = (super::versions(&url).await, super::state(&url).await);
            assert!(before.0.iter().any(|(_, _, balance)| *balance > 0), "{name}");
            let second = options(&mut with_campaigns(&url, &file, &campaigns), extra);
            assert!(second.stdout.starts_with(&format!("0 recorded, {records} known already")), "{name}: {second:?}");
            assert_eq!((super::versions(&url).await, super::state(&url).await), before, "{name}");
            audit_is_clean(&url);
        }
    }
}
