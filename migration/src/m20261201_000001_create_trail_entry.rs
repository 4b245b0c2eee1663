//! Adds the trail: what admins changed, and what they were refused.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261201_000001_create_trail_entry"
    }
}

const INDEXES: [&str; 3] = [
    // The order of the list. Old entries are found by it, too.
    "CREATE INDEX trail_entry_at ON trail_entry (at, id)",
    "CREATE INDEX trail_entry_action_at ON trail_entry (action, at, id)",
    // The entries of a customer whose data is erased.
    "CREATE INDEX trail_entry_customer ON trail_entry (customer_id) WHERE customer_id IS NOT NULL",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_database_backend() == DatabaseBackend::Postgres;
        let text = |name: &'static str| {
            let mut column = ColumnDef::new(name);
            column.text();
            if postgres {
                column.extra("COLLATE \"C\"");
            }
            column
        };
        let number = |name: &'static str| ColumnDef::new(name).big_integer().take();
        let trail_entry = Table::create()
            .table("trail_entry")
            .col(number("id").not_null().auto_increment().primary_key())
            .col(number("at").not_null())
            .col(text("action").not_null())
            .col(text("subject_of_token").not_null())
            .col(text("role").not_null())
            .col(number("campaign_id"))
            .col(number("customer_id"))
            .col(number("reward_id"))
            .col(number("job_id"))
            .col(text("before"))
            .col(text("after"))
            .col(text("refused").not_null())
            .col(text("request_id").not_null())
            .col(text("address"))
            .take();
        manager.create_table(trail_entry).await?;
        for index in INDEXES {
            manager.get_connection().execute_unprepared(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("trail_entry").take()).await
    }
}
