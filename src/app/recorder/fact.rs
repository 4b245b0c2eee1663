//! The facts that can be recorded, their limits, and the results of recording them.

use std::sync::Arc;

use entity::{RewardId, award, customer, ledger_entry, redemption, trail_entry};
use serde_json::json;

use crate::app::error::{Error, UserError, UserErrorCode};
use crate::app::trail::{self, Attempt, Target};
use crate::app::viewer::Actor;
use crate::engine::dates::Dates;
use crate::engine::external_id::ExternalId;
use crate::engine::purchase::{Line, Purchase, Refund};
use crate::engine::time::Instant;

/// The maximum number of lines of a purchase.
pub const MAX_LINES: usize = 500;
/// The maximum number of refunds of a purchase.
pub const MAX_REFUNDS: usize = 100;
/// The maximum number of different contents of a purchase.
pub const MAX_CONTENTS: usize = 1_000;
/// The maximum distance of a balance from zero after an adjustment, in points. It leaves room for later awards, so that
/// balances stay below [`MAX_EXACT`](crate::engine::account::MAX_EXACT).
const MAX_ADJUSTED_BALANCE: i64 = 1_000_000_000_000_000;

/// An item to be recorded. The variants `Evaluation`, `Expiry`, `Repair` and `Erasure` contain no new fact; they let the recorder do what
/// is due for a customer.
#[derive(Clone, Debug)]
pub enum Fact {
    Purchase(NewPurchase),
    /// A refund of a recorded purchase.
    Refund(NewRefund),
    /// A manual change of a customer's points.
    Adjustment(NewAdjustment),
    /// Points that a customer spends on a reward, or sets aside for one.
    Redemption(NewRedemption),
    /// The end of a reservation, or of a redemption.
    RedemptionStep(RedemptionStep),
    /// Evaluates what was deferred for this customer (an external id), as far as one commit may.
    Evaluation(String),
    /// Posts what has expired of this customer (an external id), as far as one commit may.
    Expiry(String),
    /// Evaluates everything that is recorded for this customer (an external id) from the beginning, and posts the difference.
    Repair(String),
    /// Evaluates what was deferred. If nothing is deferred then, ends the reservations, and replaces the name of the customer.
    Erasure {
        customer: String,
        erased_as: String,
    },
}

impl Fact {
    /// Returns the external id of the purchase that the fact is about.
    pub(super) fn purchase(&self) -> Option<&str> {
        match self {
            Self::Purchase(new) => Some(&new.purchase.key.external_id),
            Self::Refund(refund) => Some(&refund.purchase_external_id),
            _ => None,
        }
    }

    /// Returns the external id of the customer whose points the fact may change. A purchase may belong to another customer when it
    /// is recorded: then the fact changes that one's points too, or only that one's.
    pub fn customer(&self) -> &str {
        match self {
            Self::Purchase(purchase) => &purchase.customer_external_id,
            Self::Refund(refund) => &refund.customer_external_id,
            Self::Adjustment(adjustment) => &adjustment.customer_external_id,
            Self::Redemption(redemption) => &redemption.customer_external_id,
            Self::RedemptionStep(step) => &step.customer_external_id,
            Self::Evaluation(customer)
            | Self::Expiry(customer)
            | Self::Repair(customer)
            | Self::Erasure { customer, .. } => customer,
        }
    }

    /// Returns the customer that the fact erases, and the name that it gets.
    pub(super) fn erasure(&self) -> Option<(&str, &str)> {
        match self {
            Self::Erasure { customer, erased_as } => Some((customer, erased_as)),
            _ => None,
        }
    }

    /// Whether a job records the fact: no caller waits for it.
    pub(super) fn is_of_job(&self) -> bool {
        match self {
            Self::Purchase(_)
            | Self::Refund(_)
            | Self::Adjustment(_)
            | Self::Redemption(_)
            | Self::RedemptionStep(_) => false,
            Self::Evaluation(_) | Self::Expiry(_) | Self::Repair(_) | Self::Erasure { .. } => true,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Purchase(purchase) => purchase.bytes(),
            Self::Refund(refund) => refund.bytes(),
            _ => 1_024,
        }
    }
}

/// What a content of a recorded purchase leaves as it is, because its source does not know it. An export has no channels, for
/// example. Of a purchase that is not recorded, these parts are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub channel: bool,
    /// The categories, by sku.
    pub categories: bool,
    /// All lines.
    pub lines: bool,
    /// A purchase of another customer is not handed over: the content is refused with [`Refusal::owner`].
    pub customer: bool,
}

