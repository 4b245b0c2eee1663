//! Adds an index of a customer's awards by campaign. A change deep in the customer's history reads the recorded awards of one
//! campaign: those of the stretch that is folded again, and the last ones if a cap applies. Without this index it would read the
//! awards of all campaigns.

use sea_orm_migration::prelude::*;

use crate::online::{create_index, drop_index};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000007_index_awards_by_campaign"
    }
}

const INDEXES: [(&str, &str, &str); 1] =
    [("award_customer_campaign", "award", "customer_id, campaign_id, earned_at, number")];

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
