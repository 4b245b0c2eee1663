//! A batch begins by taking the campaign lock shared, reading the revision of the campaign set, and locking its customers. On
//! PostgreSQL, a function does all of it in one round trip. It is VOLATILE, so each of its statements sees what was committed
//! while the one before waited.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

/// Creates the function `lock_customers` (PostgreSQL).
pub(crate) struct Migration;

/// The first row contains the revision and no customer. The others contain a customer each, in the order of their names.
const CREATE: &str = "CREATE FUNCTION lock_customers(campaigns_lock bigint, names text[]) \
    RETURNS TABLE (current_set_revision bigint, revision_stamp bigint, format bigint, customer customer) \
    LANGUAGE plpgsql VOLATILE AS $$ BEGIN \
        PERFORM pg_advisory_xact_lock_shared(campaigns_lock); \
        RETURN QUERY SELECT i.set_revision, i.revision_stamp, i.format, NULL::customer FROM installation AS i; \
        RETURN QUERY SELECT NULL::bigint, NULL::bigint, NULL::bigint, c FROM customer AS c \
            WHERE c.external_id = ANY(names) ORDER BY c.external_id FOR UPDATE; \
    END $$";

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261129_000003_lock_customers_at_once"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, CREATE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP FUNCTION lock_customers").await
    }
}

async fn execute(manager: &SchemaManager<'_>, sql: &str) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Postgres {
        manager.get_connection().execute_unprepared(sql).await?;
    }
    Ok(())
}
