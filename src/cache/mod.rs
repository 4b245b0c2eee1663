//! A read-through cache of entries that never change. The key of an entry contains everything that the entry depends on,
//! so no entry is ever invalidated. The cache knows nothing about what its keys and values mean.
//!
//! The tier L1 is the memory of this process and is bounded in bytes (`local`). The tier L2 is Redis ([`redis`]). If Redis is
//! absent, slow or wrong, its entries count as misses. The function of the caller loads entries that are in neither tier.
//! Both tiers hold encoded entries, so an entry takes little memory, and each read decodes it.
//! All concurrent requests for a key share one search. The search runs in a separate task, so a caller that goes away
//! does not cancel it.

mod codec;
mod local;
pub mod redis;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::Instrument as _;

use self::local::Local;
use self::redis::Redis;
use crate::metrics;

/// The largest entry that is sent to Redis, in bytes of its encoded form.
const MAX_SHARED_BYTES: usize = 1 << 20;

/// A cache of values of type `T`. `E` is the error of a load that fails.
pub struct Cache<T, E> {
    local: Local,
    shared: Option<Redis>,
    searches: Mutex<HashMap<String, Outcome<T, E>>>,
}

/// The outcome of a search: `None` while the search runs, then the entry, its absence or an error.
type Outcome<T, E> = watch::Receiver<Option<Result<Option<Found<T>>, E>>>;

/// The tier in which an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The memory of this process.
    L1,
    /// Redis, which several nodes share.
    L2,
    /// The entry was in no tier, so the function of the caller loaded it.
    Sql,
}

impl Tier {
    /// The name of the tier in metrics and in responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::Sql => "sql",
        }
    }
}

/// An entry and the tier in which it was found.
pub struct Found<T> {
    pub value: Arc<T>,
    pub tier: Tier,
}

impl<T> Clone for Found<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), tier: self.tier }
    }
}

/// A loaded entry. Its key may differ from the requested key, because the database may have changed since the request.
pub struct Loaded<T> {
    /// The key that was requested. The caller of [`Cache::get`] gets the entry under this key.
    pub wanted: String,
    /// The key that fits the loaded value. The cache stores the entry under this key.
    pub key: String,
    pub value: T,
}

/// A search ended without an outcome, because its task panicked or the process is stopping.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a search in the cache was lost")]
pub struct Lost;

