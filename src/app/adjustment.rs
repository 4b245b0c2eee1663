//! Adjusts points by hand, for example as a welcome, an apology or a correction.

use super::App;
use super::error::Error;
use super::recorder::fact::{AdjustPoints, Fact, Recorded};
use super::viewer::Admin;

/// Records an adjustment of a customer's points. `path` is the path of the input; the paths of errors begin with it.
pub async fn record(app: &App, admin: &Admin, path: Vec<String>, input: AdjustPoints) -> Result<Recorded, Error> {
    let fact = input.check(&path).map(Fact::Adjustment);
    app.recorder.record_one(admin.who(), path, fact).await
}
