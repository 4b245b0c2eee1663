//! Settles campaigns when `endsAt + lateness` has passed. Settlement is a recorded transition: facts that are recorded later do
//! not count in the campaign.

use std::time::Duration;

use entity::campaign;
use tokio::time::Instant as Monotonic;

use super::evaluation::load_deferred;
use super::queue::End;
use crate::app::App;
use crate::app::campaign::Change;
use crate::app::campaign::set::Campaign;
use crate::app::clock::Clock;
use crate::app::error::Error;
use crate::engine::time::Instant;

/// How often campaigns that are due are settled.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// Settles the campaigns that are due at this tick.
pub(super) async fn run_tick(app: &App) -> Result<End, Error> {
    let settled = run(app).await?;
    if settled > 0 {
        tracing::info!(campaigns = settled, "campaigns were settled");
    }
    Ok(End::Done)
}

/// Settles every campaign that is due and completely evaluated for every customer. Returns the number of settled campaigns.
pub async fn run(app: &App) -> Result<u64, Error> {
    let Some(now) = certain_now(app).await? else { return Ok(0) };
    let set = app.campaigns().await?;
    let due = |campaign: &Campaign| campaign.life.may_settle(now, campaign.rule.lateness.micros());
    let mut settled = 0;
    for campaign in set.counting().filter(|campaign| due(campaign)) {
        let _turn = app.recorder.job_turn().await;
        let change = Change::begin(app).await?;
        let Some(row) = change.find(campaign.id()).await? else { continue };
        // Loaded again under the lock: another node may have settled the campaign, or someone may have changed its `endsAt`.
        let current = Campaign::from_row(row, None)?;
        let is_evaluated =
            current.row.backfilled_to.is_none() && load_deferred(change.transaction(), campaign.id()).await?.is_empty();
        if due(&current) && is_evaluated {
            let row = campaign::Model { settled_revision: Some(change.set_revision), ..current.row };
            change.save(row).await?;
            settled += 1;
        }
    }
    Ok(settled)
}

/// Returns the current time for an irreversible change. Returns `None` if the clock may be wrong.
pub(super) async fn certain_now(app: &App) -> Result<Option<Instant>, Error> {
    let now = app.clock.ask(app.database.read()).await?;
    let is_injected = matches!(app.clock, Clock::Fixed(_));
    let is_steady = is_injected || app.steadiness.observe(now, Monotonic::now());
    Ok((is_steady && !app.clock.is_in_doubt()).then_some(now))
}
