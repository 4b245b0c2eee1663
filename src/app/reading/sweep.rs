//! The net under the live updates: once in a while the versions of all customers that are followed on this node are
//! looked up, so that what no wake-up told of is found: a commit of another process on the same database, or that the
//! database went back.

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

/// Between two sweeps.
const PERIOD: Duration = Duration::from_secs(2);
/// Customers looked up in one statement.
const CHUNK: usize = 1_000;

/// How long a sweep may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sweeps until it is told to stop.
pub async fn run(app: Arc<App>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            // Hints were missed, perhaps.
            () = app.resumed() => {}
        }
        // In a task of its own, so that a panic ends one sweep and not all of them. Where it is broken off, it costs the pool a
        // connection, which was not worth much.
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
        tracing::warn!(error = failure, "what changed elsewhere could not be looked up, will be tried again");
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
            // One that has no row yet is as a blank one.
            let (version, stamp) = versions.remove(customer).unwrap_or_default();
            app.live.found(customer, version, stamp);
        }
    }
    ::metrics::counter!(crate::metrics::LIVE_SWEEPS).increment(1);
    Ok(())
}
