//! Adds the outbox: events that are to be published.
//!
//! Programs that know format 5 would commit without events, and record purchases without the refunds that wait for them. So the migration
//! raises the format at once.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261205_000001_outbox"
    }
}

/// On PostgreSQL, each segment is a table of its own. A segment whose events are all published is truncated, which leaves nothing behind
/// that must be vacuumed. Keys and indexes are those of the segments: `pg_restore --clean` cannot drop one that a segment inherits.
const POSTGRES: &str = r#"
CREATE SEQUENCE outbox_id;
CREATE TABLE outbox (
    id bigint NOT NULL DEFAULT nextval('outbox_id'),
    segment integer NOT NULL,
    bucket integer NOT NULL,
    customer_id bigint NOT NULL,
    version bigint NOT NULL,
    part integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    event text COLLATE "C" NOT NULL,
    balance text COLLATE "C",
    erases integer NOT NULL,
    committed_at bigint NOT NULL,
    published integer NOT NULL
) PARTITION BY LIST (segment);
ALTER SEQUENCE outbox_id OWNED BY outbox.id;
"#;

const SEGMENTS: i32 = 4;

/// SQLite uses the place of deleted rows again, so events are deleted once they are published.
const SQLITE: &str = "CREATE TABLE outbox (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    segment integer NOT NULL,
    bucket integer NOT NULL,
    customer_id integer NOT NULL,
    version integer NOT NULL,
    part integer NOT NULL,
    key text NOT NULL,
    event_id text NOT NULL,
    event text NOT NULL,
    balance text,
    erases integer NOT NULL,
    committed_at integer NOT NULL,
    published integer NOT NULL
)";

/// The index of what is to be published of a bucket, in order.
fn unpublished(table: &str) -> String {
    format!("CREATE INDEX {table}_unpublished ON {table} (bucket, id) WHERE published = 0")
}

/// The index of the events of a customer, for its erasure.
fn of_customer(table: &str) -> String {
    format!("CREATE INDEX {table}_customer ON {table} (customer_id)")
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            db.execute_unprepared(POSTGRES).await?;
            for number in 0..SEGMENTS {
                let table = format!("outbox_{number}");
                let segment =
                    format!("CREATE TABLE {table} PARTITION OF outbox (PRIMARY KEY (id)) FOR VALUES IN ({number})");
                db.execute_unprepared(&segment).await?;
                db.execute_unprepared(&unpublished(&table)).await?;
                db.execute_unprepared(&of_customer(&table)).await?;
            }
        } else {
            db.execute_unprepared(SQLITE).await?;
            db.execute_unprepared(&unpublished("outbox")).await?;
            db.execute_unprepared(&of_customer("outbox")).await?;
        }
        let keeps_events = ColumnDef::new("keeps_events").big_integer().not_null().default(0).take();
        manager.alter_table(Table::alter().table("installation").add_column(keeps_events).take()).await?;
        db.execute_unprepared("UPDATE installation SET format = 6").await.map(|_| ())
    }

    /// Events that are not published go: earlier programs do not know them.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared("UPDATE installation SET format = 5").await?;
        db.execute_unprepared("ALTER TABLE installation DROP COLUMN keeps_events").await?;
        manager.drop_table(Table::drop().table("outbox").take()).await
    }
}
