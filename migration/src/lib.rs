//! The schema's history, oldest first. Names no entity: entities move on, a migration must not.

mod m20261123_000001_create_schema;
mod m20261125_000001_tell_histories_apart;
mod m20261128_000006_order_awards_and_checkpoints;

pub use sea_orm_migration::prelude::{MigrationTrait, MigratorTrait};

/// All migrations. Takes no lock: `app::database::migrate` does, so that two at once are safe.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_create_schema::Migration),
            Box::new(m20261125_000001_tell_histories_apart::Migration),
            Box::new(m20261128_000006_order_awards_and_checkpoints::Migration),
        ]
    }
}
