//! Programs of different versions may run on one database while it is upgraded. `installation.format` says how far it has moved
//! on: a program that does not know that format must not write any more, nor read what it would not understand. Each running
//! program keeps a row in `node`, so that the format moves on only when the last program is gone that does not know it.
//!
//! Programs from before this fence do not look at the format. The counter of the campaign set therefore gets another name here:
//! each batch, transition and look-up of theirs reads it first, and fails.

use sea_orm_migration::prelude::*;

/// `installation.format`, `node`, and `installation.revision` becomes `installation.set_revision`.
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
