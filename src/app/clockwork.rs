//! What waits for the clock, while a server runs: settlement once a minute, backfills when an activation wants one.
//!
//! Both go on at the next start where they stopped, and both are safe on several nodes at once.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{App, backfill, settlement};

/// Between two looks at what is due.
const PERIOD: Duration = Duration::from_secs(60);

/// Runs until it is told to stop; what is under way then ends with its current chunk.
pub async fn run(app: Arc<App>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = backfill::wanted(&app) => {}
        }
        let due = async {
            report("backfill", backfill::run(&app).await);
            report("settlement", settlement::run(&app).await);
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = due => {}
        }
    }
}

/// A failure is logged and tried again at the next tick.
fn report(work: &str, result: Result<u64, super::error::Error>) {
    match result {
        Ok(0) => {}
        Ok(count) => tracing::info!(work, count, "done"),
        Err(error) => tracing::error!(work, error = %error, "failed, will be tried again"),
    }
}
