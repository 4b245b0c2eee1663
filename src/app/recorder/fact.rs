//! What can be recorded, with its limits, and what becomes of it.

use std::sync::Arc;

use entity::{award, customer, ledger_entry};

use crate::app::error::{Check, Error, UserError, UserErrorCode};
use crate::engine::purchase::{Line, Purchase, Refund};
use crate::engine::time::Instant;

/// The most lines a purchase has.
pub const MAX_LINES: usize = 500;
/// The most refunds a purchase has.
pub const MAX_REFUNDS: usize = 100;
/// The largest number of points that JSON numbers carry exactly: 2^53 − 1.
pub const MAX_POINTS: i64 = (1 << 53) - 1;
/// How far from zero an adjustment may take a balance, in points: awards that come later do not make it too large to be
/// carried exactly.
const MAX_ADJUSTED_BALANCE: i64 = 1_000_000_000_000_000;

/// Something that happened, to be recorded.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A purchase.
    Purchase(NewPurchase),
    /// A refund of a recorded purchase.
    Refund(NewRefund),
    /// Points by hand.
    Adjustment(AdjustPoints),
    /// Nothing happened, but something of this customer (by external id) was deferred: it is evaluated as far as one commit may.
    Evaluation(String),
    /// Nothing happened, but what is recorded of this customer (by external id) is not what it should be: everything
    /// is evaluated anew, and the difference is posted.
    Repair(String),
}

impl Fact {
    /// The external id of the customer whose points it may change.
    pub fn customer(&self) -> &str {
        match self {
            Self::Purchase(purchase) => &purchase.customer_external_id,
            Self::Refund(refund) => &refund.customer_external_id,
            Self::Adjustment(adjustment) => &adjustment.customer_external_id,
            Self::Evaluation(customer) | Self::Repair(customer) => customer,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Purchase(purchase) => purchase.bytes(),
            Self::Refund(refund) => refund.bytes(),
            Self::Adjustment(_) | Self::Evaluation(_) | Self::Repair(_) => 1_024,
        }
    }
}

/// A purchase that can be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPurchase {
    /// The shop's name for its customer.
    pub customer_external_id: String,
    /// Its place, its money, its lines; no refunds yet.
    pub purchase: Purchase,
}

impl NewPurchase {
    /// About how much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let lines: usize = self.purchase.lines.iter().map(|line| 96 + line.sku.len() + category_len(line)).sum();
        512 + self.customer_external_id.len() + self.purchase.key.external_id.len() + lines
    }
}

fn category_len(line: &Line) -> usize {
    line.category.as_ref().map_or(0, String::len)
}

/// A refund that can be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRefund {
    /// The shop's name for it.
    pub external_id: String,
    /// The shop's name for the purchase.
    pub purchase_external_id: String,
    /// The purchase's customer.
    pub customer_external_id: String,
    /// When it was made.
    pub refunded_at: Instant,
    /// What counts.
    pub refund: Refund,
}

impl NewRefund {
    /// About how much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let lines: usize = self.refund.lines.iter().map(|line| 64 + line.sku.len()).sum();
        512 + self.external_id.len() + self.purchase_external_id.len() + lines
    }
}

/// An adjustment as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdjustPoints {
    pub customer_external_id: String,
    pub points: i64,
    pub reason: String,
    pub idempotency_key: String,
}

impl AdjustPoints {
    /// Checks everything that can be checked without the database.
    pub fn check(self, path: &[String]) -> Result<Self, Error> {
        let mut check = Check::at(path);
        check.text(&["customerExternalId"], &self.customer_external_id);
        check.text(&["reason"], &self.reason);
        check.text(&["idempotencyKey"], &self.idempotency_key);
        if self.points == 0 || self.points.abs() > MAX_POINTS {
            check.fail(&["points"], UserErrorCode::OutOfRange, "must not be zero, and at most 2^53 − 1 either way");
        }
        check.finish(Some(self))
    }

    /// Whether this balance may be adjusted so: not past the limit, though towards zero from wherever it is.
    pub fn fits(&self, balance: i64) -> bool {
        let after = balance.saturating_add(self.points);
        if self.points > 0 { after <= MAX_ADJUSTED_BALANCE } else { after >= -MAX_ADJUSTED_BALANCE }
    }

    /// What a replay must repeat, as text.
    pub fn request(&self) -> String {
        // An array of strings and a number: JSON text of its own making cannot fail.
        serde_json::json!(["adjustPoints", self.customer_external_id, self.points, self.reason]).to_string()
    }
}

/// What became of a fact.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// It had been recorded before; nothing changed.
    pub replayed: bool,
    /// The customer after the commit.
    pub customer: customer::Model,
    /// Awards that the commit created, reversed or changed in any way: the newest, newest first. Empty on a replay.
    pub awards: Arc<[award::Model]>,
    /// How many there are in all.
    pub awards_changed: i64,
    /// What an adjustment posted.
    pub entry: Option<ledger_entry::Model>,
    /// Something of the customer waits for a job still.
    pub deferred: bool,
}

/// Why a fact was not recorded, though it was well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: UserErrorCode,
    /// Below the input.
    pub path: &'static str,
    /// For people.
    pub message: &'static str,
}

impl Refusal {
    /// As an error of the input at this path.
    pub fn at(self, mut path: Vec<String>) -> Error {
        path.push(self.path.to_owned());
        Error::Refused(vec![UserError { path, code: self.code, message: self.message.to_owned() }])
    }
}

/// What a caller gets for a fact.
pub type Answer = Result<Result<Recorded, Refusal>, Error>;
