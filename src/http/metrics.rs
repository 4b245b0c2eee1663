//! `/metrics`: the metrics of this process in the text format of Prometheus. [`crate::metrics`] defines their names.

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

/// The upper bounds of the buckets of histograms in seconds.
const SECONDS: [f64; 14] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The upper bounds of the buckets of histograms that count items or names.
const COUNTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
/// How often recorded samples are merged into their histograms, so that memory does not grow with the number of samples.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

static RECORDED: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts recording metrics in this process. Call this function once, before anything that is counted.
pub fn record() {
    let buckets = |builder: PrometheusBuilder, suffix: &str, bounds: &[f64]| {
        let failed = "there is a bound";
        builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds).expect(failed)
    };
    let builder = buckets(PrometheusBuilder::new(), "_seconds", &SECONDS);
    let builder = buckets(buckets(builder, "_items", &COUNTS), "_names", &COUNTS);
    // A second call fails, because a recorder is installed already. The first recorder stays.
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

/// Sets counters to 0 at the start. Otherwise the first failure would create a new series, in which Prometheus sees no
/// increase.
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
        metrics::WRITE_BATCH_ITEMS_SQUARED,
        metrics::WRITE_BUSY_MICROSECONDS,
        metrics::WRITE_BUSY_ITEM_MICROSECONDS,
        metrics::WRITE_REFUSED,
        metrics::AUDIT_CUSTOMERS,
        metrics::AUDIT_DIFFERENCES,
        metrics::CACHE_EVICTIONS,
        metrics::CACHE_DRIFT_CHECKS,
        metrics::CACHE_DRIFT,
        metrics::REDIS_BREAKER_OPENED,
        metrics::LIVE_SWEEPS,
    ] {
        counter!(name).increment(0);
    }
}

/// Responds with all metrics as they are now.
pub(super) async fn tell(State(app): State<Arc<App>>) -> Response {
    let Some(recorded) = RECORDED.get() else {
        return (StatusCode::NOT_FOUND, "this process records no metrics").into_response();
    };
    look(&app);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], recorded.render()).into_response()
}

/// Sets the gauges of current values, which are read only when the metrics are requested.
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
