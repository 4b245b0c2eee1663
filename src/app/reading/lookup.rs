//! Looks up the current versions of customers. Every read of a customer through the cache begins with such a look-up.
//!
//! The look-ups of concurrent requests are merged into one statement. A look-up joins only a statement that has not been sent
//! yet. So its result contains every commit that was made before the request, and reads are never stale. The exception is a
//! `max_staleness` above 0 (see [`Lookups::start`]): a look-up may then return what another one found at most that long ago.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use entity::CustomerId;
use quick_cache::sync::Cache;
use sea_orm::DatabaseBackend;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant as Monotonic;
use tracing::Instrument as _;

use crate::app::campaign::set::Revision;
use crate::app::clock::{Clock, POSTGRES_TIME};
use crate::app::database::Database;
use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, left_join};
use crate::engine::external_id::check_text;
use crate::engine::time::Instant;
use crate::metrics;

/// The maximum number of concurrent statements. Each needs a connection. With two, each would find half as many look-ups waiting, and
/// both would cost almost as much as the one.
pub const WORKERS: usize = 1;
/// The maximum number of look-ups that are merged into one statement.
const MAX_MERGED: usize = 1_000;
/// The maximum number of waiting look-ups. Further ones are refused, because the database does not keep up.
const MAX_WAITING: usize = 16_384;
/// The maximum number of customers whose last look-up is remembered.
const MAX_RECENT: usize = 65_536;

/// The current version of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub id: CustomerId,
    /// Grows with every commit that changes the customer.
    pub version: i64,
    /// A random number for each version. It distinguishes equal versions after a restore of the database.
    pub stamp: i64,
}

/// The result of a look-up.
#[derive(Clone, Debug)]
pub struct Heads {
    /// The id of the database.
    pub installation: Arc<str>,
    /// The current revision of the campaign set.
    pub revision: Revision,
    /// The customers by external id. Customers without a row are missing.
    pub customers: HashMap<String, Head>,
    /// When the statement was sent; for several statements, the earliest time. The result is at least as recent as this.
    pub at: Monotonic,
}

/// The remembered result of a look-up of one name.
#[derive(Clone, Debug)]
struct Recent {
    installation: Arc<str>,
    revision: Revision,
    head: Option<Head>,
    at: Monotonic,
}

struct Ask {
    names: Vec<String>,
    reply: oneshot::Sender<Result<Arc<Heads>, Error>>,
    span: tracing::Span,
}

/// Queues look-ups and merges them.
pub struct Lookups {
    queue: mpsc::Sender<Ask>,
    recent: Option<Remembered>,
}

/// The results of recent look-ups.
#[derive(Clone)]
struct Remembered {
    by_name: Arc<Cache<String, Recent>>,
    max_staleness: Duration,
}

impl Lookups {
    /// Starts the tasks that send the statements. They end when the returned value is dropped. With a `max_staleness` of zero,
    /// no result is remembered. On PostgreSQL, each statement also tells `clock` the time.
    pub fn start(database: &Database, clock: &Clock, max_staleness: Duration) -> Self {
        let (queue, asks) = mpsc::channel(MAX_WAITING);
        let asks = Arc::new(Mutex::new(asks));
        let recent = (max_staleness > Duration::ZERO)
            .then(|| Remembered { by_name: Arc::new(Cache::new(MAX_RECENT)), max_staleness });
        for _ in 0..WORKERS {
            tokio::spawn(work(database.clone(), clock.clone(), Arc::clone(&asks), recent.clone()));
        }
        Self { queue, recent }
    }

    /// Returns the versions of the named customers. A name can come with a version that the result must at least have.
    /// Remembered results are used if they were found at the campaign-set revision `remembered` and have these versions. If
    /// `remembered` is `None`, the database is always asked.
    pub async fn load_heads(
        &self,
        names: &[(String, Option<i64>)],
        remembered: Option<Revision>,
    ) -> Result<Heads, Error> {
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
        // The statement also returned the customers of the look-ups that it was merged with.
        let mine = names.iter().filter_map(|(name, _)| Some((name.clone(), *customers.get(name)?)));
        Ok(Heads { installation: Arc::clone(installation), revision: *revision, customers: mine.collect(), at: *at })
    }
}

