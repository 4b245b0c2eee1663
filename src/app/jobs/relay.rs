//! The relay: publishes the events of the outbox. Each bucket is a job that has no end. The node that holds its lease publishes the
//! bucket, and any number of nodes may compete for them.
//!
//! An event is published at least once: it is marked after the brokers have it, and a node that dies in between leaves it to the next
//! one. A node that was frozen may publish events late, after another has taken over. Consumers ignore a version that they have passed, so
//! nothing is done about either.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ::metrics::counter;
use entity::{JobKind, JobState, job, outbox};
use sea_orm::{ActiveEnum, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, Statement};
use tokio::time::{Instant as Monotonic, sleep};
use tokio_util::sync::CancellationToken;

use super::queue::{self, End, RELAY_LEASE};
use crate::app::App;
use crate::app::campaign;
use crate::app::error::Error;
use crate::app::outbox::{BUCKETS, Search, clear, mark, next, trim};
use crate::app::sink::{Published, Sink};
use crate::metrics;

/// How often an idle relay looks for events of other programs. A commit of this node wakes it earlier.
const POLL: Duration = Duration::from_millis(500);
/// How often leases are renewed and claimed.
const RENEWAL: Duration = Duration::from_secs(RELAY_LEASE.as_secs() / 3);
/// The pause after events could not be read, published or marked.
const PAUSE: Duration = Duration::from_secs(1);
/// How often segments without events are emptied.
const TRIM_PERIOD: Duration = Duration::from_secs(60);
/// Events are searched from the last one that was published at least this long ago. So transactions that are open for less are found at
/// once, and a search need not pass all that was published.
const LATE: Duration = Duration::from_secs(10);
/// How often all events are searched, for those of transactions that were open for longer.
const SEARCH_ALL_PERIOD: Duration = Duration::from_secs(30);

/// Makes all programs on the database write events from now on, and publishes them until `stop` is cancelled. Does nothing if no events are
/// to be published.
pub async fn run(app: Arc<App>, stop: CancellationToken) {
    let Some(sink) = app.sink.get() else { return };
    while let Err(error) = begin(&app).await {
        tracing::warn!(error = %error, "events cannot be published yet");
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(PAUSE) => {}
        }
    }
    let mut relay = Relay {
        app: &app,
        sink,
        stop: &stop,
        held: BTreeMap::new(),
        renew_at: Monotonic::now(),
        trim_at: Monotonic::now(),
    };
    while !stop.is_cancelled() {
        let step = relay.step().await;
        let problem = match &step {
            Ok(Step::Failed(problem)) => Some(problem.clone()),
            Ok(Step::Published | Step::Idle) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = &problem {
            counter!(metrics::EVENT_FAILURES).increment(1);
            tracing::warn!(problem, "events could not be published: they are tried again");
        }
        let (failed, idle) = (problem.is_some(), matches!(step, Ok(Step::Idle)));
        if failed || matches!(step, Ok(Step::Published)) {
            app.publishing.note(problem);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(PAUSE), if failed => {}
            () = sleep(POLL), if idle => {}
            () = app.events_kept.notified(), if idle => {}
            () = std::future::ready(()), if !failed && !idle => {}
        }
    }
    relay.release().await;
}

/// Creates the jobs, unless they exist.
async fn begin(app: &App) -> Result<(), Error> {
    campaign::keep_events(app, true).await?;
    let _turn = app.recorder.job_turn().await;
    let now = app.clock.now().0;
    let (backend, kind) = (app.database.backend(), JobKind::Outbox.to_value());
    for bucket in 0..BUCKETS {
        let sql = "INSERT INTO job (kind, unique_key, state, requests, attempts, run_at, created_at) \
            VALUES ($1, $2, 'waiting', 1, 0, $3, $3) ON CONFLICT (unique_key) DO NOTHING";
        let values = [kind.clone().into(), unique_key(bucket).into(), now.into()];
        app.database.write().execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    }
    Ok(())
}

/// Makes programs write no more events, and deletes those that are kept, with the jobs. Returns the number of events that are gone, or
/// `None` if a node publishes events now.
pub async fn give_up(app: &App) -> Result<Option<u64>, Error> {
    let of_relays = || job::Column::Kind.eq(JobKind::Outbox);
    let held =
        of_relays().and(job::Column::State.eq(JobState::Running)).and(job::Column::LeasedUntil.gt(app.clock.now().0));
    if job::Entity::find().filter(held).one(app.database.read()).await?.is_some() {
        return Ok(None);
    }
    campaign::keep_events(app, false).await?;
    job::Entity::delete_many().filter(of_relays()).exec(app.database.write()).await?;
    clear(&app.database).await.map(Some)
}

fn unique_key(bucket: i32) -> String {
    format!("{}:{bucket}", JobKind::Outbox.to_value())
}

