//! The staleness checker: writers and readers on three nodes, while every kind of fault happens to Redis and a campaign changes
//! now and then.
//!
//! Each customer has one writer, which makes one purchase at a time. So a customer's version is the number of its acknowledged
//! purchases. A read must show all purchases that were acknowledged before it began.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::app::cases;
use crate::support::node::{metric, node, number};
use crate::support::postgres::Postgres;
use crate::support::proxy::{Garbage, Mode, Proxy};
use crate::support::redis::Redis;
use crate::support::shop::Shop;

/// The most ids that `nodes` takes. So one request reads all customers.
const CUSTOMERS: usize = 100;
const MAX_STALENESS: Duration = Duration::from_secs(2);
const BALANCES: &str = "query($ids: [ID!]!) { nodes(ids: $ids) { ... on Customer { balance { available version } } } }";
const WHOLE: &str = "query($ids: [ID!]!) { nodes(ids: $ids) { ... on Customer { balance { available version } \
    progress { current campaign { name } } awards(first: 2) { nodes { points } } } } }";
/// One of this many reads selects progress and awards too.
const WHOLE_EVERY: usize = 8;
/// The time between two purchases of a customer.
const PAUSE: Duration = Duration::from_millis(600);

/// The time between two renames of the campaign.
const RENAME_PERIOD: Duration = Duration::from_secs(2);

/// A customer, and what its writer knows of it.
struct Customer {
    name: String,
    id: String,
    /// The number of acknowledged purchases, without the one before the test.
    bought: AtomicI64,
    /// When each of these was acknowledged.
    times: Mutex<Vec<Instant>>,
}

impl Customer {
    /// Returns how many purchases were acknowledged up to `moment`.
    fn bought_before(&self, moment: Instant) -> i64 {
        let times = self.times.lock().unwrap();
        i64::try_from(times.iter().filter(|time| **time <= moment).count()).unwrap()
    }
}

#[derive(Default)]
struct Counts {
    reads: AtomicUsize,
    stale: AtomicUsize,
    too_stale: AtomicUsize,
}

/// What happens to Redis, in order. The first entry stands for the times without a fault.
const FAULTS: [&str; 14] = [
    "none",
    "killed",
    "stopped (SIGSTOP)",
    "flushed",
    "restarted with an old dump",
    "the network swallows everything",
    "connections are refused",
    "it responds with noise",
    "it responds with a value of another type",
    "it responds with other content",
    "its responses are truncated",
    "its responses take 50 ms longer",
    "subscriptions are cut",
    "it is out of memory",
];

struct Checker {
    /// Reads of the last node may be stale by [`MAX_STALENESS`].
    nodes: Vec<Shop>,
    customers: Vec<Customer>,
    /// The id of the campaign that is renamed. Its name is a growing number.
    campaign: String,
    /// The last acknowledged name of the campaign.
    campaign_name: AtomicI64,
    counts: Counts,
    stop: AtomicBool,
    /// The index in [`FAULTS`] of the current fault.
    fault: AtomicUsize,
    /// How long the reads under each fault took.
    taken: [Mutex<Vec<Duration>>; FAULTS.len()],
}

