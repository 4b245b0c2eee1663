//! The one row that says which database this is and how far its campaigns have moved on.

use sea_orm::entity::prelude::*;

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "installation")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// Random: tells databases apart that were restored or started fresh.
    #[sea_orm(column_type = "Text")]
    pub installation_id: String,
    /// The campaign-set revision: grows by one with every transition or edit of a campaign.
    pub set_revision: i64,
    /// Random with every revision: keeps revisions apart that repeat after the database went back.
    pub revision_stamp: i64,
    /// How far the stored data has moved on: a program that does not know this format must not touch it.
    pub format: i64,
}

impl ActiveModelBehavior for ActiveModel {}
