//! Converts checkpoints between the engine and their table.

use entity::{CampaignId, CustomerId, checkpoint};
use sea_orm::{FromQueryResult, QueryResult};

use crate::app::error::Error;
use crate::engine::purchase::Key;
use crate::engine::state::State;
use crate::engine::time::Instant;

/// Returns the row of a state. Returns `None` if the state has counted no purchase, because then it has no place in the order
/// of the customer's purchases.
pub fn to_row(
    customer_id: CustomerId,
    campaign_id: CampaignId,
    state: &State,
) -> Result<Option<checkpoint::Model>, Error> {
    let Some(key) = state.last.clone() else { return Ok(None) };
    let state = serde_json::to_string(state).map_err(|error| Error::Internal(error.to_string()))?;
    let (purchased_at, external_id) = (key.at.0, key.external_id);
    Ok(Some(checkpoint::Model { customer_id, campaign_id, purchased_at, external_id, state }))
}

/// Parses the state in a row, which must contain all columns of the table.
pub fn from_row(row: &QueryResult) -> Result<State, Error> {
    let row = checkpoint::Model::from_query_result(row, "")?;
    let broken = |error| Error::Internal(format!("checkpoint of customer {}: {error}", row.customer_id.0));
    serde_json::from_str(&row.state).map_err(broken)
}

/// The place of the checkpoint in the order of the customer's purchases.
pub fn key(row: &checkpoint::Model) -> Key {
    Key { at: Instant(row.purchased_at), external_id: row.external_id.clone() }
}
