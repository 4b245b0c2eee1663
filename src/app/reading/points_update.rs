//! Live updates of the points of a customer: every ledger entry in order and without gaps, and every change of progress.
//!
//! A [`Feed`] registers with the hub before its first read. Then it reads the ledger from its cursor on. After that, it waits for
//! wake-ups. If the news of a wake-up continues the cursor, it becomes the next update. Otherwise the feed reads the ledger
//! again. So a lost or late wake-up costs time and nothing else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, histogram};
use entity::{customer, ledger_entry};
use futures_util::Stream;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tokio::sync::{Semaphore, oneshot};

use crate::app::App;
use crate::app::allowance::Allowance;
use crate::app::cursor::Cursor;
use crate::app::customer::find_or_blank;
use crate::app::error::{Check, Error};
use crate::app::reading::snapshot::{Extent, View};
use crate::app::recorder::context::Commit;
use crate::app::recorder::fact::Fact;
use crate::app::viewer::Reader;
use crate::engine::time::Instant;
use crate::live::Subscription;
use crate::metrics;

/// The maximum number of ledger entries of one read and of one update. A commit with more entries becomes several updates.
const MAX_ENTRIES: usize = 500;
/// The maximum time for which an update that was read from the ledger can block the updates of other feeds.
const MAX_TURN: Duration = Duration::from_secs(5);

/// One update that is sent to a subscriber.
#[derive(Clone, Debug)]
pub struct Update {
    /// The position of the subscriber after this update.
    pub cursor: Cursor,
    /// The entries of one commit, in order. Empty if only progress changed.
    pub entries: Vec<Arc<ledger_entry::Model>>,
    /// A current row of the customer. It includes all of these entries and possibly later ones.
    pub customer: Arc<customer::Model>,
    /// The permit of an update that was read from the ledger. It is released when the update has been sent and dropped.
    turn: Option<Turn>,
}

/// The permit to send one update that was read from the ledger. It is released when it is dropped, or after [`MAX_TURN`], because
/// a client that does not read must not block all others.
#[derive(Clone, Debug)]
struct Turn {
    _until_dropped: Arc<oneshot::Sender<()>>,
}

impl Turn {
    async fn take(answers: &Arc<Semaphore>) -> Result<Self, Error> {
        let place = Arc::clone(answers).acquire_owned().await.map_err(|_| Error::Unavailable)?;
        let (until_dropped, dropped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            // Both a drop and the timeout release the permit.
            let _ = tokio::time::timeout(MAX_TURN, dropped).await;
            drop(place);
        });
        Ok(Self { _until_dropped: Arc::new(until_dropped) })
    }
}

/// Follows the points of one customer.
pub struct Feed {
    app: Arc<App>,
    /// The external id. The customer may not exist yet.
    customer: String,
    subscription: Subscription<Commit>,
    reached: Cursor,
    /// The ledger may have entries after the last one that was read.
    behind: bool,
    /// When the wake-up of the next update was received. It is used for the metric of the delay.
    woken: Option<tokio::time::Instant>,
    /// Updates that were read but not returned yet.
    read: VecDeque<Update>,
    /// The updates in `read` come from the ledger, so each of them needs a permit ([`Turn`]).
    catching_up: bool,
    /// The allowance that other code charges for the updates. While it is in debt, the feed fails instead of returning an update.
    allowance: Option<Allowance>,
    expires_at: Instant,
    /// When the clock next changes the points of the customer.
    due_at: Option<Instant>,
}

impl Feed {
    /// Opens a feed of `customer`, or of the customer of the token if `customer` is `None`. It begins after the cursor `after`,
    /// or at the current version if there is no cursor. It ends with an error at `expires_at`, when the token expires.
    pub async fn open(
        app: Arc<App>,
        reader: Reader<'_>,
        expires_at: Instant,
        customer: Option<String>,
        after: Option<String>,
    ) -> Result<Self, Error> {
        let unnamed = || Error::BadUserInput("customerExternalId: required, the token has no customer".to_owned());
        let customer = customer.or_else(|| reader.myself().map(str::to_owned)).ok_or_else(unnamed)?;
        if !reader.sees(&customer) {
            return Err(Error::NotFound);
        }
        let mut check = Check::at(&[]);
        check.text(&["customerExternalId"], &customer);
        check.finish(Some(()))?;
        let after = after.as_deref().map(Cursor::parse).transpose()?;
        // Subscribes before the first read, so that every later commit wakes the feed.
        let subscription = app.live.subscribe(&customer);
        let (behind, woken) = (after.is_some(), None);
        let (reached, due_at) = match after {
            // The first read finds out what is due.
            Some(cursor) => (cursor, None),
            None => {
                let row = read(&app, &customer, None).await?.customer;
                (Cursor::of(&row), row.due_at.map(Instant))
            }
        };
        let read = VecDeque::new();
        let mut feed = Self {
            app,
            customer,
            subscription,
            reached,
            behind,
            woken,
            read,
            catching_up: behind,
            allowance: None,
            expires_at,
            due_at,
        };
        if feed.behind {
            // An unknown cursor is reported here and not with the first update.
            feed.read_on().await?;
        }
        Ok(feed)
    }

