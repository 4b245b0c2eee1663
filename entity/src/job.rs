//! Work that waits for a point in time, or that takes longer than a request may.

use sea_orm::entity::prelude::*;

use crate::{JobKind, JobState};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub kind: JobKind,
    /// Names the work, such as `evaluation:campaign:7`. A request for the same work reuses the row. The key of a periodic job
    /// contains the second at which its tick began, such as `audit:1793620800`.
    #[sea_orm(unique, column_type = "Text")]
    pub unique_key: String,
    /// The campaign to evaluate, for a backfill.
    pub campaign_id: Option<i64>,
    /// The customer to evaluate, to export or to erase.
    pub customer_id: Option<i64>,
    pub state: JobState,
    /// How often the job was requested. A request that arrives while the job runs makes it run once more.
    pub requests: i64,
    /// How many attempts started since the job last made progress.
    pub attempts: i64,
    /// Why the last attempt failed, as an admin may see it: no SQL, no paths, no secrets. The log has the rest.
    #[sea_orm(column_type = "Text", nullable)]
    pub error: Option<String>,
    /// The job does not start before this instant.
    pub run_at: i64,
    /// A random number, chosen by the node that runs the job. A node that lost the job no longer matches it, and cannot change
    /// the row.
    pub lease: Option<i64>,
    /// When the lease expires, unless it is renewed.
    pub leased_until: Option<i64>,
    /// When the job was first requested.
    pub created_at: i64,
    /// When the last attempt started.
    pub started_at: Option<i64>,
    /// When the job was done, given up or cancelled.
    pub finished_at: Option<i64>,
    /// How many of the `total` items are done.
    pub done: Option<i64>,
    /// How many items there are: for a backfill, customers to evaluate.
    pub total: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
