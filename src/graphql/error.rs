//! Errors. A fault in the input that the caller can fix becomes a `userError`, which is data. Every other failure
//! becomes a GraphQL error.
//!
//! This file chooses the `extensions.code` of application errors and their log lines, and masks internal messages. Two
//! kinds of codes are chosen elsewhere: that of a refusal by the gate (`gate::refusal::Code`), and that of a
//! `userError`, which is chosen where the input is checked.

use std::sync::Arc;

use async_graphql::{Enum, ErrorExtensions, Pos, ServerError, SimpleObject, Value};

use crate::app::error as app;
use crate::app::origin::RequestId;

/// The error type of resolvers. It deliberately lacks `Display`: async-graphql sends the text of any `Display` error to
/// the client.
#[derive(Clone)]
pub struct ApiError(app::Error);

impl<E: Into<app::Error>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl From<ApiError> for async_graphql::Error {
    fn from(ApiError(error): ApiError) -> Self {
        let (error, cursor) = match error {
            app::Error::Interrupted { cursor, cause } => (*cause, Some(cursor)),
            error => (error, None),
        };
        let code = code(&error);
        let retry_after_seconds = match (code, &error) {
            ("RATE_LIMITED", app::Error::RateLimited { retry_after_seconds }) => Some(*retry_after_seconds),
            ("OVERLOADED" | "UNAVAILABLE", _) => Some(1),
            _ => None,
        };
        let message = match code {
            "INTERNAL" => "internal error".to_owned(),
            "UNAVAILABLE" if !matches!(error, app::Error::ClockInDoubt) => app::Error::Unavailable.to_string(),
            _ => error.to_string(),
        };
        let correlation_id = (code == "INTERNAL").then(|| format!("{:016x}", rand::random::<u64>()));
        let told = Self::new(message).extend_with(|_, extensions| {
            extensions.set("code", code);
            if let Some(cursor) = cursor {
                extensions.set("cursor", cursor);
            }
            if let Some(correlation_id) = correlation_id {
                extensions.set("correlationId", correlation_id);
            }
            if let Some(seconds) = retry_after_seconds {
                extensions.set("retryAfterSeconds", seconds);
            }
        });
        // For `log`. Clients do not see it.
        Self { source: Some(Arc::new(error)), ..told }
    }
}

/// Logs a failure of the server, with the ids that the client is told. Each error of a response is logged once, and only here.
pub fn log(error: &ServerError, request_id: &RequestId) {
    let (Some(cause), request_id) = (error.source::<app::Error>(), request_id.as_str()) else { return };
    match (error.extensions.as_ref().and_then(|extensions| extensions.get("correlationId")), cause) {
        (Some(Value::String(correlation_id)), cause) => {
            tracing::error!(request_id, correlation_id, error = %cause, "a request failed");
        }
        (_, app::Error::Database(cause)) => tracing::warn!(request_id, error = %cause, "the database is unavailable"),
        _ => {}
    }
}

fn code(error: &app::Error) -> &'static str {
    match error {
        app::Error::Refused(_) | app::Error::BadUserInput(_) => "BAD_USER_INPUT",
        app::Error::Unauthenticated => "UNAUTHENTICATED",
        app::Error::Forbidden => "FORBIDDEN",
        app::Error::NotFound => "NOT_FOUND",
        app::Error::CursorUnknown => "CURSOR_UNKNOWN",
        app::Error::Interrupted { cause, .. } => code(cause),
        app::Error::RateLimited { .. } => "RATE_LIMITED",
        app::Error::Overloaded => "OVERLOADED",
        app::Error::Unavailable | app::Error::ClockInDoubt | app::Error::Outdated { .. } => "UNAVAILABLE",
        app::Error::Database(_) if error.is_retryable() => "UNAVAILABLE",
        app::Error::Database(_) | app::Error::Internal(_) => "INTERNAL",
    }
}

/// Splits the result of a use case: returns the value or the `userErrors`. Any other failure becomes a GraphQL error.
pub fn payload<T>(result: Result<T, app::Error>) -> Result<(Option<T>, Vec<UserError>), ApiError> {
    match result {
        Ok(value) => Ok((Some(value), Vec::new())),
        Err(app::Error::Refused(errors)) => Ok((None, errors.into_iter().map(UserError::from).collect())),
        Err(error) => Err(error.into()),
    }
}

