//! Converts awards between the engine and their table.

use entity::{AwardStatus, CampaignId, CustomerId, award};

use crate::engine::award::{AwardName, AwardPlace, Reached};
use crate::engine::dates::Dates;
use crate::engine::diff::RecordedAward;
use crate::engine::purchase::Key;
use crate::engine::time::Instant;
use crate::engine::window::Interval;

/// The key of the purchase that reached the award.
pub fn reaching_key(row: &award::Model) -> Key {
    Key { at: Instant(row.earned_at), external_id: row.purchase_external_id.clone() }
}

/// What identifies the award within its customer and campaign.
pub fn name(row: &award::Model) -> AwardName {
    (row.purchase_external_id.clone(), row.nth)
}

/// The place of the award among those of its customer and campaign.
pub fn place(row: &award::Model) -> AwardPlace {
    (reaching_key(row), row.nth)
}

/// The key of the first purchase in the evidence of the award.
pub fn evidence_key(row: &award::Model) -> Key {
    Key { at: Instant(row.evidence_from_at), external_id: row.evidence_from_external_id.clone() }
}

/// What the goal gave before the caps in points.
pub fn points_before_cap(row: &award::Model) -> i64 {
    row.points_before_cap.unwrap_or(row.points)
}

/// The window of the award, not clipped to the period of the campaign.
pub fn window(row: &award::Model) -> Interval {
    Interval { opens: Instant(row.opens_at), closes: row.closes_at.map_or(Instant::FOREVER, Instant) }
}

/// When the points of the award become available and expire.
pub fn dates(row: &award::Model) -> Dates {
    Dates { available_at: row.available_at.map(Instant), expires_at: row.expires_at.map(Instant) }
}

/// The award in the form that the engine compares with reached awards.
pub fn recorded(row: &award::Model) -> RecordedAward {
    RecordedAward {
        number: row.number,
        standing: row.status == AwardStatus::Standing,
        reached: Reached {
            by: reaching_key(row),
            nth: row.nth,
            ordinal: row.ordinal,
            points: row.points,
            points_before_cap: points_before_cap(row),
            window: window(row),
            dates: dates(row),
            evidence_from: evidence_key(row),
        },
    }
}

/// The row of a reached award.
pub fn to_row(
    reached: &Reached,
    customer_id: CustomerId,
    number: i64,
    campaign_id: CampaignId,
    status: AwardStatus,
    version: i64,
) -> award::Model {
    let closes = reached.window.closes;
    award::Model {
        customer_id,
        number,
        campaign_id,
        purchase_external_id: reached.by.external_id.clone(),
        nth: reached.nth,
        ordinal: reached.ordinal,
        points: reached.points,
        points_before_cap: Some(reached.points_before_cap).filter(|points| *points != reached.points),
        status,
        earned_at: reached.by.at.0,
        opens_at: reached.window.opens.0,
        closes_at: (closes != Instant::FOREVER).then_some(closes.0),
        evidence_from_at: reached.evidence_from.at.0,
        evidence_from_external_id: reached.evidence_from.external_id.clone(),
        available_at: reached.dates.available_at.map(|at| at.0),
        expires_at: reached.dates.expires_at.map(|at| at.0),
        version,
    }
}

/// The row of a recorded award that takes over the content of a reached award. Its number and its status stay the same.
pub fn moved_to(row: &award::Model, reached: &Reached, version: i64) -> award::Model {
    to_row(reached, row.customer_id, row.number, row.campaign_id, row.status, version)
}
