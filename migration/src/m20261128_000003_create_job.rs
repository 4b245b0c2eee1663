//! Adds jobs: work that waits for a point in time, or that takes longer than a request may. The node that runs a job holds a
//! lease. If the lease expires, another node takes over the job.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

/// Creates the table `job`, and a job for each open backfill.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261128_000003_create_job"
    }
}

/// Backfills that are open when the table is created continue as jobs.
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
        // Finds the jobs that are due. Most rows are finished jobs, which a search in this index does not read.
        let due = Index::create().name("job_state_run_at").table("job").col("state").col("run_at").take();
        manager.create_index(due).await?;
        manager.get_connection().execute_unprepared(OPEN_BACKFILLS).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("job").take()).await
    }
}
