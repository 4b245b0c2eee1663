//! The first schema. A column has a CHECK if a wrong value could not be repaired. Text is compared as bytes (`COLLATE "C"`
//! on PostgreSQL; SQLite does so by default), because the order of a customer's purchases and the order in which
//! customers are locked depend on it.
//!
//! There are no foreign keys to `campaign`. Activated campaigns are never deleted, and with such keys every commit of
//! every writer would take shared locks on the same few rows.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261123_000001_create_schema"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let text = Text { postgres: manager.get_database_backend() == DatabaseBackend::Postgres };
        for table in tables(&text) {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES.iter().rev() {
            manager.drop_table(Table::drop().table(*table).take()).await?;
        }
        Ok(())
    }
}

/// Ordered so that each table refers to earlier tables only.
const TABLES: [&str; 12] = [
    "installation",
    "customer",
    "purchase",
    "refund",
    "campaign",
    "budget",
    "budget_decision",
    "campaign_stat",
    "award",
    "ledger_entry",
    "checkpoint",
    "idempotency_key",
];

fn tables(text: &Text) -> [TableCreateStatement; 12] {
    [
        installation(text),
        customer(text),
        purchase(text),
        refund(text),
        campaign(text),
        budget(),
        budget_decision(text),
        campaign_stat(),
        award(text),
        ledger_entry(text),
        checkpoint(text),
        idempotency_key(text),
    ]
}

/// Makes text columns that are compared as bytes.
struct Text {
    postgres: bool,
}

impl Text {
    fn col(&self, name: &'static str) -> ColumnDef {
        let mut column = ColumnDef::new(name);
        column.text();
        if self.postgres {
            column.extra("COLLATE \"C\"");
        }
        column
    }
}

fn indexes() -> [IndexCreateStatement; 5] {
    let index = |name: &'static str, table: &'static str, columns: &[&'static str]| {
        let mut index = Index::create();
        index.name(name).table(table);
        for column in columns {
            index.col(*column);
        }
        index
    };
    [
        // A customer's purchases in their order.
        index("purchase_customer_order", "purchase", &["customer_id", "purchased_at", "external_id"]),
        // The latest recorded purchase. Every new boundary must lie after it.
        index("purchase_purchased_at", "purchase", &["purchased_at"]),
        // The refunds of a purchase, which its net depends on.
        index("refund_purchase", "refund", &["purchase_external_id"]),
        // A customer's awards: newest first, of one reaching purchase, or of a stretch of the history.
        index("award_customer_earned", "award", &["customer_id", "earned_at", "number"]),
        // Customers in the order in which they were first recorded.
        index("customer_recorded", "customer", &["recorded_at", "id"]),
    ]
}

/// One row with the id of this database and the revision of its campaign set.
fn installation(text: &Text) -> TableCreateStatement {
    Table::create()
        .table("installation")
        .col(ColumnDef::new("id").integer().not_null().primary_key())
        .col(text.col("installation_id").not_null())
        .col(ColumnDef::new("revision").big_integer().not_null())
        .check(Expr::cust("id = 1"))
        .take()
}

/// A customer: its counters, its balance, and its running state in each campaign.
fn customer(text: &Text) -> TableCreateStatement {
    Table::create()
        .table("customer")
        .col(ColumnDef::new("id").big_integer().not_null().auto_increment().primary_key())
        .col(text.col("external_id").not_null().unique_key())
        .col(ColumnDef::new("recorded_at").big_integer().not_null())
        .col(ColumnDef::new("version").big_integer().not_null())
        .col(ColumnDef::new("stamp").big_integer().not_null())
        .col(ColumnDef::new("evaluated_revision").big_integer().not_null())
        .col(ColumnDef::new("ledger_sequence").big_integer().not_null())
        .col(ColumnDef::new("award_number").big_integer().not_null())
        .col(ColumnDef::new("balance").big_integer().not_null())
        .col(ColumnDef::new("lifetime").big_integer().not_null())
        .col(text.col("running").not_null())
        .take()
}

