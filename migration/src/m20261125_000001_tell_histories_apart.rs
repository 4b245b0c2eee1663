//! A database can go back: to a backup that is restored, or to a replica that takes over without the last commits. It then
//! reaches the same revisions and ledger sequences again, with other content. Caches and clients that know the old content must
//! notice this. So each campaign-set revision gets a random stamp, as each version of a customer already has one, and each
//! customer stores when its last ledger entry was posted.

use sea_orm_migration::prelude::*;

/// Adds `installation.revision_stamp` and `customer.posted_at`.
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261125_000001_tell_histories_apart"
    }
}

/// Sets `posted_at` to the time of the customer's last ledger entry, or to 0 if there is none.
const POSTED_AT: &str = "UPDATE customer SET posted_at = COALESCE((SELECT e.created_at FROM ledger_entry e \
    WHERE e.customer_id = customer.id AND e.sequence = customer.ledger_sequence), 0)";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let number = |name: &'static str| ColumnDef::new(name).big_integer().not_null().default(0).take();
        // The current revision has no random stamp. It gets 0.
        let installation = Table::alter().table("installation").add_column(number("revision_stamp")).take();
        let customer = Table::alter().table("customer").add_column(number("posted_at")).take();
        // Look-ups lock `customer` before `installation`. The same order here avoids deadlocks.
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
