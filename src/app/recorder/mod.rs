//! The one write path. Whatever changes points comes through here: mutations, imports, backfills.
//!
//! Facts wait in a queue that is bounded in items and bytes. A writer takes whatever waits, so batches grow with load
//! and an idle server answers at once. Customers are spread over writers by hash: on one node a customer has one
//! writer. Only a long change is written beside it. One batch is one transaction (`batch`); its number of statements does not depend on its size:
//! `facts` inserts what is new, `evaluation` plans what must be folded again (`folding` loads and folds, `capping` applies
//! the customers' caps; `deferred` says what must wait for a job), `posting` writes the difference.
//! A change that needs a long stretch of a history is folded before its transaction (`preparation`). `repair` is `audit`'s.
//!
//! A caller that goes away cancels nothing: writers run in tasks of their own.

mod acceptance;
mod batch;
mod capping;
mod change;
mod changed;
pub mod context;
mod deferred;
mod evaluation;
pub mod fact;
mod folded;
mod folding;
mod insertion;
mod posting;
mod preparation;
mod prepared;
mod recount;
mod repair;
mod touched;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, histogram};
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::batch::Committed;
use self::context::Context;
use self::fact::{Answer, Fact, Recorded, Refusal};
use self::prepared::{PREPARED_SHARD, Preparation, TooLong};
use super::error::Error;
use super::failure::{is_conflict, is_data_error, is_statement_timeout};
use super::share::Shares;
use super::viewer::Who;
use crate::{config, metrics};
pub use changed::MAX_CHANGED_AWARDS;

/// Long changes that are prepared at once: each may hold all awards of a customer.
const MAX_PREPARATIONS_AT_ONCE: usize = 1;
/// How often a batch is repeated after a deadlock or a serialisation failure.
const MAX_REPEATS: u32 = 10;
/// The pause before the first repetition; it doubles.
const REPEAT_PAUSE: Duration = Duration::from_millis(2);

/// Room in the queue, in items and in bytes; given back when it is dropped.
type Room = (OwnedSemaphorePermit, OwnedSemaphorePermit);

struct Item {
    fact: Fact,
    reply: oneshot::Sender<Answer>,
    _room: Room,
}

/// Hands facts to the writers.
pub struct Recorder {
    /// Empty once it drains.
    writers: RwLock<Vec<mpsc::UnboundedSender<Item>>>,
    items: Arc<Semaphore>,
    items_max: usize,
    shares: Shares,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    tasks: TaskTracker,
}

impl Recorder {
    /// Starts the writers: as many as configured, one on SQLite.
    pub(super) fn start(context: &Context, limits: &config::Writer) -> Self {
        let sqlite = context.database.backend() == sea_orm::DatabaseBackend::Sqlite;
        let count = if sqlite { 1 } else { limits.writers.max(1) };
        let tasks = TaskTracker::new();
        let preparations = Arc::new(Semaphore::new(MAX_PREPARATIONS_AT_ONCE));
        let writers = (0..count)
            .map(|shard| {
                // Unbounded by itself: the semaphores bound what all of them hold together.
                let (sender, receiver) = mpsc::unbounded_channel();
                let shard = i32::try_from(shard).unwrap_or(i32::MAX);
                let preparations = Arc::clone(&preparations);
                let writer = Writer { context: context.clone(), shard, tasks: tasks.clone(), preparations };
                tasks.spawn(run_writer(writer, receiver, limits.batch_items));
                sender
            })
            .collect();
        tasks.close();
        Self {
            writers: RwLock::new(writers),
            items: Arc::new(Semaphore::new(limits.queue_items)),
            items_max: limits.queue_items,
            shares: Shares::new(limits.queue_items),
            bytes: Arc::new(Semaphore::new(limits.queue_bytes)),
            bytes_max: limits.queue_bytes,
            tasks,
        }
    }

    /// Records facts: together admitted or together refused with [`Error::Overloaded`]; each is then answered on its
    /// own, in order. Whoever has many waiting is refused before others are.
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

    /// Records those of the facts that passed their checks, as [`Self::record`] does; answers all, in order. Each comes
    /// with the path to its input, for errors.
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
                Err(refusal) => Err(refusal.at(path)),
            },
        };
        Ok(paths.into_iter().map(answer).collect())
    }

    /// [`Self::record_checked`] for one fact.
    pub async fn record_one(
        &self,
        who: &Who,
        path: Vec<String>,
        checked: Result<Fact, Error>,
    ) -> Result<Recorded, Error> {
        let mut answers = self.record_checked(who, vec![(path, checked)]).await?;
        answers.pop().unwrap_or(Err(Error::Unavailable))
    }

    /// Hands a fact over as soon as there is room, for callers that can wait (a file, a backfill).
    pub async fn record_when_free(&self, fact: Fact) -> Result<oneshot::Receiver<Answer>, Error> {
        let item = Arc::clone(&self.items).acquire_owned().await.map_err(|_| Error::Unavailable)?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.permits(&fact)).await;
        Ok(self.send(fact, (item, bytes.map_err(|_| Error::Unavailable)?)))
    }

    /// Items that wait or are being written, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        let items = self.items_max - self.items.available_permits().min(self.items_max);
        (items, self.bytes_max - self.bytes.available_permits().min(self.bytes_max))
    }

    /// Waits until everything queued is committed and answered; whoever comes later is told UNAVAILABLE.
    pub async fn drain(&self) {
        self.writers.write().clear();
        self.tasks.wait().await;
    }

    /// A fact larger than the whole queue's bytes takes the whole queue.
    fn permits(&self, fact: &Fact) -> u32 {
        u32::try_from(fact.bytes().min(self.bytes_max)).unwrap_or(u32::MAX)
    }

    fn send(&self, fact: Fact, room: Room) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        let mut hasher = DefaultHasher::new();
        fact.customer().hash(&mut hasher);
        let writers = self.writers.read();
        let index = hasher.finish().checked_rem(writers.len() as u64).and_then(|index| usize::try_from(index).ok());
        // Without a writer the item is dropped, and with it `reply`: the caller is told UNAVAILABLE.
        if let Some(writer) = index.and_then(|index| writers.get(index)) {
            let _ = writer.send(Item { fact, reply, _room: room });
        }
        answer
    }
}

