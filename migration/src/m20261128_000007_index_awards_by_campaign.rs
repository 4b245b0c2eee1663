//! A change deep in a customer's history looks at the recorded awards of one campaign: those of the stretch that is folded
//! again, and the last ones where a cap binds. Without an index of its own it would read all campaigns' awards on its way.

use sea_orm_migration::prelude::*;

use crate::online::{create_index, drop_index};

/// `award_customer_campaign`.
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