impl Checker {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    async fn write(&self, index: usize) {
        let customer = &self.customers[index];
        for number in 1.. {
            if self.stopped() {
                return;
            }
            self.nodes[number % self.nodes.len()].buy(&customer.name, number).await;
            customer.times.lock().unwrap().push(Instant::now());
            customer.bought.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn rename(&self) {
        let query = "mutation($id: ID!, $input: CampaignUpdateInput!) { updateCampaign(id: $id, input: $input) { \
            campaign { revision } userErrors { code message } } }";
        let shop = &self.nodes[0];
        let asked = "query($id: ID!) { node(id: $id) { ... on Campaign { revision } } }";
        let asked = shop.data(&shop.admin, asked, json!({ "id": self.campaign })).await;
        let mut revision = asked["node"]["revision"].clone();
        for name in 1.. {
            tokio::time::sleep(RENAME_PERIOD).await;
            if self.stopped() {
                return;
            }
            let shop = &self.nodes[usize::try_from(name).unwrap() % self.nodes.len()];
            let input = json!({ "ifRevision": revision, "name": name.to_string() });
            let mut answer =
                shop.data(&shop.admin, query, json!({ "id": self.campaign, "input": input })).await["updateCampaign"]
                    .take();
            assert_eq!(answer["userErrors"], json!([]));
            revision = answer["campaign"]["revision"].take();
            self.campaign_name.store(name, Ordering::SeqCst);
        }
    }

    async fn read(&self, node: usize) {
        let is_strong = node + 1 < self.nodes.len();
        let ids: Vec<&str> = self.customers.iter().map(|customer| customer.id.as_str()).collect();
        for turn in 0.. {
            if self.stopped() {
                return;
            }
            let query = if turn % WHOLE_EVERY == 0 { WHOLE } else { BALANCES };
            let began = Instant::now();
            let expected: Vec<i64> = self
                .customers
                .iter()
                .map(|customer| match is_strong {
                    true => customer.bought.load(Ordering::SeqCst),
                    false => customer.bought_before(began - MAX_STALENESS),
                })
                .collect();
            // An outdated name of the campaign is stale too.
            let named = if is_strong { self.campaign_name.load(Ordering::SeqCst) } else { 0 };
            let shop = &self.nodes[node];
            let fault = self.fault.load(Ordering::SeqCst);
            let answer = shop.data(&shop.storefront, query, json!({ "ids": ids })).await;
            self.taken[fault].lock().unwrap().push(began.elapsed());
            for (node, expected) in answer["nodes"].as_array().unwrap().iter().zip(expected) {
                self.check(node, expected, named, is_strong);
            }
        }
    }

    fn check(&self, read: &Value, expected: i64, named: i64, is_strong: bool) {
        let version = number(&read["balance"]["version"]);
        // Each purchase gives 10 points, and every third gives 10 more.
        assert_eq!(number(&read["balance"]["available"]), 10 * version + 10 * (version / 3), "{read}");
        // `expected` leaves out the purchase before the test.
        let mut is_stale = version < expected + 1;
        if let Some(progress) = read["progress"].as_array() {
            let mut names = progress.iter().filter_map(|it| it["campaign"]["name"].as_str()?.parse::<i64>().ok());
            is_stale |= names.next().expect("the campaign whose name is a number") < named;
            let counted = progress.iter().find(|it| it["campaign"]["name"] == "rolling").unwrap();
            assert_eq!(counted["current"], (version % 3).to_string(), "{read}");
            let awards = read["awards"]["nodes"].as_array().unwrap().len();
            assert_eq!(awards, usize::try_from(version.min(2)).unwrap(), "{read}");
        }
        self.counts.reads.fetch_add(1, Ordering::SeqCst);
        if is_stale {
            let counter = if is_strong { &self.counts.stale } else { &self.counts.too_stale };
            counter.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Returns the median and the 99th percentile, in milliseconds.
fn percentiles(taken: &Mutex<Vec<Duration>>) -> (f64, f64) {
    let mut taken = taken.lock().unwrap();
    assert!(!taken.is_empty(), "there were no reads");
    taken.sort_unstable();
    let at = |percent: usize| taken[taken.len() * percent / 100].as_secs_f64() * 1_000.0;
    (at(50), at(99))
}

/// Causes one fault after the other. Each lasts for a while and is followed by a while without faults.
async fn faults(checker: &Checker, redis: &mut Redis, proxy: &Proxy, round: u64) {
    let while_it_lasts = || tokio::time::sleep(Duration::from_millis(400));
    for fault in 1..FAULTS.len() {
        if checker.stopped() {
            return;
        }
        checker.fault.store(fault, Ordering::SeqCst);
        match fault {
            1 => redis.kill(),
            2 => redis.suspend(),
            3 => redis.flush(),
            4 => redis.save(),
            5 => proxy.set(Mode::Blackhole),
            6 => proxy.set(Mode::Refuse),
            7 => proxy.set(Mode::Garbage(Garbage::Noise(round))),
            8 => proxy.set(Mode::Garbage(Garbage::WrongType)),
            9 => proxy.set(Mode::Garbage(Garbage::Bulk("nonsense"))),
            10 => proxy.set(Mode::Garbage(Garbage::Truncated)),
            11 => proxy.set(Mode::Slow(Duration::from_millis(50))),
            12 => proxy.set(Mode::DropSubscriptions { seed: round, within: Duration::from_millis(100) }),
            _ => {
                redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
                redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
            }
        }
        while_it_lasts().await;
        match fault {
            1 => redis.restart(),
            2 => redis.resume(),
            // The dump is outdated by now.
            4 => redis.restart_with_dump(),
            13 => {
                redis.command(&["CONFIG", "SET", "maxmemory", "64mb"]);
                redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
            }
            _ => proxy.set(Mode::Pass),
        }
        checker.fault.store(0, Ordering::SeqCst);
        // Long enough for most nodes to use Redis again.
        while_it_lasts().await;
        while_it_lasts().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_older_than_what_was_acknowledged_before_it() {
    let url = Postgres::shared().create_database().await;
    let mut redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    let mut nodes = Vec::new();
    for staleness in ["0", "0", "2"] {
        nodes.push(node(&url, Some(&proxy.url()), &[("WINDFALL__CACHE__MAX_STALENESS", staleness)]).await);
    }
    let shop = &nodes[0];
    let campaign = shop.campaign(json!({ "name": "0" })).await;
    let rolling = json!({ "rolling": { "duration": "P3660D" } });
    let three = json!({ "purchases": { "atLeast": 3 } });
    shop.campaign(json!({ "name": "rolling", "window": rolling, "goal": three })).await;
    let mut customers = Vec::new();
    for number in 0..CUSTOMERS {
        let name = format!("c{number}");
        shop.buy(&name, 0).await;
        let found = shop.data(
            &shop.storefront,
            "query($by: CustomerBy!) { customer(by: $by) { id } }",
            json!({ "by": { "externalId": name } }),
        );
        let id = found.await["customer"]["id"].as_str().unwrap().to_owned();
        customers.push(Customer { name, id, bought: AtomicI64::new(0), times: Mutex::default() });
    }
    let checker = Arc::new(Checker {
        nodes,
        customers,
        campaign,
        campaign_name: AtomicI64::new(0),
        counts: Counts::default(),
        stop: AtomicBool::new(false),
        fault: AtomicUsize::new(0),
        taken: Default::default(),
    });
    let mut tasks = JoinSet::new();
    for index in 0..CUSTOMERS {
        let checker = Arc::clone(&checker);
        tasks.spawn(async move { checker.write(index).await });
    }
    tasks.spawn({
        let checker = Arc::clone(&checker);
        async move { checker.rename().await }
    });
    for node in [0, 1, 2, 0, 1, 2] {
        let checker = Arc::clone(&checker);
        tasks.spawn(async move { checker.read(node).await });
    }
    let wanted = cases(100_000, 10_000_000);
    let mut round = 0;
    while round == 0 || checker.counts.reads.load(Ordering::SeqCst) < wanted {
        faults(&checker, &mut redis, &proxy, round).await;
        round += 1;
        assert!(tasks.try_join_next().is_none(), "a reader or a writer failed");
    }
    checker.stop.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let Counts { reads, stale, too_stale } = &checker.counts;
    let renamed = checker.campaign_name.load(Ordering::SeqCst);
    assert!(renamed > 0, "no campaign changed");
    let bought: i64 = checker.customers.iter().map(|customer| customer.bought.load(Ordering::SeqCst)).sum();
    let mut tiers = [0.0; 3];
    for shop in &checker.nodes {
        for (sum, tier) in tiers.iter_mut().zip(["l1", "l2", "sql"]) {
            *sum += metric(shop, &format!("windfall_cache_reads_total{{tier=\"{tier}\"}}")).await;
        }
        assert_eq!(metric(shop, "windfall_cache_drift_total").await, 0.0);
        // Each node met faults and recovered from them.
        assert!(metric(shop, "windfall_redis_breaker_opened_total").await > 1.0);
    }
    println!(
        "{reads:?} reads, {CUSTOMERS} per request, with {bought} purchases and {renamed} renames of a campaign in {round} rounds: \
         {stale:?} stale, {too_stale:?} by more than {MAX_STALENESS:?}; from L1, L2, SQL: {tiers:?}"
    );
    for (fault, taken) in FAULTS.iter().zip(&checker.taken) {
        let (p50, p99) = percentiles(taken);
        println!("| {fault} | {p50:.1} | {p99:.1} |");
    }
    assert_eq!((stale.load(Ordering::SeqCst), too_stale.load(Ordering::SeqCst)), (0, 0));
    assert!(tiers.iter().all(|reads| *reads > 10.0), "{tiers:?}");
}
