//! `audit` meets a customer's checkpoints beside its purchases, in their order and of all campaigns at once.

use sea_orm_migration::prelude::*;

/// `checkpoint_customer_order`.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000006_order_checkpoints"
    }
}

const INDEX: &str = "checkpoint_customer_order";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut index = Index::create();
        index.name(INDEX).table("checkpoint");
        for column in ["customer_id", "purchased_at", "external_id", "campaign_id"] {
            index.col(column);
        }
        manager.create_index(index).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_index(Index::drop().name(INDEX).table("checkpoint").to_owned()).await
    }
}