/// A purchase that passed its checks and can be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPurchase {
    pub customer_external_id: ExternalId,
    /// The shop's number of this content, at least 0. Of all contents of a purchase, the one with the highest number counts.
    pub revision: i64,
    /// The purchase, without refunds. `sums` contains the running sum that this content states, if it states one.
    pub purchase: Purchase,
    /// Why the content is refused unless it is recorded already: instants that are ahead of the clock. Usually empty.
    pub ahead: Vec<UserError>,
    /// What stays as it is recorded. Usually nothing.
    pub kept: Kept,
}

impl NewPurchase {
    /// Returns the approximate memory of the purchase, in bytes.
    pub fn bytes(&self) -> usize {
        let lines: usize = self.purchase.lines.iter().map(|line| 96 + line.sku.len() + category_len(line)).sum();
        512 + self.customer_external_id.len() + self.purchase.key.external_id.len() + lines
    }
}

fn category_len(line: &Line) -> usize {
    line.category.as_ref().map_or(0, String::len)
}

/// A refund that passed its checks and can be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRefund {
    pub external_id: ExternalId,
    pub purchase_external_id: ExternalId,
    /// The customer of the purchase when it was looked up.
    pub customer_external_id: ExternalId,
    /// The part that the engine uses.
    pub refund: Refund,
    /// Why the refund is refused unless it is recorded already: an instant that is ahead of the clock. Usually empty.
    pub ahead: Vec<UserError>,
}

impl NewRefund {
    /// Returns the approximate memory of the refund, in bytes.
    pub fn bytes(&self) -> usize {
        let lines: usize = self.refund.lines.iter().map(|line| 64 + line.sku.len()).sum();
        512 + self.external_id.len() + self.purchase_external_id.len() + lines
    }
}

/// An adjustment that was checked as far as that is possible without the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAdjustment {
    pub customer_external_id: ExternalId,
    pub points: i64,
    pub reason: String,
    pub idempotency_key: String,
    /// When added points expire. `None`: never.
    pub expires_at: Option<Instant>,
    /// Whether the adjustment may take more points than are available.
    pub allow_negative: bool,
    /// Who sent the mutation. `None` for an adjustment from a file, which leaves no entry in the trail.
    pub actor: Option<Actor>,
}

impl NewAdjustment {
    /// When the points become available and expire.
    pub fn dates(&self) -> Dates {
        Dates { available_at: None, expires_at: self.expires_at }
    }

    /// Whether the adjustment is allowed for these available points. The result must not be beyond the limit in the direction of the
    /// adjustment. So a customer who is already beyond the limit can still be adjusted towards zero.
    pub fn fits(&self, available: i64) -> bool {
        let after = available.saturating_add(self.points);
        if self.points > 0 { after <= MAX_ADJUSTED_BALANCE } else { after >= -MAX_ADJUSTED_BALANCE }
    }

    /// Returns the content that a duplicate of the adjustment must have, as text.
    pub fn request(&self) -> String {
        let Self { customer_external_id: customer, points, reason, expires_at, allow_negative, .. } = self;
        let expires_at = expires_at.map(|at| at.0);
        // Without the last two if they are the defaults, as earlier releases wrote it.
        let request = if expires_at.is_none() && *allow_negative {
            json!([Self::MUTATION, &**customer, points, reason])
        } else {
            json!([Self::MUTATION, &**customer, points, reason, expires_at, allow_negative])
        };
        request.to_string()
    }

    /// Parses a text that [`Self::request`] returned. `None` if another mutation wrote it.
    pub(super) fn parse_request(request: &str) -> Option<AdjustmentRequest> {
        let with_all = || {
            let parsed: (String, String, i64, String, Option<i64>, bool) = serde_json::from_str(request).ok()?;
            let (mutation, customer, points, reason, expires_at, allow_negative) = parsed;
            Some((mutation, AdjustmentRequest { customer, points, reason, expires_at, allow_negative }))
        };
        let with_defaults = || {
            let (mutation, customer, points, reason) =
                serde_json::from_str::<(String, String, i64, String)>(request).ok()?;
            let (expires_at, allow_negative) = (None, true);
            Some((mutation, AdjustmentRequest { customer, points, reason, expires_at, allow_negative }))
        };
        let (mutation, parsed) = with_defaults().or_else(with_all)?;
        (mutation == Self::MUTATION).then_some(parsed)
    }

    /// Returns the entry of the trail, once the adjustment is posted. `None` if nobody sent a mutation.
    pub(super) fn trail_entry(&self, posted: &ledger_entry::Model) -> Result<Option<trail_entry::Model>, Error> {
        let Some(actor) = &self.actor else { return Ok(None) };
        let ledger_entry::Model { customer_id, sequence, points, balance_after, created_at, .. } = *posted;
        let before = trail::state(json!({ "balance": balance_after.saturating_sub(points) }))?;
        let entry = json!({ "sequence": sequence, "points": points, "reason": self.reason });
        let after = trail::state(json!({ "balance": balance_after, "entry": entry }))?;
        let attempt = Attempt::new(actor, Self::MUTATION).on(Target::Customer(customer_id));
        Ok(Some(attempt.entry(Instant(created_at), Some(before), Some(after))))
    }

