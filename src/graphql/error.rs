//! Errors: what a caller can mend is data, the rest are GraphQL errors. This file alone chooses codes, messages and
//! log lines.

use async_graphql::{Enum, ErrorExtensions, Pos, ServerError, SimpleObject};

use crate::app::error as app;

/// What resolvers return. Not `Display` on purpose: the library shows any `Display` to the client.
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
            _ => message(&error),
        };
        // Logged here and nowhere else: each failed field becomes an answer once.
        let correlation_id = (code == "INTERNAL").then(|| format!("{:016x}", rand::random::<u64>()));
        match (&correlation_id, &error) {
            (Some(correlation_id), error) => tracing::error!(correlation_id, error = %error, "a request failed"),
            (None, app::Error::Database(error)) => tracing::warn!(error = %error, "the database is unavailable"),
            _ => {}
        }
        Self::new(message).extend_with(|_, extensions| {
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
        })
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

fn message(error: &app::Error) -> String {
    match error {
        app::Error::Refused(errors) => {
            let told = |error: &app::UserError| format!("{}: {}", error.path.join("."), error.message);
            errors.iter().map(told).collect::<Vec<_>>().join("; ")
        }
        error => error.to_string(),
    }
}

/// What the caller can mend, apart from what it cannot: the value or `userErrors`, or a GraphQL error.
pub fn payload<T>(result: Result<T, app::Error>) -> Result<(Option<T>, Vec<UserError>), ApiError> {
    match result {
        Ok(value) => Ok((Some(value), Vec::new())),
        Err(app::Error::Refused(errors)) => Ok((None, errors.into_iter().map(UserError::from).collect())),
        Err(error) => Err(error.into()),
    }
}

/// Something in the input that the caller can mend. Nothing was changed.
#[derive(Clone, Debug, SimpleObject)]
pub struct UserError {
    /// Into the arguments, e.g. `["input", "lines", "0", "amount"]`.
    path: Vec<String>,
    /// For programs.
    code: UserErrorCode,
    /// For people.
    message: String,
}

impl From<app::UserError> for UserError {
    fn from(error: app::UserError) -> Self {
        Self { path: error.path, code: error.code.into(), message: error.message }
    }
}

/// What is wrong with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "app::UserErrorCode")]
pub enum UserErrorCode {
    /// Missing, null or empty.
    Required,
    /// Not of the form it must have.
    Invalid,
    /// A text of more than 200 bytes.
    TooLong,
    /// Outside its limits.
    OutOfRange,
    /// There is no such thing.
    NotFound,
    /// The refund's purchase has not been recorded yet.
    PurchaseNotFound,
    /// The purchase has no line with this sku.
    SkuNotInPurchase,
    /// More than the purchase, or its lines of this sku, came to.
    RefundTooLarge,
    /// The same id or key was used before for something else.
    IdempotencyConflict,
    /// More than five minutes ahead of the server's clock.
    PurchasedInFuture,
    /// Not an ISO 4217 currency.
    UnknownCurrency,
    /// More decimals than the currency, or a rate, can have.
    TooManyDecimals,
    /// Parts of a campaign that do not go together.
    UnsupportedCombination,
    /// Only a draft takes this change.
    CampaignNotEditable,
    /// Not possible in the campaign's status.
    IllegalTransition,
    /// The campaign was changed since it was read.
    StaleRevision,
    /// Would change what was counted already.
    BoundaryInPast,
    /// More points than are available.
    InsufficientPoints,
}

/// For an answer in which nothing was run.
pub fn server_error(error: app::Error) -> ServerError {
    let mut error = async_graphql::Error::from(ApiError(error)).into_server_error(Pos::default());
    error.locations.clear();
    finish(&mut error);
    error
}

/// The most errors of one answer.
pub const MAX_ERRORS: usize = 10;
/// Characters of one error: messages of the executor quote the request.
const MAX_MESSAGE_CHARS: usize = 300;

/// What the executor itself found wrong has no code yet.
pub fn finish(error: &mut ServerError) {
    let extensions = error.extensions.get_or_insert_default();
    if extensions.get("code").is_none() {
        extensions.set("code", "BAD_USER_INPUT");
    }
    if let Some((end, _)) = error.message.char_indices().nth(MAX_MESSAGE_CHARS) {
        error.message.truncate(end);
    }
}