/// What a writer needs for every batch.
#[derive(Clone)]
struct Writer {
    context: Context,
    shard: i32,
    /// Where long changes are prepared.
    tasks: TaskTracker,
    preparations: Arc<Semaphore>,
}

async fn run_writer(writer: Writer, mut queue: mpsc::UnboundedReceiver<Item>, batch_items: usize) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, batch_items).await > 0 {
        // In a task of its own, so that a panic loses one batch (whose callers are told) and not the writer.
        let items = std::mem::take(&mut waiting);
        let writer = writer.clone();
        let span = tracing::info_span!("batch", items = items.len());
        let batch = async move { write(&writer, Unwritten { items, preparation: Preparation::default() }).await };
        if let Err(panic) = tokio::spawn(batch.instrument(span)).await {
            tracing::error!(error = %panic, "a batch was lost");
        }
    }
}

/// Items to commit together, and what is prepared of their change.
struct Unwritten {
    items: Vec<Item>,
    preparation: Preparation,
}

/// Commits the items, all together if they let themselves be, and answers each.
async fn write(writer: &Writer, unwritten: Unwritten) {
    let context = &writer.context;
    let mut batches = vec![unwritten];
    while let Some(Unwritten { mut items, mut preparation }) = batches.pop() {
        let facts: Vec<&Fact> = items.iter().map(|item| &item.fact).collect();
        let began = tokio::time::Instant::now();
        let committed = commit(context, writer.shard, &facts, &mut preparation).await;
        let noted = committed.as_ref().map(|committed| match committed {
            Committed::Answers(answers) => answers.iter().any(is_new),
            Committed::TooLong(_) => false,
        });
        context.database.writes().note(noted);
        match committed {
            Ok(Committed::Answers(answers)) => {
                ended("committed");
                histogram!(metrics::WRITE_BATCH_ITEMS).record(facts.len() as f64);
                histogram!(metrics::WRITE_BATCH_SECONDS).record(began.elapsed().as_secs_f64());
                for (item, answer) in items.into_iter().zip(answers) {
                    let _ = item.reply.send(Ok(answer));
                }
            }
            // The customer's items go on by themselves; the others do not wait for them.
            Ok(Committed::TooLong(too_long)) => {
                ended("prepared");
                let (its, others) = items.into_iter().partition(|item| item.fact.customer() == too_long.customer);
                let unwritten = Unwritten { items: its, preparation };
                writer.tasks.spawn(prepare_and_write(writer.clone(), unwritten, too_long));
                if !others.is_empty() {
                    batches.push(Unwritten { items: others, preparation: Preparation::default() });
                }
            }
            // Find the item at fault, and let the others pass.
            Err(error) if is_of_one_item(&error) && items.len() > 1 => {
                ended("split");
                let rest = items.split_off(items.len() / 2);
                batches.extend([rest, items].map(|items| Unwritten { items, preparation: Preparation::default() }));
            }
            Err(error) => {
                ended("failed");
                reject(items, &error);
            }
        }
    }
}

fn reject(items: Vec<Item>, error: &Error) {
    for item in items {
        let _ = item.reply.send(Err(error.clone()));
    }
}

/// Prepares a customer's long change, then commits its items. Boxed: a commit may find that it must be prepared again.
fn prepare_and_write(
    writer: Writer,
    unwritten: Unwritten,
    too_long: TooLong,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let context = &writer.context;
        let Unwritten { items, preparation } = unwritten;
        // It is never closed.
        let _permit = writer.preparations.acquire().await;
        match preparation::prepare(context, too_long).await {
            Ok(prepared) => {
                let preparation = Preparation { attempts: preparation.attempts + 1, prepared };
                let writer = Writer { shard: PREPARED_SHARD, ..writer.clone() };
                write(&writer, Unwritten { items, preparation }).await;
            }
            Err(error) => reject(items, &error),
        }
    })
}

/// Whether the error may come from one item alone: data that the database refuses, a statement that takes too long, stored data that
/// cannot be read.
fn is_of_one_item(error: &Error) -> bool {
    match error {
        Error::Database(error) => is_data_error(error) || is_statement_timeout(error),
        Error::Internal(_) => true,
        _ => false,
    }
}

/// Whether the fact was recorded, and not only found.
fn is_new(answer: &Result<Recorded, Refusal>) -> bool {
    answer.as_ref().is_ok_and(|recorded| !recorded.replayed)
}

fn ended(outcome: &'static str) {
    counter!(metrics::WRITE_BATCHES, "outcome" => outcome).increment(1);
}

/// Commits one batch; a deadlock or a serialisation failure repeats it whole.
async fn commit(
    context: &Context,
    shard: i32,
    facts: &[&Fact],
    preparation: &mut Preparation,
) -> Result<Committed, Error> {
    let mut pause = REPEAT_PAUSE;
    let mut repeats = 0;
    loop {
        match batch::commit(context, shard, facts, preparation).await {
            Err(Error::Database(error)) if is_conflict(&error) && repeats < MAX_REPEATS => {
                tracing::debug!(error = %error, repeats, "a batch is repeated");
                ended("repeated");
                repeats += 1;
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            result => return result,
        }
    }
}