impl<T, E> Cache<T, E>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
    E: From<Lost> + Clone + Send + Sync + 'static,
{
    /// Creates a cache that uses at most `local_bytes` of memory in this process.
    pub fn new(local_bytes: u64, shared: Option<Redis>) -> Self {
        Self { local: Local::new(local_bytes), shared, searches: Mutex::default() }
    }

    /// Returns Redis, if it is configured.
    pub fn shared(&self) -> Option<&Redis> {
        self.shared.as_ref()
    }

    /// Returns the number of entries in L1 and their estimated size in bytes.
    pub fn size(&self) -> (u64, u64) {
        self.local.size()
    }

    /// Returns the entry of L1, even if it would not pass the `holds` of [`Self::get`].
    pub fn kept(&self, key: &str) -> Option<T> {
        codec::decode_trusted(&self.local.get(key)?)
    }

    /// Returns the entries of these keys. An entry that `holds` rejects counts as a miss. One call of `load` loads all
    /// entries that are in no tier. A key that `load` does not return has no entry.
    pub async fn get<F>(
        self: &Arc<Self>,
        keys: Vec<String>,
        holds: impl Fn(&T) -> bool + Send + 'static,
        load: impl FnOnce(Vec<String>) -> F + Send + 'static,
    ) -> Result<HashMap<String, Found<T>>, E>
    where
        F: Future<Output = Result<Vec<Loaded<T>>, E>> + Send + 'static,
    {
        let mut found = HashMap::with_capacity(keys.len());
        let (mut begun, mut awaited) = (Vec::new(), Vec::new());
        let kept = |key: &String| {
            let value = self.kept(key).filter(&holds)?;
            Some(Found { value: Arc::new(value), tier: Tier::L1 })
        };
        for key in keys {
            if let Some(entry) = kept(&key) {
                found.insert(key, entry);
                continue;
            }
            let mut searches = self.searches.lock();
            if let Some(outcome) = searches.get(&key) {
                awaited.push((key, outcome.clone()));
            } else if let Some(entry) = kept(&key) {
                // A search for this key has ended since the first look.
                found.insert(key, entry);
            } else {
                let (told, outcome) = watch::channel(None);
                searches.insert(key.clone(), outcome.clone());
                begun.push(Search { cache: Arc::clone(self), key: key.clone(), told });
                awaited.push((key, outcome));
            }
        }
        count(Tier::L1, found.len());
        if !begun.is_empty() {
            let cache = Arc::clone(self);
            tokio::spawn(async move { cache.search(begun, holds, load).await }.in_current_span());
        }
        for (key, mut outcome) in awaited {
            // If the sender was dropped, the search has no outcome.
            let told = outcome.wait_for(Option::is_some).await.map_err(|_| Lost)?.clone();
            if let Some(entry) = told.ok_or(Lost)?? {
                found.insert(key, entry);
            }
        }
        Ok(found)
    }

    /// Looks for the entries in Redis and loads the others.
    async fn search<F>(
        &self,
        searches: Vec<Search<T, E>>,
        holds: impl Fn(&T) -> bool,
        load: impl FnOnce(Vec<String>) -> F,
    ) where
        F: Future<Output = Result<Vec<Loaded<T>>, E>>,
    {
        let mut rest = Vec::new();
        let shared = self.read_shared(&searches).await;
        for (search, encoded) in searches.into_iter().zip(shared) {
            let value = encoded.and_then(|encoded| Some((codec::decode::<T>(&search.key, &encoded)?, encoded)));
            match value.filter(|(value, _)| holds(value)) {
                Some((value, encoded)) => {
                    let value = Arc::new(value);
                    self.local.insert(&search.key, encoded.into());
                    count(Tier::L2, 1);
                    search.end(Ok(Some(Found { value, tier: Tier::L2 })));
                }
                None => rest.push(search),
            }
        }
        if rest.is_empty() {
            return;
        }
        let loaded = match load(rest.iter().map(|search| search.key.clone()).collect()).await {
            Ok(loaded) => loaded,
            Err(error) => {
                rest.into_iter().for_each(|search| search.end(Err(error.clone())));
                return;
            }
        };
        count(Tier::Sql, loaded.len());
        let mut values: HashMap<String, Arc<T>> = HashMap::with_capacity(loaded.len());
        for Loaded { wanted, key, value } in loaded {
            let value = Arc::new(value);
            if let Some(encoded) = codec::encode(&key, &*value) {
                let encoded: Arc<[u8]> = encoded.into();
                self.local.insert(&key, Arc::clone(&encoded));
                if let Some(redis) = self.shared.as_ref().filter(|_| encoded.len() <= MAX_SHARED_BYTES) {
                    redis.set_later(key, encoded);
                }
            }
            values.insert(wanted, value);
        }
        for search in rest {
            let value = values.remove(&search.key);
            search.end(Ok(value.map(|value| Found { value, tier: Tier::Sql })));
        }
    }

    /// Returns the encoded entry of each search, in order, or `None` for an entry that Redis does not have.
    async fn read_shared(&self, searches: &[Search<T, E>]) -> Vec<Option<Vec<u8>>> {
        let keys: Vec<&str> = searches.iter().map(|search| search.key.as_str()).collect();
        let read = match &self.shared {
            Some(redis) => redis.get(&keys).await,
            None => None,
        };
        read.unwrap_or_else(|| vec![None; keys.len()])
    }
}

/// A running search. Other requests for its key wait for its outcome.
struct Search<T, E> {
    cache: Arc<Cache<T, E>>,
    key: String,
    told: watch::Sender<Option<Result<Option<Found<T>>, E>>>,
}

impl<T, E> Search<T, E> {
    fn end(self, outcome: Result<Option<Found<T>>, E>) {
        // The search is removed before its outcome is sent, so that later requests find the entry or start a new search.
        self.cache.searches.lock().remove(&self.key);
        self.told.send_replace(Some(outcome));
    }
}

impl<T, E> Drop for Search<T, E> {
    fn drop(&mut self) {
        // After a panic the search is still in the map and is removed here. Otherwise it is gone, or another search has
        // replaced it.
        let mut searches = self.cache.searches.lock();
        if searches.get(&self.key).is_some_and(|outcome| outcome.same_channel(&self.told.subscribe())) {
            searches.remove(&self.key);
        }
    }
}

fn count(tier: Tier, entries: usize) {
    if entries > 0 {
        ::metrics::counter!(metrics::CACHE_READS, "tier" => tier.as_str()).increment(entries as u64);
    }
}
