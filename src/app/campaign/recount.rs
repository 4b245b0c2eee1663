//! Repairs the counters of a campaign. Counts its statistics and budget again under the campaign lock, while no batch runs.
//!
//! Recorded decisions are never overwritten: the corrected budget is recorded as a further numbered decision. The difference of
//! the statistics is added to one of their shards.

use entity::{BudgetDecisionKind, CampaignId, budget, budget_decision, campaign_stat};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};

use super::{Change, note_limit};
use crate::app::App;
use crate::app::error::Error;
use crate::app::rows::{OnConflict, insert, update};
use crate::app::stats::{counted, counters};
use crate::app::stored::campaign_stat::to_row;
use crate::app::viewer::Admin;
use crate::engine::account::Totals;

/// The shard of the statistics that gets the difference. Every installation has it.
const SHARD: i32 = 0;

/// Counts the awards of the campaign again, and repairs its counters. Returns whether anything was wrong.
pub async fn recount(app: &App, _: &Admin, id: CampaignId) -> Result<bool, Error> {
    let change = Change::begin(app).await?;
    let expected = counted(&change.tx).await?.get(&id).copied().unwrap_or_default();
    let stats = recount_statistics(&change, id, expected).await?;
    let budget = recount_budget(&change, id, expected.points_standing).await?;
    if stats || budget {
        change.commit().await?;
    }
    Ok(stats || budget)
}

async fn recount_statistics(change: &Change<'_>, id: CampaignId, expected: Totals) -> Result<bool, Error> {
    let recorded = counters(&change.tx).await?.get(&id).copied().unwrap_or_default();
    if recorded == expected {
        return Ok(false);
    }
    let lacking = to_row(id, SHARD, expected - recorded);
    insert::<campaign_stat::Entity>(&change.tx, &[lacking], OnConflict::Add).await?;
    Ok(true)
}

/// Sets the limit to the last recorded one. If there is a limit, sets the points used to those that stand. Returns whether
/// anything was wrong.
async fn recount_budget(change: &Change<'_>, id: CampaignId, standing: i64) -> Result<bool, Error> {
    let Some(recorded) = change.budget(id).await? else { return Ok(false) };
    let of_campaign = || budget_decision::Entity::find().filter(budget_decision::Column::CampaignId.eq(id));
    let last = of_campaign().order_by_desc(budget_decision::Column::DecisionNo).one(&change.tx).await?;
    let last_limit = of_campaign()
        .filter(budget_decision::Column::Kind.eq(BudgetDecisionKind::Limit))
        .order_by_desc(budget_decision::Column::DecisionNo)
        .one(&change.tx)
        .await?;
    // A draft has no decisions.
    let (Some(last), Some(last_limit)) = (last, last_limit) else { return Ok(false) };
    let points_limit = Some(last_limit.points).filter(|limit| *limit >= 0);
    let points_used = if points_limit.is_some() { standing } else { recorded.points_used };
    let mut mended = budget::Model { points_limit, points_used, decision_no: last.decision_no, ..recorded.clone() };
    if mended == recorded && (points_limit.is_none() || last.points_used == points_used) {
        return Ok(false);
    }
    note_limit(change, &mut mended).await?;
    update::<budget::Entity>(&change.tx, &[mended]).await?;
    Ok(true)
}
