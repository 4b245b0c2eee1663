//! Requests jobs. A request is a row that is written in the caller's transaction.

use entity::{CampaignId, CustomerId, JobKind, JobState, job};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveEnum, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, NotSet, QueryFilter, Set};

use crate::app::error::Error;
use crate::app::rows::any;
use crate::engine::time::Instant;

/// A job that can be requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Evaluates the history of every customer for a campaign.
    Campaign(CampaignId),
    /// Evaluates what is deferred of a customer.
    Customer(CustomerId),
    /// Exports everything that is recorded of a customer.
    Export(CustomerId),
    /// Erases a customer.
    Erasure(CustomerId),
}

impl Wanted {
    fn kind(&self) -> JobKind {
        match self {
            Self::Campaign(_) | Self::Customer(_) => JobKind::Evaluation,
            Self::Export(_) => JobKind::Export,
            Self::Erasure(_) => JobKind::Erasure,
        }
    }

    pub(in crate::app) fn unique_key(&self) -> String {
        match self {
            Self::Campaign(id) => format!("evaluation:campaign:{}", id.0),
            Self::Customer(id) => format!("evaluation:customer:{}", id.0),
            Self::Export(id) => format!("export:customer:{}", id.0),
            Self::Erasure(id) => format!("erasure:customer:{}", id.0),
        }
    }

    fn customer(&self) -> Option<CustomerId> {
        match self {
            Self::Campaign(_) => None,
            Self::Customer(id) | Self::Export(id) | Self::Erasure(id) => Some(*id),
        }
    }

    fn row(&self, now: Instant) -> job::ActiveModel {
        job::ActiveModel {
            id: NotSet,
            kind: Set(self.kind()),
            unique_key: Set(self.unique_key()),
            campaign_id: Set(if let Self::Campaign(id) = self { Some(id.0) } else { None }),
            customer_id: Set(self.customer().map(|id| id.0)),
            state: Set(JobState::Waiting),
            requests: Set(1),
            attempts: Set(0),
            run_at: Set(now.0),
            created_at: Set(now.0),
            ..Default::default()
        }
    }
}

/// Requests jobs in the caller's transaction. A job that is running now runs once more afterwards. One that is dead or cancelled
/// runs again.
pub async fn request(db: &impl ConnectionTrait, wanted: &[Wanted], now: Instant) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let running = JobState::Running.to_value();
    let again = OnConflict::column(job::Column::UniqueKey)
        .value(job::Column::Requests, Expr::cust("\"job\".\"requests\" + 1"))
        .value(job::Column::Attempts, 0)
        .value(job::Column::RunAt, now.0)
        .value(job::Column::FinishedAt, Expr::value(Option::<i64>::None))
        .value(
            job::Column::State,
            Expr::cust(format!("CASE WHEN \"job\".\"state\" = '{running}' THEN '{running}' ELSE 'waiting' END")),
        )
        .to_owned();
    job::Entity::insert_many(wanted.iter().map(|wanted| wanted.row(now)))
        .on_conflict(again)
        .exec_without_returning(db)
        .await?;
    Ok(())
}

/// Makes the evaluations of these campaigns continue now if they wait, and once more if they are running. Unlike a request, this
/// does not change evaluations that are dead or cancelled.
pub(super) async fn wake(db: &impl ConnectionTrait, campaigns: &[CampaignId], now: Instant) -> Result<(), Error> {
    if campaigns.is_empty() {
        return Ok(());
    }
    let keys = campaigns.iter().map(|id| Wanted::Campaign(*id).unique_key());
    job::Entity::update_many()
        .col_expr(job::Column::Requests, Expr::col(job::Column::Requests).add(1))
        .col_expr(job::Column::RunAt, Expr::value(now.0))
        .filter(any(db.get_database_backend(), job::Column::UniqueKey, keys))
        .filter(job::Column::State.is_in([JobState::Waiting, JobState::Running]))
        .exec(db)
        .await?;
    Ok(())
}