    /// The name of the mutation.
    pub(in crate::app) const MUTATION: &str = "adjustPoints";
}

/// A redemption or a reservation that was checked as far as that is possible without the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRedemption {
    pub customer_external_id: ExternalId,
    pub reward: RewardId,
    /// At least 1.
    pub quantity: i64,
    pub idempotency_key: String,
    /// How long the points are set aside, in µs. `None`: they are spent at once.
    pub reserve_for: Option<i64>,
    /// The customer itself redeems, which the reward must allow.
    pub by_customer: bool,
}

impl NewRedemption {
    /// Returns the content that a duplicate must have, as text.
    pub fn request(&self) -> String {
        let Self { customer_external_id: customer, reward, quantity, reserve_for, .. } = self;
        let mutation = if reserve_for.is_some() { "reserveReward" } else { "redeemReward" };
        serde_json::json!([mutation, &**customer, reward.0, quantity, reserve_for]).to_string()
    }
}

/// A change of a redemption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedemptionStep {
    pub customer_external_id: ExternalId,
    /// The number of the redemption among those of the customer.
    pub number: i64,
    pub kind: StepKind,
    /// The customer itself asks for it.
    pub by_customer: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Spends the points of a reservation.
    Commit,
    /// Gives the points back.
    Cancel { reason: Option<String> },
}

/// The content of an adjustment that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdjustmentRequest {
    pub(super) customer: String,
    pub(super) points: i64,
    pub(super) reason: String,
    /// In µs since 1970.
    pub(super) expires_at: Option<i64>,
    pub(super) allow_negative: bool,
}

/// The result of a fact that was accepted.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The fact had been recorded before, and nothing changed.
    pub replayed: bool,
    /// A higher revision of the purchase is recorded.
    pub superseded: bool,
    /// The customer after the commit. For a purchase or a refund, the customer of the purchase.
    pub customer: Arc<customer::Model>,
    /// The newest of the awards that the commit created, reversed or changed, newest first; those of both customers if the purchase
    /// went from one to another. Empty for a duplicate.
    pub awards: Arc<[Arc<award::Model>]>,
    /// The number of all awards that the commit created, reversed or changed.
    pub awards_changed: i64,
    /// The ledger entry that an adjustment posted.
    pub entry: Option<Arc<ledger_entry::Model>>,
    /// The redemption that was made or changed.
    pub redemption: Option<Arc<redemption::Model>>,
    /// A part of the customer's history still waits for a job.
    pub deferred: bool,
}

/// The reasons why a well-formed fact was not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Their paths are relative to the input.
    pub errors: Vec<UserError>,
    /// The customer to whom the purchase belongs, if that is the only reason.
    pub owner: Option<String>,
}

impl Refusal {
    /// Creates a refusal for one reason.
    pub(super) fn new(code: UserErrorCode, field: &str, message: &str) -> Self {
        Self::of(vec![UserError { path: vec![field.to_owned()], code, message: message.to_owned() }])
    }

    /// Creates a refusal for these reasons.
    pub(super) fn of(errors: Vec<UserError>) -> Self {
        Self { errors, owner: None }
    }

    /// Returns the refusal as an error. `path` is the path of the input.
    pub fn at(self, path: &[String]) -> Error {
        let at = |error: UserError| UserError { path: [path, &error.path].concat(), ..error };
        Error::Refused(self.errors.into_iter().map(at).collect())
    }
}

/// What an adjustment or a redemption did.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    pub(super) entry: Option<Arc<ledger_entry::Model>>,
    pub(super) redemption: Option<Arc<redemption::Model>>,
    /// It had been done before.
    pub(super) replayed: bool,
}

/// The decision about one fact.
pub(super) enum Verdict {
    Accepted {
        /// A higher revision of the purchase is recorded.
        superseded: bool,
    },
    Replayed {
        /// A higher revision of the purchase is recorded.
        superseded: bool,
        /// What the request did originally.
        done: Done,
    },
    /// Another fact of the batch has the same key and the same content: the one with this index.
    SameAs(usize),
    Refused(Refusal),
}

impl Verdict {
    pub(super) fn replayed(superseded: bool) -> Self {
        Self::Replayed { superseded, done: Done::default() }
    }
}

/// The result for one fact. The outer error means that the server failed, the inner one that it refused the fact.
pub type Answer = Result<Result<Recorded, Refusal>, Error>;
