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
}

impl Cursor {
    /// The customer exactly as it is in this row.
    pub fn of(customer: &customer::Model) -> Self {
        Self { sequence: customer.ledger_sequence, version: Some(customer.version) }
    }

    /// Opaque to clients.
    pub fn to_text(self) -> String {
        let Self { sequence, version } = self;
        URL_SAFE_NO_PAD.encode(match version {
            Some(version) => format!("points:{sequence}:{version}"),
            None => format!("points:{sequence}"),
        })
    }

    /// Reads what [`Self::to_text`] wrote, or the cursor of a ledger's edge.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(sequence) = ledger::sequence_of(text) {
            return Some(Self { sequence, version: None });
        }
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut numbers = text.strip_prefix("points:")?.splitn(2, ':').map(|number| number.parse::<u32>().ok());
        let sequence = i64::from(numbers.next()??);
        let version = match numbers.next() {
            Some(version) => Some(i64::from(version?)),
            None => None,
        };
        Some(Self { sequence, version })
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
        let row = find_or_blank(&app, &customer).await?;
        let now = Cursor::of(&row);
        let reached = after.unwrap_or(now);
        if reached.sequence > now.sequence || reached.version > now.version {
            return Err(Error::CursorUnknown);
        }
        let behind = reached.sequence < now.sequence || reached.version.is_some_and(|it| Some(it) < now.version);
        let reached = Cursor { version: reached.version.or(now.version), ..reached };
        let stamp = (!behind).then_some(row.stamp);
        Ok(Self { app, customer, subscription, reached, stamp, behind, woken: None, read: VecDeque::new(), expires_at })
    }

    /// As a stream that ends with its first error.
    pub fn stream(self) -> impl Stream<Item = Result<Update, Error>> + Send {
        futures_util::stream::unfold(Some(self), |feed| async move {
            let mut feed = feed?;
            let update = feed.next().await;
            Some(match update {
                Ok(update) => (Ok(update), Some(feed)),
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
            if Some(mark.version) <= self.reached.version {
                continue;
            }
            self.woken = Some(mark.at);
            match mark.news.filter(|commit| Some(commit.before) == self.stamp) {
                Some(commit) => self.take(&commit.customer, commit.entries.clone(), true, "hub"),
                None => self.behind = true,
            }
        }
    }

    /// Reads what follows the cursor, a bounded part at a time. In a task of its own: who hangs up in the middle of a
    /// statement would cost the pool a connection.
    async fn read_on(&mut self) -> Result<(), Error> {
        let (app, customer, sequence) = (Arc::clone(&self.app), self.customer.clone(), self.reached.sequence);
        let read = tokio::spawn(async move { read(&app, &customer, sequence).await });
        let (customer, entries) =
            read.await.map_err(|error| Error::Internal(format!("reading the ledger: {error}")))??;
        self.behind = entries.len() == MAX_ENTRIES;
        self.take(&customer, entries, !self.behind, "sql");
        Ok(())
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

/// The customer, then its entries after `sequence` up to what it says.
async fn read(
    app: &App,
    customer: &str,
    sequence: i64,
) -> Result<(Arc<customer::Model>, Vec<Arc<ledger_entry::Model>>), Error> {
    let _turn = app.catching_up.acquire().await.map_err(|_| Error::Unavailable)?;
    let customer = find_or_blank(app, customer).await?;
    // Entries never change: those up to the row's last are the ledger as it was when the row was read.
    let entries = ledger_entry::Entity::find()
        .filter(ledger_entry::Column::CustomerId.eq(customer.id.0))
        .filter(ledger_entry::Column::Sequence.gt(sequence))
        .filter(ledger_entry::Column::Sequence.lte(customer.ledger_sequence))
        .order_by_asc(ledger_entry::Column::Sequence)
        .limit(MAX_ENTRIES as u64)
        .all(app.database.read())
        .await?;
    Ok((customer, entries.into_iter().map(Arc::new).collect()))
}

/// An update for each commit. `whole`: the entries are all up to the customer's last; else the last commit may have
/// more, and is left for the next read, unless there is nothing else.
fn updates(customer: &Arc<customer::Model>, entries: Vec<Arc<ledger_entry::Model>>, whole: bool) -> VecDeque<Update> {
    let mut updates: VecDeque<Update> = VecDeque::new();
    for entry in entries {
        let cursor = Cursor { sequence: entry.sequence, version: Some(entry.version) };
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
