//! This program among the others on its database, and the fence between versions of it.
//!
//! The database has a format, a number. Every batch, transition and look-up reads it with the campaign-set revision, in its own
//! transaction: a program that does not know the format fails there, commits nothing and stops. Each program says every few seconds
//! that it is there and which formats it knows. The database moves on to a newer format only when all that were there lately know
//! it, and no batch is under way meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use entity::{installation, node};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::app::App;
use crate::app::campaign::Change;
use crate::app::error::Error;
use crate::app::node::{FORMAT, check_format, zone_data};
use crate::engine::time::Instant;

/// Between two times that a program says that it is there.
const PERIOD: Duration = Duration::from_secs(10);
/// How long it may take to say so.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Who said so within this time, µs, is there.
const PRESENT_FOR: i64 = 60 * 1_000_000;
/// Who did not within this time, µs, is forgotten.
const REMEMBERED_FOR: i64 = 24 * 3_600 * 1_000_000;

impl App {
    /// Whether the database has moved on to a format that this program does not know.
    pub fn is_outdated(&self) -> bool {
        self.campaigns.outdated.is_cancelled()
    }

    /// How many versions of the time zone database are in use on this database: with more than one, nodes differ in when a day
    /// begins.
    pub fn zone_data_versions(&self) -> usize {
        self.node.zone_data_versions.load(Ordering::Relaxed)
    }

    /// Fails where this program must not run on the database.
    pub async fn check_format(&self) -> Result<(), Error> {
        self.campaigns.revision(self.database.read()).await.map(|_| ())
    }
}

/// Says every few seconds that this program is there, until the application stops. Stops it when it is outdated.
pub async fn run(app: Arc<App>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = app.campaigns.outdated.cancelled() => break,
            _ = ticks.tick() => {}
        }
        // In a task of its own, so that a panic ends one attempt and not all of them.
        let attempt = Arc::clone(&app);
        let attempt = AbortOnDropHandle::new(tokio::spawn(async move { appear(&attempt).await }));
        let failure = match timeout(TIMEOUT, attempt).await {
            Ok(Ok(Ok(()))) => continue,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(panic)) => panic.to_string(),
            Err(late) => late.to_string(),
        };
        tracing::warn!(
            error = failure,
            "the database could not be told that this program is there, will be tried again"
        );
    }
    tracing::error!("stopping: the database has moved on to a format that this program does not know");
    app.stopping.cancel();
}

/// Says once that this program is there, and looks who else is.
pub async fn appear(app: &App) -> Result<(), Error> {
    let tx = app.database.begin().await?;
    let now = app.clock.ask(&tx).await?;
    let stored = app.campaigns.noticed(format(&tx).await)?;
    let row = node::Model { id: app.node.id, format: FORMAT, zone_data: zone_data().to_owned(), last_seen: now.0 };
    let mut again = OnConflict::column(node::Column::Id);
    again.update_column(node::Column::LastSeen);
    node::Entity::insert(row.into_active_model().reset_all()).on_conflict(again).exec_without_returning(&tx).await?;
    node::Entity::delete_many().filter(node::Column::LastSeen.lt(now.minus(REMEMBERED_FOR).0)).exec(&tx).await?;
    let present = present(&tx, now).await?;
    tx.commit().await?;
    let versions: BTreeSet<&str> = present.iter().map(|(_, zone_data)| zone_data.as_str()).collect();
    app.node.zone_data_versions.store(versions.len(), Ordering::Relaxed);
    if stored < FORMAT && present.iter().all(|(known, _)| *known >= FORMAT) {
        Change::begin(app).await?.raise_format(FORMAT).await?;
        tracing::info!(format = FORMAT, "the database has moved on to the latest format that all programs on it know");
    }
    Ok(())
}

/// The database's format, if this program knows it.
async fn format(tx: &DatabaseTransaction) -> Result<i64, Error> {
    let stored: Option<i64> =
        installation::Entity::find().select_only().column(installation::Column::Format).into_tuple().one(tx).await?;
    let stored = stored.ok_or_else(|| Error::Internal("the database has no installation row".to_owned()))?;
    check_format(stored).map(|()| stored)
}

/// The format that each program knows that is there, and its zone data. One whose clock is far ahead is not.
async fn present(tx: &DatabaseTransaction, now: Instant) -> Result<Vec<(i64, String)>, Error> {
    let lately = node::Column::LastSeen.between(now.minus(PRESENT_FOR).0, now.plus(PRESENT_FOR).0);
    let select = node::Entity::find().select_only().columns([node::Column::Format, node::Column::ZoneData]);
    Ok(select.filter(lately).into_tuple().all(tx).await?)
}
