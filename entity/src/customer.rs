//! A customer: its counters, its balance, and where it stands in each campaign.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::CustomerId;

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "customer")]
pub struct Model {
    /// Primary key.
    #[sea_orm(primary_key)]
    pub id: CustomerId,
    /// The shop's name for it.
    #[sea_orm(unique, column_type = "Text")]
    pub external_id: String,
    /// When it was first heard of, µs.
    pub recorded_at: i64,
    /// Grows by one in every commit that changed anything of the customer.
    pub version: i64,
    /// Random with every version: keeps versions apart that repeat after a restore.
    pub stamp: i64,
    /// Every campaign activated up to this campaign-set revision has been evaluated for this customer.
    pub evaluated_revision: i64,
    /// Sequence of the last ledger entry; 0: none.
    pub ledger_sequence: i64,
    /// When that entry was posted, µs; 0: none. With the sequence it says which ledger it is: a restored database may come to the
    /// same sequence again.
    pub posted_at: i64,
    /// Number of the last award; 0: none.
    pub award_number: i64,
    /// Sum of the ledger.
    pub balance: i64,
    /// Points of the standing awards.
    pub lifetime: i64,
    /// JSON: campaign id → running state of the fold (`app::running`). Written with the customer's row, so that an
    /// append costs no row per campaign.
    #[sea_orm(column_type = "Text")]
    pub running: String,
}

impl ActiveModelBehavior for ActiveModel {}
