//! The trail: which admin changed what, from where, and what the change was; and which attempts were refused.
//!
//! Each mutation that only admins may use leaves one entry. A change and its entry are written in one transaction. So there is no
//! change without an entry and no entry without its change, even if the process is killed. A refused attempt (`userErrors`) changes
//! nothing: its entry is written by itself, and if that fails, the log has it instead. The replay of an idempotency key changes
//! nothing and is not refused, so it leaves no entry. The same applies to requests that fail for another reason, such as the role of
//! a token or an overloaded server.
//!
//! Purchases and refunds are facts of the shop. They leave no entry, whoever records them. Nor do jobs, imported adjustments and
//! repairs, because nobody sends a mutation.
//!
//! # Personal data
//!
//! `subject_of_token` and `address` are those of the admin. An entry refers to a customer by `customer_id` alone, so the external id of
//! a customer is in no column. `before` and `after` of such an entry have the customer's balance, and the reason that the admin gave,
//! which is free text. The erasure of a customer (`app::jobs::erasure`) sets both to null. Retention (`app::jobs::retention`) deletes old
//! entries. Nothing else changes the table.

use entity::{CampaignId, CustomerId, RewardId, trail_entry};
use sea_orm::ConnectionTrait;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::error::{Error, UserError, UserErrorCode};
use super::rows::{OnConflict, WriteGroup};
use super::viewer::Actor;
use crate::engine::time::Instant;

/// The maximum size of a field of a state, in bytes of JSON. Of a larger field, the entry has the size and a hash.
const MAX_FIELD_BYTES: usize = 16 * 1024;

/// The object that an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Campaign(CampaignId),
    Customer(CustomerId),
    Reward(RewardId),
    /// A job, by its id.
    Job(i64),
    /// A dead letter, by its id.
    DeadLetter(i64),
}

/// The attempt of an actor to change something. The action is the name of the mutation.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    actor: &'a Actor,
    action: &'static str,
    target: Option<Target>,
}

impl<'a> Attempt<'a> {
    /// An attempt that is about nothing that exists yet.
    pub fn new(actor: &'a Actor, action: &'static str) -> Self {
        Self { actor, action, target: None }
    }

    /// The same attempt, about this object.
    pub fn on(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    /// Returns the entry of a change. Both states are JSON texts that [`state`] returned.
    pub fn entry(&self, at: Instant, before: Option<String>, after: Option<String>) -> trail_entry::Model {
        let (mut campaign_id, mut customer_id, mut reward_id, mut job_id, mut dead_letter_id) =
            (None, None, None, None, None);
        match self.target {
            None => {}
            Some(Target::Campaign(CampaignId(id))) => campaign_id = Some(id),
            Some(Target::Customer(CustomerId(id))) => customer_id = Some(id),
            Some(Target::Reward(RewardId(id))) => reward_id = Some(id),
            Some(Target::Job(id)) => job_id = Some(id),
            Some(Target::DeadLetter(id)) => dead_letter_id = Some(id),
        }
        let origin = self.actor.origin();
        trail_entry::Model {
            id: 0,
            at: at.0,
            action: self.action.to_owned(),
            subject_of_token: self.actor.subject().to_owned(),
            role: self.actor.role().to_owned(),
            campaign_id,
            customer_id,
            reward_id,
            job_id,
            dead_letter_id,
            before,
            after,
            refused: "[]".to_owned(),
            request_id: origin.request_id.as_str().to_owned(),
            address: origin.address.map(|address| address.to_string()),
        }
    }

    /// Adds an entry if the attempt was refused. Returns the result unchanged.
    pub async fn end<T>(&self, db: &impl ConnectionTrait, now: Instant, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Refused(errors)) = &result {
            self.note_refused(db, now, errors).await;
        }
        result
    }

    async fn note_refused(&self, db: &impl ConnectionTrait, now: Instant, errors: &[UserError]) {
        let mut codes: Vec<UserErrorCode> = Vec::new();
        for error in errors {
            if !codes.contains(&error.code) {
                codes.push(error.code);
            }
        }
        // A list of names is always JSON.
        let refused = serde_json::to_string(&codes).unwrap_or_default();
        let entry = trail_entry::Model { refused, ..self.entry(now, None, None) };
        if let Err(error) = add(db, std::slice::from_ref(&entry)).await {
            let trail_entry::Model { action, subject_of_token, role, campaign_id, customer_id, request_id, .. } = entry;
            tracing::error!(
                error = %error, action, subject_of_token, role, campaign_id, customer_id, refused = entry.refused, request_id,
                "a refused attempt is missing in the trail"
            );
        }
    }
}

/// Adds entries in the caller's transaction. Without entries, sends no statement.
pub(super) async fn add(db: &impl ConnectionTrait, entries: &[trail_entry::Model]) -> Result<(), Error> {
    let mut group = WriteGroup::new(db.get_database_backend());
    // The database numbers the entries.
    group.insert_without::<trail_entry::Entity>(entries, &[trail_entry::Column::Id], OnConflict::Fail);
    Ok(group.run(db).await?)
}

/// Writes the state of an object as JSON text. A field of more than 16 KiB is replaced by its size and its SHA-256, so that
/// the text is bounded and a change of the field still shows.
pub fn state(state: impl Serialize) -> Result<String, Error> {
    let state = serde_json::to_value(state);
    let mut state = state.map_err(|error| Error::Internal(format!("a state of the trail: {error}")))?;
    for field in state.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        let text = field.to_string();
        if text.len() > MAX_FIELD_BYTES {
            let hash: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
            *field = serde_json::json!({ "bytes": text.len(), "sha256": hash });
        }
    }
    Ok(state.to_string())
}

/// Returns the object that the entry is about.
pub fn target(row: &trail_entry::Model) -> Option<Target> {
    let campaign = row.campaign_id.map(|id| Target::Campaign(CampaignId(id)));
    let customer = row.customer_id.map(|id| Target::Customer(CustomerId(id)));
    let reward = row.reward_id.map(|id| Target::Reward(RewardId(id)));
    let job = row.job_id.map(Target::Job);
    campaign.or(customer).or(reward).or(job).or(row.dead_letter_id.map(Target::DeadLetter))
}

/// Returns the codes with which the action was refused.
pub fn refused(row: &trail_entry::Model) -> Result<Vec<UserErrorCode>, Error> {
    serde_json::from_str(&row.refused).map_err(|error| Error::Internal(format!("trail entry {}: {error}", row.id)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_large_field_is_a_size_and_a_hash() {
        let read = |field: &Value| -> Value {
            serde_json::from_str(&state(json!({ "name": "n", "filter": field })).unwrap()).unwrap()
        };
        let fits = json!("x".repeat(MAX_FIELD_BYTES - 2));
        assert_eq!(read(&fits), json!({ "name": "n", "filter": fits }));
        let [large, other] = ["x", "y"].map(|letter| read(&json!(letter.repeat(MAX_FIELD_BYTES - 1))));
        assert_eq!((&large["name"], &large["filter"]["bytes"]), (&json!("n"), &json!(MAX_FIELD_BYTES + 1)));
        assert_eq!(large["filter"]["sha256"].as_str().unwrap().len(), 64);
        assert_ne!(large, other);
    }

    #[test]
    fn the_stored_names_of_codes_are_those_of_the_api() {
        let stored = serde_json::to_string(&[UserErrorCode::NotFound, UserErrorCode::StaleRevision]).unwrap();
        assert_eq!(stored, r#"["NOT_FOUND","STALE_REVISION"]"#);
    }
}
