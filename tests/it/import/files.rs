//! Files as they come: packed, of the wrong kind, with faults; what an import reports about them, and how it exits.

use std::io::Write as _;
use std::process::Stdio;

use proptest::prelude::*;
use serde_json::json;
use windfall::app::clock::Clock;
use windfall::ingest::file::{Settings, Source};

use super::{Files, audit_is_clean, campaigns, import, purchase_line, purchases, repository, versions, with_campaigns};
use crate::support::app::{ENGINES, Engine, cases, scratch};
use crate::support::server::{ended, run};

const HEADER: &str = "externalId,customerExternalId,purchasedAt,total,currency\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_kind_of_file_is_refused_with_one_sentence() {
    let files = Files::new();
    let (url, sqlite) = scratch(Engine::Sqlite).await;
    let utf16: Vec<u8> = "\u{feff}externalId\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let row = "p,c,2026-02-01T00:00:00Z,1,EUR\n";
    let cases: [(&str, Vec<u8>, &str); 19] = [
        (
            "tabs.csv",
            format!("{HEADER}{row}").replace(',', "\t").into(),
            "separated by tabs: export it as CSV with commas, or give --map",
        ),
        ("bars.csv", format!("{HEADER}{row}").replace(',', "|").into(), "separated by `|`"),
        ("utf16.csv", utf16, "is UTF-16, or no text at all: save it as UTF-8"),
        (
            "array.json",
            b"[{\"externalId\":\"p\"}]".to_vec(),
            "is a JSON array: write one object on each line, as `jq -c '.[]'` does",
        ),
        ("pretty.json", b"{\n  \"externalId\": \"p\"\n}\n".to_vec(), "has JSON over several lines"),
        ("orders.xlsx", b"PK\x03\x04rest".to_vec(), "is a workbook of a spreadsheet or a ZIP archive"),
        ("orders.xls", b"\xd0\xcf\x11\xe0rest".to_vec(), "is a workbook of a spreadsheet"),
        ("login.csv", b"<!DOCTYPE html>\n<html></html>".to_vec(), "is HTML or XML"),
        ("invoice.csv", b"%PDF-1.7\n".to_vec(), "is a PDF"),
        ("returns.csv", format!("{HEADER}{row}").replace('\n', "\r").into(), "end with CR alone"),
        ("empty.csv", Vec::new(), "the file is empty"),
        ("blank.ndjson", b"\n \n".to_vec(), "the file is empty"),
        (
            "customers.csv",
            b"First Name,Last Name,Email,Total Spent\nAda,L,a@b.c,1\n".to_vec(),
            "has customers, not orders",
        ),
        ("products.csv", b"Handle,Title,Vendor\ntea,Tea,W\n".to_vec(), "has products, not orders"),
        (
            "analytics.csv",
            b"Date,Order #,N. Revenue (formatted),Status,Customer,Product(s)\n".to_vec(),
            "is WooCommerce's Analytics report",
        ),
        (
            "advanced.csv",
            b"Order Number,Order Status,Order Date,Email (Billing),Order Total Amount\n".to_vec(),
            "is of Advanced Order Export, whose columns each shop chooses: give --map",
        ),
        ("unknown.csv", b"a,b,c\n1,2,3\n".to_vec(), "the format cannot be told: the file begins with `a,b,c`"),
        ("lacks.csv", b"Name,Email,Financial Status,Lineitem quantity\n".to_vec(), "has no column `Total`"),
        (
            "again.csv",
            b"Name,Name,Email,Financial Status,Total,Currency,Created at,Lineitem quantity,Lineitem price\n".to_vec(),
            "names the column `Name` twice",
        ),
    ];
    for (name, content, told) in cases {
        let ran = run(&mut import(&url, files.put(name, content)));
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.lines().count()), (Some(1), "", 1), "{name}: {ran:?}");
        assert!(ran.stderr.contains(told), "{name}: {ran:?}");
    }
    let shopify = repository("data/shopify-sample.csv");
    for (options, told) in [
        (
            vec!["--format", "woocommerce"],
            "is that of Shopify's orders export, not of an orders export of WooCommerce: give --format shopify",
        ),
        (vec!["--format", "ndjson"], "the file is Shopify's orders export: leave out --format ndjson"),
        (vec!["--map", "missing.toml"], "the map missing.toml cannot be read"),
    ] {
        let ran = run(import(&url, &shopify).args(options).arg("--dry-run"));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(told), "{told}: {ran:?}");
    }
    let ran = run(import(&url, repository("data/sample.ndjson")).args(["--as-of", "2026-01-01T00:00:00Z"]));
    assert!(ran.stderr.contains("the other options for exports do not apply"), "{ran:?}");
    assert!(!sqlite.unwrap().path().exists(), "a database was created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_tells_what_happened() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let good = purchase_line("c", "p", 0);
    let ran = run(&mut import(&url, files.put("header.csv", HEADER)));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stdout.contains("\n0 orders\n"), "{ran:?}");
    assert_eq!(run(&mut import(&url, files.put("good.ndjson", &good))).code, Some(0));
    assert_eq!(run(&mut import(&url, files.put("some.ndjson", format!("{good}\nwrong")))).code, Some(2));
    assert_eq!(run(&mut import(&url, files.put("none.ndjson", "{\"wrong\":1}\n"))).code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_writes_nothing_and_tells_the_same() {
    let files = Files::new();
    let (url, sqlite) = scratch(Engine::Sqlite).await;
    let lines =
        [purchase_line("c", "p", 0), "wrong".to_owned(), purchase_line("d", "q", 1), "wrong".to_owned()].join("\n");
    let file = files.put("some.ndjson", lines);
    let dry = run(import(&url, &file).arg("--dry-run"));
    assert_eq!(dry.code, Some(2), "{dry:?}");
    assert!(!sqlite.as_ref().unwrap().path().exists(), "a database was created");
    let real = run(&mut import(&url, &file));
    assert_eq!((real.code, &real.stderr), (Some(2), &dry.stderr));
    let after_read = |text: &str| text[text.find("read as ").unwrap()..].to_owned();
    assert_eq!(after_read(&dry.stdout), after_read(&real.stdout));
    let told = "read as NDJSON\n2 purchases; 2 customers\nEUR: 2 purchases, total 6.00, refunded 0.00\n\
        faulty: 2 × expected value (column 1) (lines 2, 4)\n";
    assert_eq!(after_read(&dry.stdout), told);
    assert!(
        dry.stdout.contains("\n  line 1: purchase p of c at 2026-02-01T00:00:00Z: 3.00 EUR, 0 lines, revision 0\n"),
        "{dry:?}"
    );
}

/// The columns and lines stay as they were, so a file of rejected lines can be mended and imported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_rows_keep_their_form_and_can_be_imported() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let text = format!(
        "{HEADER}a,c,2026-02-01T00:00:00Z,three,EUR\nb,c,2026-02-01T00:00:00Z,3.00,EUR\n\"d, \"\"x\"\"\",c,2026-02-01T00:00:00Z,,EUR\r\n"
    );
    let rejects = files.put("rejects.csv", "");
    let ran = run(import(&url, files.put("some.csv", text)).arg("--rejects").arg(&rejects));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let rejected = std::fs::read_to_string(&rejects).unwrap();
    let expected = "externalId,customerExternalId,purchasedAt,total,currency,\"rejectedBecause\"\n\
        a,c,2026-02-01T00:00:00Z,three,EUR,\"total: must be a decimal such as 19.99\"\n\
        \"d, \"\"x\"\"\",c,2026-02-01T00:00:00Z,,EUR,\"total: must be a decimal such as 19.99\"\n";
    assert_eq!(rejected, expected);
    let ran = run(import(&url, &rejects).arg("--rejects").arg(&rejects));
    assert!(ran.code == Some(1) && ran.stderr.contains("is the file that is imported"), "{ran:?}");
    let mended = rejected.replace("three", "3.00").replace("Z,,EUR", "Z,4.00,EUR");
    let ran = run(&mut import(&url, files.put("mended.csv", mended)));
    assert!(ran.code == Some(0) && ran.stdout.starts_with("2 recorded"), "{ran:?}");
    // NDJSON from the standard input, with the reasons as comments.
    let mut child = import(&url, "-")
        .arg("--rejects")
        .arg(&rejects)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let wrong = purchase_line("c", "e", 0).replace("3.00", "three");
    write!(child.stdin.take().unwrap(), "{}\n\n{wrong}\n", purchase_line("c", "f", 0)).unwrap();
    let ran = ended(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let rejected = std::fs::read_to_string(&rejects).unwrap();
    assert_eq!(rejected, format!("# line 3: total: must be a decimal such as 19.99\n{wrong}\n"));
    let ran = run(&mut import(&url, files.put("mended.txt", rejected.replace("three", "3.00"))));
    assert!(ran.code == Some(0) && ran.stdout.starts_with("1 recorded"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packed_files_are_unpacked() {
    let files = Files::new();
    let lines: Vec<String> = (0..40).rev().map(|n| purchase_line("c", &format!("p{n:02}"), n)).collect();
    let plain = files.put("plain.ndjson", lines.join("\n"));
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    for (program, name) in [("gzip", "packed.gz"), ("zstd", "packed.zst")] {
        let pack = |from: &std::path::Path| {
            let packed = std::process::Command::new(program).arg("-c").arg(from).output().unwrap();
            assert!(packed.status.success());
            packed.stdout
        };
        let packed = pack(&plain);
        // Both formats allow several packed parts one after the other.
        let more = pack(&files.put("more.ndjson", format!("\n{}\n", purchase_line("c", program, 50))));
        let file = files.put(name, [packed, more].concat());
        let ran = run(&mut import(&url, &file));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        assert_eq!(purchases(&url).await.len(), if program == "gzip" { 41 } else { 42 }, "{ran:?}");
        let mut child =
            import(&url, "-").stdin(std::fs::File::open(&file).unwrap()).stdout(Stdio::piped()).spawn().unwrap();
        let ran = ended({
            let _ = child.stdin.take();
            child.wait_with_output().unwrap()
        });
        assert!(ran.stdout.starts_with("0 recorded, 41 known already"), "{ran:?}");
        // Half of a packed file is refused, not taken for a whole.
        let whole = std::fs::read(&file).unwrap();
        let ran = run(&mut import(&url, files.put("half.gz", &whole[..whole.len() / 3])));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("cannot be unpacked"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_balances_are_imported_in_bulk() {
    let files = Files::new();
    let adjustment = |customer: &str, points: i64| json!({"adjustment": {"customerExternalId": customer, "points": points, "reason": "opening balance", "idempotencyKey": format!("opening-{customer}")}});
    let lines: Vec<String> = (0..300).map(|n| adjustment(&format!("c{n:03}"), n + 1).to_string()).collect();
    let file = files.put("opening.ndjson", lines.join("\n"));
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        for (recorded, known) in [(300, 0), (0, 300)] {
            let ran = run(&mut import(&url, &file));
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
            assert!(ran.stdout.starts_with(&format!("{recorded} recorded, {known} known already")), "{ran:?}");
            assert!(ran.stdout.contains("300 adjustments; 300 customers"), "{ran:?}");
        }
        let balances: i64 = versions(&url).await.iter().map(|(_, _, balance)| balance).sum();
        assert_eq!(balances, 300 * 301 / 2);
        let conflict = files.put("conflict.ndjson", adjustment("c007", 9).to_string());
        let ran = run(&mut import(&url, conflict));
        assert!(ran.stderr.contains("points: was recorded as 8 under this id, but 9 was sent"), "{ran:?}");
        audit_is_clean(&url);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_from_the_future_is_refused() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let refund =
        json!({"refund": {"externalId": "r", "purchaseExternalId": "p", "refundedAt": "2090-01-01T00:00:00Z"}})
            .to_string();
    let ran = run(&mut import(&url, files.put("future.ndjson", [purchase_line("c", "p", 0), refund].join("\n"))));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.starts_with("line 2: refundedAt: must not be more than 5 minutes ahead"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_is_closed_ends_quietly() {
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    for extra in [&["--dry-run"][..], &[]] {
        let mut command = import(&url, repository("data/sample.ndjson"));
        let mut child = command.args(extra).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = ended(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    }
    assert_eq!(purchases(&url).await.len(), 625);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_names_columns_and_refunds() {
    let files = Files::new();
    let campaigns = files.put("campaigns.json", campaigns());
    let map = |text: &str| files.put("map.toml", text);
    let columns = "currency = \"EUR\"\n[columns]\n\"No\" = \"externalId\"\n\"Who\" = \"customerExternalId\"\n\"When\" = \"purchasedAt\"\n\"Sum\" = \"total\"\n";
    let file = files.put(
        "own.csv",
        "No\tWho\tWhen\tSum\tNote\n1\tc\t2026-02-01T00:00:00Z\t10.00\tx\n2\tc\t2026-02-02T12:00:00Z\t5.00\ty\n",
    );
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let with_map = |map: &std::path::Path, file: &std::path::Path| {
        run(with_campaigns(&url, file, &campaigns).arg("--map").arg(map))
    };
    let ran = with_map(&map(columns), &file);
    assert!(
        ran.code == Some(1)
            && ran.stderr.contains(
                "names a column `Note` that the map does not: map it, or set `ignore_unknown_columns = true`"
            ),
        "{ran:?}"
    );
    // The delimiter is found.
    let ran = with_map(&map(&format!("ignore_unknown_columns = true\n{columns}")), &file);
    assert!(ran.code == Some(0) && ran.stdout.starts_with("2 recorded"), "{ran:?}");
    // Columns of a refund, beside the purchase or alone.
    let refunds = format!(
        "{columns}\"Back\" = \"refund.amount\"\n\"Back at\" = \"refund.refundedAt\"\n\"Back no\" = \"refund.externalId\"\n"
    );
    let file = files.put("refunds.csv", "No,Who,When,Sum,Back,Back at,Back no\n3,d,2026-02-01T00:00:00Z,10.00,4.00,2026-02-05T00:00:00Z,r3\n4,d,2026-02-05T12:00:00Z,5.00,0,,\n5,d,2026-02-09T12:00:00Z,6.00,,,\n");
    let ran = with_map(&map(&refunds), &file);
    assert!(ran.code == Some(0) && ran.stdout.contains("3 purchases, 1 refund; 1 customer"), "{ran:?}");
    // 10 − 4, 5 and 6.
    assert_eq!(versions(&url).await[1].2, 17);
    let statuses = format!(
        "{columns}\"State\" = \"status\"\n[statuses]\ncounted = [\"geliefert\"]\nvoid = [\"storniert\"]\nleft_out = [\"offen\"]\n"
    );
    let file = files.put("statuses.csv", "No,Who,When,Sum,State\n6,e,2026-02-01T00:00:00Z,10.00,Geliefert\n7,e,2026-02-01T00:00:00Z,10.00,storniert\n8,e,2026-02-01T00:00:00Z,10.00,offen\n");
    let ran = with_map(&map(&statuses), &file);
    assert!(ran.stdout.starts_with("2 recorded, 0 known already, 1 left out, 0 faulty"), "{ran:?}");
    for (text, told) in [
        ("[columns]\n", "no column is mapped to `externalId`"),
        (&columns.replace("currency = \"EUR\"\n", ""), "no column is mapped to `currency`"),
        (&format!("colour = 1\n{columns}"), "unknown field `colour`"),
        (&columns.replace("total", "price"), "there is no field `price`"),
        (
            &format!("negative_rows = \"refunds\"\n{columns}"),
            "needs `refund.purchaseExternalId` or `refund.externalId`",
        ),
        (&format!("time_zone = \"Mars\"\n{columns}"), "must be an IANA time zone"),
        (&format!("{columns}\"X\" = \"total\"\n"), "is mapped twice"),
        (&format!("{columns}\"Missing\" = \"channel\"\n"), "the nearest lacks `Missing`"),
    ] {
        let ran = with_map(&map(text), &file);
        assert!(ran.code == Some(1) && ran.stderr.contains(told), "{told}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_from_the_standard_input_says_when_it_was() {
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let from_stdin = |options: &[&str]| {
        let file = std::fs::File::open(repository("data/shopify-sample.csv")).unwrap();
        run(import(&url, "-").args(options).stdin(file))
    };
    let ran = from_stdin(&[]);
    assert!(ran.code == Some(1) && ran.stderr.contains("an export from the standard input needs --as-of"), "{ran:?}");
    let ran = from_stdin(&["--as-of", "2026-09-20T00:00:00Z"]);
    assert!(ran.code == Some(0) && ran.stdout.starts_with("6 recorded"), "{ran:?}");
}

/// The most memory that a process had, in MiB.
fn peak_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

/// An unclosed quote, or a line without an end, does not take the file into memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_takes_no_memory() {
    let files = Files::new();
    let (url, _sqlite) = scratch(Engine::Sqlite).await;
    let mib = cases(48, 500);
    let start = format!("{HEADER}p,c,2026-02-01T00:00:00Z,1,EUR\n");
    let small = format!("{start}wrong");
    let line = format!("{}\n", "x".repeat(1_023));
    let one_quote = format!("{start}q,\"{}", line.repeat(mib << 10));
    let one_line = format!("{start}{}", "x".repeat(mib << 20));
    let quotes = format!("{start}{}", format!("q,\"{line}").repeat(mib << 10));
    let mut least = 0;
    for (name, text) in [("small.csv", small), ("quote.csv", one_quote), ("line.csv", one_line), ("quotes.csv", quotes)]
    {
        let file = files.put(name, text);
        let child = import(&url, &file).arg("--dry-run").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        let watched = std::thread::spawn(move || {
            let mut peak = 0;
            while let Some(mib) = peak_mib(pid) {
                peak = peak.max(mib);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            peak
        });
        let ran = ended(child.wait_with_output().unwrap());
        let peak = watched.join().unwrap();
        assert_eq!(ran.code, Some(2), "{name}: {ran:?}");
        assert!(ran.stdout.contains("1 purchase; 1 customer"), "{name}: {ran:?}");
        if name == "small.csv" {
            assert!(peak > 5, "{peak}");
            least = peak;
        }
        assert!(peak < least + 40, "{name}: {peak} MiB for a file of {mib} MiB, and {least} for a small one");
        std::fs::remove_file(file).unwrap();
    }
}

/// Reads a file with all spans that its lines had.
fn spans(file: &std::path::Path) -> Option<Vec<(u64, u64)>> {
    let source = Source::open(file, Settings::default(), Clock::System.now()).ok()?;
    let (mut lines, reading) = source.read_ahead(Clock::System);
    let mut spans = Vec::new();
    while let Some(line) = lines.blocking_recv() {
        spans.push((line.span.start, line.span.bytes));
    }
    // A file may also be refused while it is read. A panic of the thread leaves no result.
    let result = reading.blocking_recv().unwrap();
    spans.sort_unstable();
    result.is_ok().then_some(spans)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(u32::try_from(cases(200, 20_000)).unwrap()))]

    /// Whatever bytes a file has: nothing panics, and each byte that is not blank belongs to a line that was recorded or told.
    #[test]
    fn no_row_is_lost_without_being_told(
        pieces in prop::collection::vec(
            prop_oneof![
                proptest::sample::select(vec![
                    "\"", ",", "\n", "\r\n", "\"\"", "#1", "paid", "\n#1,a@b.c,paid,1,EUR,2026-02-01 10:00:00 +0000,1,1\n", "#1,,,,,,2,3",
                    "p,c,2026-02-01T00:00:00Z,1,EUR\n",
                ])
                .prop_map(|text| text.as_bytes().to_vec()),
                prop::collection::vec(any::<u8>(), 0..6),
            ],
            0..60,
        ),
        is_shopify in any::<bool>(),
    ) {
        let files = Files::new();
        let header = if is_shopify {
            "Name,Email,Financial Status,Total,Currency,Created at,Lineitem quantity,Lineitem price\n"
        } else {
            HEADER
        };
        let text = [header.as_bytes(), &pieces.concat()].concat();
        let file = files.put("random.csv", &text);
        // A file may be refused as a whole, for example because of a NUL.
        if let Some(spans) = spans(&file) {
            let mut covered = vec![false; text.len()];
            covered[..header.len()].fill(true);
            for (start, bytes) in spans {
                let (start, bytes) = (usize::try_from(start).unwrap(), usize::try_from(bytes).unwrap());
                covered[start..start + bytes].fill(true);
            }
            let lost: Vec<u8> = text.iter().zip(covered).filter(|(_, covered)| !covered).map(|(byte, _)| *byte).collect();
            let is_blank = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b'"');
            prop_assert!(lost.iter().all(is_blank), "{:?} of {:?}", String::from_utf8_lossy(&lost), String::from_utf8_lossy(&text));
        }
    }
}
