//! Requests the erasure of a customer for an admin. `jobs::erasure` does the work.

use entity::job;

use super::App;
use super::error::{Error, UserErrorCode};
use super::jobs::of_customer::find_or_request;
use super::jobs::request::Wanted;
use super::trail::Attempt;
use super::viewer::Actor;

/// Requests the erasure of a customer. `confirmed` must repeat the external id. If the erasure waits or runs, returns it and changes
/// nothing.
pub async fn request(app: &App, actor: &Actor, external_id: &str, confirmed: &str) -> Result<job::Model, Error> {
    let attempt = Attempt::new(actor, "eraseCustomer");
    let requested = async {
        if confirmed != external_id {
            let message = "must repeat externalId: an erasure cannot be undone";
            return Err(Error::refused(&["confirmExternalId"], UserErrorCode::Invalid, message));
        }
        find_or_request(app, &attempt, external_id, Wanted::Erasure).await
    };
    app.conclude(&attempt, requested).await
}
