//! The only write path of points: mutations, imports, backfills and repairs go through the recorder.
//!
//! Facts wait in a queue (`queue`) that is bounded in items and bytes. A batch takes the facts that wait, up to a limit. So batches
//! grow with the load, and an idle server responds immediately. One batch is evaluated at a time; the next one begins when it goes
//! to its COMMIT. If many facts wait, two batches share them and are evaluated at a time (`turns`). On one node, a customer is in
//! one batch at a time. The exception is a long change, which is written concurrently.
//!
//! One batch is one transaction (`batch`). The number of its statements does not depend on its size. `acceptance` inserts the new
//! facts. `evaluation` plans what must be folded again: `folding` loads and folds, `capping` applies the caps of customers, and
//! `deferred` loads a part of what earlier commits left unevaluated. `posting` writes the difference. A change that folds a long
//! stretch of a history is folded before its transaction (`preparation`). `repair` serves `windfall audit --repair`.
//!
//! Facts of callers come before those of jobs, and the commits of jobs beside the write path give way to batches (`job_turns`).
//!
//! `pace` notes how long batches of which size take, for `windfall simulate ingest`.
//!
//! Batches run in separate tasks, so a caller that goes away cancels nothing.

mod acceptance;
mod act;
mod batch;
mod capping;
mod change;
mod changed;
mod conflict;
pub mod context;
mod deferred;
mod drafts;
mod entries;
mod erased;
mod evaluation;
pub mod fact;
mod folded;
mod folding;
mod insertion;
pub mod job_turns;
mod locking;
mod news;
pub mod pace;
mod posting;
mod preparation;
mod prepared;
mod purses;
mod queue;
mod recount;
mod repair;
mod revising;
mod stocks;
mod telling;
mod touched;
mod turns;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, histogram};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::batch::Committed;
use self::context::Context;
use self::fact::{Answer, Fact, Recorded, Refusal};
use self::job_turns::{JobTurn, JobTurns};
use self::locking::Unlocked;
use self::pace::{Pace, Sums};
use self::prepared::{PREPARED_SHARD, Preparation, TooLong};
use self::queue::{Item, Queue, Room, Taken};
use self::turns::{Turn, Turns};
use super::database::MAX_OPEN_BATCHES;
use super::error::Error;
use super::failure::{is_conflict, is_data_error, is_statement_timeout};
use super::share::Shares;
use super::viewer::Who;
use crate::{config, metrics};
pub use changed::MAX_CHANGED_AWARDS;

/// The maximum number of long changes that are prepared at a time. Each may hold all awards of a customer in memory.
const MAX_PREPARATIONS_AT_ONCE: usize = 1;
/// The number of groups of shards of the campaign counters. Each node uses one group, so that few nodes wait for the same rows.
const SHARD_GROUPS: i32 = 16;
/// The number of shards of a group, at least [`MAX_OPEN_BATCHES`].
const SHARDS_OF_GROUP: i32 = 4;
/// The maximum number of retries of a batch after a deadlock or a serialisation failure.
const MAX_REPEATS: u32 = 10;
/// The pause before the first retry. It doubles with each retry.
const REPEAT_PAUSE: Duration = Duration::from_millis(2);

/// Queues facts and writes them.
pub struct Recorder {
    queue: Queue,
    items: Arc<Semaphore>,
    items_max: usize,
    shares: Shares,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    job_turns: Arc<JobTurns>,
    pace: Arc<Pace>,
    tasks: TaskTracker,
}

impl Recorder {
    /// Starts to write. `node` is the random id of this node.
    pub(super) fn start(context: &Context, limits: &config::Writer, node: i64) -> Self {
        let sqlite = context.database.backend() == sea_orm::DatabaseBackend::Sqlite;
        // Half of a small pool is left to reads.
        let connections = context.database.max_connections() / 2;
        let open = if sqlite { 1 } else { connections.clamp(1, MAX_OPEN_BATCHES) };
        let tasks = TaskTracker::new();
        let queue = Queue::default();
        let writer = Writer {
            context: context.clone(),
            queue: queue.clone(),
            turns: Turns::new(limits.batch_items, open),
            tasks: tasks.clone(),
            preparations: Arc::new(Semaphore::new(MAX_PREPARATIONS_AT_ONCE)),
            pace: Arc::default(),
        };
        let pace = Arc::clone(&writer.pace);
        let slots = Slots::new(node, i32::try_from(open).unwrap_or(1));
        tasks.spawn(run(writer, slots));
        tasks.close();
        Self {
            queue,
            items: Arc::new(Semaphore::new(limits.queue_items)),
            items_max: limits.queue_items,
            shares: Shares::new(limits.queue_items),
            bytes: Arc::new(Semaphore::new(limits.queue_bytes)),
            bytes_max: limits.queue_bytes,
            job_turns: Arc::clone(&context.job_turns),
            pace,
            tasks,
        }
    }

