//! A customer's points, live.

use std::sync::Arc;

use async_graphql::{Context, Description, ID, Object, Subscription};
use futures_util::{Stream, StreamExt};

use super::customer::{Balance, Customer};
use super::error::ApiError;
use super::ledger::LedgerEntry;
use super::progress::CampaignProgress;
use super::scalar::Points;
use crate::app::reading::points_update::{Feed, Update};

/// What moved a customer's points or progress.
#[derive(Description)]
pub struct PointsUpdate(Update);

#[Object(use_type_description)]
impl PointsUpdate {
    /// Pass it as `after` when reconnecting.
    async fn cursor(&self) -> String {
        self.0.cursor.to_text()
    }

    /// Whose points: of the same version as the balance, so that a cache that knows the customer by its id follows.
    async fn customer(&self) -> Customer {
        Arc::clone(&self.0.customer).into()
    }

    /// One commit's entries, in order; empty when only progress moved. A commit with more than 500 comes as several updates.
    async fn entries(&self) -> Vec<LedgerEntry> {
        let entry = |row| LedgerEntry::of(Arc::clone(&self.0.customer).into(), Arc::clone(row));
        self.0.entries.iter().map(entry).collect()
    }

    /// The sum of the entries: what a toast shows.
    async fn change(&self) -> Points {
        Points(self.0.entries.iter().map(|entry| entry.points).sum())
    }

    /// Points as they are now: when catching up, later updates are in it already.
    async fn balance(&self, ctx: &Context<'_>) -> Balance {
        Balance::of(ctx, &self.0.customer)
    }

    /// Where the customer stands in each running campaign now.
    async fn progress(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only in this campaign.")] campaign_id: Option<ID>,
    ) -> Result<Vec<CampaignProgress>, ApiError> {
        CampaignProgress::of(ctx, &self.0.customer, None, campaign_id).await
    }
}

/// See [`super::Subscription`].
#[derive(Default)]
pub struct PointsSubscription;

#[Subscription]
impl PointsSubscription {
    /// One customer, live: every ledger entry in order, without gaps, and progress as it moves. It ends when the token
    /// expires, with an error that has the cursor to go on from.
    async fn points_updated(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "Which customer; one that was never heard of may be followed. A customer's token may leave it \
            out."
        )]
        customer_external_id: Option<String>,
        #[graphql(
            desc = "First what came after this cursor, then live; null: from now on. Where what was told up to it is \
            not what is stored (a backup was restored), the error is CURSOR_UNKNOWN: load the customer anew."
        )]
        after: Option<String>,
    ) -> Result<impl Stream<Item = Result<PointsUpdate, ApiError>>, ApiError> {
        let session = crate::graphql::session::session(ctx);
        let reader = session.viewer.require_reader()?;
        let app = Arc::clone(&session.app);
        let feed = Feed::open(app, reader, session.expires_at, customer_external_id, after).await?;
        let feed = feed.charged_to(session.allowance.clone());
        Ok(feed.stream().map(|update| update.map(PointsUpdate).map_err(ApiError::from)))
    }
}