    /// Returns the feed with an allowance. The feed ends with an error if the allowance is in debt.
    pub fn charged_to(self, allowance: Option<Allowance>) -> Self {
        Self { allowance, ..self }
    }

    /// Returns the updates as a stream that ends after its first error.
    pub fn stream(self) -> impl Stream<Item = Result<Update, Error>> + Send {
        // The feed is boxed, because the stream and its future would each have room for it.
        futures_util::stream::unfold(Some(Box::new(self)), |feed| async move {
            let mut feed = feed?;
            let update = feed.next().await;
            Some(match update {
                Ok(update) => (Ok(update), Some(feed)),
                // The client cannot continue from its cursor, so the error does not contain one.
                Err(Error::CursorUnknown) => (Err(Error::CursorUnknown), None),
                Err(error) => {
                    let interrupted = Error::Interrupted { cursor: feed.reached.to_text(), cause: Box::new(error) };
                    (Err(interrupted), None)
                }
            })
        })
    }

    async fn next(&mut self) -> Result<Update, Error> {
        loop {
            if let Some(update) = self.read.pop_front() {
                return self.hand_on(update).await;
            }
            if self.behind {
                // Boxed, because a feed seldom reads and an idle one should be small.
                Box::pin(self.read_on()).await?;
                continue;
            }
            let due_at = self.due_at.unwrap_or(Instant::FOREVER);
            let mark = tokio::select! {
                mark = self.subscription.next() => mark,
                () = self.app.clock.sleep_until(self.expires_at.min(due_at)) => {
                    if self.app.clock.now() >= self.expires_at {
                        return Err(Error::Unauthenticated);
                    }
                    Box::pin(self.pass()).await?;
                    continue;
                }
            };
            // A stamp that was looked up decides, otherwise the version of the news. Without either, the feed must read.
            let known = match (mark.stamp, &mark.news) {
                (Some(stamp), _) => Some(stamp) == self.reached.stamp,
                (None, Some(_)) => mark.version <= self.reached.version,
                (None, None) => false,
            };
            if known {
                continue;
            }
            self.woken = Some(mark.at);
            let continues = |commit: &Arc<Commit>| {
                Some(commit.before) == self.reached.stamp
                    && mark.stamp.is_none_or(|stamp| stamp == commit.customer.stamp)
            };
            match mark.news.filter(continues) {
                Some(commit) => self.take(&commit.customer, commit.entries.clone(), true, "hub"),
                None => self.behind = true,
            }
        }
    }

    /// The clock changed the points: lets the write path post that, and reads it. If nothing can be posted now, the balance has changed
    /// nevertheless, so the subscriber gets an update without entries.
    async fn pass(&mut self) -> Result<(), Error> {
        let posted = match self.app.recorder.record_when_free(Fact::Expiry(self.customer.clone())).await {
            Ok(answer) => answer.await.unwrap_or(Err(Error::Unavailable)),
            Err(error) => Err(error),
        };
        if let Ok(Ok(recorded)) = posted {
            self.due_at = recorded.customer.due_at.map(Instant);
            self.behind |= recorded.customer.stamp != self.reached.stamp.unwrap_or_default();
            return Ok(());
        }
        let names = [(self.customer.clone(), None)];
        let found = self.app.snapshots().find(&names, Extent::Balance).await?;
        let Some(View { snapshot, .. }) = found.get(&self.customer) else {
            self.due_at = None;
            return Ok(());
        };
        let now = self.app.clock.now();
        self.due_at = snapshot.points.as_ref().and_then(|points| points.changes_at(now));
        let customer = Arc::clone(&snapshot.customer);
        if Some(customer.stamp) == self.reached.stamp {
            self.read.push_back(Update { cursor: self.reached, entries: Vec::new(), customer, turn: None });
        } else {
            self.behind = true;
        }
        Ok(())
    }

    async fn hand_on(&mut self, mut update: Update) -> Result<Update, Error> {
        self.allowance.as_ref().map_or(Ok(()), Allowance::check)?;
        if self.catching_up {
            update.turn = Some(Box::pin(Turn::take(&self.app.catch_up_answers)).await?);
        }
        self.reached = update.cursor;
        if let Some(woken) = self.woken.take() {
            histogram!(metrics::LIVE_LAG_SECONDS).record(woken.elapsed().as_secs_f64());
        }
        Ok(update)
    }

