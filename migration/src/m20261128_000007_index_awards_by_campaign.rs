//! A change deep in a customer's history looks at the recorded awards of one campaign: those of the stretch that is folded
//! again, and the last ones where a cap binds. Without an index of its own it would read all campaigns' awards on its way.

use sea_orm_migration::prelude::*;

/// `award_customer_campaign`.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000007_index_awards_by_campaign"
    }
}

const INDEX: &str = "award_customer_campaign";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut index = Index::create().name(INDEX).table("award").take();
        index.col("customer_id").col("campaign_id").col("earned_at").col("number");
        manager.create_index(index).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_index(Index::drop().name(INDEX).table("award").to_owned()).await
    }
}
