//! One row with the id, the campaign-set revision and the format of the database.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "installation")]
pub struct Model {
    /// Always 1: the table has one row.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// Random, chosen when the database is created. A copy or a restored backup keeps this id.
    #[sea_orm(column_type = "Text")]
    pub installation_id: String,
    /// The campaign-set revision. Increases by one with each change of a campaign.
    pub set_revision: i64,
    /// Random for each revision. Distinguishes two revisions with the same number, which can occur after a restore.
    pub revision_stamp: i64,
    /// Random, chosen when the first customer is erased: the key of the hashes in `erased_name`. `None`: that table is empty.
    #[sea_orm(column_type = "Text", nullable)]
    pub erasure_key: Option<String>,
    /// 1 once a refund has waited for its purchase: then `waiting_fact` may contain rows. 0 before.
    pub keeps_facts: i64,
    /// 1 while commits write events to `outbox`. 0 otherwise.
    pub keeps_events: i64,
    /// The format of the stored data. A program that does not know this format must not use the database.
    pub format: i64,
}

impl ActiveModelBehavior for ActiveModel {}
