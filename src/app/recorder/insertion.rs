//! Inserting rows once: a key that is stored already keeps its row, and what was sent is compared with that row.

use std::collections::{BTreeMap, HashSet};

use sea_orm::{EntityTrait, QueryFilter};

use super::touched::Batch;
use crate::app::error::Error;
use crate::app::rows::{any, insert_new};

/// What was sent, beside what is stored under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// Nothing was stored: the row was inserted.
    New,
    /// The same is stored.
    Same,
    /// Something else is stored.
    Different,
}

/// The rows of some keys after an insertion.
pub(super) struct Inserted<M> {
    /// Keys of inserted rows that nobody has claimed.
    unclaimed: HashSet<String>,
    /// All rows, by key.
    stored: BTreeMap<String, M>,
}

impl<M> Inserted<M> {
    /// What became of a row with this key. The first to ask about an inserted row gets [`Insertion::New`]; the rest of a batch
    /// that sends the same key is compared with that row.
    pub(super) fn claim(&mut self, key: &str, same: impl FnOnce(&M) -> bool) -> Insertion {
        if self.unclaimed.remove(key) {
            Insertion::New
        } else if self.stored.get(key).is_some_and(same) {
            Insertion::Same
        } else {
            Insertion::Different
        }
    }
}

/// Inserts the first row of each key whose key is not stored, in the order of their keys, so that writers cannot wait for each
/// other in a circle. `known`: rows that the caller has read already. `key_of` returns the value of the column `key`.
pub(super) async fn insert_once<E: EntityTrait>(
    batch: &Batch<'_>,
    key: E::Column,
    key_of: fn(&E::Model) -> String,
    known: Vec<E::Model>,
    rows: impl IntoIterator<Item = E::Model>,
) -> Result<Inserted<E::Model>, Error>
where
    E::Model: Clone,
{
    let keyed = |row: E::Model| (key_of(&row), row);
    let mut stored: BTreeMap<String, E::Model> = known.into_iter().map(keyed).collect();
    let mut new: BTreeMap<String, E::Model> = BTreeMap::new();
    for (key, row) in rows.into_iter().map(keyed).filter(|(key, _)| !stored.contains_key(key)) {
        new.entry(key).or_insert(row);
    }
    let models: Vec<E::Model> = new.values().cloned().collect();
    let inserted: HashSet<String> = insert_new::<E>(batch.tx, &models, &[], key).await?.into_iter().collect();
    let earlier: Vec<String> = new.keys().filter(|key| !inserted.contains(*key)).cloned().collect();
    stored.extend(new.into_iter().filter(|(key, _)| inserted.contains(key)));
    if !earlier.is_empty() {
        let rows = E::find().filter(any(batch.backend(), key, earlier)).all(batch.tx).await?;
        stored.extend(rows.into_iter().map(keyed));
    }
    Ok(Inserted { unclaimed: inserted, stored })
}
