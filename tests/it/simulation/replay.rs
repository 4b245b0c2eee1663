//! The model against a real run, whose arrivals and batches are in `recorded.json`. `UPDATE=1` records another one.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant as Monotonic;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use windfall::app::recorder::pace::Sums;
use windfall::engine::time::Instant;
use windfall::ingest::simulation::costs::{Costs, Fit};
use windfall::ingest::simulation::figures::percentile;
use windfall::ingest::simulation::model::{Writing, run};
use windfall::ingest::simulation::pattern::{Pattern, Shape};
use windfall::ingest::simulation::setting::{Conditions, Setting};
use windfall::ingest::simulation::trace::{Sent, Trace};

use crate::ingest::{Reading, purchase};
use crate::support::graphql::GraphqlApp;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/simulation/recorded.json");
const SETTING: Setting = Setting { partitions: 1, batch: 256, pool: 1, nodes: 1 };

/// A partition that was read, with times in microseconds.
#[derive(Serialize, Deserialize)]
struct Recorded {
    /// How long after the one before it each message was handed to the partition.
    gaps: Vec<u64>,
    /// The items of each batch, in the order of the messages, and when it began and ended.
    batches: Vec<(usize, u64, u64)>,
}

impl Recorded {
    fn read() -> Self {
        serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap()
    }

    /// When each message arrived, since the beginning.
    fn arrivals(&self) -> Vec<u64> {
        let mut at = 0;
        let arrival = |gap: &u64| {
            at += gap;
            at
        };
        self.gaps.iter().map(arrival).collect()
    }

    fn trace(&self) -> Trace {
        let sent = |at: &u64| Sent { at: Instant(i64::try_from(*at).unwrap()), bytes: 150, key: Some(0) };
        Trace::new(self.arrivals().iter().map(sent).collect()).unwrap()
    }

    /// The items of each batch, and how long it kept the writer busy.
    fn batches(&self) -> Vec<(usize, u64)> {
        let mut before = 0;
        let busy = |(items, began, ended): &(usize, u64, u64)| {
            let busy = ended.saturating_sub(before.max(*began));
            before = before.max(*ended);
            (*items, busy)
        };
        self.batches.iter().map(busy).collect()
    }

    /// How long each message took, of all the time in which there was something to do. A batch took the time since its first message
    /// arrived, or since the batch before it ended. So the time of parsing and of storing positions is a part of it.
    fn parts(&self) -> Vec<u64> {
        let (arrivals, mut parts, mut before) = (self.arrivals(), Vec::new(), 0);
        for (items, _, ended) in &self.batches {
            let took = ended.saturating_sub(before.max(arrivals[parts.len()]));
            before = before.max(*ended);
            parts.extend(std::iter::repeat_n(took / *items as u64, *items));
        }
        parts
    }

    /// When each message was recorded, since the first one arrived.
    fn recorded_at(&self) -> Vec<u64> {
        let each = self.batches.iter().flat_map(|(items, _, ended)| std::iter::repeat_n(*ended, *items));
        each.map(|ended| ended - self.gaps[0]).collect()
    }

    fn costs(&self) -> Costs {
        let mut sums = Sums::default();
        for (items, micros) in self.batches() {
            sums.add(items as u64, micros);
        }
        let (costs, fit) = Costs::fit(&sums).unwrap();
        assert_eq!(fit, Fit::Both, "batches of different sizes");
        costs
    }
}

/// Predicts the run. Returns the lags, sorted: those that were predicted, and the real ones.
fn lags(recorded: &Recorded, costs: Costs, writing: Writing<'_>) -> (Vec<u64>, Vec<u64>) {
    let trace = recorded.trace();
    let conditions = Conditions { costs, buffer_bytes: 16 << 20, poison: 0.0, outage: None };
    let ran = run(&trace, SETTING, &conditions, writing);
    let sorted = |recorded_at: &[u64]| {
        let lags = trace.arrivals().iter().zip(recorded_at).map(|(arrival, at)| at - arrival.at);
        let mut lags: Vec<u64> = lags.collect();
        lags.sort_unstable();
        lags
    };
    (sorted(&ran.recorded_at), sorted(&recorded.recorded_at()))
}

