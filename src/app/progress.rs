//! Where customers stand in the running campaigns: their stored running state, and the few purchases that the engine
//! asks for beside it.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{CampaignId, CustomerId, customer};

use super::App;
use super::campaign::list::newest_first;
use super::campaigns::Campaign;
use super::error::Error;
use super::history::{self, Span};
use super::running::{Running, Standing};
use crate::engine::evaluate::Range;
use crate::engine::progress::{Progress, progress, reads};
use crate::engine::purchase::{Key, Purchase};
use crate::engine::rule::Eligible;
use crate::engine::time::Instant;

/// Where a customer stands in a campaign.
#[derive(Clone, Debug)]
pub struct CampaignProgress {
    /// It runs: ACTIVE or PAUSED.
    pub campaign: Arc<Campaign>,
    /// As of now.
    pub progress: Progress,
}

/// One customer in one campaign, until its reads are there.
struct Pending<'a> {
    customer: CustomerId,
    campaign: &'a Arc<Campaign>,
    standing: Standing,
    range: Option<Range>,
}

/// Where these customers stand in each running campaign, or in the one that is named: an answer for each customer, in
/// order (one may be asked for at two of its versions), campaigns newest first.
pub async fn of(
    app: &App,
    customers: &[Arc<customer::Model>],
    only: Option<CampaignId>,
) -> Result<Vec<Vec<CampaignProgress>>, Error> {
    let now = app.clock.now();
    let set = app.campaigns().await?;
    let wanted = |campaign: &&Arc<Campaign>| campaign.runs(now) && only.is_none_or(|only| only == campaign.id());
    let campaigns = newest_first(set.all().iter().filter(wanted));
    let mut pending = Vec::with_capacity(customers.len() * campaigns.len());
    for customer in customers {
        let running = Running::parse(&customer.running)?;
        for campaign in &campaigns {
            let standing = running.of(campaign.id());
            let range = reads(campaign.engine(), &standing.state, now);
            pending.push(Pending { customer: customer.id, campaign, standing, range });
        }
    }
    let history = history::load(app.database.read(), spans(&pending)).await?;
    let mut pending = pending.into_iter().map(|one| {
        let progress = one.progress(history.get(&one.customer).map(Vec::as_slice).unwrap_or_default(), now);
        CampaignProgress { campaign: Arc::clone(one.campaign), progress }
    });
    Ok(customers.iter().map(|_| pending.by_ref().take(campaigns.len()).collect()).collect())
}

/// One stretch a customer: from the earliest start to the latest end that any campaign asks for.
fn spans(pending: &[Pending<'_>]) -> HashMap<CustomerId, Span> {
    let mut spans: HashMap<CustomerId, Span> = HashMap::new();
    for Pending { customer, campaign, range, .. } in pending {
        let Some(range) = range else { continue };
        let after = range.after.clone().unwrap_or_else(|| Key::before(campaign.life.period.starts_at));
        let span = spans.entry(*customer).or_insert_with(|| (after.clone(), range.to.clone()));
        span.0 = after.min(span.0.clone());
        span.1 = span.1.take().zip(range.to.clone()).map(|(a, b)| a.max(b));
    }
    spans
}

impl Pending<'_> {
    fn progress(&self, history: &[Purchase], now: Instant) -> Progress {
        let campaign = self.campaign.engine();
        let mut loaded: Vec<Eligible> = match &self.range {
            Some(range) => {
                let inside = history.iter().filter(|purchase| range.contains(&purchase.key));
                inside.filter_map(|purchase| campaign.eligible(purchase)).collect()
            }
            None => Vec::new(),
        };
        loaded.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        progress(campaign, &self.standing.state, self.standing.reached(), &loaded, now)
    }
}
