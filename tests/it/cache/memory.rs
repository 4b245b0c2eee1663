//! The in-memory cache takes no more memory than its budget, and uses most of it for entries.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use windfall::app::reading::snapshot::{Extent, Snapshot};
use windfall::cache::{Cache, Loaded, Lost};

use crate::support::app::cases;
use crate::support::graphql::GraphqlApp;
use crate::support::process::anonymous_bytes;

/// This variable names the case to measure. It is set in the measured process, which runs this test alone.
const CASE: &str = "WINDFALL_TEST_CASE";
const MIB: u64 = 1 << 20;

/// The number of entries that are stored at a time.
const AT_ONCE: usize = 64;

/// What goes through the cache.
#[derive(Debug)]
struct Case {
    name: &'static str,
    budget: u64,
    /// The bytes of all keys and values, in percent of the budget.
    flood: usize,
    /// The smallest share of the budget that keys and values must take in the end.
    payload: f64,
}

/// Small values leave less room for their payload, because each entry takes the same number of bytes in addition.
const CASES: [Case; 3] = [
    Case { name: "texts", budget: 32 * MIB, flood: 1_000, payload: 0.6 },
    Case { name: "snapshots", budget: 32 * MIB, flood: 200, payload: 0.75 },
    Case { name: "values of 2 KiB", budget: 256 * MIB, flood: 125, payload: 0.75 },
];

/// What a case measured.
#[derive(Debug, Serialize, serde::Deserialize)]
struct Measured {
    /// The peak of additional anonymous memory.
    growth: u64,
    /// The peak of what the cache accounts for.
    accounted: u64,
    entries: u64,
    /// The bytes of the keys and the encoded values that are stored in the end.
    payload: u64,
}

/// Returns a text of 64 B to 256 KiB, and its size. Most texts are small, and the largest are too large to be stored.
fn text() -> (String, usize) {
    let size = 64 << rand::random_range(0..=12_u32).min(rand::random_range(0..=12));
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
    let size = encoded.len();
    move || (serde_json::from_str(&encoded).unwrap(), size)
}

/// Stores values under keys of 64 to 256 B. `value` returns a value and the size of its encoded form.
async fn flood<T>(case: &Case, value: impl Fn() -> (T, usize)) -> Measured
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let cache: Arc<Cache<T, Lost>> = Arc::new(Cache::new(case.budget, None));
    let (mut sent, mut sizes, mut before) = (0, Vec::new(), None);
    let (mut growth, mut accounted) = (0, 0);
    // The test's own memory is touched before anything is measured.
    let bytes = cases(case.flood, 1_000) * usize::try_from(case.budget).unwrap() / 100;
    sizes.resize(bytes / 64, (1_u8, 1_u32));
    sizes.clear();
    let key = |number: usize, padding: u8| format!("{number}{}", "k".repeat(usize::from(padding)));
    while sent < bytes {
        let mut values = HashMap::new();
        for _ in 0..AT_ONCE {
            let padding = rand::random_range(64..=250);
            let (value, size) = value();
            values.insert(key(sizes.len(), padding), value);
            sizes.push((padding, u32::try_from(size).unwrap()));
            sent += size + usize::from(padding);
        }
        let keys: Vec<String> = values.keys().cloned().collect();
        let load = |_| async move {
            Ok(values.into_iter().map(|(key, value)| Loaded { wanted: key.clone(), key, value }).collect())
        };
        assert_eq!(cache.get(keys, |_| true, load).await.unwrap().len(), AT_ONCE);
        // The first entries also pay for what any use of the runtime allocates.
        let anonymous = anonymous_bytes(std::process::id());
        growth = growth.max(anonymous.saturating_sub(*before.get_or_insert(anonymous)));
        accounted = accounted.max(cache.size().1);
    }
    let held = sizes.iter().enumerate().filter_map(|(number, (padding, size))| {
        let key = key(number, *padding);
        cache.kept(&key).map(|_| key.len() as u64 + u64::from(*size))
    });
    Measured { growth, accounted, payload: held.sum(), entries: cache.size().0 }
}

async fn measure(case: &Case) -> Measured {
    match case.name {
        "texts" => flood(case, text).await,
        "snapshots" => flood(case, snapshot().await).await,
        _ => flood(case, || ("v".repeat(2048), 2048)).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flooded_it_stays_within_its_budget_and_uses_it() {
    if let Ok(name) = std::env::var(CASE) {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        println!("measured {}", serde_json::to_string(&measure(case).await).unwrap());
        return;
    }
    // A process of its own for each case, because other tests take memory in this one.
    let alone = ["--exact", "cache::memory::flooded_it_stays_within_its_budget_and_uses_it", "--nocapture"];
    let begin = |case: &Case| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(alone).env(CASE, case.name).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for (process, case) in CASES.each_ref().map(begin).into_iter().zip(CASES) {
        let ran = process.wait_with_output().unwrap();
        let output = String::from_utf8(ran.stdout).unwrap();
        let line = output.lines().find_map(|line| line.split_once("measured "));
        let (_, line) = line.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
        let measured: Measured = serde_json::from_str(line).unwrap();
        println!("{case:?}: {measured:?}");
        let Measured { growth, accounted, payload, entries } = measured;
        assert!(growth <= case.budget, "it takes {growth} bytes");
        assert!(growth <= accounted + accounted / 4, "it takes {growth} bytes and accounts for {accounted}");
        assert!(accounted <= case.budget, "it accounts for {accounted} bytes");
        assert!(payload as f64 >= case.payload * case.budget as f64, "it uses {payload} bytes for {entries} entries");
    }
}
