//! The relay: publishes the events of the outbox. Each bucket is a job that has no end. The node that holds its lease publishes the
//! bucket, and any number of nodes may compete for them.
//!
//! An event is published at least once: it is marked after the brokers have it, and a node that dies in between leaves it to the next
//! one. What a node that was frozen still sends after another has taken over, the brokers refuse, or consumers ignore it.
//!
//! A node that cannot publish gives its buckets up, because another one may be able to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, gauge};
use entity::{JobKind, JobState, job, outbox};
use sea_orm::{ActiveEnum, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, Statement};
use tokio::time::{Instant as Monotonic, sleep};
use tokio_util::sync::CancellationToken;

use super::queue::{self, End, RELAY_LEASE};
use crate::app::App;
use crate::app::campaign;
use crate::app::error::Error;
use crate::app::outbox::{BUCKETS, Search, Transactions, clear, has_erasures, mark, next, transactions, trim};
use crate::app::sink::{Published, Sink};
use crate::metrics;

/// How often an idle relay looks for events of other programs. A commit of this node wakes it earlier.
const POLL: Duration = Duration::from_millis(500);
/// How often leases are renewed and claimed.
const RENEWAL: Duration = Duration::from_secs(RELAY_LEASE.as_secs() / 3);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// After so many failures in a row, the buckets are given up.
const MAX_FAILURES: u32 = 5;
/// How long a node that has given its buckets up leaves them to others.
const REST: Duration = Duration::from_secs(30);
/// How often segments without events are emptied.
const TRIM_PERIOD: Duration = Duration::from_secs(60);
/// How often it is noted which transactions are open. A search passes what was published in about twice this time.
const NOTE_PERIOD: Duration = Duration::from_secs(5);
/// The maximum size of the events that are published together, in bytes. One may be larger.
const MAX_STEP_BYTES: usize = 2 << 20;

/// Makes all programs on the database write events from now on, and publishes them until `stop` is cancelled. Does nothing if no events are
/// to be published.
pub async fn run(app: Arc<App>, stop: CancellationToken) {
    let Some(sink) = app.sink.get() else { return };
    let mut relay = Relay::new(&app, sink, &stop);
    let mut failures = Failures::default();
    while !stop.is_cancelled() {
        let step = relay.step().await.unwrap_or_else(|error| Step::Failed(Failure::of(&error)));
        // A node that leaves its buckets to others does not know whether the problem is over.
        if !relay.rests {
            app.publishing.note(step.problem());
        }
        match step {
            Step::Published => failures = Failures::default(),
            Step::Idle => {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(POLL) => {}
                    () = app.events_kept.notified() => {}
                }
            }
            Step::Failed(failure) => {
                counter!(metrics::EVENT_FAILURES).increment(1);
                failures.note(failure);
                if failures.in_a_row >= MAX_FAILURES {
                    failures.in_a_row = 0;
                    relay.rest().await;
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(PAUSE) => {}
                }
            }
        }
    }
    relay.release().await;
}

/// Why events were not published.
struct Failure {
    /// What admins may see.
    shown: String,
    logged: String,
}

impl Failure {
    fn of(error: &Error) -> Self {
        Self { shown: error.masked(), logged: error.to_string() }
    }
}

/// The failures since the last success.
#[derive(Default)]
struct Failures {
    in_a_row: u32,
    /// The last one, as it was logged.
    last: Option<String>,
}

impl Failures {
    /// Logs a failure, unless it is the same as the one before.
    fn note(&mut self, failure: Failure) {
        self.in_a_row += 1;
        let Failure { shown, logged } = failure;
        if self.last.as_ref() != Some(&logged) {
            tracing::warn!(problem = shown, error = logged, "events cannot be published: they are tried again");
            self.last = Some(logged);
        }
    }
}

