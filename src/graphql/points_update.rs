//! Live updates of a customer's points and progress.

use std::sync::Arc;

use async_graphql::{Context, Description, ID, Object, Subscription};
use futures_util::{Stream, StreamExt};

use super::customer::{Balance, Customer};
use super::error::ApiError;
use super::ledger::LedgerEntry;
use super::progress::CampaignProgress;
use super::scalar::Points;
use crate::app::reading::points_update::{Feed, Update};

/// An update that is sent after a customer's points or progress changed.
#[derive(Description)]
pub struct PointsUpdate(Update);

#[Object(use_type_description)]
impl PointsUpdate {
    /// An opaque cursor that stands for this update. To resume, pass the cursor of the last update as
    /// `pointsUpdated(after:)`.
    async fn cursor(&self) -> String {
        self.0.cursor.to_text()
    }

    /// The customer, of the same version as `balance`. Select its `id` and its `balance`, and a client's normalised
    /// cache stays up to date.
    async fn customer(&self) -> Customer {
        Arc::clone(&self.0.customer).into()
    }

    /// The ledger entries that the commit posted, the lowest `sequence` first. Empty if only progress changed. A commit
    /// with more than 500 entries is sent as several updates.
    async fn entries(&self) -> Vec<LedgerEntry> {
        let entry = |row| LedgerEntry::of(Arc::clone(&self.0.customer).into(), Arc::clone(row));
        self.0.entries.iter().map(entry).collect()
    }

    /// The sum of the `points` of `entries`, for a notification such as "+50 points". It is 0 if only progress changed.
    async fn change(&self) -> Points {
        Points(self.0.entries.iter().map(|entry| entry.points).sum())
    }

    /// The customer's points as they are now. While a subscription catches up, the balance already includes later
    /// updates.
    async fn balance(&self, ctx: &Context<'_>) -> Result<Balance, ApiError> {
        Balance::of(ctx, &self.0.customer, None).await
    }

    /// Where the customer stands at the current instant in each `ACTIVE` or `PAUSED` campaign, the most recently
    /// created campaign first.
    async fn progress(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Return only this campaign, or nothing if it is not running.")] campaign_id: Option<ID>,
    ) -> Result<Vec<CampaignProgress>, ApiError> {
        CampaignProgress::load(ctx, &self.0.customer, None, campaign_id).await
    }
}

/// The part of [`super::Subscription`] that follows points.
#[derive(Default)]
pub struct PointsSubscription;

#[Subscription]
impl PointsSubscription {
    /// Follows one customer: sends every ledger entry in order and without gaps, and an update whenever a commit changes
    /// progress. The subscription ends with `UNAUTHENTICATED` when the token expires, with `RATE_LIMITED` if the caller
    /// exceeds its rate limit, and with `UNAVAILABLE` if the server fails. To resume without loss, pass
    /// `extensions.cursor` of the error as `after`.
    async fn points_updated(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The shop's id of the customer. Nothing needs to be recorded of the customer yet. With the token \
            of a customer, the id may be left out, and for the id of another customer the error is `NOT_FOUND`. With \
            any other token, the id is required (`BAD_USER_INPUT`)."
        )]
        customer_external_id: Option<String>,
        #[graphql(
            desc = "A cursor of a `Balance`, a `PointsUpdate` or an edge of `Customer.ledger`. The updates after the \
            cursor come first, then live updates. Null means only updates from now on. If the stored data does not \
            continue the cursor, for example because a backup was restored, the error is `CURSOR_UNKNOWN`: load the \
            customer again and subscribe with its new cursor."
        )]
        after: Option<String>,
    ) -> Result<impl Stream<Item = Result<PointsUpdate, ApiError>>, ApiError> {
        let session = crate::graphql::session::session(ctx);
        let reader = session.viewer.require_reader()?;
        let app = Arc::clone(&session.app);
        // Boxed, because otherwise the stream would keep the room of this future.
        let feed = Box::pin(Feed::open(app, reader, session.expires_at, customer_external_id, after)).await?;
        let feed = feed.charged_to(session.allowance.clone());
        Ok(feed.stream().map(|update| update.map(PointsUpdate).map_err(ApiError::from)))
    }
}
