//! A campaign-set revision gets a random stamp, as a customer's version has one. A database that went back (a restore, a replica
//! that took over without the last commits) comes to the same revisions again with other campaigns; processes that have known
//! the old ones must not take these for them.

use sea_orm_migration::prelude::*;

/// The stamp of the campaign-set revision.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261125_000001_add_revision_stamp"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // The revision that is there has none: 0.
        let stamp = ColumnDef::new("revision_stamp").big_integer().not_null().default(0).take();
        manager.alter_table(Table::alter().table("installation").add_column(stamp).take()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(Table::alter().table("installation").drop_column("revision_stamp").take()).await
    }
}
