//! The statistics of all campaigns, kept for a moment, however many follow them.

use std::collections::HashMap;
use std::sync::Arc;

use entity::CampaignId;
use tokio::sync::Mutex;

use crate::app::error::Error;
use crate::engine::budget::Budget;
use crate::engine::time::Instant;

/// A campaign's totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Standing awards.
    pub awards: i64,
    /// Customers with a standing award.
    pub customers: i64,
    /// Points of the standing awards.
    pub points_standing: i64,
    /// Points that declined awards would have.
    pub points_declined: i64,
}

/// A campaign's totals and budget; no budget: it has none.
pub type Stats = (Totals, Option<Budget>);

/// By campaign.
pub type ByCampaign = Arc<HashMap<CampaignId, Stats>>;

/// What was read last, and when.
#[derive(Debug, Default)]
pub struct RecentStats {
    read: Mutex<Option<(Instant, ByCampaign)>>,
}

impl RecentStats {
    /// What was read after `oldest`; else what `load` reads now. One caller loads, and the others wait for it.
    pub async fn get(
        &self,
        oldest: Instant,
        now: Instant,
        load: impl AsyncFnOnce() -> Result<HashMap<CampaignId, Stats>, Error>,
    ) -> Result<ByCampaign, Error> {
        let mut read = self.read.lock().await;
        match &*read {
            Some((at, stats)) if *at > oldest && *at <= now => Ok(Arc::clone(stats)),
            _ => {
                let stats = Arc::new(load().await?);
                *read = Some((now, Arc::clone(&stats)));
                Ok(stats)
            }
        }
    }
}
