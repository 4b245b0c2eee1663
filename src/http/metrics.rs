//! `/metrics`: what operators watch, in Prometheus's text format. [`crate::metrics`] names it all.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::metrics::{counter, gauge};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::app::App;
use crate::metrics;

/// Upper bounds of what histograms of seconds count.
const SECONDS: [f64; 14] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// And those of numbers of things.
const COUNTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
/// How often what was recorded is put in order, so that it takes no more memory than its figures.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

static RECORDED: OnceLock<PrometheusHandle> = OnceLock::new();

/// From now on this process records: once, before anything is done that is to be counted.
pub fn record() {
    let buckets = |builder: PrometheusBuilder, suffix: &str, bounds: &[f64]| {
        let failed = "there is a bound";
        builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds).expect(failed)
    };
    let builder = buckets(PrometheusBuilder::new(), "_seconds", &SECONDS);
    let builder = buckets(buckets(builder, "_items", &COUNTS), "_names", &COUNTS);
    // Another recorder is there already where a program calls this twice; then that one goes on.
    if let Ok(handle) = builder.install_recorder() {
        let upkeep = handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_PERIOD).await;
                upkeep.run_upkeep();
            }
        });
        let _ = RECORDED.set(handle);
        begin();
    }
}

/// Counters that nothing has happened to are told from the start: the first failure is then an increase, and not a new series.
fn begin() {
    let zero = |name, label, values: &[&'static str]| {
        values.iter().for_each(|value| counter!(name, label => *value).increment(0));
    };
    zero(metrics::CACHE_READS, "tier", &["l1", "l2", "sql"]);
    zero(metrics::WRITE_BATCHES, "outcome", &["committed", "repeated", "split", "prepared", "failed"]);
    zero(metrics::REDIS_FAILURES, "kind", &["timeout", "connection", "reply", "garbage"]);
    zero(metrics::LIVE_UPDATES, "source", &["hub", "sql"]);
    zero(metrics::LIVE_HINTS, "direction", &["sent", "received", "dropped"]);
    for name in [
        metrics::WRITE_REFUSED,
        metrics::CACHE_EVICTIONS,
        metrics::CACHE_DRIFT_CHECKS,
        metrics::CACHE_DRIFT,
        metrics::REDIS_BREAKER_OPENED,
        metrics::LIVE_SWEEPS,
    ] {
        counter!(name).increment(0);
    }
}

/// All figures as they are now.
pub(super) async fn tell(State(app): State<Arc<App>>) -> Response {
    let Some(recorded) = RECORDED.get() else {
        return (StatusCode::NOT_FOUND, "this process records no metrics").into_response();
    };
    look(&app);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], recorded.render()).into_response()
}

/// What is as it is, and is told only when it is asked for.
#[expect(clippy::cast_precision_loss, reason = "figures for people, exact up to 2^53")]
fn look(app: &App) {
    let (items, bytes) = app.recorder.queued();
    gauge!(metrics::WRITE_QUEUE_ITEMS).set(items as f64);
    gauge!(metrics::WRITE_QUEUE_BYTES).set(bytes as f64);
    let (entries, bytes) = app.snapshots().cache().size();
    gauge!(metrics::CACHE_ENTRIES).set(entries as f64);
    gauge!(metrics::CACHE_BYTES).set(bytes as f64);
    if let Some(redis) = app.snapshots().cache().shared() {
        gauge!(metrics::REDIS_UP).set(f64::from(u8::from(redis.is_up())));
    }
    if let Some(skew) = app.clock.skew() {
        gauge!(metrics::CLOCK_SKEW_SECONDS).set(skew as f64 / 1e6);
    }
    gauge!(metrics::ZONE_DATA_VERSIONS).set(app.zone_data_versions() as f64);
    gauge!(metrics::LIVE_SUBSCRIBERS).set(app.live.subscribers() as f64);
    let (idle, used) = app.database.connections();
    gauge!(metrics::DATABASE_MAX_CONNECTIONS).set(app.database.max_connections() as f64);
    gauge!(metrics::DATABASE_CONNECTIONS, "state" => "idle").set(idle as f64);
    gauge!(metrics::DATABASE_CONNECTIONS, "state" => "used").set(used as f64);
    gauge!(metrics::DATABASE_WRITABLE).set(f64::from(u8::from(app.database.writes().obstacle().is_none())));
    counter!(metrics::DATABASE_STATEMENTS).absolute(app.database.statements());
}
