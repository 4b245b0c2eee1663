//! Adds indexes for `audit`, which reads a customer's awards and checkpoints of all campaigns in the order of the purchases.

use sea_orm_migration::prelude::*;

use crate::online::{create_index, drop_index};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000006_order_awards_and_checkpoints"
    }
}

const INDEXES: [(&str, &str, &str); 2] = [
    ("award_customer_order", "award", "customer_id, earned_at, purchase_external_id, nth, number"),
    ("checkpoint_customer_order", "checkpoint", "customer_id, purchased_at, external_id, campaign_id"),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, table, columns) in INDEXES {
            create_index(manager, name, table, columns).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, table, _) in INDEXES {
            drop_index(manager, name, table).await?;
        }
        Ok(())
    }
}