/// Makes programs write events, unless they do so. Then creates the jobs, unless they exist.
async fn begin(app: &App) -> Result<(), Error> {
    if app.campaigns().await?.keeps_events {
        return Ok(());
    }
    let _turn = app.recorder.job_turn().await;
    let now = app.clock.now().0;
    let (backend, kind) = (app.database.backend(), JobKind::Outbox.to_value());
    for bucket in 0..BUCKETS {
        let sql = "INSERT INTO job (kind, unique_key, state, requests, attempts, run_at, created_at) \
            VALUES ($1, $2, 'waiting', 1, 0, $3, $3) ON CONFLICT (unique_key) DO NOTHING";
        let values = [kind.clone().into(), unique_key(bucket).into(), now.into()];
        app.database.write().execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    }
    campaign::keep_events(app, true).await
}

/// Why events are not given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// A node publishes events now.
    ByANode,
    /// An event waits that tells of an erasure. Without it, the topics would keep the name.
    ForAnErasure,
}

/// Makes programs write no more events, and deletes those that are kept, with the jobs. Changes nothing if they are needed.
pub async fn give_up(app: &App) -> Result<Option<Needed>, Error> {
    let of_relays = || job::Column::Kind.eq(JobKind::Outbox);
    let leased = job::Column::LeasedUntil.gt(app.clock.now().0);
    let held = of_relays().and(job::Column::State.eq(JobState::Running)).and(leased);
    if job::Entity::find().filter(held).one(app.database.read()).await?.is_some() {
        return Ok(Some(Needed::ByANode));
    }
    if has_erasures(&app.database).await? {
        return Ok(Some(Needed::ForAnErasure));
    }
    campaign::keep_events(app, false).await?;
    job::Entity::delete_many().filter(of_relays()).exec(app.database.write()).await?;
    clear(&app.database).await?;
    Ok(None)
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
    held: BTreeMap<i32, job::Model>,
    /// Whether the node leaves its buckets to others for a while.
    rests: bool,
    floor: Floor,
    renew_at: Monotonic,
    trim_at: Monotonic,
    note_at: Monotonic,
}

/// What a relay has done.
enum Step {
    /// Events were published, and there may be more.
    Published,
    /// There is nothing to publish, or this node must not publish it any more.
    Idle,
    /// Events were not published.
    Failed(Failure),
}

impl Step {
    /// What hinders the relay, as admins may see it.
    fn problem(&self) -> Option<String> {
        match self {
            Self::Failed(failure) => Some(failure.shown.clone()),
            Self::Published | Self::Idle => None,
        }
    }
}

/// The ids after which the events of each bucket are searched, so that a search need not pass all that was published. Nothing that is to be
/// published has a lower id, now or ever.
///
/// An id is raised in three steps. The greatest id that was published is noted, with the transactions that are open. Later, all of these
/// have ended, so no lower id can be committed any more. Then a search has found nothing up to that id.
#[derive(Default)]
struct Floor {
    from: HashMap<i32, i64>,
    /// The greatest id of each bucket that was published.
    published: HashMap<i32, i64>,
    noted: Option<Noted>,
}

struct Noted {
    /// The greatest ids that were published by then.
    ids: HashMap<i32, i64>,
    /// The first transaction that had not begun to write then.
    next: i64,
    /// Whether all transactions have ended that were open then.
    has_ended: bool,
}

impl Floor {
    /// Notes that an event was published.
    fn note_published(&mut self, bucket: i32, id: i64) {
        let greatest = self.published.entry(bucket).or_default();
        *greatest = Ord::max(*greatest, id);
    }

    /// Notes which transactions are open.
    fn note_transactions(&mut self, open: Transactions) {
        match &mut self.noted {
            Some(noted) => noted.has_ended |= open.oldest >= noted.next,
            None => self.noted = Some(Noted { ids: self.published.clone(), next: open.next, has_ended: false }),
        }
    }

    /// Notes what a search has found that began after the transactions were noted: of each bucket the first events, in order.
    fn note_found(&mut self, rows: &[outbox::Model]) {
        let Some(noted) = self.noted.take_if(|noted| noted.has_ended) else { return };
        for (bucket, id) in noted.ids {
            let first = rows.iter().filter(|row| row.bucket == bucket).map(|row| row.id).min();
            if first.is_none_or(|first| first > id) {
                self.from.insert(bucket, id);
            }
        }
    }

