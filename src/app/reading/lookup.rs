//! What every read of a customer begins with: which version it has now.
//!
//! Look-ups of concurrent requests are merged into one statement. A look-up only ever joins a batch whose statement has not
//! been sent yet, so what it is told was committed when it was asked or later: reads are never stale. While
//! [`Lookups::start`]'s `max_staleness` is above 0, one may be answered by what another found at most that long ago.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use entity::CustomerId;
use moka::sync::Cache;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::app::campaigns::Revision;
use crate::app::database::Database;
use crate::app::error::{Error, TEXT_BYTES};
use crate::app::rows::{Kind, Rows, left_join};
use crate::metrics;

/// Statements at once.
pub const WORKERS: usize = 2;
/// Look-ups that are merged at most.
const MAX_MERGED: usize = 1_000;
/// Look-ups that may wait. More are refused: the database does not keep up.
const MAX_WAITING: usize = 16_384;
/// Customers whose last look-up is remembered.
const MAX_RECENT: u64 = 65_536;

/// A customer's version now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its key.
    pub id: CustomerId,
    /// Grows with every commit.
    pub version: i64,
    /// Keeps versions apart that repeat after a restore.
    pub stamp: i64,
}

/// What a look-up found.
#[derive(Clone, Debug)]
pub struct Heads {
    /// The database's own id.
    pub installation: Arc<str>,
    /// The campaign-set revision.
    pub revision: Revision,
    /// By external id; those that have no row are not there.
    pub customers: HashMap<String, Head>,
    /// When the statement was sent, or the earliest of them: nothing here is older.
    pub at: Instant,
}

/// Remembered: what a look-up found for one name.
#[derive(Clone, Debug)]
struct Recent {
    installation: Arc<str>,
    revision: Revision,
    head: Option<Head>,
    at: Instant,
}

struct Ask {
    names: Vec<String>,
    reply: oneshot::Sender<Result<Arc<Heads>, Error>>,
    span: tracing::Span,
}

/// Merges look-ups.
pub struct Lookups {
    queue: mpsc::Sender<Ask>,
    recent: Option<Remembered>,
}

/// What was looked up lately.
#[derive(Clone)]
struct Remembered {
    by_name: Cache<String, Recent>,
    max_staleness: Duration,
}

impl Lookups {
    /// Over a database; the statements are sent by tasks that end when this is dropped.
    pub fn start(database: &Database, max_staleness: Duration) -> Self {
        let (queue, asks) = mpsc::channel(MAX_WAITING);
        let asks = Arc::new(Mutex::new(asks));
        let recent = (max_staleness > Duration::ZERO).then(|| Remembered {
            by_name: Cache::builder().max_capacity(MAX_RECENT).time_to_live(max_staleness).build(),
            max_staleness,
        });
        for _ in 0..WORKERS {
            tokio::spawn(work(database.clone(), Arc::clone(&asks), recent.clone()));
        }
        Self { queue, recent }
    }

    /// The versions of these customers, and of no others. What is remembered is enough if it was found at the `remembered`
    /// revision (none: nothing is), and is not older than the version that stands with a name.
    pub async fn of(&self, names: &[(String, Option<i64>)], remembered: Option<Revision>) -> Result<Heads, Error> {
        if let Some((recent, revision)) = self.recent.as_ref().zip(remembered)
            && let Some(heads) = recent.heads(names, revision)
        {
            return Ok(heads);
        }
        let asked = names.iter().map(|(name, _)| name.clone()).collect();
        let (reply, told) = oneshot::channel();
        let ask = Ask { names: asked, reply, span: tracing::Span::current() };
        self.queue.try_send(ask).map_err(|_| Error::Overloaded)?;
        let Heads { installation, revision, customers, at } = &*told.await.map_err(|_| Error::Unavailable)??;
        // The others are those of the callers that it was merged with.
        let mine = names.iter().filter_map(|(name, _)| Some((name.clone(), *customers.get(name)?)));
        Ok(Heads { installation: Arc::clone(installation), revision: *revision, customers: mine.collect(), at: *at })
    }
}

