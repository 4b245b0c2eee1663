//! A read-through cache of entries that never change: an entry's key contains all that it depends on, so there is nothing to
//! invalidate. It knows keys, values and bytes, no rules.
//!
//! L1 is this process's, bounded in bytes; L2 is Redis ([`redis`]), which may be absent, slow or wrong: then its entries are
//! misses. What is in neither is loaded by the caller's function. However many ask for one key at once, it is looked for
//! once, in a task of its own: a caller that goes away cancels nothing.

mod codec;
pub mod redis;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::Instrument as _;

use self::redis::Redis;
use crate::metrics;

/// What an entry takes beside its key and value: the map's own bookkeeping, measured for moka.
const ENTRY_BYTES: usize = 400;
/// Memory of a value for each byte of its encoded form.
const BYTES_PER_ENCODED_BYTE: usize = 2;
/// An entry that takes more than this part of the budget is not kept: few of them would push everything else out.
const MAX_PART: u64 = 8;
/// Bytes of the largest entry that is sent to Redis.
const MAX_SHARED_BYTES: usize = 1 << 20;

/// Entries by key. `E`: why one could not be loaded.
pub struct Cache<T, E> {
    local: moka::sync::Cache<String, Local<T>>,
    shared: Option<Redis>,
    searches: Mutex<HashMap<String, Outcome<T, E>>>,
    max_entry_bytes: u64,
}

struct Local<T> {
    value: Arc<T>,
    weight: u32,
}

impl<T> Clone for Local<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), weight: self.weight }
    }
}

/// What a search for a key comes to, once it does.
type Outcome<T, E> = watch::Receiver<Option<Result<Option<Found<T>>, E>>>;

/// Where an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// In this process.
    L1,
    /// In Redis.
    L2,
    /// It was loaded.
    Sql,
}

impl Tier {
    /// As metrics and answers name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::Sql => "sql",
        }
    }
}

/// An entry.
pub struct Found<T> {
    /// Its value.
    pub value: Arc<T>,
    /// Where it was.
    pub tier: Tier,
}

impl<T> Clone for Found<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), tier: self.tier }
    }
}

/// What was loaded for a key that was wanted. It may be of a later key: the database moved on meanwhile.
pub struct Loaded<T> {
    /// The key that was wanted.
    pub wanted: String,
    /// The key of what was read.
    pub key: String,
    /// What was read.
    pub value: T,
}

/// A search ended without an outcome: its task panicked, or the process is stopping.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a search in the cache was lost")]
pub struct Lost;

impl<T, E> Cache<T, E>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
    E: From<Lost> + Clone + Send + Sync + 'static,
{
    /// With so many bytes in this process.
    pub fn new(local_bytes: u64, shared: Option<Redis>) -> Self {
        let local = moka::sync::Cache::builder()
            .weigher(|_: &String, entry: &Local<T>| entry.weight)
            .max_capacity(local_bytes)
            .eviction_listener(|_, _, cause| {
                if cause.was_evicted() {
                    ::metrics::counter!(metrics::CACHE_EVICTIONS).increment(1);
                }
            })
            .build();
        Self { local, shared, searches: Mutex::default(), max_entry_bytes: local_bytes / MAX_PART }
    }

    /// Redis, where there is one.
    pub fn shared(&self) -> Option<&Redis> {
        self.shared.as_ref()
    }

    /// Entries of this process, and what they weigh.
    pub fn size(&self) -> (u64, u64) {
        self.local.run_pending_tasks();
        (self.local.entry_count(), self.local.weighted_size())
    }

    /// The entry that this process has, whether it holds or not.
    pub fn kept(&self, key: &str) -> Option<Arc<T>> {
        self.local.get(key).map(|entry| entry.value)
    }

    /// The entries of these keys, as far as there are any and `holds` lets them pass. What no tier has is loaded by `load`,
    /// all together; a key that it does not answer has no entry.
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
            let entry = self.local.get(key).filter(|entry| holds(&entry.value))?;
            Some(Found { value: entry.value, tier: Tier::L1 })
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
                // A search ended since.
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
            // A sender that is gone has told nothing.
            let told = outcome.wait_for(Option::is_some).await.map_err(|_| Lost)?.clone();
            if let Some(entry) = told.ok_or(Lost)?? {
                found.insert(key, entry);
            }
        }
        Ok(found)
    }

    /// In Redis, then by loading.
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
            let value = encoded.and_then(|encoded| Some((codec::decode::<T>(&search.key, &encoded)?, encoded.len())));
            match value.filter(|(value, _)| holds(value)) {
                Some((value, encoded_bytes)) => {
                    let value = Arc::new(value);
                    self.keep(&search.key, Arc::clone(&value), encoded_bytes);
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
                self.keep(&key, Arc::clone(&value), encoded.len());
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

    /// What Redis has, for each of these searches.
    async fn read_shared(&self, searches: &[Search<T, E>]) -> Vec<Option<Vec<u8>>> {
        let keys: Vec<&str> = searches.iter().map(|search| search.key.as_str()).collect();
        let read = match &self.shared {
            Some(redis) => redis.get(&keys).await,
            None => None,
        };
        read.unwrap_or_else(|| vec![None; keys.len()])
    }

    /// Keeps an entry in this process, unless it is too large.
    fn keep(&self, key: &str, value: Arc<T>, encoded_bytes: usize) {
        let weight = ENTRY_BYTES + 2 * key.len() + BYTES_PER_ENCODED_BYTE * encoded_bytes;
        if weight as u64 <= self.max_entry_bytes {
            let weight = u32::try_from(weight).unwrap_or(u32::MAX);
            self.local.insert(key.to_owned(), Local { value, weight });
        }
    }
}

/// A search that is under way; whoever comes meanwhile awaits its outcome.
struct Search<T, E> {
    cache: Arc<Cache<T, E>>,
    key: String,
    told: watch::Sender<Option<Result<Option<Found<T>>, E>>>,
}

impl<T, E> Search<T, E> {
    fn end(self, outcome: Result<Option<Found<T>>, E>) {
        // Before it is told: who comes from here on finds the entry, or searches anew.
        self.cache.searches.lock().remove(&self.key);
        self.told.send_replace(Some(outcome));
    }
}

impl<T, E> Drop for Search<T, E> {
    fn drop(&mut self) {
        // After a panic; else it is gone already, or another search is there that began since.
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
