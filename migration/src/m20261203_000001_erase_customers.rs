//! Adds what is kept of the names of erased customers. No existing row is rewritten.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, Statement};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261203_000001_erase_customers"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut hash = ColumnDef::new("hash");
        hash.text().not_null();
        if manager.get_database_backend() == DbBackend::Postgres {
            hash.extra("COLLATE \"C\"");
        }
        let erased_name = Table::create()
            .table("erased_name")
            .col(hash.primary_key())
            .col(ColumnDef::new("customer_id").big_integer().not_null())
            .take();
        manager.create_table(erased_name).await?;
        let key = "ALTER TABLE installation ADD COLUMN erasure_key text";
        manager.get_connection().execute_unprepared(key).await?;
        Ok(())
    }

    /// Refused once a customer was erased: an earlier program would record its orders again.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let ask = "SELECT 1 FROM installation WHERE erasure_key IS NOT NULL";
        let ask = Statement::from_string(manager.get_database_backend(), ask.to_owned());
        if db.query_one_raw(ask).await?.is_some() {
            let why = "a customer was erased, and an earlier program would record its orders again";
            return Err(DbErr::Migration(why.to_owned()));
        }
        db.execute_unprepared("DELETE FROM job WHERE kind = 'erasure'").await?;
        db.execute_unprepared("ALTER TABLE installation DROP COLUMN erasure_key").await?;
        manager.drop_table(Table::drop().table("erased_name").take()).await
    }
}