impl Remembered {
    /// None: one of them is not remembered, or was looked up too long ago or at another revision.
    fn heads(&self, names: &[(String, Option<i64>)], wanted: Revision) -> Option<Heads> {
        let mut heads: Option<Heads> = None;
        for (name, at_least) in names {
            let Recent { installation, revision, head, at } = self.by_name.get(name)?;
            let is_known = at_least.is_none_or(|version| head.is_some_and(|head| head.version >= version));
            let heads = heads.get_or_insert_with(|| Heads { installation, revision, customers: HashMap::new(), at });
            if at.elapsed() >= self.max_staleness || !is_known || revision != wanted {
                return None;
            }
            heads.at = heads.at.min(at);
            heads.customers.extend(head.map(|head| (name.clone(), head)));
        }
        heads
    }

    fn remember(&self, name: &str, heads: &Heads) {
        let (installation, head) = (Arc::clone(&heads.installation), heads.customers.get(name).copied());
        self.by_name.insert(name.to_owned(), Recent { installation, revision: heads.revision, head, at: heads.at });
    }
}

async fn work(database: Database, asks: Arc<Mutex<mpsc::Receiver<Ask>>>, recent: Option<Remembered>) {
    let mut merged: Vec<Ask> = Vec::new();
    // Whoever has the lock waits for asks; the others have statements under way.
    while asks.lock().await.recv_many(&mut merged, MAX_MERGED).await > 0 {
        let asks = std::mem::take(&mut merged);
        // Of the first one's trace: a statement has one parent.
        let span = asks.first().map_or_else(tracing::Span::none, |ask| ask.span.clone());
        let answered = answer(database.clone(), asks, recent.clone()).instrument(span);
        // In a task of its own, so that a panic loses one look-up (whose callers are told) and not the worker.
        if let Err(panic) = tokio::spawn(answered).await {
            tracing::error!(error = %panic, "a look-up was lost");
        }
    }
}

async fn answer(database: Database, asks: Vec<Ask>, recent: Option<Remembered>) {
    let at = Instant::now();
    let mut names: Vec<&str> = asks.iter().flat_map(|ask| ask.names.iter().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    // No others are stored.
    names.retain(|name| (1..=TEXT_BYTES).contains(&name.len()) && !name.contains('\0'));
    let heads = look_up(&database, &names, at).await.map(Arc::new);
    if let (Some(recent), Ok(heads)) = (&recent, &heads) {
        names.iter().for_each(|name| recent.remember(name, heads));
    }
    for ask in asks {
        let _ = ask.reply.send(heads.clone());
    }
}

#[tracing::instrument(skip_all, fields(names = names.len()))]
async fn look_up(database: &Database, names: &[&str], at: Instant) -> Result<Heads, Error> {
    ::metrics::histogram!(metrics::CACHE_LOOKUP_NAMES).record(names.len() as f64);
    let mut rows = Rows::new(database.backend(), &[("name", Kind::Text)]);
    // A row must be there in any case, for the revision. No customer's name is empty.
    names.iter().copied().chain([""]).for_each(|name| rows.push(vec![name.into()]));
    let what = "r.name, t.id, t.version, t.stamp, (SELECT i.installation_id FROM installation i) AS installation_id, \
        (SELECT i.set_revision FROM installation i) AS current_set_revision, \
        (SELECT i.revision_stamp FROM installation i) AS revision_stamp, \
        (SELECT i.format FROM installation i) AS format";
    let found = left_join(database.read(), what, "customer", rows, "t.external_id = r.name").await?;
    let first = found.first().ok_or_else(|| Error::Internal("a look-up answered nothing".to_owned()))?;
    let mut heads = Heads {
        installation: first.try_get::<String>("", "installation_id")?.into(),
        revision: Revision::of(first)?,
        customers: HashMap::with_capacity(names.len()),
        at,
    };
    for row in found {
        if let Some(id) = row.try_get::<Option<i64>>("", "id")? {
            let head =
                Head { id: CustomerId(id), version: row.try_get("", "version")?, stamp: row.try_get("", "stamp")? };
            heads.customers.insert(row.try_get("", "name")?, head);
        }
    }
    Ok(heads)
}
