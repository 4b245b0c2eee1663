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

use super::database::Database;
use super::error::Error;
use super::rows::{Kind, Rows, left_join};
use crate::metrics;

/// Statements at once.
const WORKERS: usize = 2;
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
    pub revision: i64,
    /// By external id; those that have no row are not there.
    pub customers: HashMap<String, Head>,
    /// When the statement was sent, or the earliest of them: nothing here is older.
    pub at: Instant,
}

/// Remembered: what a look-up found for one name.
#[derive(Clone, Debug)]
struct Recent {
    installation: Arc<str>,
    revision: i64,
    head: Option<Head>,
    at: Instant,
}

struct Ask {
    names: Vec<String>,
    reply: oneshot::Sender<Result<Arc<Heads>, Error>>,
}

/// Merges look-ups.
pub struct Lookups {
    queue: mpsc::Sender<Ask>,
    max_staleness: Duration,
    recent: Cache<String, Recent>,
}

impl Lookups {
    /// Over a database; the statements are sent by tasks that end when this is dropped.
    pub fn start(database: &Database, max_staleness: Duration) -> Self {
        let (queue, asks) = mpsc::channel(MAX_WAITING);
        let asks = Arc::new(Mutex::new(asks));
        let recent = Cache::builder().max_capacity(MAX_RECENT).time_to_live(max_staleness).build();
        for _ in 0..WORKERS {
            let remembered = (max_staleness > Duration::ZERO).then(|| recent.clone());
            tokio::spawn(work(database.clone(), Arc::clone(&asks), remembered));
        }
        Self { queue, max_staleness, recent }
    }

    /// The versions of these customers. What is remembered is enough where it is not `fresh` ones that are wanted, and not
    /// older than the version that stands with a name.
    pub async fn of(&self, names: &[(String, Option<i64>)], fresh: bool) -> Result<Heads, Error> {
        if let Some(heads) = self.remembered(names).filter(|_| !fresh) {
            return Ok(heads);
        }
        let names: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
        let (reply, told) = oneshot::channel();
        self.queue.try_send(Ask { names, reply }).map_err(|_| Error::Overloaded)?;
        let heads = told.await.map_err(|_| Error::Unavailable)??;
        Ok(Heads::clone(&heads))
    }

    /// None: one of them is not remembered, or was looked up too long ago.
    fn remembered(&self, names: &[(String, Option<i64>)]) -> Option<Heads> {
        if self.max_staleness == Duration::ZERO {
            return None;
        }
        let mut heads: Option<Heads> = None;
        for (name, at_least) in names {
            let Recent { installation, revision, head, at } = self.recent.get(name)?;
            let is_known = at_least.is_none_or(|version| head.is_some_and(|head| head.version >= version));
            let heads = heads.get_or_insert_with(|| Heads { installation, revision, customers: HashMap::new(), at });
            if at.elapsed() >= self.max_staleness || !is_known || heads.revision != revision {
                return None;
            }
            heads.at = heads.at.min(at);
            heads.customers.extend(head.map(|head| (name.clone(), head)));
        }
        heads
    }
}

async fn work(database: Database, asks: Arc<Mutex<mpsc::Receiver<Ask>>>, recent: Option<Cache<String, Recent>>) {
    let mut merged = Vec::new();
    // Whoever has the lock waits for asks; the others have statements under way.
    while asks.lock().await.recv_many(&mut merged, MAX_MERGED).await > 0 {
        let at = Instant::now();
        let names: Vec<&str> = merged.iter().flat_map(|ask: &Ask| ask.names.iter().map(String::as_str)).collect();
        let heads = look_up(&database, names, at).await.map(Arc::new);
        if let (Some(recent), Ok(heads)) = (&recent, &heads) {
            for name in merged.iter().flat_map(|ask| &ask.names) {
                let head = heads.customers.get(name).copied();
                let installation = Arc::clone(&heads.installation);
                recent.insert(name.clone(), Recent { installation, revision: heads.revision, head, at });
            }
        }
        for ask in merged.drain(..) {
            let _ = ask.reply.send(heads.clone());
        }
    }
}

#[tracing::instrument(skip_all, fields(names = names.len()))]
async fn look_up(database: &Database, mut names: Vec<&str>, at: Instant) -> Result<Heads, Error> {
    names.sort_unstable();
    names.dedup();
    ::metrics::histogram!(metrics::CACHE_LOOKUP_NAMES).record(names.len() as f64);
    let mut rows = Rows::new(database.backend(), &[("name", Kind::Text)]);
    // No stored text is empty or holds U+0000. A row must be there all the same, for the revision.
    let storable = names.iter().filter(|name| !name.is_empty() && !name.contains('\0'));
    storable.copied().chain([" "]).for_each(|name| rows.push(vec![name.into()]));
    let what = "r.name, t.id, t.version, t.stamp, (SELECT i.installation_id FROM installation i) AS installation_id, \
        (SELECT i.revision FROM installation i) AS set_revision";
    let found = left_join(database.read(), what, "customer", rows, "t.external_id = r.name").await?;
    let first = found.first().ok_or_else(|| Error::Internal("a look-up answered nothing".to_owned()))?;
    let mut heads = Heads {
        installation: first.try_get::<String>("", "installation_id")?.into(),
        revision: first.try_get("", "set_revision")?,
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
