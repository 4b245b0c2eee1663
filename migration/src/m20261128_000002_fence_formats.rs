//! During an upgrade, programs of different versions can run on one database. `installation.format` is the format of the stored
//! data. A program that does not know this format must not write any more, and must not read what it would not understand. Each
//! running program keeps a row in `node`, so that the format is raised only when all running programs know the new one.
//!
//! Programs from before this migration do not check the format. So the migration also renames the counter of the campaign set:
//! their batches, transitions and look-ups read the counter first, and now fail.

use sea_orm_migration::prelude::*;

/// Adds `installation.format` and `node`, and renames `installation.revision` to `installation.set_revision`.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000002_fence_formats"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let number = |name: &'static str| ColumnDef::new(name).big_integer().not_null().take();
        let installation = || Table::alter().table("installation").take();
        manager.alter_table(installation().rename_column("revision", "set_revision").take()).await?;
        manager.alter_table(installation().add_column(number("format").default(1)).take()).await?;
        let node = Table::create()
            .table("node")
            .col(number("id").primary_key())
            .col(number("format"))
            .col(ColumnDef::new("zone_data").text().not_null())
            .col(number("last_seen"))
            .take();
        manager.create_table(node).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let installation = || Table::alter().table("installation").take();
        manager.drop_table(Table::drop().table("node").take()).await?;
        manager.alter_table(installation().drop_column("format").take()).await?;
        manager.alter_table(installation().rename_column("set_revision", "revision").take()).await
    }
}
