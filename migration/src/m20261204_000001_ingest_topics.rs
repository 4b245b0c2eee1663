//! Adds what the ingestion of topics stores: positions, dead letters, and refunds that wait for their purchase.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261204_000001_ingest_topics"
    }
}

const INDEXES: [&str; 5] = [
    // A message that is read again is the same dead letter.
    "CREATE UNIQUE INDEX dead_letter_message ON dead_letter (topic, partition, message_offset, hash)",
    // The order of the list.
    "CREATE INDEX dead_letter_recorded_at ON dead_letter (recorded_at, id)",
    // A message may contain several refunds.
    "CREATE UNIQUE INDEX waiting_fact_message ON waiting_fact (topic, partition, message_offset, hash, refund_external_id)",
    // The refunds of a purchase that was just recorded.
    "CREATE INDEX waiting_fact_purchase ON waiting_fact (purchase_external_id)",
    // Those that were not tried for longest.
    "CREATE INDEX waiting_fact_tried_at ON waiting_fact (tried_at, id)",
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
        let bytes = |name: &'static str| ColumnDef::new(name).blob().take();
        let id = || number("id").not_null().auto_increment().primary_key().take();

        let position = Table::create()
            .table("ingest_position")
            .col(text("group_name").not_null())
            .col(text("topic").not_null())
            .col(number("partition").not_null())
            .col(number("last_offset"))
            .col(text("last_hash"))
            .col(text("stopped"))
            .col(number("stopped_at"))
            .col(number("lost_from"))
            .col(number("lost_to"))
            .col(number("resumes").not_null())
            .col(number("updated_at").not_null())
            .primary_key(Index::create().col("group_name").col("topic").col("partition"))
            .take();
        manager.create_table(position).await?;

        let of_message = |table: &mut TableCreateStatement| {
            table
                .col(text("topic").not_null())
                .col(number("partition").not_null())
                .col(number("message_offset").not_null())
                .col(text("hash").not_null())
                .col(text("reason").not_null())
                .col(number("recorded_at").not_null())
                .col(bytes("key"))
                .col(text("headers").not_null())
                .col(number("size"))
                .col(bytes("payload").not_null());
        };
        let mut dead_letter = Table::create();
        dead_letter.table("dead_letter").col(id());
        of_message(&mut dead_letter);
        manager.create_table(dead_letter.take()).await?;

        let mut waiting_fact = Table::create();
        waiting_fact
            .table("waiting_fact")
            .col(id())
            .col(text("purchase_external_id").not_null())
            .col(text("refund_external_id").not_null())
            .col(text("content").not_null())
            .col(number("tried_at").not_null())
            .col(number("expires_at").not_null());
        of_message(&mut waiting_fact);
        manager.create_table(waiting_fact.take()).await?;

        let db = manager.get_connection();
        for index in INDEXES {
            db.execute_unprepared(index).await?;
        }
        let keeps_facts = number("keeps_facts").not_null().default(0).take();
        manager.alter_table(Table::alter().table("installation").add_column(keeps_facts).take()).await?;
        manager.alter_table(Table::alter().table("trail_entry").add_column(number("dead_letter_id")).take()).await
    }

    /// Waiting facts and dead letters go: earlier programs do not know them. Their messages stay in the topics.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared("ALTER TABLE trail_entry DROP COLUMN dead_letter_id").await?;
        db.execute_unprepared("ALTER TABLE installation DROP COLUMN keeps_facts").await?;
        for table in ["waiting_fact", "dead_letter", "ingest_position"] {
            manager.drop_table(Table::drop().table(table).take()).await?;
        }
        Ok(())
    }
}