/// A recorded purchase. It is never updated or deleted. Its net follows from its refunds.
fn purchase(text: &Text) -> TableCreateStatement {
    Table::create()
        .table("purchase")
        .col(text.col("external_id").not_null().primary_key())
        .col(ColumnDef::new("customer_id").big_integer().not_null())
        .col(ColumnDef::new("purchased_at").big_integer().not_null())
        .col(ColumnDef::new("recorded_at").big_integer().not_null())
        .col(ColumnDef::new("total").big_integer().not_null())
        .col(text.col("currency").not_null())
        .col(text.col("channel"))
        .col(ColumnDef::new("lines").text().not_null())
        .col(ColumnDef::new("revision").big_integer().not_null())
        .col(ColumnDef::new("version").big_integer().not_null())
        .check(Expr::cust("total >= 0"))
        .foreign_key(
            ForeignKey::create().name("purchase_customer_fk").from("purchase", "customer_id").to("customer", "id"),
        )
        .take()
}

/// A refund takes back all or part of a purchase. It is never updated or deleted.
fn refund(text: &Text) -> TableCreateStatement {
    Table::create()
        .table("refund")
        .col(text.col("external_id").not_null().primary_key())
        .col(text.col("purchase_external_id").not_null())
        .col(ColumnDef::new("customer_id").big_integer().not_null())
        .col(ColumnDef::new("refunded_at").big_integer().not_null())
        .col(ColumnDef::new("recorded_at").big_integer().not_null())
        .col(ColumnDef::new("amount").big_integer().not_null())
        .col(ColumnDef::new("lines").text().not_null())
        .col(ColumnDef::new("revision").big_integer().not_null())
        .col(ColumnDef::new("version").big_integer().not_null())
        .check(Expr::cust("amount >= 0"))
        .foreign_key(
            ForeignKey::create()
                .name("refund_purchase_fk")
                .from("refund", "purchase_external_id")
                .to("purchase", "external_id"),
        )
        .take()
}

/// A campaign: its rule and its recorded boundaries.
fn campaign(text: &Text) -> TableCreateStatement {
    Table::create()
        .table("campaign")
        .col(ColumnDef::new("id").big_integer().not_null().auto_increment().primary_key())
        .col(text.col("name").not_null())
        .col(text.col("description"))
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("starts_at").big_integer().not_null())
        .col(ColumnDef::new("ends_at").big_integer())
        .col(ColumnDef::new("rule").json_binary().not_null())
        .col(ColumnDef::new("pauses").json_binary().not_null())
        .col(ColumnDef::new("revision").big_integer().not_null())
        .col(ColumnDef::new("activated_revision").big_integer())
        .col(ColumnDef::new("ended").boolean().not_null())
        .col(ColumnDef::new("settled_revision").big_integer())
        .col(ColumnDef::new("boundary").big_integer())
        .col(ColumnDef::new("backfilled_to").big_integer())
        .take()
}

/// How many points of a campaign may stand at the same time. A table of its own, because every commit that changes
/// awards of a campaign with a budget locks the row.
fn budget() -> TableCreateStatement {
    Table::create()
        .table("budget")
        .col(ColumnDef::new("campaign_id").big_integer().not_null().primary_key())
        .col(ColumnDef::new("points_limit").big_integer())
        .col(ColumnDef::new("points_used").big_integer().not_null())
        .col(ColumnDef::new("decision_no").big_integer().not_null())
        .take()
}

/// The numbered decisions of a budget, which `audit` replays. They are never updated or deleted.
fn budget_decision(text: &Text) -> TableCreateStatement {
    Table::create()
        .table("budget_decision")
        .col(ColumnDef::new("campaign_id").big_integer().not_null())
        .col(ColumnDef::new("decision_no").big_integer().not_null())
        .col(text.col("kind").not_null())
        .col(ColumnDef::new("customer_id").big_integer())
        .col(ColumnDef::new("award_number").big_integer())
        .col(ColumnDef::new("points").big_integer().not_null())
        .col(ColumnDef::new("points_used").big_integer().not_null())
        .primary_key(Index::create().col("campaign_id").col("decision_no"))
        .take()
}

