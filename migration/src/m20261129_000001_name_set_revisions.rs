//! The campaign set's counter is called `set_revision` wherever it is stored, because a purchase has a `revision` of its own: the
//! order's. Programs that know format 1 read the old names, so the migration raises the format at once: they stop with a clear
//! message instead of failing at the first statement that names a column. Each of their transactions reads `installation` first;
//! the migration locks this table, so it waits for the transactions that are under way.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

/// Renames `revision` to `set_revision` in `campaign`, `purchase` and `refund`.
pub(crate) struct Migration;

const TABLES: [&str; 3] = ["campaign", "purchase", "refund"];

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261129_000001_name_set_revisions"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        rename(manager, "revision", "set_revision").await?;
        set_format(manager, 2).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        rename(manager, "set_revision", "revision").await?;
        set_format(manager, 1).await
    }
}

async fn rename(manager: &SchemaManager<'_>, from: &'static str, to: &'static str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    if manager.get_database_backend() == DbBackend::Postgres {
        db.execute_unprepared("LOCK TABLE installation IN ACCESS EXCLUSIVE MODE").await?;
    }
    for table in TABLES {
        manager.alter_table(Table::alter().table(table).rename_column(from, to).take()).await?;
    }
    Ok(())
}

async fn set_format(manager: &SchemaManager<'_>, format: i64) -> Result<(), DbErr> {
    manager.get_connection().execute_unprepared(&format!("UPDATE installation SET format = {format}")).await?;
    Ok(())
}
