//! A customer's points, live: every ledger entry in order, without gaps, and progress as it moves.
//!
//! A [`Feed`] registers with the hub before its first read, then reads the ledger from its cursor in SQL, then waits for
//! wake-ups. One whose news continue the cursor is handed on as it is; any other makes it read again. So whatever gets
//! lost or comes late on the way costs time and nothing else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, histogram};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entity::{customer, ledger_entry};
use futures_util::Stream;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tokio::sync::{Semaphore, oneshot};

use crate::app::App;
use crate::app::allowance::Allowance;
use crate::app::customer::find_or_blank;
use crate::app::error::{Check, Error};
use crate::app::recorder::context::Commit;
use crate::app::viewer::Reader;
use crate::engine::time::Instant;
use crate::live::Subscription;
use crate::metrics;

/// Ledger entries of one read, and the most of one update: a commit with more comes as several.
const MAX_ENTRIES: usize = 500;
/// How long an update that was read from the ledger may hold up those of others.
const MAX_TURN: Duration = Duration::from_secs(5);

/// How far a subscriber has come. What follows its sequence says of which ledger: a database that went back comes to the same
/// sequences and versions again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// It has all ledger entries up to this one.
    pub sequence: i64,
    /// It has all that was committed up to this version of the customer, progress included.
    pub version: i64,
    /// When that entry was posted, µs, 0 where the sequence is.
    pub posted_at: i64,
    /// Of that version; none: not known, or the version has more entries. A commit that changed this very version continues it,
    /// whatever became of the database meanwhile.
    pub stamp: Option<i64>,
}

impl Cursor {
    /// The customer exactly as it is in this row.
    pub fn of(customer: &customer::Model) -> Self {
        let customer::Model { ledger_sequence, version, posted_at, stamp, .. } = *customer;
        Self { sequence: ledger_sequence, version, posted_at, stamp: Some(stamp) }
    }

    /// Up to this entry, which may not be its commit's last.
    pub fn of_entry(entry: &ledger_entry::Model) -> Self {
        let ledger_entry::Model { sequence, version, created_at, .. } = *entry;
        Self { sequence, version, posted_at: created_at, stamp: None }
    }

    /// Opaque to clients.
    pub fn to_text(self) -> String {
        let Self { sequence, version, posted_at, stamp } = self;
        let stamp = stamp.map(|stamp| format!(":{stamp}")).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(format!("points:{sequence}:{version}:{posted_at}{stamp}"))
    }

    /// Reads what [`Self::to_text`] wrote.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::BadUserInput("after: this is no cursor of a ledger or of points".to_owned());
        match *numbers(text).ok_or_else(wrong)? {
            [sequence, version, posted_at] => Ok(Self { sequence, version, posted_at, stamp: None }),
            [sequence, version, posted_at, stamp] => Ok(Self { sequence, version, posted_at, stamp: Some(stamp) }),
            // Of an earlier release: it does not say of which ledger it is.
            _ => Err(Error::CursorUnknown),
        }
    }

    /// The sequence in what [`Self::to_text`] wrote, in this release or an earlier one.
    pub fn sequence_of(text: &str) -> Option<i64> {
        numbers(text)?.first().copied()
    }
}

/// What a cursor says, from the sequence on. Earlier releases wrote no more than the sequence into the cursors of a ledger's edges,
/// under a name of their own.
fn numbers(cursor: &str) -> Option<Vec<i64>> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let numbers = text.strip_prefix("points:").or_else(|| text.strip_prefix("ledger:"))?;
    let numbers: Vec<i64> = numbers.splitn(4, ':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let is_count = |number: &i64| (0..=i64::from(u32::MAX)).contains(number);
    numbers.iter().take(2).all(is_count).then_some(numbers)
}

