//! The cost of a read does not depend on how much is recorded of the customer. It is measured with N and with 8 N purchases.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use entity::CampaignId;
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use windfall::app::award::{AwardFilter, Status, of_customers_by_page};
use windfall::app::jobs::settlement;
use windfall::app::reading::page::{Listed as _, PageArgs};
use windfall::app::reading::progress::of_view;
use windfall::app::reading::snapshot::{Extent, View};
use windfall::app::stored::running::Running;
use windfall::app::{App, model};
use windfall::engine::time::Instant;

use crate::support::app::{DAY, ENGINES, Engine, HOUR, NOW, TestApp, cases, purchase_input};
use crate::support::process::resident_bytes;
use crate::support::reads::Reads;

/// Returns N. The larger customer has 8 N purchases, which are 20 000 at full size.
fn base() -> i64 {
    i64::try_from(cases(150, 2_500)).unwrap()
}

/// Records `purchases` purchases of the customer, one every ten minutes up to now.
async fn bought(test: &TestApp, customer: &str, purchases: i64) {
    let input = |n: i64| (vec![], purchase_input(customer, &format!("{customer}-{n}"), NOW - n * HOUR / 6, "1.00"));
    let inputs: Vec<_> = (0..purchases).rev().map(input).collect();
    // Fewer at a time than the queue takes.
    for inputs in inputs.chunks(5_000) {
        for answer in windfall::app::purchase::record(&test.app, &TestApp::shop(), inputs.to_vec()).await.unwrap() {
            answer.unwrap();
        }
    }
}

async fn read(app: &App, customer: &str, extent: Extent) -> View {
    app.snapshots().find(&[(customer.to_owned(), None)], extent).await.unwrap().remove(customer).unwrap()
}

/// Makes campaigns with rolling windows from one day to ten years.
async fn rolling_campaigns(test: &TestApp) {
    let spend = json!({ "spend": { "amount": "1000000" } });
    let purchases = json!({ "purchases": { "atLeast": 1_000_000 } });
    for (duration, goal) in [("P3660D", &spend), ("P300D", &purchases), ("P30D", &purchases), ("P1D", &spend)] {
        let rolling = json!({ "rolling": { "duration": duration } });
        test.campaign(json!({
            "name": duration, "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR",
            "window": rolling, "goal": goal, "award": { "points": 10 },
        }))
        .await;
    }
}

#[tokio::test]
async fn a_cold_read_costs_the_same_however_much_a_window_holds() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        rolling_campaigns(&test).await;
        for (customer, purchases) in [("first", 1), ("few", base()), ("many", 8 * base())] {
            bought(&test, customer, purchases).await;
        }
        for extent in [Extent::Balance, Extent::Progress] {
            // This node has not read these customers yet. The read of `first` loads the campaigns.
            let node = test.another().await;
            let reads = Reads::of(&node.database).await;
            reads.analyze().await;
            read(&node, "first", extent).await;
            let cost = async |customer: &str| {
                let (rows, statements) = (reads.total().await, node.database.statements());
                let began = tokio::time::Instant::now();
                let view = read(&node, customer, extent).await;
                println!("{engine:?} {extent:?}: {customer} in {:?}", began.elapsed());
                let statements = node.database.statements() - statements;
                (reads.total().await - rows, statements, serde_json::to_string(&*view.snapshot).unwrap().len(), view)
            };
            let (few, many) = (cost("few").await, cost("many").await);
            let figures = format!("{engine:?} {extent:?}: {:?} {:?}", (few.0, few.1, few.2), (many.0, many.1, many.2));
            assert!(many.0 * 10 <= few.0 * 13 && many.1 <= few.1 && many.2 * 10 <= few.2 * 13, "{figures}");
            if extent == Extent::Progress {
                let told = of_view(&many.3, None, Instant(NOW)).unwrap();
                let current: Vec<_> =
                    told.iter().map(|one| (one.campaign.row.name.as_str(), one.progress.current)).collect();
                let all = 8 * base();
                assert_eq!(
                    current,
                    [("P1D", 144 * 100), ("P30D", all.min(30 * 144)), ("P300D", all), ("P3660D", all * 100)]
                );
            }
        }
    }
}

/// Only a read of progress loads purchases, and its snapshot also serves reads of the balance.
#[tokio::test]
async fn a_balance_is_told_without_a_look_at_purchases() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        rolling_campaigns(&test).await;
        bought(&test, "ada", 3).await;
        let node = test.another().await;
        let statements = async |extent| {
            let before = node.database.statements();
            read(&node, "ada", extent).await;
            node.database.statements() - before
        };
        // Loads the campaigns, so that the reads below do not.
        node.campaigns().await.unwrap();
        let balance = statements(Extent::Balance).await;
        let (again, progress) = (statements(Extent::Balance).await, statements(Extent::Progress).await);
        assert!(again == 1 && progress > balance, "{engine:?}: {balance} {again} {progress}");
        for extent in [Extent::Progress, Extent::Balance] {
            assert_eq!(statements(extent).await, 1, "{engine:?}: {extent:?}");
        }
    }
}

