//! What other systems are told of a commit: the ledger entries, the changed awards and the balance of one customer.
//!
//! The forms are a contract with consumers. `docs/events.md` explains them, and `asyncapi.json` is generated from them. Fields are added,
//! and never renamed or removed.

use entity::{CustomerId, award, customer, ledger_entry};
use schemars::JsonSchema;
use sea_orm::ActiveEnum;
use serde::Serialize;

use super::global_id::GlobalId;
use crate::engine::purse::Sums;
use crate::engine::time::Instant;

/// The type of an [`Event`] in CloudEvents.
pub const POINTS_CHANGED: &str = "windfall.points.changed.v1";
/// The type of an [`Erased`] in CloudEvents.
pub const CUSTOMER_ERASED: &str = "windfall.customer.erased.v1";
/// The type of a [`Balance`] in CloudEvents.
pub const BALANCE: &str = "windfall.balance.v1";
/// The maximum number of entries and awards of an event. Each has at most 3 KiB, because its texts have at most 200 bytes, which JSON may
/// escape to six times as many.
pub const MAX_ITEMS: usize = 50;
/// The maximum size of an event. Topics must accept messages of this size.
pub const MAX_EVENT_BYTES: usize = 256 << 10;

/// What a commit changed of the points of one customer. A commit that changed much has several events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub customer_external_id: String,
    /// The customer's version after the commit. It grows with each commit, so an event whose version a consumer has passed is a repetition.
    pub version: i64,
    /// The position of this event among those of the commit, from 1.
    pub part: i32,
    /// Whether this is the last event of the commit.
    pub last: bool,
    /// When the commit was made.
    pub committed_at: String,
    /// The ledger entries that the commit posted, in order.
    pub entries: Vec<Entry>,
    /// The awards that are new or changed, as they are after the commit.
    pub awards: Vec<Award>,
}

/// One movement of a customer's points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The `id` of the `LedgerEntry` in the API.
    pub id: String,
    /// The position in the customer's ledger: 1, 2, 3 … without gaps.
    pub sequence: i64,
    /// AWARD, REVERSAL, ADJUSTMENT, EXPIRY, REDEMPTION or CANCELLATION.
    pub kind: String,
    /// Below zero if points were taken.
    pub points: i64,
    /// The sum of all entries up to and including this one.
    pub balance_after: i64,
    /// The `id` of the `Award`. Null for other kinds than AWARD and REVERSAL.
    pub award_id: Option<String>,
    /// The `id` of the `Redemption`. Null for other kinds than REDEMPTION and CANCELLATION.
    pub redemption_id: Option<String>,
    /// The purchase that reached the award when the entry was posted.
    pub purchase_external_id: Option<String>,
    /// Why the points were moved. Null for kinds without a reason.
    pub reason: Option<String>,
    /// When the points become available. Null: when they are posted.
    pub available_at: Option<String>,
    /// When the points expire. Null: never.
    pub expires_at: Option<String>,
    pub created_at: String,
}

/// An award that is new or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Award {
    /// The `id` of the `Award` in the API. It stays when the award moves to another purchase.
    pub id: String,
    /// The `id` of the `Campaign`.
    pub campaign_id: String,
    /// STANDING, REVERSED or DECLINED.
    pub status: String,
    /// What the award is worth. If it was declined, what it would have been worth.
    pub points: i64,
    /// The purchase that reached the goal.
    pub purchase_external_id: String,
    /// When that purchase was made.
    pub earned_at: String,
    /// When the points become available. Null: when they are posted.
    pub available_at: Option<String>,
    /// When the points expire. Null: never.
    pub expires_at: Option<String>,
}

/// The balance of a customer after a commit. In a compacted topic, the last one of each customer stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    pub customer_external_id: String,
    /// The customer's version after the commit.
    pub version: i64,
    /// What can be spent. Below zero while a deficit is open.
    pub available: i64,
    /// What becomes available later.
    pub pending: i64,
    /// What is set aside by reservations.
    pub reserved: i64,
    /// The points of the standing awards.
    pub lifetime: i64,
    /// The instant of the balance: that of the commit.
    pub as_of: String,
    /// Until this instant, the clock alone changes nothing of the balance. Null: it never does.
    pub valid_until: Option<String>,
}

/// A customer was erased. Consumers forget what they know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Erased {
    pub customer_external_id: String,
    /// The customer's version after the commit.
    pub version: i64,
    pub erased_at: String,
}

fn text(instant: i64) -> String {
    Instant(instant).to_string()
}

/// The word for a stored value, as the API writes it.
fn word(stored: &impl ActiveEnum<Value = String>) -> String {
    stored.to_value().to_uppercase()
}

impl From<&ledger_entry::Model> for Entry {
    fn from(row: &ledger_entry::Model) -> Self {
        let of_customer = |kind: fn(CustomerId, i64) -> GlobalId, number| kind(row.customer_id, number).to_text();
        Self {
            id: of_customer(GlobalId::LedgerEntry, row.sequence),
            sequence: row.sequence,
            kind: word(&row.kind),
            points: row.points,
            balance_after: row.balance_after,
            award_id: row.award_number.map(|number| of_customer(GlobalId::Award, number)),
            redemption_id: row.redemption_number.map(|number| of_customer(GlobalId::Redemption, number)),
            purchase_external_id: row.purchase_external_id.clone(),
            reason: row.reason.clone(),
            available_at: row.available_at.map(text),
            expires_at: row.expires_at.map(text),
            created_at: text(row.created_at),
        }
    }
}

impl From<&award::Model> for Award {
    fn from(row: &award::Model) -> Self {
        Self {
            id: GlobalId::Award(row.customer_id, row.number).to_text(),
            campaign_id: GlobalId::Campaign(row.campaign_id).to_text(),
            status: word(&row.status),
            points: row.points,
            purchase_external_id: row.purchase_external_id.clone(),
            earned_at: text(row.earned_at),
            available_at: row.available_at.map(text),
            expires_at: row.expires_at.map(text),
        }
    }
}

impl Balance {
    /// The balance of a customer with these sums at an instant.
    pub fn of(row: &customer::Model, sums: Sums, at: Instant) -> Self {
        Self {
            customer_external_id: row.external_id.clone(),
            version: row.version,
            available: row.balance - sums.pending - sums.reserved,
            pending: sums.pending,
            reserved: sums.reserved,
            lifetime: row.lifetime,
            as_of: at.to_string(),
            valid_until: row.due_at.map(text),
        }
    }

    /// Whether nothing but the version and the instant differs.
    pub fn has_same_points(&self, other: &Self) -> bool {
        let points = |balance: &Self| {
            (balance.available, balance.pending, balance.reserved, balance.lifetime, balance.valid_until.clone())
        };
        points(self) == points(other)
    }
}
