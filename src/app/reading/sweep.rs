//! The fallback of the live updates. A sweep periodically looks up the versions of all customers that are followed on this
//! node. So it finds changes that no wake-up announced: commits of another process on the same database whose hint was
//! lost or never sent, and the restore of an older state of the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use entity::customer;
use sea_orm::{EntityTrait, QueryFilter, QuerySelect};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::app::App;
use crate::app::error::Error;
use crate::app::rows::any;

/// The time between two sweeps.
const PERIOD: Duration = Duration::from_secs(2);
/// The maximum number of customers that one statement looks up.
const CHUNK: usize = 1_000;

/// The maximum duration of a sweep.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sweeps until `stop` is cancelled.
pub async fn run(app: Arc<App>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            // Hints may have been missed while the connection to Redis was down.
            () = app.resumed() => {}
        }
        // A separate task, so that a panic ends only this sweep. Aborting the task in the middle of a statement costs the pool
        // one connection. That is acceptable, because a statement that takes this long probably hangs on a dead connection.
        let sweeping = Arc::clone(&app);
        let swept = AbortOnDropHandle::new(tokio::spawn(async move { sweep(&sweeping).await }));
        let failure = tokio::select! {
            () = stop.cancelled() => return,
            swept = timeout(TIMEOUT, swept) => match swept {
                Ok(Ok(Ok(()))) => continue,
                Ok(Ok(Err(error))) => error.to_string(),
                Ok(Err(panic)) => panic.to_string(),
                Err(late) => late.to_string(),
            },
        };
        tracing::warn!(error = failure, "the followed customers could not be looked up, the sweep is retried");
    }
}

async fn sweep(app: &App) -> Result<(), Error> {
    for followed in app.live.topics().chunks(CHUNK) {
        let named = any(app.database.backend(), customer::Column::ExternalId, followed.iter().cloned());
        let versions: Vec<(String, i64, i64)> = customer::Entity::find()
            .select_only()
            .columns([customer::Column::ExternalId, customer::Column::Version, customer::Column::Stamp])
            .filter(named)
            .into_tuple()
            .all(app.database.read())
            .await?;
        let mut versions: HashMap<String, (i64, i64)> =
            versions.into_iter().map(|(customer, version, stamp)| (customer, (version, stamp))).collect();
        for customer in followed {
            // A customer without a row has version 0 and stamp 0, like a blank customer.
            let (version, stamp) = versions.remove(customer).unwrap_or_default();
            app.live.found(customer, version, stamp);
        }
    }
    ::metrics::counter!(crate::metrics::LIVE_SWEEPS).increment(1);
    Ok(())
}