/// Asserts that a predicted lag is right within a part of the real one, and 10 ms: what the model leaves out takes some of them.
fn assert_near(predicted: &[u64], real: &[u64], percent: usize, within: f64) {
    let (predicted, real) = (percentile(predicted, percent), percentile(real, percent));
    let [told, was] = [predicted, real].map(|micros| Duration::from_micros(micros).as_secs_f64());
    assert!((told - was).abs() <= within * was + 0.010, "p{percent}: {told} s, and it was {was} s");
}

/// With the times of the real run, the lags are the real ones: the model takes, writes and waits as the program does.
#[test]
fn a_replay_of_recorded_times_has_the_lags_of_the_real_run() {
    let recorded = Recorded::read();
    let parts = recorded.parts();
    let nothing_else = Costs { batch: 0.0, item: 0.0 };
    let (replayed, real) = lags(&recorded, nothing_else, Writing::Recorded(&parts));
    assert_eq!((replayed.len(), real.len()), (recorded.gaps.len(), recorded.gaps.len()));
    for percent in [10, 25, 50, 75, 90, 99, 100] {
        assert_near(&replayed, &real, percent, 0.10);
    }
}

/// With nothing but the two costs, the lags are near the real ones.
#[test]
fn a_prediction_from_costs_is_near_the_real_run() {
    let recorded = Recorded::read();
    let (predicted, real) = lags(&recorded, recorded.costs(), Writing::Fitted);
    for percent in [50, 90, 99, 100] {
        assert_near(&predicted, &real, percent, 0.20);
    }
}

/// The file has what a run has: each message was written once, and some waited.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_a_whole_run() {
    if std::env::var_os("UPDATE").is_some() {
        let recorded = record().await;
        std::fs::write(FILE, serde_json::to_string(&recorded).unwrap() + "\n").unwrap();
    }
    let recorded = Recorded::read();
    assert_eq!(recorded.batches.iter().map(|(items, ..)| items).sum::<usize>(), recorded.gaps.len());
    assert!(recorded.batches.iter().all(|(_, began, ended)| began < ended));
    let largest = recorded.batches.iter().map(|(items, ..)| *items).max().unwrap();
    assert!(largest > 100 && recorded.batches.len() > 50, "{largest} {}", recorded.batches.len());
}

/// Reads a sale of a few seconds as a partition does.
async fn record() -> Recorded {
    let app = GraphqlApp::sqlite().await;
    app.campaign(json!({ "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 } })).await;
    let pattern = Pattern {
        shape: Shape::FlashSale,
        rate: 60.0,
        peak: 60.0,
        length: 6_000_000,
        customers: 300,
        skew: 0.5,
        bytes: 150,
    };
    let planned = pattern.trace().unwrap();
    let (began, batches) = (Monotonic::now(), Arc::<Mutex<Vec<(usize, u64, u64)>>>::default());
    let watch = Watch { began, batches: Arc::clone(&batches) };
    // For all threads of this process, in which no other test should run then.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(watch)).unwrap();
    let reading = Reading::begin(&app.app, 0, 0);
    let (mut gaps, mut before) = (Vec::new(), 0);
    for (number, arrival) in planned.arrivals().iter().enumerate() {
        tokio::time::sleep_until(began + Duration::from_micros(arrival.at)).await;
        let now = passed(began);
        gaps.push(now - before);
        before = now;
        reading.send(purchase(&format!("p{number}"), &format!("c{}", arrival.key % 300)));
    }
    reading.end().await;
    let batches = batches.lock().clone();
    Recorded { gaps, batches }
}

fn passed(since: Monotonic) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap()
}

/// Notes the batches of the recorder, each of which is a span. A span may stay open because of what the database's thread does, so a batch
/// ends when its task leaves the span for the last time.
struct Watch {
    began: Monotonic,
    batches: Arc<Mutex<Vec<(usize, u64, u64)>>>,
}

/// The number of a batch.
struct Number(usize);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Watch {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().name() == "batch" {
            let mut items = Items(0);
            attributes.record(&mut items);
            let mut batches = self.batches.lock();
            context.span(id).unwrap().extensions_mut().insert(Number(batches.len()));
            batches.push((items.0, passed(self.began), 0));
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if let Some(Number(number)) = context.span(id).unwrap().extensions().get() {
            self.batches.lock()[*number].2 = passed(self.began);
        }
    }
}

struct Items(usize);

impl Visit for Items {
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "items" {
            self.0 = usize::try_from(value).unwrap();
        }
    }
}