/// Purchases leave a window as time passes. A node continues from its last snapshot instead of reading the window again.
#[tokio::test]
async fn a_window_that_loses_purchases_is_not_read_again_from_its_beginning() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        rolling_campaigns(&test).await;
        bought(&test, "many", 8 * base()).await;
        let node = test.another().await;
        let reads = Reads::of(&node.database).await;
        reads.analyze().await;
        let mut costs = Vec::new();
        // The window of 30 days loses six purchases an hour. One look-back covers the next 64 of these losses.
        for hour in (0..100).step_by(10) {
            test.set_now(NOW + 25 * DAY + hour * HOUR);
            let before = reads.total().await;
            let view = read(&node, "many", Extent::Progress).await;
            costs.push(reads.total().await - before);
            let told = of_view(&view, None, Instant(NOW + 25 * DAY + hour * HOUR)).unwrap();
            let left = 5 * 144 - hour * 6;
            let current = told.iter().find(|one| one.campaign.row.name == "P30D").unwrap().progress.current;
            assert_eq!(current, left, "{engine:?}: {hour} h");
        }
        // The first read must pass over all purchases that left the window since the last purchase.
        assert!(costs[1..].iter().all(|cost| cost * 2 <= costs[0]), "{engine:?}: {costs:?}");
    }
}

/// Inserts award rows without the application, because only their number matters here.
async fn awarded(test: &TestApp, customer: &str, awards: i64) {
    bought(test, customer, 1).await;
    let id = test.customer(customer).await.unwrap().id.0;
    // The oldest 40 awards belong to campaign 2. The oldest 25 are declined, the next 25 reversed, and the others standing.
    let sql = format!(
        "INSERT INTO award (customer_id, number, campaign_id, purchase_external_id, nth, ordinal, points, status, earned_at, \
         opens_at, evidence_from_at, evidence_from_external_id, version) \
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {awards}) \
         SELECT {id}, 1000 + n, CASE WHEN n <= 40 THEN 2 ELSE 1 END, 'p', 1, 1, 10, \
         CASE WHEN n <= 25 THEN 'declined' WHEN n <= 50 THEN 'reversed' ELSE 'standing' END, n, 0, 0, 'p', 1 FROM n"
    );
    let tx = test.app.database.begin().await.unwrap();
    tx.execute_unprepared(&sql).await.unwrap();
    tx.commit().await.unwrap();
}

/// The statuses and the campaign of a filter, and how many awards match it; 21 stands for more than a page of 20.
type Asked = (Option<&'static [Status]>, Option<i64>, usize);

#[tokio::test]
async fn a_page_of_awards_costs_the_same_however_many_there_are() {
    let filters: [Asked; 7] = [
        (Some(&[Status::Standing]), None, 21),
        (Some(&[Status::Declined]), None, 21),
        (Some(&[Status::Reversed]), Some(2), 15),
        (Some(&[Status::Declined, Status::Reversed]), None, 21),
        (None, Some(2), 21),
        (Some(&[Status::Standing]), Some(2), 0),
        (Some(&[]), None, 0),
    ];
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        awarded(&test, "few", 4 * base()).await;
        awarded(&test, "many", 32 * base()).await;
        let reads = Reads::of(&test.app.database).await;
        reads.analyze().await;
        for (statuses, campaign, expected) in filters {
            let filter = AwardFilter { statuses: statuses.map(<[_]>::to_vec), campaign: campaign.map(CampaignId) };
            for backward in [false, true] {
                let size = Some(20);
                let args = if backward {
                    PageArgs { last: size, ..PageArgs::default() }
                } else {
                    PageArgs { first: size, ..PageArgs::default() }
                };
                let page = model::Award::LIST.page(args).unwrap();
                let cost = async |customer: &str| {
                    let id = test.customer(customer).await.unwrap().id;
                    let before = reads.total().await;
                    let slice = of_customers_by_page(&test.app, vec![id], &page, &filter).await.unwrap().remove(&id);
                    let rows = slice.unwrap().rows;
                    let order: Vec<_> = rows.iter().map(|row| row.earned_at).collect();
                    assert!(order.is_sorted_by(|a, b| a > b), "{filter:?}: {order:?}");
                    assert_eq!(rows.len(), expected.min(20), "{filter:?}");
                    reads.total().await - before
                };
                let (few, many) = (cost("few").await, cost("many").await);
                // The constant allows for noise when almost nothing is read.
                assert!(many * 10 <= few * 13 + 100, "{engine:?} {filter:?}: {few} {many}");
            }
        }
    }
}

