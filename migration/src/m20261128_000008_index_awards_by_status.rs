//! A page of a customer's awards of one status, or of one campaign and status, is a range of an index. Several statuses are
//! several ranges.

use sea_orm_migration::prelude::*;

use crate::online::{create_index, drop_index};

/// `award_customer_status` and `award_customer_campaign_status`.
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
