//! Campaign statistics: counters sharded by writer, summed when read. At most one second old.

use std::collections::HashMap;

use entity::{CampaignId, campaign_stat};
use sea_orm::EntityTrait;

use super::App;
use super::error::Error;

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

/// Totals of every campaign that awarded anything.
pub async fn by_campaign(app: &App) -> Result<HashMap<CampaignId, Totals>, Error> {
    let mut totals: HashMap<CampaignId, Totals> = HashMap::new();
    for shard in campaign_stat::Entity::find().all(app.database.read()).await? {
        let total = totals.entry(shard.campaign_id).or_default();
        total.awards += shard.awards;
        total.customers += shard.customers;
        total.points_standing += shard.points_standing;
        total.points_declined += shard.points_declined;
    }
    Ok(totals)
}
