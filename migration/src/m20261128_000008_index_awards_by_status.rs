//! A page of a customer's awards of one status, or of one campaign and status, is a range of an index. Several statuses are
//! several ranges.

use sea_orm_migration::prelude::*;

/// `award_customer_status` and `award_customer_campaign_status`.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000008_index_awards_by_status"
    }
}

const INDEXES: [(&str, &[&str]); 2] = [
    ("award_customer_status", &["customer_id", "status", "earned_at", "number"]),
    ("award_customer_campaign_status", &["customer_id", "campaign_id", "status", "earned_at", "number"]),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, columns) in INDEXES {
            let mut index = Index::create();
            index.name(name).table("award");
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in INDEXES {
            let mut index = Index::drop();
            index.name(name).table("award");
            manager.drop_index(index).await?;
        }
        Ok(())
    }
}
