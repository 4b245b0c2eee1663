//! Makes a commit cheaper. The foreign keys below a customer are dropped: a commit holds the lock of the customer, so each check
//! would only lock the same row again (`windfall audit` finds orphans). Most awards stand, so the indexes by status cover the
//! others only. Customers get room on their pages, so that an update needs no entry in an index.
//!
//! On SQLite the keys stay in the schema, because dropping them would copy the tables. The server does not enforce them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

use crate::online::{create_index, create_partial_index, drop_index};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261129_000002_lighten_writes"
    }
}

const FOREIGN_KEYS: [(&str, &str); 4] = [
    ("purchase", "purchase_customer_fk"),
    ("refund", "refund_purchase_fk"),
    ("award", "award_customer_fk"),
    ("ledger_entry", "ledger_entry_customer_fk"),
];
const NOT_STANDING: &str = "status <> 'standing'";
/// The new index and the one that it replaces.
const INDEXES: [(&str, &str, &str); 2] = [
    ("award_customer_other_status", "customer_id, status, earned_at, number", "award_customer_status"),
    (
        "award_customer_campaign_other_status",
        "customer_id, campaign_id, status, earned_at, number",
        "award_customer_campaign_status",
    ),
];
/// In percent. A page then has room for the new versions of some of its rows.
const FILLFACTORS: [(&str, u8); 2] = [("customer", 75), ("campaign_stat", 20)];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        if manager.get_database_backend() == DbBackend::Postgres {
            for (table, key) in FOREIGN_KEYS {
                db.execute_unprepared(&format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {key}")).await?;
            }
            for (table, percent) in FILLFACTORS {
                db.execute_unprepared(&format!("ALTER TABLE {table} SET (fillfactor = {percent})")).await?;
            }
        }
        for (name, columns, replaced) in INDEXES {
            create_partial_index(manager, name, "award", columns, NOT_STANDING).await?;
            drop_index(manager, replaced, "award").await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, columns, replaced) in INDEXES {
            create_index(manager, replaced, "award", columns).await?;
            drop_index(manager, name, "award").await?;
        }
        Ok(())
    }
}
