//! The net under the live updates: once in a while the versions of all customers that are followed on this node are
//! looked up, so that what no wake-up told of (a commit of another process on the same database) is found.

use std::sync::Arc;
use std::time::Duration;

use entity::customer;
use sea_orm::{EntityTrait, QueryFilter, QuerySelect};
use tokio_util::sync::CancellationToken;

use super::App;
use super::error::Error;
use super::rows::any;

/// Between two sweeps.
const PERIOD: Duration = Duration::from_secs(2);
/// Customers looked up in one statement.
const CHUNK: usize = 1_000;

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
        if let Err(error) = sweep(&app).await {
            tracing::warn!(error = %error, "what changed elsewhere could not be looked up, will be tried again");
        }
    }
}

async fn sweep(app: &App) -> Result<(), Error> {
    ::metrics::counter!(crate::metrics::LIVE_SWEEPS).increment(1);
    for followed in app.live.topics().chunks(CHUNK) {
        let named = any(app.database.backend(), customer::Column::ExternalId, followed.iter().cloned());
        let versions: Vec<(String, i64)> = customer::Entity::find()
            .select_only()
            .columns([customer::Column::ExternalId, customer::Column::Version])
            .filter(named)
            .into_tuple()
            .all(app.database.read())
            .await?;
        for (customer, version) in versions {
            app.live.wake(&customer, version, || None);
        }
    }
    Ok(())
}
