//! Settling campaigns whose lateness is over: a recorded transition, after which no fact counts any more.

use entity::campaign;

use super::App;
use super::campaign::Change;
use super::error::Error;

/// Settles every campaign that is due and has no open backfill; answers how many.
pub async fn run(app: &App) -> Result<u64, Error> {
    let Some(now) = app.certain_now().await? else { return Ok(0) };
    let set = app.campaigns().await?;
    let due = |campaign: &super::campaigns::Campaign| campaign.life.may_settle(now, campaign.rule.lateness.micros());
    let mut settled = 0;
    for campaign in set.counting().filter(|campaign| due(campaign)) {
        let change = Change::begin(app).await?;
        let Some(row) = change.find(campaign.id()).await? else { continue };
        // Read anew under the lock: another node may have settled it, or someone moved its end.
        let current = super::campaigns::Campaign::of(row, None)?;
        if due(&current) && current.row.backfilled_to.is_none() {
            let row = campaign::Model { settled_revision: Some(change.revision), ..current.row };
            change.save(row).await?;
            settled += 1;
        }
    }
    Ok(settled)
}