    /// Forgets what is known of a bucket that another node may have published meanwhile.
    fn forget(&mut self, bucket: i32) {
        self.from.remove(&bucket);
        self.published.remove(&bucket);
        if let Some(noted) = &mut self.noted {
            noted.ids.remove(&bucket);
        }
    }
}

impl<'a> Relay<'a> {
    fn new(app: &'a App, sink: &'a Sink, stop: &'a CancellationToken) -> Self {
        let now = Monotonic::now();
        Self {
            app,
            sink,
            stop,
            held: BTreeMap::new(),
            rests: false,
            floor: Floor::default(),
            renew_at: now,
            trim_at: now,
            note_at: now,
        }
    }

    /// Publishes the next events.
    async fn step(&mut self) -> Result<Step, Error> {
        let now = Monotonic::now();
        if now >= self.renew_at {
            self.hold().await?;
        }
        if self.held.is_empty() {
            return Ok(Step::Idle);
        }
        if now >= self.trim_at {
            self.trim_at = now + TRIM_PERIOD;
            self.trim().await;
        }
        if now >= self.note_at {
            self.note_at = now + NOTE_PERIOD;
            if let Some(open) = transactions(&self.app.database).await? {
                self.floor.note_transactions(open);
            }
        }
        let from = |bucket: &i32| self.floor.from.get(bucket).copied().unwrap_or(0);
        let searches: Vec<Search> =
            self.held.keys().map(|bucket| Search { bucket: *bucket, after: from(bucket) }).collect();
        let mut rows = next(&self.app.database, &searches).await?;
        self.floor.note_found(&rows);
        self.observe(&rows);
        if rows.is_empty() {
            return Ok(Step::Idle);
        }
        cut(&mut rows);
        let buckets: HashMap<i64, i32> = rows.iter().map(|row| (row.id, row.bucket)).collect();
        let Some(Published { ids, problem }) = self.publish(rows).await? else { return Ok(Step::Idle) };
        self.mark(&ids).await?;
        for id in ids {
            if let Some(bucket) = buckets.get(&id) {
                self.floor.note_published(*bucket, id);
            }
        }
        Ok(match problem {
            Some(problem) => Step::Failed(Failure { shown: problem.clone(), logged: problem }),
            None => Step::Published,
        })
    }

    async fn mark(&self, ids: &[i64]) -> Result<(), Error> {
        let _turn = self.app.recorder.job_turn().await;
        mark(&self.app.database, ids).await?;
        counter!(metrics::EVENTS_PUBLISHED).increment(ids.len() as u64);
        Ok(())
    }

    /// Empties the segments without events. One node does this for all. A failure hinders no event, so it is tried again next time.
    async fn trim(&self) {
        if !self.held.contains_key(&0) {
            return;
        }
        if let Err(error) = trim(&self.app.database, self.app.clock.now()).await {
            tracing::warn!(error = %error, "published events could not be removed");
        }
    }

    /// Publishes how long the oldest event has waited.
    #[expect(clippy::cast_precision_loss, reason = "figures for people, exact up to 2^53")]
    fn observe(&self, rows: &[outbox::Model]) {
        let oldest = rows.iter().map(|row| row.committed_at).min();
        let waits = oldest.map_or(0, |since| Ord::max(self.app.clock.now().0 - since, 0));
        gauge!(metrics::EVENT_WAIT_SECONDS).set(waits as f64 / 1e6);
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
        self.rests = false;
        // Somebody may have ended it meanwhile.
        begin(self.app).await?;
        let jobs: Vec<job::Model> = self.held.values().cloned().collect();
        if !jobs.is_empty() {
            let renewed = queue::renew_relays(self.app, &jobs).await?;
            self.held.retain(|_, job| renewed.contains(&job.id));
        }
        while let Some(job) = queue::claim_for(self.app, &[JobKind::Outbox], RELAY_LEASE).await? {
            if let Some(bucket) = bucket(&job) {
                self.floor.forget(bucket);
                self.held.insert(bucket, job);
            }
        }
        self.renew_at = Monotonic::now() + RENEWAL;
        Ok(())
    }

