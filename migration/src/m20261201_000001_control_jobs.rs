//! Admins list jobs, retry and cancel them, and each tick of periodic work is a job of its own.

use sea_orm_migration::prelude::*;

/// Replaces the index of `job`, and removes what earlier programs wrote there in another form.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261201_000001_control_jobs"
    }
}

const UP: [&str; 5] = [
    "DROP INDEX job_state_run_at",
    // Finds the job that has been due for longest, also if thousands became due at the same instant.
    "CREATE INDEX job_due ON job (state, run_at, id)",
    // The list of jobs, which is read for each kind and state.
    "CREATE INDEX job_list ON job (kind, state, created_at, id)",
    // This job had one row for ever. Now each of its ticks has a row.
    "DELETE FROM job WHERE unique_key = 'settlement'",
    // Errors are shown to admins now. Those of earlier programs may quote SQL.
    "UPDATE job SET error = 'the log has the reason' WHERE error IS NOT NULL",
];
const DOWN: [&str; 5] = [
    "DELETE FROM job WHERE kind <> 'evaluation'",
    // Earlier programs run dead jobs again.
    "UPDATE job SET state = 'dead' WHERE state = 'cancelled'",
    "DROP INDEX job_list",
    "DROP INDEX job_due",
    "CREATE INDEX job_state_run_at ON job (state, run_at)",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &DOWN).await
    }
}

async fn run(manager: &SchemaManager<'_>, steps: &[&str]) -> Result<(), DbErr> {
    for sql in steps {
        manager.get_connection().execute_unprepared(sql).await?;
    }
    Ok(())
}
