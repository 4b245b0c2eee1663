//! The in-memory cache stays within its budget, and the resident memory that the process takes for it is bounded too.

use std::process::Command;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use windfall::app::reading::snapshot::{Extent, Snapshot};
use windfall::cache::{Cache, Loaded, Lost};

use crate::support::app::cases;
use crate::support::graphql::GraphqlApp;
use crate::support::process::resident_bytes;

/// This variable names the values to churn. It is set in the measured process, which runs this test alone.
const CHURNS: &str = "WINDFALL_TEST_CHURNS";
const SNAPSHOTS: &str = "snapshots";
const BUDGET_BYTES: u64 = 32 << 20;
/// The number of bytes that go through the cache, in multiples of the budget.
const BUDGETS: usize = 6;

/// Returns a text of 64 B to 1 MiB, and its size. Most texts are small.
fn text() -> (String, usize) {
    let size = 64 << rand::random_range(0..=14_u32).min(rand::random_range(0..=14));
    ("v".repeat(size), size)
}

/// Returns a function that decodes the snapshot of a customer with a few purchases and awards, like a read from Redis.
async fn snapshot() -> impl Fn() -> (Snapshot, usize) {
    let app = GraphqlApp::sqlite().await;
    for (name, window) in [
        ("all", json!({ "campaign": "WHOLE" })),
        ("rolling", json!({ "rolling": { "duration": "P90D" } })),
        ("days", json!({ "calendar": { "unit": "DAY" } })),
    ] {
        app.campaign(json!({ "name": name, "window": window, "goal": { "purchases": { "atLeast": 4 } } })).await;
    }
    for number in 0..6 {
        app.purchase(&format!("p{number}"), "ada", "2026-11-02T10:00:00Z", "5").await;
    }
    let view =
        app.app.snapshots().find(&[("ada".to_owned(), None)], Extent::Progress).await.unwrap().remove("ada").unwrap();
    let encoded = serde_json::to_string(&*view.snapshot).unwrap();
    // A rough estimate of the size of the decoded snapshot.
    let size = 3 * encoded.len();
    move || (serde_json::from_str(&encoded).unwrap(), size)
}

/// Stores values under keys of 64 to 256 B and reads each of them once more. Returns the largest size that the cache accounted
/// for, and the peak of additional resident memory, both in bytes.
async fn churn<T>(value: impl Fn() -> (T, usize)) -> (u64, u64)
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let cache: Arc<Cache<T, Lost>> = Arc::new(Cache::new(BUDGET_BYTES, None));
    let before = resident_bytes(std::process::id());
    let (mut peak, mut heaviest, mut sent, mut number, mut kept) = (0, 0, 0, 0_u64, 0);
    while sent < cases(BUDGETS, 10 * BUDGETS) * usize::try_from(BUDGET_BYTES).unwrap() {
        let key = format!("{number}{}", "k".repeat(rand::random_range(64..=256)));
        let (value, size) = value();
        let load = |keys: Vec<String>| async move {
            Ok(vec![Loaded { wanted: keys[0].clone(), key: keys[0].clone(), value }])
        };
        assert_eq!(cache.get(vec![key.clone()], |_| true, load).await.unwrap().len(), 1);
        kept += cache.get(vec![key], |_| true, |_| async { Ok(Vec::new()) }).await.unwrap().len() as u64;
        sent += size;
        number += 1;
        if number % 64 == 0 {
            peak = peak.max(resident_bytes(std::process::id()).saturating_sub(before));
            heaviest = heaviest.max(cache.size().1);
        }
    }
    assert!(kept > number / 2, "{kept} of {number} kept");
    (heaviest, peak)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churned_hard_it_stays_within_its_budget() {
    if let Ok(values) = std::env::var(CHURNS) {
        let (heaviest, peak) = if values == SNAPSHOTS { churn(snapshot().await).await } else { churn(text).await };
        println!("measured {heaviest} {peak}");
        return;
    }
    for values in ["texts", SNAPSHOTS] {
        // A process of its own, because other tests take memory in this one.
        let alone = ["--exact", "cache::memory::churned_hard_it_stays_within_its_budget", "--nocapture"];
        let ran = Command::new(std::env::current_exe().unwrap()).args(alone).env(CHURNS, values).output().unwrap();
        let output = String::from_utf8(ran.stdout).unwrap();
        let line = output.lines().find_map(|line| line.split_once("measured "));
        let (_, line) = line.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
        let mut figures = line.split(' ').map(|figure| figure.parse::<u64>().unwrap());
        let (heaviest, peak) = (figures.next().unwrap(), figures.next().unwrap());
        println!("{values}, budget {BUDGET_BYTES} bytes: {heaviest} by its own account, at most {peak} more resident");
        assert!(heaviest <= BUDGET_BYTES + BUDGET_BYTES / 20, "{heaviest}");
        assert!(heaviest > BUDGET_BYTES / 2, "only {heaviest} bytes are used");
        assert!(peak <= 2 * BUDGET_BYTES, "{peak}");
    }
}