    /// Records facts. They are admitted to the queue all together or refused all together with [`Error::Overloaded`]. Returns one
    /// result per fact, in order. A caller with many waiting facts is refused before callers with few.
    pub async fn record(&self, who: &Who, facts: Vec<Fact>) -> Result<Vec<Answer>, Error> {
        let count = facts.len() as u64;
        let refuse = || {
            counter!(metrics::WRITE_REFUSED).increment(count);
            Error::Overloaded
        };
        let _share = self.shares.take(who, facts.len()).ok_or_else(refuse)?;
        let mut rooms = Vec::with_capacity(facts.len());
        for fact in &facts {
            let item = Arc::clone(&self.items).try_acquire_owned().map_err(|_| refuse())?;
            let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(self.permits(fact));
            rooms.push((item, bytes.map_err(|_| refuse())?));
        }
        let waiting: Vec<_> = facts.into_iter().zip(rooms).map(|(fact, room)| self.send(fact, room)).collect();
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.push(answer.await.unwrap_or(Err(Error::Unavailable)));
        }
        Ok(answers)
    }

    /// Records the facts that passed their checks, like [`Self::record`]. Returns one result per element of `checked`, in order.
    /// Each element contains the path of its input, which errors refer to.
    pub async fn record_checked(
        &self,
        who: &Who,
        checked: Vec<(Vec<String>, Result<Fact, Error>)>,
    ) -> Result<Vec<Result<Recorded, Error>>, Error> {
        let mut paths = Vec::with_capacity(checked.len());
        let mut facts = Vec::with_capacity(checked.len());
        for (path, checked) in checked {
            let failed = match checked {
                Ok(fact) => {
                    facts.push(fact);
                    None
                }
                Err(error) => Some(error),
            };
            paths.push((path, failed));
        }
        let mut answers = self.record(who, facts).await?.into_iter();
        let answer = |(path, failed): (Vec<String>, Option<Error>)| match failed {
            Some(error) => Err(error),
            None => match answers.next().unwrap_or(Err(Error::Unavailable))? {
                Ok(recorded) => Ok(recorded),
                Err(refusal) => Err(refusal.at(&path)),
            },
        };
        Ok(paths.into_iter().map(answer).collect())
    }

    /// Like [`Self::record_checked`], for one fact.
    pub async fn record_one(
        &self,
        who: &Who,
        path: Vec<String>,
        checked: Result<Fact, Error>,
    ) -> Result<Recorded, Error> {
        let mut answers = self.record_checked(who, vec![(path, checked)]).await?;
        answers.pop().unwrap_or(Err(Error::Unavailable))
    }

    /// Queues a fact as soon as there is room. This is for callers that can wait, such as an import or a backfill.
    pub async fn record_when_free(&self, fact: Fact) -> Result<oneshot::Receiver<Answer>, Error> {
        let item = Arc::clone(&self.items).acquire_owned().await.map_err(|_| Error::Unavailable)?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.permits(&fact)).await;
        Ok(self.send(fact, (item, bytes.map_err(|_| Error::Unavailable)?)))
    }

    /// Waits until a job may commit something of its own, beside the facts that it records. Only one job may at a time, until the
    /// returned value is dropped. While facts of callers wait, at most one such commit comes between two batches.
    pub async fn job_turn(&self) -> JobTurn<'_> {
        self.job_turns.take(|| self.queue.keeps_callers_waiting()).await
    }

    /// Returns the number of items that wait or are being written, and their size in bytes.
    pub fn queued(&self) -> (usize, usize) {
        let items = self.items_max - self.items.available_permits().min(self.items_max);
        (items, self.bytes_max - self.bytes.available_permits().min(self.bytes_max))
    }

    /// Returns how long batches have kept the writer busy since the start.
    pub fn pace(&self) -> Sums {
        self.pace.sums()
    }

    /// Waits until all queued facts are processed. Facts that are recorded after the call fail with [`Error::Unavailable`].
    pub async fn drain(&self) {
        self.queue.close();
        self.tasks.wait().await;
    }

    /// Returns the number of byte permits for a fact. A fact that is larger than the queue takes all permits.
    fn permits(&self, fact: &Fact) -> u32 {
        u32::try_from(fact.bytes().min(self.bytes_max)).unwrap_or(u32::MAX)
    }

    fn send(&self, fact: Fact, room: Room) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        // After the recorder was drained, the item and its `reply` are dropped, and the caller gets `Error::Unavailable`.
        self.queue.push(Item { fact, reply, room });
        answer
    }
}

