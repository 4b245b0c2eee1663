//! The first tier of the cache under the trace of `peers/caffeine`: reads by zipf(0.99), through a cache whose keys are
//! worth ten times its budget. It prints the hit ratio, and the memory that the cache takes with the allocator of the server, as
//! one line of JSON. Caffeine runs the same trace.

use std::io::{Write as _, stdout};
use std::sync::Arc;

use anyhow::Context as _;
use benches::purchase::mix;
use clap::{Parser, ValueEnum};
use serde_json::json;
use windfall::cache::{Cache, Loaded, Lost, Tier};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exponent of the distribution.
const EXPONENT: f64 = 0.99;
/// The keys are worth so many times the budget.
const WORTH: f64 = 10.0;
/// The size of a customer, in bytes.
const CUSTOMER_BYTES: u64 = 2048;
/// The mean size of a key, in bytes.
const MEAN_KEY_BYTES: f64 = 166.0;
/// Texts have one of so many sizes, each twice the one before it.
const SIZES: u64 = 15;
/// The smallest text, in bytes.
const SMALLEST_BYTES: u64 = 64;

#[derive(Parser)]
struct Arguments {
    #[arg(value_enum)]
    values: Values,
    budget_mib: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Values {
    /// 64 B to 1 MiB, most of them small.
    Texts,
    /// 2 KiB each.
    Customers,
}

impl Values {
    fn size(self, id: u64) -> usize {
        let hash = mixed(id ^ 0x5151);
        let size = match self {
            Self::Texts => SMALLEST_BYTES << ((hash >> 33) % SIZES).min((hash & 0x7fff_ffff) % SIZES),
            Self::Customers => CUSTOMER_BYTES,
        };
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn mean_bytes(self) -> f64 {
        let value = match self {
            Self::Texts => {
                let squares = (SIZES * SIZES) as f64;
                (0..SIZES).map(|k| (SMALLEST_BYTES << k) as f64 * (2 * (SIZES - k) - 1) as f64 / squares).sum()
            }
            Self::Customers => CUSTOMER_BYTES as f64,
        };
        MEAN_KEY_BYTES + value
    }
}

#[tokio::main]
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 reads and bytes")]
async fn main() -> anyhow::Result<()> {
    let Arguments { values, budget_mib } = Arguments::parse();
    let budget = budget_mib << 20;
    let cache: Arc<Cache<String, Lost>> = Arc::new(Cache::new(budget, None));
    let mut zipf = Zipf::new(budget as f64 * WORTH / values.mean_bytes());
    let keys = zipf.keys;
    let warmup = keys.clamp(50_000, 2_500_000);
    let measured = keys.clamp(50_000, 1_500_000);
    let mut hits = 0_u64;
    let before = anonymous_kib()?;
    for number in 0..warmup + measured {
        let id = zipf.next();
        let wanted = key(id);
        let load = move |missing: Vec<String>| async move {
            let value = "v".repeat(values.size(id));
            Ok(missing.into_iter().map(|key| Loaded { wanted: key.clone(), key, value: value.clone() }).collect())
        };
        let found = cache.get(vec![wanted.clone()], |_| true, load).await?;
        let hit = found.get(&wanted).is_some_and(|found| found.tier == Tier::L1);
        hits += u64::from(hit && number >= warmup);
    }
    let growth = (anonymous_kib()? - before) * 1024;
    let (entries, _) = cache.size();
    let held = (1..=keys).filter_map(|id| cache.kept(&key(id)).map(|value| key(id).len() + value.len()));
    let payload: usize = held.sum();
    let report = json!({
        "hit": hits as f64 / measured as f64, "entries": entries, "payload": payload as f64 / budget as f64, "keys": keys,
        "growth": growth as f64 / budget as f64,
    });
    writeln!(stdout(), "{report}")?;
    Ok(())
}

/// The resident memory of this process without what it has mapped from files.
fn anonymous_kib() -> anyhow::Result<i64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn key(id: u64) -> String {
    let padding = 64 + usize::try_from((mixed(id ^ 0x7777) >> 33) % 193).unwrap_or_default();
    format!("{id}{}", "k".repeat(padding))
}

fn mixed(z: u64) -> u64 {
    mix(z.wrapping_add(0x9E37_79B9_7F4A_7C15))
}

/// Draws numbers from 1 by rejection-inversion (Hörmann and Derflinger, 1996).
struct Zipf {
    keys: u64,
    seed: u64,
    squeeze: f64,
    top: f64,
    low: f64,
}

impl Zipf {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of keys")]
    fn new(keys: f64) -> Self {
        let keys = keys.floor();
        let squeeze = 2.0 - inverse(integral(2.5) - density(2.0));
        Self { keys: keys as u64, seed: 42, squeeze, top: integral(keys + 0.5), low: integral(1.5) - 1.0 }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a key")]
    fn next(&mut self) -> u64 {
        loop {
            let uniform = (mixed(self.seed) >> 11) as f64 / (1_u64 << 53) as f64;
            self.seed += 1;
            let u = self.top + uniform * (self.low - self.top);
            let x = inverse(u);
            let key = ((x + 0.5) as u64).clamp(1, self.keys);
            if key as f64 - x <= self.squeeze || u >= integral(key as f64 + 0.5) - density(key as f64) {
                return key;
            }
        }
    }
}

fn density(x: f64) -> f64 {
    (-EXPONENT * x.ln()).exp()
}

fn integral(x: f64) -> f64 {
    let log = x.ln();
    ((1.0 - EXPONENT) * log).exp_m1() / ((1.0 - EXPONENT) * log) * log
}

fn inverse(x: f64) -> f64 {
    let t = (x * (1.0 - EXPONENT)).max(-1.0);
    (t.ln_1p() / t * x).exp()
}
