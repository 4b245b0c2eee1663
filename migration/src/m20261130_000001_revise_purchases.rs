//! Purchases can be revised. `purchase` contains the content that counts, and `purchase_revision` all others. A purchase with one
//! content has no row there.
//!
//! A refund without an amount stays without one, because it takes back the total of the content that counts. Until now, the total was
//! filled in: a refund of the whole total without lines becomes one without an amount. Amounts get a currency, because a revision of
//! the purchase may have another one.
//!
//! Programs that know format 3 would read a revised purchase wrongly, so the migration raises the format at once: they stop with a
//! clear message. Each of their transactions reads `installation` first; the migration locks this table, so it waits for the
//! transactions that are under way. It rewrites the refunds, which takes some seconds for a million of them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261130_000001_revise_purchases"
    }
}

const ADD_COLUMNS: [&str; 4] = [
    "ALTER TABLE purchase ADD COLUMN revision {int} NOT NULL DEFAULT 0",
    "ALTER TABLE purchase ADD COLUMN refunded {int}",
    "ALTER TABLE purchase ADD COLUMN refunded_until {int}",
    "ALTER TABLE purchase ADD COLUMN refunded_revision {int}",
];
/// `{text}` is the type of texts that are compared as bytes, and `{int}` that of 64-bit integers.
const CREATE_REVISION: [&str; 4] = [
    "CREATE TABLE purchase_revision (external_id {text} NOT NULL, revision {int} NOT NULL, customer_external_id {text} NOT NULL, \
     customer_id {int} NOT NULL, purchased_at {int} NOT NULL, recorded_at {int} NOT NULL, total {int} NOT NULL, \
     currency {text} NOT NULL, channel {text}, lines text NOT NULL, refunded {int}, refunded_until {int}, \
     set_revision {int} NOT NULL, version {int} NOT NULL, ended_set_revision {int}, ended_version {int}, \
     PRIMARY KEY (external_id, revision), CHECK (total >= 0))",
    // The contents of a customer that counted, in the order of purchases.
    "CREATE INDEX purchase_revision_customer_order ON purchase_revision (customer_id, purchased_at, external_id)",
    // The latest recorded purchase. Every new boundary must lie after it.
    "CREATE INDEX purchase_revision_purchased_at ON purchase_revision (purchased_at)",
    // The numbers that contents had before they were raised.
    "CREATE TABLE raised_revision (external_id {text} NOT NULL, revision {int} NOT NULL, raised_to {int} NOT NULL, \
     PRIMARY KEY (external_id, revision))",
];
const ALTER_REFUND: [&str; 2] = [
    "ALTER TABLE refund ALTER COLUMN amount DROP NOT NULL",
    "ALTER TABLE refund ADD COLUMN currency text COLLATE \"C\"",
];
/// SQLite cannot drop NOT NULL.
const COPY_REFUND: [&str; 5] = [
    "ALTER TABLE refund RENAME TO refund_before",
    "CREATE TABLE refund (external_id text NOT NULL PRIMARY KEY, purchase_external_id text NOT NULL, customer_id {int} NOT NULL, \
     refunded_at {int} NOT NULL, recorded_at {int} NOT NULL, amount {int}, lines text NOT NULL, set_revision {int} NOT NULL, \
     version {int} NOT NULL, currency text, CHECK (amount >= 0))",
    "INSERT INTO refund SELECT external_id, purchase_external_id, customer_id, refunded_at, recorded_at, amount, lines, \
     set_revision, version, NULL FROM refund_before",
    "DROP TABLE refund_before",
    "CREATE INDEX refund_purchase ON refund (purchase_external_id)",
];
const FILL_REFUND: [&str; 2] = [
    "UPDATE refund SET amount = NULL FROM purchase AS p \
     WHERE p.external_id = refund.purchase_external_id AND refund.lines = '[]' AND refund.amount = p.total",
    "UPDATE refund SET currency = p.currency FROM purchase AS p \
     WHERE p.external_id = refund.purchase_external_id AND refund.amount IS NOT NULL",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        let mut steps: Vec<String> = Vec::new();
        if postgres {
            steps.push("LOCK TABLE installation IN ACCESS EXCLUSIVE MODE".to_owned());
        }
        let (text, int) = if postgres { ("text COLLATE \"C\"", "bigint") } else { ("text", "integer") };
        let refund: &[&str] = if postgres { &ALTER_REFUND } else { &COPY_REFUND };
        let all = ADD_COLUMNS.iter().chain(&CREATE_REVISION).chain(refund).chain(&FILL_REFUND);
        steps.extend(all.map(|sql| sql.replace("{text}", text).replace("{int}", int)));
        steps.push("UPDATE installation SET format = 4".to_owned());
        run(manager, &steps).await
    }

    /// Fails if a purchase was revised, because a program that knows format 3 cannot read it.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let revised = "SELECT 1 FROM purchase WHERE revision > 0 OR refunded IS NOT NULL \
                       UNION ALL SELECT 1 FROM purchase_revision LIMIT 1";
        let ask = sea_orm_migration::sea_orm::Statement::from_string(manager.get_database_backend(), revised);
        if db.query_one_raw(ask).await?.is_some() {
            return Err(DbErr::Migration("a purchase was revised, which the earlier format cannot contain".to_owned()));
        }
        let mut steps = vec![
            "UPDATE refund SET amount = (SELECT total FROM purchase AS p WHERE p.external_id = refund.purchase_external_id) \
             WHERE amount IS NULL"
                .to_owned(),
            "ALTER TABLE refund DROP COLUMN currency".to_owned(),
            "DROP TABLE raised_revision".to_owned(),
            "DROP TABLE purchase_revision".to_owned(),
        ];
        let added = ["revision", "refunded", "refunded_until", "refunded_revision"];
        steps.extend(added.map(|column| format!("ALTER TABLE purchase DROP COLUMN {column}")));
        steps.push("UPDATE installation SET format = 3".to_owned());
        run(manager, &steps).await
    }
}

async fn run(manager: &SchemaManager<'_>, steps: &[String]) -> Result<(), DbErr> {
    for sql in steps {
        manager.get_connection().execute_unprepared(sql).await?;
    }
    Ok(())
}