#[derive(Clone)]
struct Writer {
    context: Context,
    queue: Queue,
    turns: Turns,
    /// The tasks that write batches, and those that prepare and write long changes.
    tasks: TaskTracker,
    preparations: Arc<Semaphore>,
    pace: Arc<Pace>,
}

/// The shards of the campaign counters that are free. Open batches use different shards, so that none waits for the rows of
/// another.
struct Slots {
    free: mpsc::UnboundedReceiver<i32>,
    give_back: mpsc::UnboundedSender<i32>,
}

/// A shard in use. It becomes free when this value is dropped.
struct Slot {
    shard: i32,
    give_back: mpsc::UnboundedSender<i32>,
}

impl Slots {
    fn new(node: i64, count: i32) -> Self {
        let (give_back, free) = mpsc::unbounded_channel();
        let group = i32::try_from(node.rem_euclid(i64::from(SHARD_GROUPS))).unwrap_or(0);
        for slot in 0..count {
            // The receiver exists, so this cannot fail.
            let _ = give_back.send(group * SHARDS_OF_GROUP + slot);
        }
        Self { free, give_back }
    }

    async fn take(&mut self) -> Option<Slot> {
        let shard = self.free.recv().await?;
        Some(Slot { shard, give_back: self.give_back.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Fails if the recorder has stopped.
        let _ = self.give_back.send(self.shard);
    }
}

async fn run(writer: Writer, mut slots: Slots) {
    // The items are taken as late as possible, so that the batch has as many of them as possible. Nobody holds the turn while there
    // is nothing to do: batches that are split need it.
    while let Some(slot) = slots.take().await
        && writer.queue.is_ready().await
        && let Some(turn) = writer.turns.next(&writer.queue).await
    {
        let (items, taken) = writer.turns.take(&writer.queue);
        if items.is_empty() {
            // A long change holds their customers back since the wait.
            continue;
        }
        let span = tracing::info_span!("batch", items = items.len());
        let unwritten = Unwritten { items, preparation: Preparation::default() };
        let writing = writer.clone();
        let batch = async move {
            write(&writing, slot.shard, unwritten, Some(taken), Some(turn)).await;
            drop(slot);
        };
        // A separate task for the panic: it loses only this batch. The callers of the batch get an error.
        let batch = tokio::spawn(batch.instrument(span));
        writer.tasks.spawn(async move {
            if let Err(panic) = batch.await {
                tracing::error!(error = %panic, "a batch was lost");
            }
        });
    }
}

/// Items to commit together, and the preparation of their change.
struct Unwritten {
    items: Vec<Item>,
    preparation: Preparation,
}

/// Commits the items and sends a result for each. They are one batch, unless it must be split. `turn` is for the first attempt;
/// the others wait for their own.
async fn write(writer: &Writer, shard: i32, unwritten: Unwritten, mut taken: Option<Taken>, mut turn: Turn) {
    let context = &writer.context;
    let mut batches = vec![unwritten];
    while let Some(Unwritten { mut items, mut preparation }) = batches.pop() {
        let facts: Vec<&Fact> = items.iter().map(|item| &item.fact).collect();
        let began = tokio::time::Instant::now();
        let mut others = Unlocked::new();
        let committed = commit(writer, shard, &facts, &mut others, &mut preparation, &mut turn).await;
        let noted = committed.as_ref().map(|committed| match committed {
            Committed::Answers(answers) => answers.iter().any(is_new),
            Committed::TooLong(_) | Committed::TooManyDue(_) | Committed::Overtaken | Committed::Unlocked(_) => false,
        });
        context.database.writes().note(noted);
        match committed {
            Ok(Committed::Answers(answers)) => {
                ended("committed");
                histogram!(metrics::WRITE_BATCH_ITEMS).record(facts.len() as f64);
                histogram!(metrics::WRITE_BATCH_SECONDS).record(began.elapsed().as_secs_f64());
                writer.pace.note(facts.len(), began, tokio::time::Instant::now());
                for (item, answer) in items.into_iter().zip(answers) {
                    let _ = item.reply.send(Ok(answer));
                }
            }
            // The items of this customer are prepared and written separately, so that the other items do not wait for them.
            Ok(Committed::TooLong(too_long)) => {
                ended("prepared");
                let its_purchases = others.remove(&too_long.customer).unwrap_or_default();
                let is_its = |fact: &Fact| {
                    fact.customer() == too_long.customer || fact.purchase().is_some_and(|id| its_purchases.contains(id))
                };
                let (its, others) = items.into_iter().partition(|item| is_its(&item.fact));
                if let Some(taken) = &mut taken {
                    taken.release(&too_long.customer);
                }
                let unwritten = Unwritten { items: its, preparation };
                writer.tasks.spawn(prepare_and_write(writer.clone(), unwritten, too_long));
                if !others.is_empty() {
                    batches.push(Unwritten { items: others, preparation: Preparation::default() });
                }
            }
            // What is due is posted first, in a commit of its own. Then the items are tried again.
            Ok(Committed::TooManyDue(customer)) => {
                ended("due");
                match post_due(writer, shard, &customer).await {
                    Ok(()) => batches.push(Unwritten { items, preparation }),
                    Err(error) => reject(items, &error),
                }
            }
            // Split the batch, to isolate the item that causes the error and to commit the others.
            Err(error) if is_of_one_item(&error) && items.len() > 1 => {
                ended("split");
                let rest = items.split_off(items.len() / 2);
                batches.extend([rest, items].map(|items| Unwritten { items, preparation: Preparation::default() }));
            }
            Ok(Committed::Overtaken | Committed::Unlocked(_)) => {
                ended("failed");
                reject(items, &Error::Unavailable);
            }
            Err(error) => {
                ended("failed");
                reject(items, &error);
            }
        }
    }
}

/// Posts what is due of a customer, as far as one commit may.
async fn post_due(writer: &Writer, shard: i32, customer: &str) -> Result<(), Error> {
    let fact = Fact::Expiry(customer.to_owned());
    let (mut others, mut preparation) = (Unlocked::new(), Preparation::default());
    match commit(writer, shard, &[&fact], &mut others, &mut preparation, &mut None).await? {
        Committed::Answers(_) => Ok(()),
        _ => Err(Error::Unavailable),
    }
}

fn reject(items: Vec<Item>, error: &Error) {
    for item in items {
        let _ = item.reply.send(Err(error.clone()));
    }
}

/// Prepares a long change of a customer and then commits the items. The future is boxed because this function is recursive: the
/// commit may find that the change must be prepared again.
fn prepare_and_write(
    writer: Writer,
    unwritten: Unwritten,
    too_long: TooLong,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let context = &writer.context;
        let Unwritten { items, preparation } = unwritten;
        // The semaphore is never closed, so this always returns a permit.
        let _permit = writer.preparations.acquire().await;
        let customer = too_long.customer.clone();
        match preparation::prepare(context, too_long).await {
            Ok(prepared) => {
                let preparation = Preparation { attempts: preparation.attempts + 1, prepared };
                // The lock of the customer is held for long. A batch that waited for it would keep all others waiting.
                let taken = writer.queue.hold_back(&customer);
                write(&writer, PREPARED_SHARD, Unwritten { items, preparation }, Some(taken), None).await;
            }
            Err(error) => reject(items, &error),
        }
    })
}

