//! Converts the totals of campaigns between the engine and their table of counters.

use entity::{CampaignId, campaign_stat};

use crate::engine::account::Totals;

/// Returns the row of one shard of a campaign's counters.
pub fn to_row(campaign_id: CampaignId, shard: i32, totals: Totals) -> campaign_stat::Model {
    let Totals { awards, customers, points_standing, points_declined } = totals;
    campaign_stat::Model { campaign_id, shard, awards, customers, points_standing, points_declined }
}

/// Returns what one shard contributes to the totals.
pub fn from_row(row: &campaign_stat::Model) -> Totals {
    let campaign_stat::Model { awards, customers, points_standing, points_declined, .. } = *row;
    Totals { awards, customers, points_standing, points_declined }
}
