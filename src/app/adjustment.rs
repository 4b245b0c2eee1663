//! Adjusts points by hand, for example as a welcome, an apology or a correction.

use std::future::ready;

use schemars::JsonSchema;
use serde::Deserialize;

use super::error::{Check, Error, UserErrorCode};
use super::recorder::fact::{Fact, NewAdjustment, Recorded};
use super::trail::{Attempt, Target};
use super::viewer::Actor;
use super::{App, customer};
use crate::engine::account::MAX_EXACT;
use crate::engine::time::parse_instant;

/// An adjustment as the caller sent it, by GraphQL, in a file or in a message.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdjustPoints {
    pub customer_external_id: String,
    pub points: i64,
    pub reason: String,
    pub idempotency_key: String,
    /// An RFC 3339 instant. Absent: added points never expire.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// Whether the adjustment may take more points than are available.
    #[serde(default = "yes")]
    pub allow_negative: bool,
}

const fn yes() -> bool {
    true
}

impl AdjustPoints {
    /// Checks everything that can be checked without the database. `path` is the path of the input; the paths of errors begin
    /// with it.
    pub fn check(self, path: &[String]) -> Result<NewAdjustment, Error> {
        let Self { points, reason, idempotency_key, .. } = self;
        let mut check = Check::at(path);
        let customer_external_id = check.external_id(&["customerExternalId"], self.customer_external_id);
        check.text(&["reason"], &reason);
        check.text(&["idempotencyKey"], &idempotency_key);
        if points == 0 || points.abs() > MAX_EXACT {
            check.fail(&["points"], UserErrorCode::OutOfRange, "must not be zero and must be within ±(2^53 − 1)");
        }
        let expires_at = self
            .expires_at
            .and_then(|text| check.parsed(&["expiresAt"], parse_instant(&text), |_| UserErrorCode::Invalid));
        if expires_at.is_some() && points < 0 {
            check.fail(&["expiresAt"], UserErrorCode::Invalid, "only points that are added can expire");
        }
        let new = customer_external_id.map(|customer_external_id| NewAdjustment {
            customer_external_id,
            points,
            reason,
            idempotency_key,
            expires_at,
            allow_negative: self.allow_negative,
            actor: None,
        });
        check.finish(new)
    }
}

/// Records an adjustment of a customer's points. `path` is the path of the input; the paths of errors begin with it.
pub async fn record(app: &App, actor: &Actor, path: Vec<String>, input: AdjustPoints) -> Result<Recorded, Error> {
    let name = input.customer_external_id.clone();
    let by_actor = |new| Fact::Adjustment(NewAdjustment { actor: Some(actor.clone()), ..new });
    let fact = input.check(&path).map(by_actor);
    let recorded = app.recorder.record_one(actor.who(), path, fact).await;
    if !matches!(recorded, Err(Error::Refused(_))) {
        return recorded;
    }
    // The trail names a customer by its key. If the customer is unknown, or cannot be looked up, the entry names none.
    let customer = customer::by_external_ids(app, vec![name]).await.ok().and_then(|found| found.into_values().next());
    let attempt = Attempt::new(actor, NewAdjustment::MUTATION);
    let attempt = customer.map_or(attempt, |customer| attempt.on(Target::Customer(customer.id)));
    app.conclude(&attempt, ready(recorded)).await
}
