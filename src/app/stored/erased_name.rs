//! The names that a shop used for what belonged to erased customers. Only their hashes are stored, so that a name that is sent again
//! is recognised, and nobody can read it here.
//!
//! The hashes are keyed, because a shop numbers its orders: without the key, whoever has a list of the hashes could compute those of
//! all numbers. The key is in the same database. So the hashes protect a list of them, such as a report, but not the whole database.

use std::collections::HashMap;
use std::fmt;

use entity::{CustomerId, erased_name};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter};
use sha2::{Digest as _, Sha256};

use crate::app::rows::{OnConflict, any, insert};

/// The number of bytes of a hash: enough that no two names of a shop have the same.
const HASH_BYTES: usize = 16;

/// What a name names. The same text has another hash as the name of something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A customer, by its key in the database.
    Customer,
    /// A purchase, by the id of the shop.
    Purchase,
    /// The request of an adjustment or a redemption.
    IdempotencyKey,
}

/// The key of the hashes of an installation.
#[derive(Clone, PartialEq, Eq)]
pub struct ErasureKey(String);

impl fmt::Debug for ErasureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErasureKey")
    }
}

impl ErasureKey {
    /// Chooses a key.
    pub fn random() -> Self {
        Self(format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()))
    }

    /// The key that the database stores.
    pub fn stored(key: String) -> Self {
        Self(key)
    }

    /// The text to store.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Computes the hash of a name.
    pub fn hash(&self, named: Named, name: &str) -> u128 {
        let what = match named {
            Named::Customer => "customer:",
            Named::Purchase => "purchase:",
            Named::IdempotencyKey => "idempotency key:",
        };
        // All keys have the same length, so this needs no HMAC.
        let digest = Sha256::new().chain_update(&self.0).chain_update(what).chain_update(name).finalize();
        digest.iter().take(HASH_BYTES).fold(0, |hash, byte| hash << 8 | u128::from(*byte))
    }

    /// The hash of a name as it is stored.
    pub fn stored_hash(&self, named: Named, name: &str) -> String {
        format!("{:032x}", self.hash(named, name))
    }
}

/// Returns the customers of the stored hashes, by hash.
pub async fn load(
    db: &impl ConnectionTrait,
    hashes: impl IntoIterator<Item = String>,
) -> Result<HashMap<String, CustomerId>, DbErr> {
    let hashes = any(db.get_database_backend(), erased_name::Column::Hash, hashes);
    let rows = erased_name::Entity::find().filter(hashes).all(db).await?;
    Ok(rows.into_iter().map(|row| (row.hash, row.customer_id)).collect())
}

/// Stores the hashes of names of a customer. Those that are stored already stay.
pub async fn keep(
    tx: &DatabaseTransaction,
    key: &ErasureKey,
    customer_id: CustomerId,
    named: Named,
    names: &[String],
) -> Result<(), DbErr> {
    let row = |name: &String| erased_name::Model { hash: key.stored_hash(named, name), customer_id };
    let rows: Vec<erased_name::Model> = names.iter().map(row).collect();
    insert::<erased_name::Entity>(tx, &rows, OnConflict::Keep).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_the_key_the_kind_and_the_name() {
        let (one, other) = (ErasureKey::random(), ErasureKey::random());
        let hash = one.hash(Named::Purchase, "1001");
        assert_eq!(hash, ErasureKey::stored(one.as_str().to_owned()).hash(Named::Purchase, "1001"));
        assert_ne!(hash, other.hash(Named::Purchase, "1001"));
        assert_ne!(hash, one.hash(Named::IdempotencyKey, "1001"));
        assert_ne!(hash, one.hash(Named::Purchase, "1002"));
        assert_eq!(one.stored_hash(Named::Purchase, "1001"), format!("{hash:032x}"));
    }
}
