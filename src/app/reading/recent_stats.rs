//! The statistics of all campaigns, cached briefly, so that the database load does not depend on how many clients read them.

use std::collections::HashMap;
use std::sync::Arc;

use entity::CampaignId;
use tokio::sync::Mutex;

use crate::app::error::Error;
use crate::engine::account::Totals;
use crate::engine::budget::Budget;
use crate::engine::time::Instant;

/// The totals of a campaign, and its budget if it has one.
pub type Stats = (Totals, Option<Budget>);

pub type ByCampaign = Arc<HashMap<CampaignId, Stats>>;

/// The statistics that were read last, and when they were read.
#[derive(Debug, Default)]
pub struct RecentStats {
    read: Mutex<Option<(Instant, ByCampaign)>>,
}

impl RecentStats {
    /// Returns the cached statistics if they were read after `oldest`. Otherwise calls `load`. Only one caller loads at a time;
    /// the others wait for its result.
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