/// What a subscriber is told at once.
#[derive(Clone, Debug)]
pub struct Update {
    /// How far it has come with this.
    pub cursor: Cursor,
    /// One commit's, in order; none: only progress moved.
    pub entries: Vec<Arc<ledger_entry::Model>>,
    /// The customer as it is now: all of these entries are in, and perhaps later ones.
    pub customer: Arc<customer::Model>,
    /// Catching up; it ends when the update has been answered.
    turn: Option<Turn>,
}

/// The right to answer one update that was read from the ledger. The others wait until this is dropped, or until it has
/// taken too long: a client that does not read must not hold up everybody.
#[derive(Clone, Debug)]
struct Turn {
    _until_dropped: Arc<oneshot::Sender<()>>,
}

impl Turn {
    async fn take(answers: &Arc<Semaphore>) -> Result<Self, Error> {
        let place = Arc::clone(answers).acquire_owned().await.map_err(|_| Error::Unavailable)?;
        let (until_dropped, dropped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            // It does not matter which of the two it was.
            let _ = tokio::time::timeout(MAX_TURN, dropped).await;
            drop(place);
        });
        Ok(Self { _until_dropped: Arc::new(until_dropped) })
    }
}

/// Follows one customer.
pub struct Feed {
    app: Arc<App>,
    /// External id: there may be no such customer yet.
    customer: String,
    subscription: Subscription<Commit>,
    reached: Cursor,
    /// More is stored than was handed on or read.
    behind: bool,
    /// When it heard of what it is about to hand on.
    woken: Option<tokio::time::Instant>,
    /// Read, not handed on yet; each within [`MAX_ENTRIES`] of a read.
    read: VecDeque<Update>,
    /// Whether these were read from the ledger, and so take turns with those of others.
    catching_up: bool,
    /// What it costs is charged elsewhere; while that is in debt, there are no more updates.
    allowance: Option<Allowance>,
    expires_at: Instant,
}

impl Feed {
    /// Follows a customer from a cursor on; none: from now on. Ends when the token expires.
    pub async fn open(
        app: Arc<App>,
        reader: Reader<'_>,
        expires_at: Instant,
        customer: Option<String>,
        after: Option<String>,
    ) -> Result<Self, Error> {
        let unnamed = || Error::BadUserInput("customerExternalId: this token speaks for no customer".to_owned());
        let customer = customer.or_else(|| reader.myself().map(str::to_owned)).ok_or_else(unnamed)?;
        if !reader.sees(&customer) {
            return Err(Error::NotFound);
        }
        let mut check = Check::at(&[]);
        check.text(&["customerExternalId"], &customer);
        check.finish(Some(()))?;
        let after = after.as_deref().map(Cursor::parse).transpose()?;
        // Before the first read: what is committed from here on wakes it.
        let subscription = app.live.subscribe(&customer);
        let (behind, woken) = (after.is_some(), None);
        let reached = match after {
            Some(cursor) => cursor,
            None => Cursor::of(&read(&app, &customer, None).await?.customer),
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
        };
        if feed.behind {
            // Whether the cursor is known is told at once.
            feed.read_on().await?;
        }
        Ok(feed)
    }

    /// Ends while this is in debt.
    pub fn charged_to(self, allowance: Option<Allowance>) -> Self {
        Self { allowance, ..self }
    }

