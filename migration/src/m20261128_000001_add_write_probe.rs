//! Adds a row that nothing else uses. A node writes to it to find out whether the database accepts writes, without making
//! anybody wait.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000001_add_write_probe"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table("write_probe")
            .col(ColumnDef::new("id").integer().not_null().primary_key())
            .col(ColumnDef::new("stamp").big_integer().not_null())
            .col(ColumnDef::new("filler").blob().not_null())
            .take();
        manager.create_table(table).await?;
        let db = manager.get_connection();
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            // The filler must take up space on the disk, so it must not be compressed.
            db.execute_unprepared("ALTER TABLE write_probe ALTER COLUMN filler SET STORAGE EXTERNAL").await?;
        }
        db.execute_unprepared("INSERT INTO write_probe (id, stamp, filler) VALUES (1, 0, '')").await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("write_probe").take()).await
    }
}
