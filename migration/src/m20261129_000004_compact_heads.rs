//! The running states of a customer move from `customer.running`, which is JSON, to `customer.head`, which is binary and half as long.
//! The JSON stays as it is: a head that begins with `{` is one. The next write of the customer replaces it.
//!
//! Programs that know format 2 read `running`, so the migration raises the format at once: they stop with a clear message. Each
//! of their transactions reads `installation` first; the migration locks this table, so it waits for the transactions that are
//! under way. It rewrites `customer`, which takes a second for some hundred thousand customers.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

/// Replaces `customer.running` by `customer.head`.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261129_000004_compact_heads"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = if manager.get_database_backend() == DbBackend::Postgres {
            "LOCK TABLE installation IN ACCESS EXCLUSIVE MODE; \
             ALTER TABLE customer ALTER COLUMN running TYPE bytea USING convert_to(running, 'UTF8'); \
             ALTER TABLE customer RENAME COLUMN running TO head"
        } else {
            "ALTER TABLE customer ADD COLUMN head BLOB NOT NULL DEFAULT x''; \
             UPDATE customer SET head = CAST(running AS BLOB); \
             ALTER TABLE customer DROP COLUMN running"
        };
        replace(manager, sql, 3).await
    }

    /// Fails if a head is binary, because a program that knows format 2 cannot read it.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = if manager.get_database_backend() == DbBackend::Postgres {
            "LOCK TABLE installation IN ACCESS EXCLUSIVE MODE; \
             ALTER TABLE customer RENAME COLUMN head TO running; \
             ALTER TABLE customer ALTER COLUMN running TYPE text USING convert_from(running, 'UTF8')::jsonb::text"
        } else {
            "ALTER TABLE customer ADD COLUMN running TEXT NOT NULL DEFAULT '{}'; \
             UPDATE customer SET running = json(CAST(head AS TEXT)); \
             ALTER TABLE customer DROP COLUMN head"
        };
        replace(manager, sql, 2).await
    }
}

async fn replace(manager: &SchemaManager<'_>, sql: &str, format: i64) -> Result<(), DbErr> {
    let db = manager.get_connection();
    db.execute_unprepared(sql).await?;
    db.execute_unprepared(&format!("UPDATE installation SET format = {format}")).await?;
    Ok(())
}