    /// As a stream that ends with its first error.
    pub fn stream(self) -> impl Stream<Item = Result<Update, Error>> + Send {
        futures_util::stream::unfold(Some(self), |feed| async move {
            let mut feed = feed?;
            let update = feed.next().await;
            Some(match update {
                Ok(update) => (Ok(update), Some(feed)),
                // There is nothing to go on from.
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
                self.read_on().await?;
                continue;
            }
            let mark = tokio::select! {
                mark = self.subscription.next() => mark,
                () = self.app.clock.sleep_until(self.expires_at) => return Err(Error::Unauthenticated),
            };
            // By what was looked up, else by what was told; where neither is there, it must look itself.
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

    async fn hand_on(&mut self, mut update: Update) -> Result<Update, Error> {
        self.allowance.as_ref().map_or(Ok(()), Allowance::check)?;
        if self.catching_up {
            update.turn = Some(Turn::take(&self.app.catch_up_answers).await?);
        }
        self.reached = update.cursor;
        if let Some(woken) = self.woken.take() {
            histogram!(metrics::LIVE_LAG_SECONDS).record(woken.elapsed().as_secs_f64());
        }
        Ok(update)
    }

    /// Reads what follows the cursor, a bounded part at a time.
    async fn read_on(&mut self) -> Result<(), Error> {
        let Read { customer, mut entries } = read(&self.app, &self.customer, Some(self.reached.sequence)).await?;
        if !self.is_continued_by(&customer, &entries) {
            return Err(Error::CursorUnknown);
        }
        // The first is the one that it has.
        let has = entries.len().min(usize::from(self.reached.sequence > 0));
        self.behind = entries.len() > MAX_ENTRIES;
        let entries = entries.split_off(has);
        self.take(&customer, entries, !self.behind, "sql");
        Ok(())
    }

    /// Whether these are the customer that it has followed so far and its entries from the cursor's on. If the database went back,
    /// they may be others: what it was told does not exist any more.
    fn is_continued_by(&self, customer: &customer::Model, entries: &[Arc<ledger_entry::Model>]) -> bool {
        let Cursor { sequence, version, posted_at, stamp } = self.reached;
        let (last, next) = if sequence > 0 { (entries.first(), entries.get(1)) } else { (None, entries.first()) };
        let same_entry = last.map_or(sequence == 0, |entry| entry.sequence == sequence)
            && posted_at == last.map_or(0, |entry| entry.created_at);
        let in_order =
            last.is_none_or(|entry| entry.version <= version) && next.is_none_or(|entry| entry.version >= version);
        match stamp {
            // Of one version the stamp says it all.
            Some(stamp) if version == customer.version => stamp == customer.stamp,
            _ => version <= customer.version && same_entry && in_order,
        }
    }

    /// What follows the cursor is to be handed on. `whole`: as [`updates`] has it.
    fn take(
        &mut self,
        customer: &Arc<customer::Model>,
        entries: Vec<Arc<ledger_entry::Model>>,
        whole: bool,
        source: &'static str,
    ) {
        self.catching_up = source == "sql";
        self.read = updates(customer, entries, whole);
        if whole && self.read.is_empty() {
            let cursor = Cursor::of(customer);
            if cursor.version > self.reached.version {
                // Without an entry it was progress that moved.
                self.read.push_back(Update { cursor, entries: Vec::new(), customer: Arc::clone(customer), turn: None });
            } else {
                self.reached = cursor;
            }
        }
        counter!(metrics::LIVE_UPDATES, "source" => source).increment(self.read.len() as u64);
    }
}

/// What is stored of a customer.
struct Read {
    customer: Arc<customer::Model>,
    entries: Vec<Arc<ledger_entry::Model>>,
}

/// The customer, then its entries from this one on up to what it says; none: no entries. In a task of its own: who hangs up in
/// the middle of a statement would cost the pool a connection.
async fn read(app: &Arc<App>, customer: &str, from: Option<i64>) -> Result<Read, Error> {
    let (app, customer) = (Arc::clone(app), customer.to_owned());
    let read = tokio::spawn(async move {
        let _turn = app.catching_up.acquire().await.map_err(|_| Error::Unavailable)?;
        let customer = find_or_blank(&app, &customer).await?;
        let Some(from) = from else { return Ok(Read { customer, entries: Vec::new() }) };
        // Entries never change: those up to the row's last are the ledger as it was when the row was read.
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

/// An update for each commit. `whole`: the entries are all up to the customer's last; else the last commit may have
/// more, and is left for the next read, unless there is nothing else.
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
        // Later commits changed progress alone: the customer shows them already.
        Some(last) if whole => last.cursor = Cursor::of(customer),
        _ => {}
    }
    updates
}
