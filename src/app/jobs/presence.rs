//! Announces this program to the others on its database, and keeps outdated programs from writing.
//!
//! The database has a format, which is a number. Every batch, transition and look-up reads the format together with the revision
//! of the campaign set, in its own transaction. A program that does not support the format fails there, commits nothing and
//! stops. Every few seconds, each program announces itself and the latest format that it supports. The database gets a newer
//! format only when all programs that were seen lately support it, and while no batch is running.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use entity::{installation, node};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, IntoActiveModel,
    QueryFilter, QuerySelect,
};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::app::App;
use crate::app::campaign::Change;
use crate::app::error::Error;
use crate::app::node::{FORMAT, check_format, zone_data};
use crate::engine::time::Instant;

/// How often a program announces itself.
const PERIOD: Duration = Duration::from_secs(10);
/// How long an announcement may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A program counts as present for this long after an announcement, in µs.
const PRESENT_FOR: i64 = 60 * 1_000_000;

impl App {
    /// Whether the database has a newer format than this program supports.
    pub fn is_outdated(&self) -> bool {
        self.campaigns.outdated.is_cancelled()
    }

    /// Returns how many versions of the time zone data the present programs use. If there are several, nodes may disagree about
    /// when a day begins.
    pub fn zone_data_versions(&self) -> usize {
        self.node.zone_data_versions.load(Ordering::Relaxed)
    }

    /// Fails if this program does not support the format of the database.
    pub async fn check_format(&self) -> Result<(), Error> {
        self.campaigns.revision(self.database.read()).await.map(|_| ())
    }
}

/// Announces this program every few seconds until the application stops. Stops the application if this program is outdated.
pub async fn run(app: Arc<App>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = app.campaigns.outdated.cancelled() => break,
            _ = ticks.tick() => {}
        }
        // A task of its own, so that a panic ends one announcement only.
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
            "this program could not announce itself to the others on the database, and retries"
        );
    }
    tracing::error!("stopping: the database has a newer format than this program supports");
    app.stopping.cancel();
}

/// Announces this program once. Raises the format of the database if all present programs support a newer one.
pub async fn appear(app: &App) -> Result<(), Error> {
    let tx = app.database.begin().await?;
    let now = app.clock.ask(&tx).await?;
    let stored = app.campaigns.noticed(format(&tx).await)?;
    let row = node::Model { id: app.node.id, format: FORMAT, zone_data: zone_data().to_owned(), last_seen: now.0 };
    let mut again = OnConflict::column(node::Column::Id);
    again.update_column(node::Column::LastSeen);
    node::Entity::insert(row.into_active_model().reset_all()).on_conflict(again).exec_without_returning(&tx).await?;
    let present = present(&tx, now).await?;
    tx.commit().await?;
    let versions: BTreeSet<&str> = present.iter().map(|present| present.zone_data.as_str()).collect();
    app.node.zone_data_versions.store(versions.len(), Ordering::Relaxed);
    if stored < FORMAT && present.iter().all(|present| present.format >= FORMAT) {
        Change::begin(app).await?.raise_format(FORMAT).await?;
        tracing::info!(format = FORMAT, "raised the format of the database: all programs on it support the new one");
    }
    Ok(())
}

/// Reads the format of the database. Fails if this program does not support it.
pub(super) async fn format(tx: &DatabaseTransaction) -> Result<i64, Error> {
    let stored: Option<i64> =
        installation::Entity::find().select_only().column(installation::Column::Format).into_tuple().one(tx).await?;
    let stored = stored.ok_or_else(|| Error::Internal("the database has no installation row".to_owned()))?;
    check_format(stored).map(|()| stored)
}

/// A program that runs on the database.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Present {
    /// The latest format that it supports.
    pub format: i64,
    pub zone_data: String,
}

/// Returns the present programs. Ignores announcements that are far in the future.
pub async fn present(db: &impl ConnectionTrait, now: Instant) -> Result<Vec<Present>, Error> {
    let lately = node::Column::LastSeen.between(now.minus(PRESENT_FOR).0, now.plus(PRESENT_FOR).0);
    let select = node::Entity::find().select_only().columns([node::Column::Format, node::Column::ZoneData]);
    Ok(select.filter(lately).into_model().all(db).await?)
}
