//! The tier L1: encoded entries in the memory of this process, bounded in bytes.
//!
//! An entry is stored under a hash of its key, because the hash is shorter. A key that differs has the same hash with a
//! probability of 2^-128.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};
use sha2::{Digest as _, Sha256};

use crate::metrics;

/// The memory of an entry in addition to its bytes, as measured: its slot, and its share of what is remembered of evicted entries.
const ENTRY_BYTES: usize = 80;
/// The reference counts in front of the bytes of an entry.
const COUNTS_BYTES: usize = 2 * size_of::<usize>();
/// The allocator rounds a size up to one of four for each doubling, so the difference is 1/8 of the next power of two.
const SIZES_TO_POWER: usize = 8;
/// The share of the memory that the entries take, in percent. The allocator needs the rest for itself.
const ENTRIES_PERCENT: u64 = 90;
/// An entry that takes more than 1/512 of the memory is not stored, because it would evict many others.
const MAX_PART: u64 = 512;
/// An entry of this size is stored in a small memory too, unless it takes more than 1/[`MAX_PART_IF_SMALL`] of it.
const LARGE_BYTES: u64 = 32 << 10;
const MAX_PART_IF_SMALL: u64 = 16;
/// The estimated size of an entry. It decides how many evicted entries are remembered: half as many as there would be of this size.
const MEAN_BYTES: u64 = 2 << 10;

/// The first bytes of the SHA-256 of a key.
type Hash = [u8; 16];

/// Entries in bounded memory. The least useful ones are evicted.
pub(super) struct Local {
    entries: Cache<Hash, Arc<[u8]>, Weight, DefaultHashBuilder, Evictions>,
    max_entry_bytes: u64,
}

impl Local {
    /// Creates a tier that takes at most `bytes` of memory.
    pub(super) fn new(bytes: u64) -> Self {
        let mean = usize::try_from(bytes / MEAN_BYTES).unwrap_or(usize::MAX);
        let weight = bytes / 100 * ENTRIES_PERCENT;
        let small = LARGE_BYTES.min(bytes / MAX_PART_IF_SMALL);
        Self {
            entries: Cache::with(mean, weight, Weight, DefaultHashBuilder::default(), Evictions),
            max_entry_bytes: small.max(bytes / MAX_PART),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<[u8]>> {
        self.entries.get(&hash(key))
    }

    /// Stores an entry, unless it is too large.
    pub(super) fn insert(&self, key: &str, encoded: Arc<[u8]>) {
        if weight(&encoded) <= self.max_entry_bytes {
            self.entries.insert(hash(key), encoded);
        }
    }

    /// Returns the number of entries, and the memory that they are assumed to take, in bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.entries.len() as u64, self.entries.weight())
    }
}

fn hash(key: &str) -> Hash {
    let mut hash = Hash::default();
    let whole = Sha256::digest(key);
    hash.copy_from_slice(&whole[..size_of::<Hash>()]);
    hash
}

fn weight(encoded: &[u8]) -> u64 {
    let bytes = COUNTS_BYTES + encoded.len();
    let step = (bytes.next_power_of_two() / SIZES_TO_POWER).max(1);
    (ENTRY_BYTES + bytes.next_multiple_of(step)) as u64
}

#[derive(Clone)]
struct Weight;

impl Weighter<Hash, Arc<[u8]>> for Weight {
    fn weight(&self, _: &Hash, encoded: &Arc<[u8]>) -> u64 {
        weight(encoded)
    }
}

/// Counts evictions.
#[derive(Clone)]
struct Evictions;

impl Lifecycle<Hash, Arc<[u8]>> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Hash, _: Arc<[u8]>) {
        ::metrics::counter!(metrics::CACHE_EVICTIONS).increment(1);
    }
}