    /// Reads the next entries after the cursor, up to [`MAX_ENTRIES`].
    async fn read_on(&mut self) -> Result<(), Error> {
        let Read { customer, mut entries } = read(&self.app, &self.customer, Some(self.reached.sequence)).await?;
        if !self.is_continued_by(&customer, &entries) {
            return Err(Error::CursorUnknown);
        }
        // The first entry is that of the cursor, which the subscriber has already.
        let has = entries.len().min(usize::from(self.reached.sequence > 0));
        self.behind = entries.len() > MAX_ENTRIES;
        let entries = entries.split_off(has);
        self.take(&customer, entries, !self.behind, "sql");
        Ok(())
    }

    /// Whether the stored customer and its entries, from the entry of the cursor on, continue what the subscriber has. After a
    /// restore of the database they may not, because entries that were sent may no longer exist.
    fn is_continued_by(&self, customer: &customer::Model, entries: &[Arc<ledger_entry::Model>]) -> bool {
        let Cursor { sequence, version, posted_at, stamp } = self.reached;
        let (last, next) = if sequence > 0 { (entries.first(), entries.get(1)) } else { (None, entries.first()) };
        let same_entry = last.map_or(sequence == 0, |entry| entry.sequence == sequence)
            && posted_at == last.map_or(0, |entry| entry.created_at);
        let in_order =
            last.is_none_or(|entry| entry.version <= version) && next.is_none_or(|entry| entry.version >= version);
        match stamp {
            // For the same version, the stamp alone decides.
            Some(stamp) if version == customer.version => stamp == customer.stamp,
            _ => version <= customer.version && same_entry && in_order,
        }
    }

    /// Turns the entries after the cursor into updates. See [`updates`] for `whole`.
    fn take(
        &mut self,
        customer: &Arc<customer::Model>,
        entries: Vec<Arc<ledger_entry::Model>>,
        whole: bool,
        source: &'static str,
    ) {
        self.catching_up = source == "sql";
        self.due_at = customer.due_at.map(Instant);
        self.read = updates(customer, entries, whole);
        if whole && self.read.is_empty() {
            let cursor = Cursor::of(customer);
            if cursor.version > self.reached.version {
                // A newer version without a new entry: only progress changed.
                self.read.push_back(Update { cursor, entries: Vec::new(), customer: Arc::clone(customer), turn: None });
            } else {
                self.reached = cursor;
            }
        }
        counter!(metrics::LIVE_UPDATES, "source" => source).increment(self.read.len() as u64);
    }
}

struct Read {
    customer: Arc<customer::Model>,
    entries: Vec<Arc<ledger_entry::Model>>,
}

/// Reads the customer, and its entries from the sequence `from` up to the last entry of the row. If `from` is `None`, no entries
/// are read. Reads in a separate task, because a caller that goes away during a statement would cost the pool a connection.
async fn read(app: &Arc<App>, customer: &str, from: Option<i64>) -> Result<Read, Error> {
    let (app, customer) = (Arc::clone(app), customer.to_owned());
    let read = tokio::spawn(async move {
        let _turn = app.catching_up.acquire().await.map_err(|_| Error::Unavailable)?;
        let customer = find_or_blank(&app, &customer).await?;
        let Some(from) = from else { return Ok(Read { customer, entries: Vec::new() }) };
        // Entries never change, so the entries up to the last one of the row are the ledger as it was when the row was read.
        let entries = ledger_entry::Entity::find()
            .filter(ledger_entry::Column::CustomerId.eq(customer.id.0))
            .filter(ledger_entry::Column::Sequence.gte(from))
            .filter(ledger_entry::Column::Sequence.lte(customer.ledger_sequence))
            .order_by_asc(ledger_entry::Column::Sequence)
            .limit(1 + MAX_ENTRIES as u64)
            .all(app.database.read())
            .await?;
        Ok(Read { customer, entries: entries.into_iter().map(Arc::new).collect() })
    });
    read.await.map_err(|error| Error::Internal(format!("reading the ledger: {error}")))?
}

/// Groups the entries into updates, one per commit. `whole` means that the entries reach up to the last one of the customer.
/// Otherwise the last commit may have further entries, and is left for the next read unless it is the only one.
fn updates(customer: &Arc<customer::Model>, entries: Vec<Arc<ledger_entry::Model>>, whole: bool) -> VecDeque<Update> {
    let mut updates: VecDeque<Update> = VecDeque::new();
    for entry in entries {
        let cursor = Cursor::of_entry(&entry);
        match updates.back_mut() {
            Some(last) if last.cursor.version == cursor.version && last.entries.len() < MAX_ENTRIES => {
                last.cursor = cursor;
                last.entries.push(entry);
            }
            _ => updates.push_back(Update { cursor, entries: vec![entry], customer: Arc::clone(customer), turn: None }),
        }
    }
    if !whole && updates.len() > 1 {
        updates.pop_back();
    }
    match updates.back_mut() {
        // Later commits changed only progress, and the row of the customer contains their changes.
        Some(last) if whole => last.cursor = Cursor::of(customer),
        _ => {}
    }
    updates
}
