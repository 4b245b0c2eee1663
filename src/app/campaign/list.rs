//! Reads campaigns. All of them are in memory, at the current revision of the campaign set.

use std::collections::HashMap;
use std::sync::Arc;

use entity::CampaignId;

use crate::app::App;
use crate::app::campaign::set::{Campaign, CampaignSet};
use crate::app::error::Error;
use crate::app::reading::page::{List, Page, Part, Position, Slice};
use crate::app::rows::Kind;
use crate::app::viewer::Reader;
use crate::engine::lifecycle::Status;

/// The list of campaigns, newest first.
pub const LIST: List = List {
    name: "campaign",
    table: "campaign",
    order: &[("created_at", Kind::Int), ("id", Kind::Int)],
    descending: true,
};

/// Returns the position of a campaign in the list.
pub fn position(campaign: &Campaign) -> Position {
    [Part::Int(campaign.row.created_at), Part::Int(campaign.row.id.0)].into()
}

/// Returns the cursor of a campaign in the list.
pub fn cursor(campaign: &Campaign) -> String {
    LIST.cursor(&position(campaign))
}

fn is_visible(campaign: &Campaign, reader: Reader<'_>) -> bool {
    campaign.life.activated || reader.sees_drafts()
}

/// Returns a page of the campaigns that have one of these statuses and that the reader may see, and the number of all such
/// campaigns. `None` selects every status.
pub async fn list(
    app: &App,
    reader: Reader<'_>,
    page: &Page,
    statuses: Option<Vec<Status>>,
) -> Result<(Slice<Arc<Campaign>>, usize), Error> {
    let now = app.clock.now();
    let asked_for =
        |campaign: &Campaign| statuses.as_ref().is_none_or(|statuses| statuses.contains(&campaign.life.status(now)));
    let set = app.campaigns().await?;
    let wanted = |campaign: &&Arc<Campaign>| is_visible(campaign, reader) && asked_for(campaign);
    let campaigns = newest_first(set.all().iter().filter(wanted));
    let count = campaigns.len();
    Ok((page.of_all(&LIST, campaigns, |campaign| position(campaign)), count))
}

/// Sorts campaigns into the order of the list.
pub fn newest_first<'a>(campaigns: impl Iterator<Item = &'a Arc<Campaign>>) -> Vec<Arc<Campaign>> {
    let mut campaigns: Vec<Arc<Campaign>> = campaigns.cloned().collect();
    campaigns.sort_by_cached_key(|campaign| std::cmp::Reverse(position(campaign)));
    campaigns
}

/// Finds campaigns by id. Leaves out those that do not exist or that the reader may not see.
pub fn find(set: &CampaignSet, reader: Reader<'_>, ids: Vec<CampaignId>) -> HashMap<CampaignId, Arc<Campaign>> {
    let visible = |id: CampaignId| Some((id, set.get(id).filter(|campaign| is_visible(campaign, reader))?.clone()));
    ids.into_iter().filter_map(visible).collect()
}
