//! Adjusting points by hand: a welcome, an apology, a correction.

use super::App;
use super::error::Error;
use super::recorder::fact::{AdjustPoints, Fact, Recorded};
use super::viewer::Admin;

/// Adjusts a customer's points. `path`: where the input lies, for error paths.
pub async fn record(app: &App, admin: &Admin, path: Vec<String>, input: AdjustPoints) -> Result<Recorded, Error> {
    let fact = input.check(&path).map(Fact::Adjustment);
    app.recorder.record_one(admin.who(), path, fact).await
}
