//! A customer: its counters, its balance, and its running state in each campaign.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::CustomerId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "customer")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: CustomerId,
    /// The shop's id of the customer.
    #[sea_orm(unique, column_type = "Text")]
    pub external_id: String,
    /// When the customer was first recorded.
    pub recorded_at: i64,
    /// Increases by one with each commit that changes anything of the customer.
    pub version: i64,
    /// Random for each version. Distinguishes two versions with the same number, which can occur after a restore.
    pub stamp: i64,
    /// The campaigns that were activated up to this campaign-set revision have been evaluated for this customer, as far as the
    /// marks in `head` say.
    pub evaluated_revision: i64,
    /// The sequence of the last ledger entry, or 0 if there is none.
    pub ledger_sequence: i64,
    /// When the last ledger entry was posted, or 0 if there is none. Distinguishes two ledgers with the same last sequence,
    /// which can occur after a restore.
    pub posted_at: i64,
    /// The number of the last award, or 0 if there is none.
    pub award_number: i64,
    /// The sum of the points of all ledger entries.
    pub balance: i64,
    /// The points of the standing awards.
    pub lifetime: i64,
    /// The clock changes nothing of the customer's points before this instant. `None`: it never does, and all points are in the pool.
    pub due_at: Option<i64>,
    /// The running states of the fold, by campaign, in a binary format (`app::stored::running`). Part of this row, so that a new
    /// purchase does not write a row for each campaign.
    #[sea_orm(column_type = "Blob")]
    #[serde(with = "serde_bytes")]
    pub head: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