/// The running states of settled campaigns are not returned with a customer, and the customer's next write removes them.
#[tokio::test]
async fn settled_campaigns_leave_nothing_in_a_customer_s_row() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let campaign = async |name: String, ends_at: Option<&str>| {
            let input = json!({
                "name": name, "startsAt": "2026-10-01T00:00:00Z", "endsAt": ends_at, "currency": "EUR", "lateness": "PT1H",
                "window": { "calendar": { "unit": "DAY" } }, "goal": { "purchases": { "atLeast": 3 } },
                "award": { "points": 10 },
            });
            test.campaign(input).await
        };
        let lasting = campaign("lasting".to_owned(), None).await;
        for number in 0..20 {
            campaign(format!("short {number}"), Some("2026-11-02T13:00:00Z")).await;
        }
        bought(&test, "ada", 2).await;
        let row = async || Running::parse(&test.customer("ada").await.unwrap().head).unwrap();
        let counted = |running: &Running| serde_json::to_value(running).unwrap()["c"].as_object().unwrap().len();
        assert_eq!(counted(&row().await), 21);
        let version = test.customer("ada").await.unwrap().version;
        test.set_now(NOW + DAY);
        assert_eq!(settlement::run(&test.app).await.unwrap(), 20);
        let view = read(&test.app, "ada", Extent::Progress).await;
        assert_eq!((view.snapshot.customer.version, counted(&view.snapshot.running)), (version, 1), "{engine:?}");
        assert_eq!(test.app.snapshots().check(&view).await, Some(true), "{engine:?}");
        test.audit_is_clean().await;
        test.buy("ada", "later", NOW + DAY, "1.00").await.unwrap();
        assert_eq!(counted(&row().await), 1, "{engine:?}");
        assert!(row().await.get(lasting).is_some(), "{engine:?}");
        test.audit_is_clean().await;
    }
}

/// This variable is set in the measured process, which runs this test alone.
const LOOKS: &str = "WINDFALL_TEST_LOOKS";

/// A look-back holds a bounded number of bytes in memory, however large the purchases are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_large_purchases_takes_little_memory() {
    if std::env::var(LOOKS).is_ok() {
        let purchases = i64::try_from(cases(400, 4_000)).unwrap();
        let test = TestApp::start(Engine::Sqlite).await;
        test.campaign(json!({
            "name": "shoes", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "filter": { "categories": ["shoes"] },
            "window": { "rolling": { "duration": "P30D" } }, "goal": { "purchases": { "atLeast": 1_000_000 } },
            "award": { "points": 10 },
        }))
        .await;
        let input = |n: i64| {
            let mut input = purchase_input("ada", &format!("p{n}"), NOW - n * HOUR / 60, "1.00");
            let line = json!([{ "sku": "a", "category": "shoes", "quantity": 1, "amount": "1.00" }]);
            input.lines = serde_json::from_value(line).unwrap();
            (vec![], input)
        };
        let inputs = (0..purchases).map(input).collect();
        windfall::app::purchase::record(&test.app, &TestApp::shop(), inputs).await.unwrap();
        // Adds about 200 kB of other lines to each purchase.
        let line = format!(",{{\"sku\":\"{}\",\"quantity\":1,\"amount\":1}}]", "x".repeat(200));
        let more = line.trim_end_matches(']').repeat(800) + "]";
        let tx = test.app.database.begin().await.unwrap();
        let sql = format!("UPDATE purchase SET lines = rtrim(lines, ']') || '{more}'");
        tx.execute_unprepared(&sql).await.unwrap();
        tx.commit().await.unwrap();
        // Only the last purchase is still in the window; the look-back passes over all others.
        test.set_now(NOW + 30 * DAY - 1);
        let (before, peak, over) =
            (resident_bytes(std::process::id()), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let watch = std::thread::spawn({
            let (peak, over) = (Arc::clone(&peak), Arc::clone(&over));
            move || {
                while !over.load(Ordering::Relaxed) {
                    peak.fetch_max(resident_bytes(std::process::id()), Ordering::Relaxed);
                }
            }
        });
        let view = read(&test.app, "ada", Extent::Progress).await;
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        let told = of_view(&view, None, Instant(NOW + 30 * DAY - 1)).unwrap();
        assert_eq!(told[0].progress.current, 1);
        println!("measured {}", peak.load(Ordering::Relaxed).saturating_sub(before));
        return;
    }
    let alone = ["--exact", "cache::cost::a_look_at_large_purchases_takes_little_memory", "--nocapture"];
    let ran = Command::new(std::env::current_exe().unwrap()).args(alone).env(LOOKS, "1").output().unwrap();
    let output = String::from_utf8(ran.stdout).unwrap();
    let line = output.lines().find_map(|line| line.split_once("measured "));
    let (_, peak) = line.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
    let peak: u64 = peak.trim().parse().unwrap();
    println!("at most {peak} more bytes resident");
    assert!(peak <= 100 << 20, "{peak}");
}