impl Remembered {
    /// Returns `None` if one of the names is not remembered, was looked up too long ago or at another revision, or has a lower
    /// version than requested.
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

async fn work(database: Database, clock: Clock, asks: Arc<Mutex<mpsc::Receiver<Ask>>>, recent: Option<Remembered>) {
    let mut merged: Vec<Ask> = Vec::new();
    // The worker that holds the lock waits for look-ups. The other workers are running statements.
    while asks.lock().await.recv_many(&mut merged, MAX_MERGED).await > 0 {
        let asks = std::mem::take(&mut merged);
        // A span has only one parent, so the statement becomes part of the trace of the first look-up.
        let span = asks.first().map_or_else(tracing::Span::none, |ask| ask.span.clone());
        let answered = answer(database.clone(), clock.clone(), asks, recent.clone()).instrument(span);
        // A separate task, so that a panic loses only this statement and not the worker. Its callers get an error.
        if let Err(panic) = tokio::spawn(answered).await {
            tracing::error!(error = %panic, "a look-up was lost");
        }
    }
}

async fn answer(database: Database, clock: Clock, asks: Vec<Ask>, recent: Option<Remembered>) {
    let at = Monotonic::now();
    let mut names: Vec<&str> = asks.iter().flat_map(|ask| ask.names.iter().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    // No customer can have another name, and PostgreSQL does not accept U+0000 in a parameter.
    names.retain(|name| check_text(name).is_ok());
    let heads = look_up(&database, &clock, &names, at).await.map(Arc::new);
    if let (Some(recent), Ok(heads)) = (&recent, &heads) {
        names.iter().for_each(|name| recent.remember(name, heads));
    }
    for ask in asks {
        let _ = ask.reply.send(heads.clone());
    }
}

#[tracing::instrument(skip_all, fields(names = names.len()))]
async fn look_up(database: &Database, clock: &Clock, names: &[&str], at: Monotonic) -> Result<Heads, Error> {
    ::metrics::histogram!(metrics::CACHE_LOOKUP_NAMES).record(names.len() as f64);
    let mut rows = Rows::new(database.backend(), &[("name", Kind::Text)]);
    // No customer has the empty name. Its row returns what all others would repeat: the installation, its revision and the time.
    [""].into_iter().chain(names.iter().copied()).for_each(|name| rows.push(vec![name.into()]));
    let once = |what: &str| format!("CASE WHEN COALESCE(r.name, '') = '' THEN (SELECT {what}) END");
    let mut what = format!(
        "r.name, t.id, t.version, t.stamp, {} AS installation_id, {} AS current_set_revision, {} AS revision_stamp, {} AS format",
        once("i.installation_id FROM installation i"),
        once("i.set_revision FROM installation i"),
        once("i.revision_stamp FROM installation i"),
        once("i.format FROM installation i"),
    );
    if database.backend() == DatabaseBackend::Postgres {
        what = format!("{what}, {} AS now", once(POSTGRES_TIME));
    }
    let found = left_join(database.read(), &what, "customer", rows, "t.external_id = r.name").await?;
    let installation = found.iter().find(|row| matches!(row.try_get("", "installation_id"), Ok(Some::<String>(_))));
    let installation = installation.ok_or_else(|| Error::Internal("a look-up returned no installation".to_owned()))?;
    if database.backend() == DatabaseBackend::Postgres {
        clock.told(Instant(installation.try_get("", "now")?));
    }
    let mut heads = Heads {
        installation: installation.try_get::<String>("", "installation_id")?.into(),
        revision: Revision::from_row(installation)?,
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
