//! The open loop: requests are sent at a rate, whether or not earlier ones are answered. The latency of a request counts
//! from the instant at which it was due, so a server that falls behind cannot hide it (no coordinated omission).
//!
//! The number of connections is bounded. A request that is due while all of them are busy waits, and its wait counts.
//! Requests are due to a millisecond, which is the resolution of the timers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::clock;
use crate::cpu::{Snapshot, Watched};
use crate::http::{Connection, head};
use crate::latency::Latencies;
use crate::operation::{Operation, failure};

/// The time until the first request is due, in which the connections are opened.
const OPENING: Duration = Duration::from_secs(2);
/// Results are also reported for each window of this length, by when the requests were due.
const WINDOW: Duration = Duration::from_millis(250);
/// Codes with which a server refuses a request that it has no room for.
const SHED: [&str; 2] = ["OVERLOADED", "RATE_LIMITED"];

pub struct Open {
    pub address: SocketAddr,
    pub tokens: Vec<String>,
    pub connections: usize,
    pub phases: Vec<Phase>,
    pub watched: Vec<Watched>,
}

/// A span with a constant rate, written as `RATE:SECONDS`.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    pub rate: f64,
    pub seconds: f64,
}

impl FromStr for Phase {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (rate, seconds) = text.split_once(':').context("expected RATE:SECONDS")?;
        let (rate, seconds) = (rate.parse()?, seconds.parse()?);
        ensure!(rate > 0.0 && seconds > 0.0, "the rate and the seconds must be above 0");
        Ok(Self { rate, seconds })
    }
}

impl Phase {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are positive")]
    fn requests(self) -> u64 {
        (self.rate * self.seconds) as u64
    }
}

/// How a request ended.
enum Outcome {
    Served,
    Shed,
    Failed(String),
}

struct Ended {
    /// Since the first request was due.
    due: Duration,
    phase: usize,
    latency: Duration,
    outcome: Outcome,
}

struct Shared {
    operation: Operation,
    address: SocketAddr,
    heads: Vec<Vec<u8>>,
    phases: Vec<Phase>,
    next: AtomicU64,
    began: Instant,
}

impl Shared {
    /// Returns the phase of a request and when it is due. `None` after the last phase.
    fn due(&self, mut number: u64) -> Option<(usize, Duration)> {
        let mut before = 0.0;
        for (at, phase) in self.phases.iter().enumerate() {
            if number < phase.requests() {
                #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
                let seconds = before + number as f64 / phase.rate;
                return Some((at, Duration::from_secs_f64(seconds)));
            }
            number -= phase.requests();
            before += phase.seconds;
        }
        None
    }
}

/// Runs all phases, one after the other, and returns the report.
pub fn run(open: &Open, operation: Operation) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = Arc::new(Shared {
        operation,
        address: open.address,
        heads: open.tokens.iter().map(|token| head(open.address, Some(token))).collect(),
        phases: open.phases.clone(),
        next: AtomicU64::new(0),
        began: clock::now() + OPENING,
    });
    ensure!(!shared.heads.is_empty(), "tokens are needed");
    let before = Snapshot::take(&open.watched)?;
    let ended = runtime.block_on(async {
        let mut tasks: JoinSet<_> = (0..open.connections).map(|_| drive(Arc::clone(&shared))).collect();
        let mut ended = Vec::new();
        while let Some(done) = tasks.join_next().await {
            ended.extend(done?);
        }
        anyhow::Ok(ended)
    })?;
    let cpu = Snapshot::take(&open.watched)?.since(&before, &open.watched);
    let phases: Vec<Value> = open
        .phases
        .iter()
        .enumerate()
        .map(|(at, phase)| {
            let mut value = summary(ended.iter().filter(|ended| ended.phase == at), phase.seconds);
            value["offered"] = json!(phase.rate);
            value
        })
        .collect();
    let mut windows: BTreeMap<u128, Vec<&Ended>> = BTreeMap::new();
    for ended in &ended {
        windows.entry(ended.due.as_nanos() / WINDOW.as_nanos()).or_default().push(ended);
    }
    let windows: Vec<Value> =
        windows.into_values().map(|window| summary(window.into_iter(), WINDOW.as_secs_f64())).collect();
    Ok(json!({ "phases": phases, "window_seconds": WINDOW.as_secs_f64(), "windows": windows, "cpu_seconds": cpu }))
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
fn summary<'a>(ended: impl Iterator<Item = &'a Ended>, seconds: f64) -> Value {
    let (mut served, mut shed) = (Latencies::default(), Latencies::default());
    let mut failures: BTreeMap<&str, u64> = BTreeMap::new();
    for Ended { latency, outcome, .. } in ended {
        match outcome {
            Outcome::Served => served.record(*latency),
            Outcome::Shed => shed.record(*latency),
            Outcome::Failed(kind) => *failures.entry(kind).or_default() += 1,
        }
    }
    let (served_rate, shed_rate) = (served.count() as f64 / seconds, shed.count() as f64 / seconds);
    json!({
        "served": served_rate,
        "shed": shed_rate,
        "failures": failures,
        "served_ms": served.summary(),
        "shed_ms": shed.summary(),
    })
}

async fn drive(shared: Arc<Shared>) -> Vec<Ended> {
    let (mut all, mut body, mut connection) = (Vec::new(), Vec::new(), None);
    loop {
        if connection.is_none() {
            connection = Connection::open(shared.address).await.ok();
        }
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some((phase, due)) = shared.due(number) else { return all };
        sleep_until((shared.began + due).into()).await;
        // The body is written now, because a purchase of now has the time of its request.
        shared.operation.write(number, &mut body);
        let head = &shared.heads[shared.operation.token(number, shared.heads.len())];
        let outcome = match &mut connection {
            Some(open) => match open.exchange(head, &body).await {
                Ok(response) if shared.operation.succeeded(&response) => Outcome::Served,
                Ok(response) => match failure(&response) {
                    code if SHED.contains(&code.as_str()) => Outcome::Shed,
                    code => Outcome::Failed(code),
                },
                Err(fault) => {
                    connection = None;
                    Outcome::Failed(fault.as_str().to_owned())
                }
            },
            None => Outcome::Failed("not connected".to_owned()),
        };
        let latency = clock::now().saturating_duration_since(shared.began + due);
        all.push(Ended { due, phase, latency, outcome });
    }
}
