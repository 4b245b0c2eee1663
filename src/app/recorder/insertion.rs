//! Inserts rows whose keys are not stored yet, and finds the rows of the others.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{EntityTrait, IdenStatic as _, QueryFilter};

use super::touched::Batch;
use crate::app::error::Error;
use crate::app::rows::{any, insert_new};

/// The outcome for one sent row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion<'a, M> {
    /// The key was not stored, and the row was inserted.
    New,
    /// This row is stored with the key, or was inserted with it before.
    Stored(&'a M),
}

/// The rows after an insertion.
pub(super) struct Inserted<'a, M> {
    /// The inserted rows by key, and whether [`Self::claim`] was called for them.
    inserted: HashMap<&'a str, (&'a M, bool)>,
    /// The rows that were stored before, by key.
    earlier: HashMap<String, M>,
}

impl<M> Inserted<'_, M> {
    /// Returns the outcome for a sent row with this key. Only the first call for an inserted row returns [`Insertion::New`]. Returns
    /// `None` if the key is not stored, which cannot happen to a key that was sent.
    pub(super) fn claim(&mut self, key: &str) -> Option<Insertion<'_, M>> {
        match self.inserted.get_mut(key) {
            Some((_, claimed @ false)) => {
                *claimed = true;
                Some(Insertion::New)
            }
            Some((row, true)) => Some(Insertion::Stored(row)),
            None => self.earlier.get(key).map(Insertion::Stored),
        }
    }
}

/// Inserts the first row of each key that is not stored. The rows are inserted in the order of their keys, so that writers cannot
/// deadlock. The columns `left_out` get their defaults. `known` are rows that the caller has already read. `key_of` returns the value
/// of the column `key`.
pub(super) async fn insert_once<'a, E: EntityTrait>(
    batch: &Batch<'_>,
    key: E::Column,
    key_of: fn(&E::Model) -> &str,
    left_out: &[E::Column],
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
    for row in insert_new::<E>(batch.tx, &models, left_out, key.as_str()).await? {
        let key: String = row.try_get("", key.as_str())?;
        inserted.extend(new.remove_entry(key.as_str()).map(|(key, row)| (key, (row, false))));
    }
    if !new.is_empty() {
        let stored = any(batch.backend(), key, new.keys().map(|key| (*key).to_owned()));
        earlier.extend(E::find().filter(stored).all(batch.tx).await?.into_iter().map(keyed));
    }
    Ok(Inserted { inserted, earlier })
}
