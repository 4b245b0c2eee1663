//! Adds the results of exports.

use sea_orm_migration::prelude::*;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261202_000001_export_customers"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let number = |name: &'static str| ColumnDef::new(name).big_integer().not_null().take();
        let export_chunk = Table::create()
            .table("export_chunk")
            .col(number("job_id"))
            .col(number("number"))
            .col(ColumnDef::new("content").blob().not_null())
            .primary_key(Index::create().col("job_id").col("number"))
            .take();
        manager.create_table(export_chunk).await
    }

    /// Earlier programs do not know exports.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DELETE FROM job WHERE kind = 'export'").await?;
        manager.drop_table(Table::drop().table("export_chunk").take()).await
    }
}