/// The bucket of a job.
fn bucket(job: &job::Model) -> Option<i32> {
    job.unique_key.split_once(':')?.1.parse().ok()
}

/// The buckets that this node publishes.
struct Relay<'a> {
    app: &'a App,
    sink: &'a Sink,
    stop: &'a CancellationToken,
    held: BTreeMap<i32, Held>,
    renew_at: Monotonic,
    trim_at: Monotonic,
}

/// What a relay has done.
enum Step {
    /// Events were published, and there may be more.
    Published,
    /// There is nothing to publish, or this node must not publish it any more.
    Idle,
    /// Events were not published, for this reason.
    Failed(String),
}

struct Held {
    job: job::Model,
    place: Place,
}

/// Where the events of a bucket are searched.
struct Place {
    /// The id after which events are searched.
    from: i64,
    /// The greatest id that was published, as of the last turn.
    published: i64,
    turned_at: Monotonic,
    all_at: Monotonic,
}

impl Place {
    fn new(now: Monotonic) -> Self {
        Self { from: 0, published: 0, turned_at: now, all_at: now }
    }

    /// Returns the id after which events are searched now.
    fn search(&mut self, now: Monotonic) -> i64 {
        if now >= self.all_at {
            self.all_at = now + SEARCH_ALL_PERIOD;
            return 0;
        }
        self.from
    }

    fn publish(&mut self, id: i64, now: Monotonic) {
        if now >= self.turned_at + LATE {
            (self.from, self.turned_at) = (self.published, now);
        }
        self.published = Ord::max(self.published, id);
    }
}

impl Relay<'_> {
    /// Publishes the next events.
    async fn step(&mut self) -> Result<Step, Error> {
        let now = Monotonic::now();
        if now >= self.renew_at {
            self.hold().await?;
        }
        if now >= self.trim_at {
            self.trim_at = now + TRIM_PERIOD;
            if self.held.contains_key(&0) {
                trim(&self.app.database, self.app.clock.now()).await?;
            }
        }
        let searches =
            self.held.iter_mut().map(|(bucket, held)| Search { bucket: *bucket, after: held.place.search(now) });
        let searches: Vec<Search> = searches.collect();
        let rows = next(&self.app.database, &searches).await?;
        if rows.is_empty() {
            return Ok(Step::Idle);
        }
        let places: Vec<(i64, i32)> = rows.iter().map(|row| (row.id, row.bucket)).collect();
        let Some(Published { ids, problem }) = self.publish(rows).await? else { return Ok(Step::Idle) };
        {
            let _turn = self.app.recorder.job_turn().await;
            mark(&self.app.database, &ids).await?;
        }
        counter!(metrics::EVENTS_PUBLISHED).increment(ids.len() as u64);
        let (ids, now): (HashSet<i64>, _) = (ids.into_iter().collect(), Monotonic::now());
        for (id, bucket) in places.into_iter().filter(|(id, _)| ids.contains(id)) {
            if let Some(held) = self.held.get_mut(&bucket) {
                held.place.publish(id, now);
            }
        }
        Ok(problem.map_or(Step::Published, Step::Failed))
    }

    /// Publishes events while all leases are held. Returns `None` if one was lost, or the server stops.
    async fn publish(&mut self, rows: Vec<outbox::Model>) -> Result<Option<Published>, Error> {
        let buckets: BTreeSet<i32> = rows.iter().map(|row| row.bucket).collect();
        let mut publishing = (self.sink)(rows);
        loop {
            let stop = self.stop;
            tokio::select! {
                published = &mut publishing => return Ok(Some(published)),
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep_until(self.renew_at) => {
                    self.hold().await?;
                    if !buckets.iter().all(|bucket| self.held.contains_key(bucket)) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Renews the leases, gives up the buckets whose lease was lost, and claims those that nobody holds.
    async fn hold(&mut self) -> Result<(), Error> {
        let jobs: Vec<job::Model> = self.held.values().map(|held| held.job.clone()).collect();
        if !jobs.is_empty() {
            let renewed = queue::renew_relays(self.app, &jobs).await?;
            self.held.retain(|_, held| renewed.contains(&held.job.id));
        }
        while let Some(job) = queue::claim_for(self.app, &[JobKind::Outbox], RELAY_LEASE).await? {
            let now = Monotonic::now();
            if let Some(bucket) = bucket(&job) {
                self.held.insert(bucket, Held { job, place: Place::new(now) });
            }
        }
        self.renew_at = Monotonic::now() + RENEWAL;
        Ok(())
    }

    /// Lets other nodes claim the buckets at once.
    async fn release(self) {
        for Held { job, .. } in self.held.into_values() {
            if let Err(error) = queue::end(self.app, &job, End::Again(self.app.clock.now())).await {
                tracing::warn!(error = %error, "a bucket of events was not released: its lease runs out");
            }
        }
    }
}
