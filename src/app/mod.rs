//! Use cases over the database: lock and load → the engine decides → persist → commit.
//!
//! Points change in [`recorder`] alone, campaigns in [`campaign`] alone. A use case that needs a right takes it as a
//! value ([`viewer`]). SQL lives here and nowhere else.

pub mod adjustment;
pub mod allowance;
pub mod audit;
pub mod award;
pub mod campaign;
pub mod campaigns;
pub mod clock;
pub mod customer;
pub mod database;
pub mod error;
pub mod failure;
pub mod jobs;
pub mod ledger;
pub mod model;
pub mod node;
pub mod probe;
pub mod purchase;
pub mod reading;
pub mod recorder;
pub mod refund;
pub mod rows;
pub mod share;
pub mod stats;
pub mod stored;
pub mod viewer;
pub mod writes;

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use self::campaigns::{CampaignSet, Campaigns};
use self::clock::{Clock, Steadiness};
use self::database::Database;
use self::error::Error;
use self::node::Node;
use self::recorder::Recorder;
use crate::app::reading::recent_stats::RecentStats;
use crate::app::reading::snapshot::Snapshots;
use crate::app::recorder::context::{Commit, Context};
use crate::cache::redis::Redis;
use crate::config::Config;
use crate::live::Hub;
use crate::live::hints::{Hint, Hints};

/// Changes with what nodes tell each other of a commit: nodes of other formats are not heard, and found by the sweep.
const COMMIT_FORMAT: u32 = 2;
/// Subscribers that read the ledger at once: after a restart all of them come together.
const MAX_CATCHING_UP: usize = 4;
/// Updates read from the ledger that are answered at once.
const MAX_CATCH_UP_ANSWERS: usize = 16;

/// The application: one a process.
pub struct App {
    /// Where everything is stored.
    pub database: Database,
    /// What time it is.
    pub clock: Clock,
    /// The one write path.
    pub recorder: Recorder,
    /// Who follows whom, by external id.
    pub live: Hub<Commit>,
    /// Is cancelled when the server stops: what is followed live then ends.
    pub stopping: CancellationToken,
    catching_up: Semaphore,
    catch_up_answers: Arc<Semaphore>,
    recent_stats: RecentStats,
    campaigns: Arc<Campaigns>,
    snapshots: Snapshots,
    /// To and from the other nodes; none: without Redis the sweep finds what they commit.
    hints: Option<Arc<Hints>>,
    /// Somebody on this node asked for a job.
    job_wanted: Arc<Notify>,
    steadiness: Steadiness,
    node: Node,
}

impl App {
    /// Starts the writers on a migrated database.
    pub async fn start(database: Database, clock: Clock, config: &Config) -> Result<Arc<Self>, Error> {
        let Config { writer, cache, redis, .. } = config;
        let campaigns = Arc::new(Campaigns::default());
        let live = Hub::default();
        let job_wanted = Arc::new(Notify::new());
        let (shared, hints) = match &redis.url {
            Some(url) => {
                let hints = hints(url.expose(), &database.identity().await?, live.clone())?;
                (Some(Redis::open(url.expose(), redis.timeout)?), Some(Arc::new(hints)))
            }
            None => (None, None),
        };
        let context = Context {
            database: database.clone(),
            campaigns: Arc::clone(&campaigns),
            clock: clock.clone(),
            live: live.clone(),
            hints: hints.clone(),
            fold_purchases: writer.fold_purchases,
            job_wanted: Arc::clone(&job_wanted),
        };
        let recorder = Recorder::start(&context, writer);
        let snapshots = Snapshots::start(&database, &clock, &campaigns, cache, writer.writers, shared);
        Ok(Arc::new(Self {
            database,
            clock,
            recorder,
            live,
            stopping: CancellationToken::new(),
            catching_up: Semaphore::new(MAX_CATCHING_UP),
            catch_up_answers: Arc::new(Semaphore::new(MAX_CATCH_UP_ANSWERS)),
            recent_stats: RecentStats::default(),
            campaigns,
            snapshots,
            job_wanted,
            steadiness: Steadiness::default(),
            node: Node::default(),
            hints,
        }))
    }

    /// When hints of other nodes are heard again that were not for some time.
    async fn resumed(&self) {
        match &self.hints {
            Some(hints) => hints.resumed.notified().await,
            None => std::future::pending().await,
        }
    }

    /// All campaigns as they are now: never older than what was committed before the call.
    pub async fn campaigns(&self) -> Result<Arc<CampaignSet>, Error> {
        self.campaigns.current(self.database.read()).await
    }

    /// Customers as they are now, through the cache.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Commits and answers what is queued, then closes the database.
    pub async fn stop(&self) -> Result<(), Error> {
        self.recorder.drain().await;
        Ok(self.database.clone().close().await?)
    }
}

/// What this node and the others on its database tell each other.
fn hints(url: &str, database: &str, live: Hub<Commit>) -> Result<Hints, Error> {
    let hear = move |hint: Hint<'_>| {
        let news = || serde_json::from_str(hint.news?.get()).ok();
        live.wake(&hint.topic, hint.version, news);
    };
    Ok(Hints::start(url, &format!("windfall:{database}:commits:{COMMIT_FORMAT}"), hear)?)
}
