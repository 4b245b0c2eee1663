//! `audit` meets a customer's awards and checkpoints beside its purchases, in their order and of all campaigns at once.

use sea_orm_migration::prelude::*;

/// `award_customer_order` and `checkpoint_customer_order`.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000006_order_awards_and_checkpoints"
    }
}

/// Name, table, columns.
const INDEXES: [(&str, &str, &[&str]); 2] = [
    ("award_customer_order", "award", &["customer_id", "earned_at", "purchase_external_id", "nth", "number"]),
    ("checkpoint_customer_order", "checkpoint", &["customer_id", "purchased_at", "external_id", "campaign_id"]),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, table, columns) in INDEXES {
            let mut index = Index::create();
            index.name(name).table(table);
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, table, _) in INDEXES {
            manager.drop_index(Index::drop().name(name).table(table).to_owned()).await?;
        }
        Ok(())
    }
}
