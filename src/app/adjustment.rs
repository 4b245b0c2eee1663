//! Adjusting points by hand: a welcome, an apology, a correction.

use super::App;
use super::error::{Check, Error, UserErrorCode};
use super::recorder::{Fact, Recorded};
use super::viewer::Admin;

/// The largest number of points that JSON numbers carry exactly: 2^53 − 1.
pub const MAX_POINTS: i64 = (1 << 53) - 1;
/// How far from zero an adjustment may take a balance, in points: awards that come later do not make it too large to be
/// carried exactly.
const MAX_ADJUSTED_BALANCE: i64 = 1_000_000_000_000_000;

/// An adjustment as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's own names; schema.graphql describes them")]
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

/// Adjusts a customer's points. `path`: where the input lies, for error paths.
pub async fn record(app: &App, admin: &Admin, path: Vec<String>, input: AdjustPoints) -> Result<Recorded, Error> {
    let fact = input.check(&path).map(Fact::Adjustment);
    app.recorder.record_one(admin.who(), path, fact).await
}
