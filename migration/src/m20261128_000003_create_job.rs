//! Work that outlives a request: what waits for the clock, and what takes long. A job that runs holds a lease; another node takes
//! it over when the lease runs out.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

/// `job`, with a job for each backfill that is open.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000003_create_job"
    }
}

/// A backfill that was open before jobs were stored goes on as a job.
const OPEN_BACKFILLS: &str = "INSERT INTO job (kind, unique_key, campaign_id, state, requests, attempts, run_at, created_at) \
    SELECT 'evaluation', 'evaluation:campaign:' || id, id, 'waiting', 1, 0, 0, 0 FROM campaign WHERE backfilled_to IS NOT NULL";

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
        let job = Table::create()
            .table("job")
            .col(number("id").not_null().auto_increment().primary_key())
            .col(text("kind").not_null())
            .col(text("unique_key").not_null().unique_key())
            .col(number("campaign_id"))
            .col(number("customer_id"))
            .col(text("state").not_null())
            .col(number("requests").not_null())
            .col(number("attempts").not_null())
            .col(text("error"))
            .col(number("run_at").not_null())
            .col(number("lease"))
            .col(number("leased_until"))
            .col(number("created_at").not_null())
            .col(number("started_at"))
            .col(number("finished_at"))
            .col(number("done"))
            .col(number("total"))
            .take();
        manager.create_table(job).await?;
        // What is due is looked for in this order; finished jobs are most of the table and are not in its way.
        let due = Index::create().name("job_state_run_at").table("job").col("state").col("run_at").take();
        manager.create_index(due).await?;
        manager.get_connection().execute_unprepared(OPEN_BACKFILLS).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("job").take()).await
    }
}
