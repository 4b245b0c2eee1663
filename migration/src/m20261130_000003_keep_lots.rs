//! Points can wait and expire. Points with equal dates are a lot; all others are the pool, for which no row is needed. So the points of
//! all customers are in the pool after the migration, and no row is rewritten.
//!
//! Awards and their entries know the dates of their points. A customer knows when the clock next changes its points, so that due
//! expiries are found by an index.
//!
//! Programs that know format 4 would post awards without dates, so the migration raises the format at once.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

pub(crate) struct Migration;

const UP: [&str; 9] = [
    "ALTER TABLE award ADD COLUMN available_at {int}",
    "ALTER TABLE award ADD COLUMN expires_at {int}",
    "ALTER TABLE ledger_entry ADD COLUMN available_at {int}",
    "ALTER TABLE ledger_entry ADD COLUMN expires_at {int}",
    "ALTER TABLE customer ADD COLUMN due_at {int}",
    "CREATE INDEX customer_due ON customer (due_at) WHERE due_at IS NOT NULL",
    // `left` is a keyword of SQL.
    "CREATE TABLE lot (customer_id {int} NOT NULL, matures_at {int} NOT NULL, expires_at {int} NOT NULL, \
     \"left\" {int} NOT NULL, reserved {int} NOT NULL, spent {int} NOT NULL, expired {int} NOT NULL, \
     PRIMARY KEY (customer_id, matures_at, expires_at), \
     CHECK (\"left\" >= 0 AND reserved >= 0 AND spent >= 0 AND expired >= 0))",
    // The lots from which points can be spent, in spending order.
    "CREATE INDEX lot_spendable ON lot (customer_id, expires_at) WHERE matures_at = 0 AND \"left\" > 0",
    "UPDATE installation SET format = 5",
];
const DOWN: [&str; 8] = [
    "DROP TABLE lot",
    "DROP INDEX customer_due",
    "ALTER TABLE customer DROP COLUMN due_at",
    "ALTER TABLE ledger_entry DROP COLUMN expires_at",
    "ALTER TABLE ledger_entry DROP COLUMN available_at",
    "ALTER TABLE award DROP COLUMN expires_at",
    "ALTER TABLE award DROP COLUMN available_at",
    "UPDATE installation SET format = 4",
];

/// Creates the function `lock_customers` (PostgreSQL), which now also returns the time in µs. It reads the clock when it holds the
/// locks, so that a commit is not earlier than the one that it waited for.
const LOCK_CUSTOMERS: &str = "CREATE FUNCTION lock_customers(campaigns_lock bigint, names text[]) \
    RETURNS TABLE (current_set_revision bigint, revision_stamp bigint, format bigint, now bigint, customer customer) \
    LANGUAGE plpgsql VOLATILE AS $$ BEGIN \
        PERFORM pg_advisory_xact_lock_shared(campaigns_lock); \
        RETURN QUERY SELECT i.set_revision, i.revision_stamp, i.format, NULL::bigint, NULL::customer FROM installation AS i; \
        RETURN QUERY SELECT NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, c FROM customer AS c \
            WHERE c.external_id = ANY(names) ORDER BY c.external_id FOR UPDATE; \
        RETURN QUERY SELECT NULL::bigint, NULL::bigint, NULL::bigint, \
            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, NULL::customer; \
    END $$";
const LOCK_CUSTOMERS_BEFORE: &str = "CREATE FUNCTION lock_customers(campaigns_lock bigint, names text[]) \
    RETURNS TABLE (current_set_revision bigint, revision_stamp bigint, format bigint, customer customer) \
    LANGUAGE plpgsql VOLATILE AS $$ BEGIN \
        PERFORM pg_advisory_xact_lock_shared(campaigns_lock); \
        RETURN QUERY SELECT i.set_revision, i.revision_stamp, i.format, NULL::customer FROM installation AS i; \
        RETURN QUERY SELECT NULL::bigint, NULL::bigint, NULL::bigint, c FROM customer AS c \
            WHERE c.external_id = ANY(names) ORDER BY c.external_id FOR UPDATE; \
    END $$";

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261130_000003_keep_lots"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &UP, LOCK_CUSTOMERS).await
    }

    /// Fails if points wait or can expire, because a program that knows format 4 cannot read them.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ask = sea_orm_migration::sea_orm::Statement::from_string(
            manager.get_database_backend(),
            "SELECT 1 FROM lot LIMIT 1".to_owned(),
        );
        if manager.get_connection().query_one_raw(ask).await?.is_some() {
            let why = "a customer has points that wait or can expire, which the earlier format cannot contain";
            return Err(DbErr::Migration(why.to_owned()));
        }
        run(manager, &DOWN, LOCK_CUSTOMERS_BEFORE).await
    }
}

async fn run(manager: &SchemaManager<'_>, steps: &[&str], lock_customers: &str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let postgres = manager.get_database_backend() == DbBackend::Postgres;
    if postgres {
        db.execute_unprepared("LOCK TABLE installation IN ACCESS EXCLUSIVE MODE").await?;
    }
    let int = if postgres { "bigint" } else { "integer" };
    for sql in steps {
        db.execute_unprepared(&sql.replace("{int}", int)).await?;
    }
    if postgres {
        db.execute_unprepared("DROP FUNCTION lock_customers").await?;
        db.execute_unprepared(lock_customers).await?;
    }
    Ok(())
}
