//! Inserts rows whose keys are not stored yet. If a key is stored, the sent row is compared with the stored row instead.

use std::collections::{BTreeMap, HashSet};

use sea_orm::{EntityTrait, IdenStatic as _, QueryFilter};

use super::touched::Batch;
use crate::app::error::Error;
use crate::app::rows::{any, insert_new};

/// The outcome for one sent row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// The key was not stored, and the row was inserted.
    New,
    /// The key is stored with the same content.
    Same,
    /// The key is stored with different content.
    Different,
}

/// The stored rows after an insertion.
pub(super) struct Inserted<M> {
    /// The keys of inserted rows for which [`Self::claim`] has not been called yet.
    unclaimed: HashSet<String>,
    /// All rows, by key.
    stored: BTreeMap<String, M>,
}

impl<M> Inserted<M> {
    /// Returns the outcome for a sent row with this key. The first call for an inserted row returns [`Insertion::New`]. Further
    /// calls with the same key use `same` to compare the sent row with the stored one.
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

/// Inserts the first row of each key that is not stored. The rows are inserted in the order of their keys, so that writers cannot
/// deadlock. `known` are rows that the caller has already read. `key_of` returns the value of the column `key`.
pub(super) async fn insert_once<E: EntityTrait>(
    batch: &Batch<'_>,
    key: E::Column,
    key_of: fn(&E::Model) -> String,
    known: Vec<E::Model>,
    rows: impl IntoIterator<Item = E::Model>,
) -> Result<Inserted<E::Model>, Error> {
    let keyed = |row: E::Model| (key_of(&row), row);
    let mut stored: BTreeMap<String, E::Model> = known.into_iter().map(keyed).collect();
    let mut new: BTreeMap<String, E::Model> = BTreeMap::new();
    for (id, row) in rows.into_iter().map(keyed).filter(|(id, _)| !stored.contains_key(id)) {
        new.entry(id).or_insert(row);
    }
    let models: Vec<&E::Model> = new.values().collect();
    let inserted = insert_new::<E>(batch.tx, &models, &[], key.as_str()).await?;
    let inserted: HashSet<String> =
        inserted.iter().map(|row| row.try_get("", key.as_str())).collect::<Result<_, _>>()?;
    let earlier: Vec<String> = new.keys().filter(|key| !inserted.contains(*key)).cloned().collect();
    stored.extend(new.into_iter().filter(|(key, _)| inserted.contains(key)));
    if !earlier.is_empty() {
        let rows = E::find().filter(any(batch.backend(), key, earlier)).all(batch.tx).await?;
        stored.extend(rows.into_iter().map(keyed));
    }
    Ok(Inserted { unclaimed: inserted, stored })
}