/// A fault in the input that the caller can fix. The write that it belongs to has changed nothing.
#[derive(Clone, Debug, SimpleObject)]
pub struct UserError {
    /// The path to the faulty value, beginning with the name of the argument. Positions in lists count from 0. For
    /// example: `["input", "lines", "0", "amount"]`.
    path: Vec<String>,
    /// The kind of fault, for programs.
    code: UserErrorCode,
    /// An explanation for developers. Its wording may change: programs should use `code`.
    message: String,
}

impl From<app::UserError> for UserError {
    fn from(error: app::UserError) -> Self {
        Self { path: error.path, code: error.code.into(), message: error.message }
    }
}

/// The kind of a fault in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "app::UserErrorCode")]
pub enum UserErrorCode {
    /// A required value is empty, or an update sets it to null.
    Required,
    /// The value does not have the required form, contains U+0000, or (`amount` of a refund) is not the sum of the
    /// lines.
    Invalid,
    /// The text is longer than 200 bytes in UTF-8.
    TooLong,
    /// The value is outside its limits, or the purchase already has 100 refunds or 1 000 contents.
    OutOfRange,
    /// The campaign, customer or job does not exist, or the campaign that was created with this `idempotencyKey` has been deleted.
    NotFound,
    /// The purchase of the refund has not been recorded. Record the purchase first, then send the refund again.
    PurchaseNotFound,
    /// The purchase has no line with this `sku`.
    SkuNotInPurchase,
    /// The refund exceeds the `total` of the purchase, or the sum of its lines with this `sku`. Earlier refunds do not
    /// matter.
    RefundTooLarge,
    /// The `externalId` (with this `revision`) or `idempotencyKey` was used before with different content. There is one error for each
    /// field that differs. Its message contains both values.
    IdempotencyConflict,
    /// `purchasedAt` is more than 5 minutes ahead of the server's clock.
    PurchasedInFuture,
    /// `refundedAt` is more than 5 minutes ahead of the server's clock.
    RefundedInFuture,
    /// The currency is not an ISO 4217 code in upper case.
    UnknownCurrency,
    /// An amount has more decimals than its currency, or a rate has more than 6.
    TooManyDecimals,
    /// These parts of a campaign cannot be combined.
    UnsupportedCombination,
    /// The field is fixed once the campaign has been activated. Clone the campaign to change the field.
    CampaignNotEditable,
    /// The mutation is not allowed in the status of the campaign, in the state of the redemption, or for the job as it is.
    IllegalTransition,
    /// `ifRevision` is not the current `revision`: the campaign has changed since it was read.
    StaleRevision,
    /// The new `endsAt` could affect purchases that were already counted, the campaign has ended, or
    /// `endsAt + lateness` has passed at activation. Of an adjustment: `expiresAt` does not lie ahead.
    BoundaryInPast,
    /// More points are requested than are available.
    InsufficientPoints,
    /// Fewer units of the reward are left than are requested.
    OutOfStock,
    /// The customer would have more units of the reward than `maxPerCustomer`.
    LimitReached,
}

/// Converts an error for a response to a request that was not executed: the error has no location, and is not logged.
pub fn server_error(error: app::Error) -> ServerError {
    let mut error = async_graphql::Error::from(ApiError(error)).into_server_error(Pos::default());
    error.locations.clear();
    finish(&mut error);
    error
}

/// The maximum number of errors in one response.
pub const MAX_ERRORS: usize = 10;
/// The maximum length of an error message in characters. The executor's messages quote the request, which may be long.
const MAX_MESSAGE_CHARS: usize = 300;

/// Truncates a long message and adds the code `BAD_USER_INPUT` if there is none: errors of the executor itself have no
/// code.
pub fn finish(error: &mut ServerError) {
    let extensions = error.extensions.get_or_insert_default();
    if extensions.get("code").is_none() {
        extensions.set("code", "BAD_USER_INPUT");
    }
    if let Some((end, _)) = error.message.char_indices().nth(MAX_MESSAGE_CHARS) {
        error.message.truncate(end);
    }
}
