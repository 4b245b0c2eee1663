//! The cache of a process stays within its budget, and so does the memory that the process takes for it.

use std::process::Command;
use std::sync::Arc;

use windfall::cache::{Cache, Loaded, Lost};

use crate::support::direct::cases;
use crate::support::process::resident_bytes;

/// Set in the process that is measured, which runs this test and nothing else.
const CHURNS: &str = "WINDFALL_TEST_CHURNS";
const BUDGET_BYTES: u64 = 64 << 20;
/// Bytes that go through the cache, in budgets.
const BUDGETS: usize = 6;

/// Keys and values of 64 B to 1 MiB, most of them small, each read again now and then.
async fn churn() -> (u64, u64) {
    let cache: Arc<Cache<String, Lost>> = Arc::new(Cache::new(BUDGET_BYTES, None));
    let before = resident_bytes(std::process::id());
    let (mut peak, mut heaviest, mut sent, mut number) = (0, 0, 0, 0_u64);
    while sent < cases(BUDGETS, 10 * BUDGETS) * usize::try_from(BUDGET_BYTES).unwrap() {
        let size = 64 << rand::random_range(0..=14_u32).min(rand::random_range(0..=14));
        let key = format!("{number}{}", "k".repeat(rand::random_range(64..=256)));
        let get = async |key: String| {
            let load = move |keys: Vec<String>| async move {
                let loaded = |key: String| Loaded { wanted: key.clone(), key, value: "v".repeat(size) };
                Ok(keys.into_iter().map(loaded).collect())
            };
            cache.get(vec![key], |_: &String| true, load).await.unwrap().len()
        };
        assert_eq!(get(key.clone()).await, 1);
        assert_eq!(get(key).await, 1);
        sent += size;
        number += 1;
        if number % 64 == 0 {
            peak = peak.max(resident_bytes(std::process::id()).saturating_sub(before));
            heaviest = heaviest.max(cache.size().1);
        }
    }
    (heaviest, peak)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churned_hard_it_stays_within_its_budget() {
    if std::env::var_os(CHURNS).is_some() {
        let (heaviest, peak) = churn().await;
        println!("measured {heaviest} {peak}");
        return;
    }
    // In a process of its own: here other tests take memory too.
    let alone = ["--exact", "cache::memory::churned_hard_it_stays_within_its_budget", "--nocapture"];
    let ran = Command::new(std::env::current_exe().unwrap()).args(alone).env(CHURNS, "1").output().unwrap();
    let output = String::from_utf8(ran.stdout).unwrap();
    let line = output.lines().find_map(|line| line.strip_prefix("measured ")).expect("what was measured");
    let mut figures = line.split(' ').map(|figure| figure.parse::<u64>().unwrap());
    let (heaviest, peak) = (figures.next().unwrap(), figures.next().unwrap());
    println!("of a budget of {BUDGET_BYTES} bytes: {heaviest} by its own account, {peak} more resident at most");
    assert!(heaviest <= BUDGET_BYTES + BUDGET_BYTES / 20, "{heaviest}");
    assert!(heaviest > BUDGET_BYTES / 2, "hardly used: {heaviest}");
    assert!(peak <= 2 * BUDGET_BYTES, "{peak}");
}
