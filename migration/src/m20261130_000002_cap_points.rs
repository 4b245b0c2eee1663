//! An award may get fewer points than its goal gives, because a cap in points leaves fewer. The award then knows both.

use sea_orm_migration::prelude::*;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261130_000002_cap_points"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let int = if manager.get_database_backend() == sea_orm_migration::sea_orm::DbBackend::Postgres {
            "bigint"
        } else {
            "integer"
        };
        let sql = format!("ALTER TABLE award ADD COLUMN points_before_cap {int}");
        manager.get_connection().execute_unprepared(&sql).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("ALTER TABLE award DROP COLUMN points_before_cap").await?;
        Ok(())
    }
}
