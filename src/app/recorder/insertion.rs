//! Inserts rows whose keys are not stored yet. If a key is stored, the sent row is compared with the stored row instead.

use std::collections::{BTreeMap, HashMap};

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

/// The rows after an insertion.
pub(super) struct Inserted<'a, M> {
    /// The inserted rows by key, and whether [`Self::claim`] was called for them.
    inserted: HashMap<&'a str, (&'a M, bool)>,
    /// The rows that were stored before, by key.
    earlier: HashMap<String, M>,
}

impl<M> Inserted<'_, M> {
    /// Returns the outcome for a sent row with this key. The first call for an inserted row returns [`Insertion::New`]. Further
    /// calls with the same key use `same` to compare the sent row with the stored one.
    pub(super) fn claim(&mut self, key: &str, same: impl FnOnce(&M) -> bool) -> Insertion {
        let stored = match self.inserted.get_mut(key) {
            Some((row, claimed)) => {
                if !std::mem::replace(claimed, true) {
                    return Insertion::New;
                }
                Some(*row)
            }
            None => self.earlier.get(key),
        };
        if stored.is_some_and(same) { Insertion::Same } else { Insertion::Different }
    }
}

/// Inserts the first row of each key that is not stored. The rows are inserted in the order of their keys, so that writers cannot
/// deadlock. `known` are rows that the caller has already read. `key_of` returns the value of the column `key`.
pub(super) async fn insert_once<'a, E: EntityTrait>(
    batch: &Batch<'_>,
    key: E::Column,
    key_of: fn(&E::Model) -> &str,
    known: Vec<E::Model>,
    rows: &'a [E::Model],
) -> Result<Inserted<'a, E::Model>, Error> {
    let keyed = |row: E::Model| (key_of(&row).to_owned(), row);
    let mut earlier: HashMap<String, E::Model> = known.into_iter().map(keyed).collect();
    let mut new: BTreeMap<&str, &E::Model> = BTreeMap::new();
    for row in rows.iter().filter(|row| !earlier.contains_key(key_of(row))) {
        new.entry(key_of(row)).or_insert(row);
    }
    let models: Vec<&E::Model> = new.values().copied().collect();
    let mut inserted = HashMap::with_capacity(models.len());
    for row in insert_new::<E>(batch.tx, &models, &[], key.as_str()).await? {
        let key: String = row.try_get("", key.as_str())?;
        inserted.extend(new.remove_entry(key.as_str()).map(|(key, row)| (key, (row, false))));
    }
    if !new.is_empty() {
        let stored = any(batch.backend(), key, new.keys().map(|key| (*key).to_owned()));
        earlier.extend(E::find().filter(stored).all(batch.tx).await?.into_iter().map(keyed));
    }
    Ok(Inserted { inserted, earlier })
}