/// Whether a single item may have caused the error: data that the database refuses, a statement that takes too long, or stored
/// data that cannot be read.
fn is_of_one_item(error: &Error) -> bool {
    match error {
        Error::Database(error) => is_data_error(error) || is_statement_timeout(error),
        Error::Internal(_) => true,
        _ => false,
    }
}

/// Whether the fact was recorded now and is not a duplicate.
fn is_new(answer: &Result<Recorded, Refusal>) -> bool {
    answer.as_ref().is_ok_and(|recorded| !recorded.replayed)
}

fn ended(outcome: &'static str) {
    counter!(metrics::WRITE_BATCHES, "outcome" => outcome).increment(1);
}

/// Commits one batch. The whole batch is retried after a deadlock or a serialisation failure, and if a purchase belongs to a customer
/// that no fact names. Adds such customers to `others`.
async fn commit(
    writer: &Writer,
    shard: i32,
    facts: &[&Fact],
    others: &mut Unlocked,
    preparation: &mut Preparation,
    turn: &mut Turn,
) -> Result<Committed, Error> {
    let mut pause = REPEAT_PAUSE;
    let mut repeats = 0;
    loop {
        // A prepared change does not wait for its turn: it may take long, and it is the only one of its kind.
        if turn.is_none() && shard != PREPARED_SHARD {
            *turn = writer.turns.alone().await;
        }
        let committed = batch::commit(&writer.context, shard, facts, others, preparation, turn).await;
        *turn = None;
        let conflict = match &committed {
            Ok(Committed::Overtaken) => true,
            Ok(Committed::Unlocked(unlocked)) => {
                for (customer, purchases) in unlocked {
                    others.entry(customer.clone()).or_default().extend(purchases.iter().cloned());
                }
                true
            }
            Err(Error::Database(error)) => is_conflict(error),
            _ => false,
        };
        if !conflict || repeats == MAX_REPEATS {
            return committed;
        }
        tracing::debug!(repeats, "a batch is retried");
        ended("repeated");
        repeats += 1;
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}
