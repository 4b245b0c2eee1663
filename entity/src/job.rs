//! Work that outlives a request: what waits for the clock, and what takes long.

use sea_orm::entity::prelude::*;

use crate::{JobKind, JobState};

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job")]
pub struct Model {
    /// Primary key.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// What is to be done.
    pub kind: JobKind,
    /// What it is about, in words: there is one job for each.
    #[sea_orm(unique, column_type = "Text")]
    pub unique_key: String,
    /// The campaign that it is about.
    pub campaign_id: Option<i64>,
    /// The customer that it is about.
    pub customer_id: Option<i64>,
    /// Where it stands.
    pub state: JobState,
    /// How often it was asked for. A request that comes while the job runs makes it run once more.
    pub requests: i64,
    /// How often it was begun since it last made progress.
    pub attempts: i64,
    /// Why the last attempt failed.
    #[sea_orm(column_type = "Text", nullable)]
    pub error: Option<String>,
    /// Not before this instant, µs.
    pub run_at: i64,
    /// Random; who runs it proves by this that nobody has taken it over.
    pub lease: Option<i64>,
    /// When the lease runs out, µs.
    pub leased_until: Option<i64>,
    /// When it was first asked for, µs.
    pub created_at: i64,
    /// When the last attempt began, µs.
    pub started_at: Option<i64>,
    /// When it was done, or given up, µs.
    pub finished_at: Option<i64>,
    /// So much of `total` is done.
    pub done: Option<i64>,
    /// What `done` grows to.
    pub total: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
