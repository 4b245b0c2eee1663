//! A customer's points, live: every ledger entry in order, without gaps, and progress as it moves.
//!
//! A [`Feed`] registers with the hub before its first read, then reads the ledger from its cursor in SQL, then waits for
//! wake-ups. One whose news continue the cursor is handed on as it is; any other makes it read again. So whatever gets
//! lost or comes late on the way costs time and nothing else.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entity::{customer, ledger_entry};
use futures_util::Stream;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use ::metrics::{counter, histogram};

use super::App;
use super::customer::find_or_blank;
use super::error::{Check, Error};
use super::ledger;
use super::recorder::Commit;
use super::viewer::Reader;
use crate::engine::time::Instant;
use crate::live::Subscription;
use crate::metrics;

/// Ledger entries of one read, and the most of one update: a commit with more comes as several.
const MAX_ENTRIES: usize = 500;

/// How far a subscriber has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// It has all ledger entries up to this one.
    pub sequence: i64,
    /// It has all that was committed up to this version of the customer, progress included; none: not known.
    pub version: Option<i64>,
    /// Points after that entry, which tell whether the ledger is still the one that it was; none: not known.
    pub balance: Option<i64>,
}

impl Cursor {
    /// The customer exactly as it is in this row.
    pub fn of(customer: &customer::Model) -> Self {
        let customer::Model { ledger_sequence, version, balance, .. } = *customer;
        Self { sequence: ledger_sequence, version: Some(version), balance: Some(balance) }
    }

    /// Opaque to clients.
    pub fn to_text(self) -> String {
        let Self { sequence, version, balance } = self;
        URL_SAFE_NO_PAD.encode(match (version, balance) {
            (Some(version), Some(balance)) => format!("points:{sequence}:{version}:{balance}"),
            (Some(version), None) => format!("points:{sequence}:{version}"),
            (None, _) => format!("points:{sequence}"),
        })
    }

    /// Reads what [`Self::to_text`] wrote, or the cursor of a ledger's edge.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(sequence) = ledger::sequence_of(text) {
            return Some(Self { sequence, version: None, balance: None });
        }
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = text.strip_prefix("points:")?.splitn(3, ':');
        let sequence = i64::from(parts.next()?.parse::<u32>().ok()?);
        let version = parts.next().map(str::parse::<u32>).transpose().ok()?.map(i64::from);
        let balance = parts.next().map(str::parse).transpose().ok()?;
        Some(Self { sequence, version, balance })
    }
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
}

/// Follows one customer.
pub struct Feed {
    app: Arc<App>,
    /// External id: there may be no such customer yet.
    customer: String,
    subscription: Subscription<Commit>,
    reached: Cursor,
    /// Of the row that it has reached; none: it has reached no row yet. A commit that changed this very version continues it,
    /// whatever became of the database meanwhile.
    stamp: Option<i64>,
    /// More is stored than was handed on or read.
    behind: bool,
    /// When it heard of what it is about to hand on.
    woken: Option<tokio::time::Instant>,
    /// Read, not handed on yet; each within [`MAX_ENTRIES`] of a read.
    read: VecDeque<Update>,
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
        let after = match after {
            Some(text) => {
                let wrong = || Error::BadUserInput("after: this is no cursor of a ledger or of points".to_owned());
                Some(Cursor::parse(&text).ok_or_else(wrong)?)
            }
            None => None,
        };
        // Before the first read: what is committed from here on wakes it.
        let subscription = app.live.subscribe(&customer);
        let Some(reached) = after else {
            let Read { customer: row, .. } = read(&app, &customer, None).await?;
            let (reached, stamp) = (Cursor::of(&row), Some(row.stamp));
            return Ok(Self { reached, stamp, ..Self::new(app, customer, subscription, expires_at) });
        };
        let mut feed = Self { reached, ..Self::new(app, customer, subscription, expires_at) };
        feed.read_on().await?;
        Ok(feed)
    }

    /// At the very beginning.
    fn new(app: Arc<App>, customer: String, subscription: Subscription<Commit>, expires_at: Instant) -> Self {
        let reached = Cursor { sequence: 0, version: None, balance: None };
        let read = VecDeque::new();
        Self { app, customer, subscription, reached, stamp: None, behind: false, woken: None, read, expires_at }
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
                self.reached = update.cursor;
                if let Some(woken) = self.woken.take() {
                    histogram!(metrics::LIVE_LAG_SECONDS).record(woken.elapsed().as_secs_f64());
                }
                return Ok(update);
            }
            if self.behind {
                self.read_on().await?;
                continue;
            }
            let mark = tokio::select! {
                mark = self.subscription.next() => mark,
                () = self.app.clock.sleep_until(self.expires_at) => return Err(Error::Unauthenticated),
                () = self.app.stopping.cancelled() => return Err(Error::Unavailable),
            };
            let known = match (mark.stamp, &mark.news) {
                (Some(stamp), _) => Some(stamp) == self.stamp,
                (None, Some(_)) => Some(mark.version) <= self.reached.version,
                (None, None) => false,
            };
            if known {
                continue;
            }
            self.woken = Some(mark.at);
            match mark.news.filter(|commit| Some(commit.before) == self.stamp) {
                Some(commit) => self.take(&commit.customer, commit.entries.clone(), true, "hub"),
                None => self.behind = true,
            }
        }
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
        // Of what it is not known to have reached, nothing is told but entries.
        self.reached.version.get_or_insert(customer.version);
        self.take(&customer, entries, !self.behind, "sql");
        Ok(())
    }

    /// Whether these are the customer that it has followed so far and its entries from the cursor's on. If the database went back,
    /// they may be others: what it was told does not exist any more.
    fn is_continued_by(&self, customer: &customer::Model, entries: &[Arc<ledger_entry::Model>]) -> bool {
        let Cursor { sequence, version, balance } = self.reached;
        let (last, next) = if sequence > 0 { (entries.first(), entries.get(1)) } else { (None, entries.first()) };
        let same_version = version.is_none_or(|it| it < customer.version)
            || version == Some(customer.version) && self.stamp.is_none_or(|stamp| stamp == customer.stamp);
        let reaches = last.is_some_and(|entry| entry.sequence == sequence) || sequence == 0;
        let same_balance = balance.is_none_or(|it| it == last.map_or(0, |entry| entry.balance_after));
        let in_order = version.is_none_or(|version| {
            last.is_none_or(|entry| entry.version <= version) && next.is_none_or(|entry| entry.version >= version)
        });
        same_version && reaches && same_balance && in_order
    }

    /// What follows the cursor is to be handed on. `whole`: as [`updates`] has it.
    fn take(
        &mut self,
        customer: &Arc<customer::Model>,
        entries: Vec<Arc<ledger_entry::Model>>,
        whole: bool,
        source: &'static str,
    ) {
        self.stamp = whole.then_some(customer.stamp);
        self.read = updates(customer, entries, whole);
        // Without an entry it was progress that moved.
        if whole && self.read.is_empty() && Some(customer.version) > self.reached.version {
            let customer = Arc::clone(customer);
            self.read.push_back(Update { cursor: Cursor::of(&customer), entries: Vec::new(), customer });
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
        let ledger_entry::Model { sequence, version, balance_after, .. } = *entry;
        let cursor = Cursor { sequence, version: Some(version), balance: Some(balance_after) };
        match updates.back_mut() {
            Some(last) if last.cursor.version == cursor.version && last.entries.len() < MAX_ENTRIES => {
                last.cursor = cursor;
                last.entries.push(entry);
            }
            _ => updates.push_back(Update { cursor, entries: vec![entry], customer: Arc::clone(customer) }),
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
