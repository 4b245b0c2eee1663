//! A database that went back (a restore, a replica that took over without the last commits) comes to the same revisions and
//! ledger sequences again with other content. What has known the old ones must not take these for them: a campaign-set revision
//! gets a random stamp, as a customer's version has one, and a customer tells when its last ledger entry was posted.

use sea_orm_migration::prelude::*;

/// `installation.revision_stamp` and `customer.posted_at`.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261125_000001_tell_histories_apart"
    }
}

/// Posted when its last entry was.
const POSTED_AT: &str = "UPDATE customer SET posted_at = COALESCE((SELECT e.created_at FROM ledger_entry e \
    WHERE e.customer_id = customer.id AND e.sequence = customer.ledger_sequence), 0)";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let number = |name: &'static str| ColumnDef::new(name).big_integer().not_null().default(0).take();
        // The revision that is there has no stamp: 0.
        let installation = Table::alter().table("installation").add_column(number("revision_stamp")).take();
        let customer = Table::alter().table("customer").add_column(number("posted_at")).take();
        // In the order in which look-ups lock them.
        manager.alter_table(customer).await?;
        manager.alter_table(installation).await?;
        manager.get_connection().execute_unprepared(POSTED_AT).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(Table::alter().table("customer").drop_column("posted_at").take()).await?;
        manager.alter_table(Table::alter().table("installation").drop_column("revision_stamp").take()).await
    }
}
