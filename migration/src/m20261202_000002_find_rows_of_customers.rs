//! Adds indexes that find the rows of a customer in tables that are otherwise read by another key: the contents of purchases that
//! name the customer, and the idempotency keys of its adjustments and redemptions.

use sea_orm_migration::prelude::*;

use crate::online::{create_index, create_partial_index, drop_index};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261202_000002_find_rows_of_customers"
    }
}

const NAMED: (&str, &str) = ("purchase_revision_named", "purchase_revision");
const KEYS: (&str, &str) = ("idempotency_key_customer", "idempotency_key");

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_index(manager, NAMED.0, NAMED.1, "customer_external_id, external_id, revision").await?;
        create_partial_index(manager, KEYS.0, KEYS.1, "customer_id, key", "customer_id IS NOT NULL").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_index(manager, KEYS.0, KEYS.1).await?;
        drop_index(manager, NAMED.0, NAMED.1).await
    }
}