    /// Leaves the buckets to other nodes for a while.
    async fn rest(&mut self) {
        self.release().await;
        self.rests = true;
        self.renew_at = Monotonic::now() + REST;
    }

    /// Lets other nodes claim the buckets at once.
    async fn release(&mut self) {
        for job in std::mem::take(&mut self.held).into_values() {
            if let Err(error) = queue::end(self.app, &job, End::Again(self.app.clock.now())).await {
                tracing::warn!(error = %error, "a bucket of events was not released: its lease runs out");
            }
        }
    }
}

/// Leaves the last events for the next step if there are too many bytes. In each bucket, the first ones stay.
fn cut(rows: &mut Vec<outbox::Model>) {
    rows.sort_by_key(|row| row.id);
    let mut bytes = 0;
    let fit = rows.iter().take_while(|row| {
        bytes += row.event.len() + row.balance.as_ref().map_or(0, String::len);
        bytes <= MAX_STEP_BYTES
    });
    let fit = fit.count().max(1);
    rows.truncate(fit);
}

#[cfg(test)]
mod tests {
    use entity::CustomerId;

    use super::*;

    const BUCKET: i32 = 3;

    fn open(oldest: i64, next: i64) -> Transactions {
        Transactions { oldest, next }
    }

    fn row(id: i64) -> outbox::Model {
        outbox::Model {
            id,
            segment: 0,
            bucket: BUCKET,
            customer_id: CustomerId(1),
            version: 1,
            part: 1,
            key: String::new(),
            event_id: String::new(),
            event: String::new(),
            balance: None,
            erases: 0,
            committed_at: 0,
            published: 0,
        }
    }

    #[test]
    fn a_search_leaves_out_only_what_no_transaction_can_write_any_more() {
        let mut floor = Floor::default();
        floor.note_published(BUCKET, 10);
        floor.note_transactions(open(100, 105));
        floor.note_found(&[]);
        floor.note_published(BUCKET, 20);
        // One of the transactions of the note is still open. It may have taken an id below 10.
        floor.note_transactions(open(104, 200));
        floor.note_found(&[]);
        assert_eq!(floor.from.get(&BUCKET), None);
        floor.note_transactions(open(105, 201));
        floor.note_found(&[row(21)]);
        assert_eq!(floor.from.get(&BUCKET), Some(&10), "as of the first note");
        floor.note_transactions(open(201, 210));
        floor.note_transactions(open(210, 300));
        floor.note_found(&[]);
        assert_eq!(floor.from.get(&BUCKET), Some(&20));
        floor.forget(BUCKET);
        for at in [300, 400] {
            floor.note_transactions(open(at, at));
            floor.note_found(&[]);
        }
        assert_eq!(floor.from.get(&BUCKET), None, "another node may have had the bucket");
    }

    /// A transaction ends between a search and the note that says so, or an event was not published while a later one was.
    #[test]
    fn a_search_never_leaves_out_what_it_has_just_found() {
        let mut floor = Floor::default();
        floor.note_published(BUCKET, 10);
        floor.note_transactions(open(100, 105));
        floor.note_transactions(open(105, 105));
        floor.note_found(&[row(5), row(11)]);
        assert_eq!(floor.from.get(&BUCKET), None, "5 is still to be published");
        floor.note_published(BUCKET, 11);
        floor.note_transactions(open(110, 110));
        floor.note_transactions(open(110, 110));
        floor.note_found(&[row(5)]);
        assert_eq!(floor.from.get(&BUCKET), None, "5 has failed");
        floor.note_transactions(open(110, 110));
        floor.note_transactions(open(110, 110));
        floor.note_found(&[row(12)]);
        assert_eq!(floor.from.get(&BUCKET), Some(&11));
    }
}
