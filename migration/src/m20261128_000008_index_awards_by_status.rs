//! Adds indexes of a customer's awards by status. A page of the awards of one status, or of one campaign and one status, is then
//! one range of an index. A page of several statuses reads one range for each status.

use sea_orm_migration::prelude::*;

use crate::online::{create_index, drop_index};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000008_index_awards_by_status"
    }
}

const INDEXES: [(&str, &str, &str); 2] = [
    ("award_customer_status", "award", "customer_id, status, earned_at, number"),
    ("award_customer_campaign_status", "award", "customer_id, campaign_id, status, earned_at, number"),
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
