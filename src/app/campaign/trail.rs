//! What the trail says of a campaign before and after a change.

use serde_json::json;

use super::input::CampaignInput;
use super::set::Campaign;
use crate::app::error::Error;
use crate::app::trail;
use crate::engine::lifecycle::{Life, Status};
use crate::engine::time::Instant;

/// The whole definition, as the input that would create the campaign. What is not set is null or absent.
pub(super) fn definition(campaign: &Campaign) -> Result<String, Error> {
    trail::state(CampaignInput::of(campaign))
}

/// The status and the boundaries.
pub(super) fn life(life: &Life, now: Instant) -> Result<String, Error> {
    let text = |instant: Option<Instant>| instant.map(|instant| instant.to_string());
    trail::state(json!({
        "status": status(life.status(now)),
        "startsAt": life.period.starts_at.to_string(),
        "endsAt": text(life.period.ends_at),
        "boundary": text(life.boundary),
    }))
}

/// The name of a status in the API.
pub(super) fn status(status: Status) -> String {
    format!("{status:?}").to_uppercase()
}
