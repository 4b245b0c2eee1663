//! Computes where customers stand in the running campaigns. The inputs are the running state of the customer and, if the
//! engine asks for it, a [`Lookback`].

use std::sync::Arc;

use entity::{CampaignId, customer};

use crate::app::App;
use crate::app::campaign::list::newest_first;
use crate::app::campaign::set::{Campaign, CampaignSet};
use crate::app::error::Error;
use crate::app::reading::snapshot::View;
use crate::app::stored::running::Running;
use crate::engine::lookback::Lookback;
use crate::engine::progress::{Progress, need, progress};
use crate::engine::time::Instant;

/// The maximum number of attempts. An attempt fails if a customer needs more data even after loading, for example because the
/// clock moved on.
const MAX_ATTEMPTS: usize = 3;

/// The progress of a customer in a campaign.
#[derive(Clone, Debug)]
pub struct CampaignProgress {
    /// An `ACTIVE` or `PAUSED` campaign.
    pub campaign: Arc<Campaign>,
    pub progress: Progress,
    /// The backfill of the campaign has not evaluated the whole history of the customer yet. `progress` covers the part that
    /// is evaluated.
    pub evaluating: bool,
}

/// Returns the progress of the customer at `now` in each running campaign, or in the campaign `only`, newest campaign first.
/// Returns `None` if the snapshot lacks data for it, because the clock has moved on or the snapshot was loaded without
/// progress.
pub fn of_view(view: &View, only: Option<CampaignId>, now: Instant) -> Option<Vec<CampaignProgress>> {
    let snapshot = &view.snapshot;
    let of = |campaign: Arc<Campaign>| {
        let lookback = snapshot.lookback(&campaign, now)?;
        Some(tell(&snapshot.customer, &snapshot.running, campaign, lookback, now))
    };
    running(&view.campaigns, only, now).into_iter().map(of).collect()
}

/// Returns the next instant at which the clock changes what is shown of the customer or of a campaign. Returns `None` if the
/// snapshot does not contain enough to tell.
pub fn holds_until(view: &View, now: Instant) -> Option<Instant> {
    let mut until = Instant::FOREVER;
    let mut changes_at = |instants: [Option<Instant>; 2]| {
        for at in instants.into_iter().flatten().filter(|at| *at > now) {
            until = until.min(at);
        }
    };
    for campaign in view.campaigns.all() {
        changes_at([Some(campaign.life.period.starts_at), campaign.life.period.ends_at]);
    }
    for CampaignProgress { progress, .. } in of_view(view, None, now)? {
        changes_at([progress.window.map(|window| window.closes), progress.next_window.map(|window| window.opens)]);
    }
    if let Some(points) = &view.snapshot.points {
        until = until.min(points.changes_at(now)?);
    }
    Some(until)
}

/// Returns the progress of each of the customers, in their order. It is as recent as the row of the customer, or more recent.
/// A customer can occur twice, with rows of different versions.
pub async fn load(
    app: &App,
    customers: &[Arc<customer::Model>],
    only: Option<CampaignId>,
) -> Result<Vec<Vec<CampaignProgress>>, Error> {
    let set = app.campaigns().await?;
    for _ in 0..MAX_ATTEMPTS {
        let now = app.clock.now();
        let campaigns = running(&set, only, now);
        // Most customers need no more than their row.
        let mut told = Vec::with_capacity(customers.len());
        for customer in customers {
            told.push(of_row(customer, &campaigns, now)?);
        }
        let rest = customers.iter().zip(&told).filter(|(_, told)| told.is_none());
        let rest: Vec<_> = rest.map(|(customer, _)| Arc::clone(customer)).collect();
        let views = if rest.is_empty() { Default::default() } else { app.snapshots().of_rows(&rest).await? };
        let now = app.clock.now();
        let told = customers.iter().zip(told).map(|(customer, told)| match (told, views.get(&customer.id)) {
            (Some(told), _) => Some(told),
            (None, view) => of_view(view?, only, now),
        });
        if let Some(told) = told.collect() {
            return Ok(told);
        }
    }
    Err(Error::Unavailable)
}

/// Returns `None` if the row alone is not enough.
fn of_row(
    customer: &customer::Model,
    campaigns: &[Arc<Campaign>],
    now: Instant,
) -> Result<Option<Vec<CampaignProgress>>, Error> {
    let running = Running::parse(&customer.head)?;
    let mut told = Vec::with_capacity(campaigns.len());
    for campaign in campaigns {
        let standing = running.get(campaign.id());
        if standing.is_some_and(|standing| need(campaign.engine(), &standing.state, now).is_some()) {
            return Ok(None);
        }
        told.push(tell(customer, &running, Arc::clone(campaign), None, now));
    }
    Ok(Some(told))
}

fn running(set: &CampaignSet, only: Option<CampaignId>, now: Instant) -> Vec<Arc<Campaign>> {
    let wanted = |campaign: &&Arc<Campaign>| campaign.runs(now) && only.is_none_or(|only| only == campaign.id());
    newest_first(set.all().iter().filter(wanted))
}

fn tell(
    customer: &customer::Model,
    running: &Running,
    campaign: Arc<Campaign>,
    lookback: Option<&Lookback>,
    now: Instant,
) -> CampaignProgress {
    let standing = running.of(campaign.id());
    let progress = progress(campaign.engine(), &standing.state, standing.reached(), lookback, now);
    let evaluating = standing.mark.is_some() || is_to_be_reached(customer, &campaign);
    CampaignProgress { campaign, progress, evaluating }
}

/// Whether the backfill of the campaign has not reached the customer yet.
fn is_to_be_reached(customer: &customer::Model, campaign: &Campaign) -> bool {
    campaign.row.backfilled_to.is_some() && campaign.row.activated_revision > Some(customer.evaluated_revision)
}
