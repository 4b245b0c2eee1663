//! Use cases over the database. A use case locks and loads, lets the engine decide, writes and commits.
//!
//! Only [`recorder`] changes points. Only [`campaign`] changes campaigns, with one exception: [`jobs::evaluation`] stores the
//! progress of a backfill. A use case that needs a right takes the right as a value ([`viewer`]). All SQL of the server is in
//! this module.

pub mod adjustment;
pub mod allowance;
pub mod audit;
pub mod award;
pub mod campaign;
pub mod clock;
pub mod connections;
pub mod cursor;
pub mod customer;
pub mod database;
pub mod dead_letter;
pub mod doctor;
pub mod erasure;
pub mod error;
pub mod event;
pub mod export;
pub mod failure;
pub mod global_id;
pub mod hindrance;
pub mod ingest_position;
pub mod jobs;
pub mod ledger;
mod login;
pub mod message;
mod migrating;
pub mod model;
pub mod node;
pub mod opaque;
pub mod origin;
pub mod outbox;
pub mod probe;
pub mod purchase;
pub mod reading;
pub mod recorder;
pub mod redemption;
pub mod refund;
pub mod replay;
pub mod reward;
pub mod rows;
pub mod share;
pub mod sink;
pub mod stats;
pub mod stored;
pub mod trail;
pub mod viewer;
pub mod waiting_fact;
mod woken;
mod write_ahead_log;
pub mod writes;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use self::campaign::set::{CampaignSet, Campaigns};
use self::clock::{Clock, Steadiness};
use self::database::Database;
use self::error::Error;
use self::hindrance::Hindrance;
use self::node::Node;
use self::recorder::Recorder;
use self::replay::Replay;
use self::sink::Sink;
use self::trail::Attempt;
use self::woken::Woken;
use crate::app::reading::recent_stats::RecentStats;
use crate::app::reading::snapshot::Snapshots;
use crate::app::recorder::context::{Commit, Context};
use crate::cache::redis::Redis;
use crate::config::{self, Config};
use crate::live::Hub;
use crate::live::hints::{Hint, Hints};
use crate::redis_servers::RedisServers;

/// The format of the hints that nodes send each other. It changes whenever [`Commit`] changes. Nodes ignore hints of other
/// formats; the sweep finds those commits.
const COMMIT_FORMAT: u32 = 4;
/// The number of subscribers that may read the ledger at a time. After a restart, all of them reconnect together.
const MAX_CATCHING_UP: usize = 4;
/// The number of updates that were read from the ledger and may be resolved at a time.
const MAX_CATCH_UP_ANSWERS: usize = 16;

/// The application. There is one per process.
pub struct App {
    pub database: Database,
    pub clock: Clock,
    /// The only way to change points.
    pub recorder: Recorder,
    /// The subscribers on this node, by the external id of the customer that they follow.
    pub live: Hub<Commit>,
    /// Cancelled when the server stops. Subscriptions then end.
    pub stopping: CancellationToken,
    catching_up: Semaphore,
    catch_up_answers: Arc<Semaphore>,
    recent_stats: RecentStats,
    campaigns: Arc<Campaigns>,
    snapshots: Snapshots,
    /// Wake-ups to and from the other nodes. `None` without Redis: then the sweep finds the commits of other nodes.
    hints: Option<Arc<Hints>>,
    /// Notified when this node requests a job.
    job_wanted: Arc<Notify>,
    job_settings: config::Jobs,
    /// The purchases whose waiting refunds are to be tried.
    woken: Arc<Woken>,
    /// Notified when this node has written events to the outbox.
    events_kept: Arc<Notify>,
    waiting_facts: AtomicU64,
    /// What hinders the ingestion of topics.
    pub ingestion: Hindrance,
    /// What hinders the publication of events.
    pub publishing: Hindrance,
    /// Where events go. Set once, when the program starts, if they go anywhere.
    pub sink: OnceLock<Sink>,
    /// How dead letters are replayed. Set once, when the program starts.
    pub replay: OnceLock<Replay>,
    steadiness: Steadiness,
    node: Node,
}

impl App {
    /// Starts the writers. The database must be migrated already.
    pub async fn start(database: Database, clock: Clock, config: &Config) -> Result<Arc<Self>, Error> {
        let Config { writer, cache, redis, .. } = config;
        let campaigns = Arc::new(Campaigns::default());
        let live = Hub::default();
        let job_wanted = Arc::new(Notify::new());
        let (woken, events_kept) = (Arc::new(Woken::default()), Arc::new(Notify::new()));
        let (shared, hints) = match &redis.servers {
            Some(servers) => {
                let hints = hints(servers.clone(), &database.identity().await?, live.clone());
                (Some(Redis::open(servers.clone(), redis.timeout)), Some(Arc::new(hints)))
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
            events_kept: Arc::clone(&events_kept),
            job_turns: Arc::default(),
            woken: Arc::clone(&woken),
        };
        let node = Node::default();
        let recorder = Recorder::start(&context, writer, node.id);
        let snapshots = Snapshots::start(&database, &clock, &campaigns, cache, shared);
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
            job_settings: config.jobs.clone(),
            woken,
            events_kept,
            waiting_facts: AtomicU64::new(0),
            ingestion: Hindrance::default(),
            publishing: Hindrance::default(),
            sink: OnceLock::new(),
            replay: OnceLock::new(),
            steadiness: Steadiness::default(),
            node,
            hints,
        }))
    }

    /// Returns once this node has reconnected to Redis and may have missed hints. Never returns without Redis.
    async fn resumed(&self) {
        match &self.hints {
            Some(hints) => hints.resumed.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Returns the current campaigns. They include everything that was committed before the call.
    pub async fn campaigns(&self) -> Result<Arc<CampaignSet>, Error> {
        self.campaigns.current(self.database.read()).await
    }

    /// Makes refunds that wait for these purchases be tried.
    pub fn woken(&self, purchases: impl Iterator<Item = String>) {
        self.woken.wake(purchases);
    }

    /// Returns the number of refunds that wait, as it was counted last.
    pub fn waiting_facts(&self) -> u64 {
        self.waiting_facts.load(Ordering::Relaxed)
    }

    /// Makes a change. If it is refused, adds the attempt to the trail.
    async fn conclude<T>(
        &self,
        attempt: &Attempt<'_>,
        change: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let changed = change.await;
        attempt.end(self.database.write(), self.clock.now(), changed).await
    }

    /// The cache of customers. It returns current snapshots only.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Commits all queued facts and returns their results to the callers. Then closes the database.
    pub async fn stop(&self) -> Result<(), Error> {
        self.recorder.drain().await;
        Ok(self.database.clone().close().await?)
    }
}

/// Connects the hints of the other nodes on this database to the subscribers of this node.
fn hints(servers: RedisServers, database: &str, live: Hub<Commit>) -> Hints {
    let hear = move |hint: Hint<'_>| {
        let news = || rmp_serde::from_slice(hint.news?).ok();
        live.wake(&hint.topic, hint.version, news);
    };
    Hints::start(servers, &format!("windfall:{database}:commits:{COMMIT_FORMAT}"), hear)
}