/// The statistics of a campaign. Each writer of a node has a row of its own, so that these writers do not wait for each
/// other. Readers sum the rows.
fn campaign_stat() -> TableCreateStatement {
    Table::create()
        .table("campaign_stat")
        .col(ColumnDef::new("campaign_id").big_integer().not_null())
        .col(ColumnDef::new("shard").integer().not_null())
        .col(ColumnDef::new("awards").big_integer().not_null())
        .col(ColumnDef::new("customers").big_integer().not_null())
        .col(ColumnDef::new("points_standing").big_integer().not_null())
        .col(ColumnDef::new("points_declined").big_integer().not_null())
        .primary_key(Index::create().col("campaign_id").col("shard"))
        .take()
}

/// One time that a customer reached the goal of a campaign. Moves and reversals update the row. The ledger records the points.
fn award(text: &Text) -> TableCreateStatement {
    Table::create()
        .table("award")
        .col(ColumnDef::new("customer_id").big_integer().not_null())
        .col(ColumnDef::new("number").big_integer().not_null())
        .col(ColumnDef::new("campaign_id").big_integer().not_null())
        .col(text.col("purchase_external_id").not_null())
        .col(ColumnDef::new("nth").integer().not_null())
        .col(ColumnDef::new("ordinal").big_integer().not_null())
        .col(ColumnDef::new("points").big_integer().not_null())
        .col(text.col("status").not_null())
        .col(ColumnDef::new("earned_at").big_integer().not_null())
        .col(ColumnDef::new("opens_at").big_integer().not_null())
        .col(ColumnDef::new("closes_at").big_integer())
        .col(ColumnDef::new("evidence_from_at").big_integer().not_null())
        .col(text.col("evidence_from_external_id").not_null())
        .col(ColumnDef::new("version").big_integer().not_null())
        .primary_key(Index::create().col("customer_id").col("number"))
        .check(Expr::cust("points > 0"))
        .check(Expr::cust("nth >= 1"))
        .foreign_key(ForeignKey::create().name("award_customer_fk").from("award", "customer_id").to("customer", "id"))
        .take()
}

/// One movement of points. Ledger entries are never updated or deleted. The balance is their sum.
fn ledger_entry(text: &Text) -> TableCreateStatement {
    Table::create()
        .table("ledger_entry")
        .col(ColumnDef::new("customer_id").big_integer().not_null())
        .col(ColumnDef::new("sequence").big_integer().not_null())
        .col(text.col("kind").not_null())
        .col(ColumnDef::new("points").big_integer().not_null())
        .col(ColumnDef::new("balance_after").big_integer().not_null())
        .col(ColumnDef::new("award_number").big_integer())
        .col(text.col("purchase_external_id"))
        .col(text.col("reason"))
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("version").big_integer().not_null())
        .primary_key(Index::create().col("customer_id").col("sequence"))
        .check(Expr::cust("sequence >= 1"))
        .foreign_key(
            ForeignKey::create()
                .name("ledger_entry_customer_fk")
                .from("ledger_entry", "customer_id")
                .to("customer", "id"),
        )
        .take()
}

/// A stored state of the fold in the middle of a customer's history. A late change is folded again from the last
/// checkpoint before it.
fn checkpoint(text: &Text) -> TableCreateStatement {
    Table::create()
        .table("checkpoint")
        .col(ColumnDef::new("customer_id").big_integer().not_null())
        .col(ColumnDef::new("campaign_id").big_integer().not_null())
        .col(ColumnDef::new("purchased_at").big_integer().not_null())
        .col(text.col("external_id").not_null())
        .col(text.col("state").not_null())
        .primary_key(Index::create().col("customer_id").col("campaign_id").col("purchased_at").col("external_id"))
        .take()
}

/// The request that an idempotency key was used for. The same request with this key is a duplicate, another one a
/// conflict. Keys are kept for ever.
fn idempotency_key(text: &Text) -> TableCreateStatement {
    Table::create()
        .table("idempotency_key")
        .col(text.col("key").not_null().primary_key())
        .col(text.col("request").not_null())
        .col(ColumnDef::new("campaign_id").big_integer())
        .col(ColumnDef::new("customer_id").big_integer())
        .col(ColumnDef::new("sequence").big_integer())
        .take()
}
