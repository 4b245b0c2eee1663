//! The history of the database schema, oldest migration first. Migrations name no entity: entities change with the code, but a
//! released migration must never change.

mod m20261123_000001_create_schema;
mod m20261125_000001_tell_histories_apart;
mod m20261128_000001_add_write_probe;
mod m20261128_000002_fence_formats;
mod m20261128_000003_create_job;
mod m20261128_000006_order_awards_and_checkpoints;
mod m20261128_000007_index_awards_by_campaign;
mod m20261128_000008_index_awards_by_status;
mod m20261129_000001_name_set_revisions;
mod m20261129_000002_lighten_writes;
mod m20261129_000003_lock_customers_at_once;
mod m20261129_000004_compact_heads;
mod m20261130_000001_revise_purchases;
mod m20261130_000002_cap_points;
mod m20261130_000003_keep_lots;
mod m20261130_000006_redeem_rewards;
mod m20261201_000001_control_jobs;
mod m20261201_000001_create_trail_entry;
mod m20261202_000001_export_customers;
mod m20261202_000002_find_rows_of_customers;
mod m20261203_000001_erase_customers;
mod m20261204_000001_ingest_topics;
mod m20261205_000001_outbox;
pub mod online;

pub use sea_orm_migration::prelude::{MigrationName, MigrationTrait, MigratorTrait, SchemaManager};

/// All migrations. They take no lock themselves: the server's `Database::migrate` does, so that concurrent runs are safe.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_create_schema::Migration),
            Box::new(m20261125_000001_tell_histories_apart::Migration),
            Box::new(m20261128_000001_add_write_probe::Migration),
            Box::new(m20261128_000002_fence_formats::Migration),
            Box::new(m20261128_000003_create_job::Migration),
            Box::new(m20261128_000006_order_awards_and_checkpoints::Migration),
            Box::new(m20261128_000007_index_awards_by_campaign::Migration),
            Box::new(m20261128_000008_index_awards_by_status::Migration),
            Box::new(m20261129_000001_name_set_revisions::Migration),
            Box::new(m20261129_000002_lighten_writes::Migration),
            Box::new(m20261129_000003_lock_customers_at_once::Migration),
            Box::new(m20261129_000004_compact_heads::Migration),
            Box::new(m20261130_000001_revise_purchases::Migration),
            Box::new(m20261130_000002_cap_points::Migration),
            Box::new(m20261130_000003_keep_lots::Migration),
            Box::new(m20261130_000006_redeem_rewards::Migration),
            Box::new(m20261201_000001_create_trail_entry::Migration),
            Box::new(m20261201_000001_control_jobs::Migration),
            Box::new(m20261202_000001_export_customers::Migration),
            Box::new(m20261202_000002_find_rows_of_customers::Migration),
            Box::new(m20261203_000001_erase_customers::Migration),
            Box::new(m20261204_000001_ingest_topics::Migration),
            Box::new(m20261205_000001_outbox::Migration),
        ]
    }
}
