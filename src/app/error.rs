//! What can go wrong in a use case. Free of HTTP and GraphQL: the edge maps it once.

use sea_orm::DbErr;

use super::failure::{is_conflict, is_transient};

/// What a caller can mend, with the path into its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserError {
    /// Into the arguments, e.g. `input`, `lines`, `0`, `amount`.
    pub path: Vec<String>,
    /// For programs.
    pub code: UserErrorCode,
    /// For people: names no value, says what is allowed.
    pub message: String,
}

/// The kinds of [`UserError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserErrorCode {
    /// Missing or empty.
    Required,
    /// Not of the form it must have.
    Invalid,
    /// More than 200 bytes.
    TooLong,
    /// Outside its limits.
    OutOfRange,
    /// No such thing.
    NotFound,
    /// The refund's purchase has not been recorded.
    PurchaseNotFound,
    /// The purchase has no line of that article.
    SkuNotInPurchase,
    /// Above what can be taken back.
    RefundTooLarge,
    /// The same id or key with other content.
    IdempotencyConflict,
    /// More than five minutes ahead of the server.
    PurchasedInFuture,
    /// Not in ISO 4217.
    UnknownCurrency,
    /// More decimals than the currency has.
    TooManyDecimals,
    /// Parts of a rule that do not go together.
    UnsupportedCombination,
    /// Only a draft takes this change.
    CampaignNotEditable,
    /// Not from the campaign's status.
    IllegalTransition,
    /// The campaign moved on.
    StaleRevision,
    /// Before what was counted already.
    BoundaryInPast,
    /// More than is available.
    InsufficientPoints,
}

/// Why a use case failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The caller can mend it.
    #[error("refused")]
    Refused(Vec<UserError>),
    /// An argument that no `userErrors` can carry.
    #[error("{0}")]
    BadUserInput(String),
    /// No valid token.
    #[error("a valid token is required")]
    Unauthenticated,
    /// The token's role does not allow it.
    #[error("the token's role does not allow this")]
    Forbidden,
    /// No such thing, or it may not be seen.
    #[error("not found")]
    NotFound,
    /// What the cursor has come to is not stored: the database went back, or it is of another one.
    #[error("what was told up to the cursor is not what is stored: load the customer anew")]
    CursorUnknown,
    /// What was followed live ends here; it can be followed on from the cursor.
    #[error("{cause}")]
    Interrupted {
        /// Up to where it was told.
        cursor: String,
        /// Why it ends.
        cause: Box<Error>,
    },
    /// The caller has asked for more than it may in a time.
    #[error("too much was asked in too short a time, try again after {retry_after_seconds} s")]
    RateLimited {
        /// After which the same can be asked again.
        retry_after_seconds: u64,
    },
    /// The write queue is full.
    #[error("the server is overloaded, try again")]
    Overloaded,
    /// The database did not answer, or the server is stopping. Safe to repeat.
    #[error("temporarily unavailable, try again")]
    Unavailable,
    /// The clocks of the node and its database differ: whether a purchase lies ahead is not the caller's fault.
    #[error(
        "the clocks of the server and its database differ, so that what lies in the future cannot be told: try again"
    )]
    ClockInDoubt,
    /// The database has moved on to a format that this program does not know.
    #[error(
        "this program is outdated: the database has format {stored}, and this program knows none above {known}; \
         a newer one has taken over, start that one in its place"
    )]
    Outdated {
        /// The database's.
        stored: i64,
        /// The latest that this program knows.
        known: i64,
    },
    /// The database's answer. Never shown to a client.
    #[error("database: {0}")]
    Database(#[from] DbErr),
    /// Ours. Never shown to a client.
    #[error("internal: {0}")]
    Internal(String),
}

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        Self::Internal(format!("redis: {error}"))
    }
}

impl From<crate::cache::Lost> for Error {
    fn from(lost: crate::cache::Lost) -> Self {
        Self::Internal(lost.to_string())
    }
}

impl Error {
    /// One thing that the caller can mend.
    pub fn refused(path: &[&str], code: UserErrorCode, message: impl Into<String>) -> Self {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        Self::Refused(vec![UserError { path, code, message: message.into() }])
    }

    /// Whether the same request can succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Overloaded | Self::Unavailable | Self::RateLimited { .. } => true,
            // Another node may know better.
            Self::ClockInDoubt | Self::Outdated { .. } => true,
            Self::Interrupted { cause, .. } => cause.is_retryable(),
            Self::Database(error) => {
                matches!(error, DbErr::ConnectionAcquire(_) | DbErr::Conn(_))
                    || is_conflict(error)
                    || is_transient(error)
            }
            _ => false,
        }
    }
}

/// Collects what is wrong with an input, so that a caller sees all of it at once.
#[derive(Debug, Default)]
pub struct Check {
    prefix: Vec<String>,
    errors: Vec<UserError>,
}

/// The longest text, in bytes.
pub const TEXT_BYTES: usize = 200;

impl Check {
    /// For an input that lies at this path.
    pub fn at(prefix: &[String]) -> Self {
        Self { prefix: prefix.to_vec(), errors: Vec::new() }
    }

    /// Notes an error at a path below the input.
    pub fn fail(&mut self, path: &[&str], code: UserErrorCode, message: impl Into<String>) {
        let path = self.prefix.iter().cloned().chain(path.iter().map(|part| (*part).to_owned())).collect();
        self.errors.push(UserError { path, code, message: message.into() });
    }

    /// 1 to 200 bytes without U+0000.
    pub fn text(&mut self, path: &[&str], text: &str) {
        if text.is_empty() {
            self.fail(path, UserErrorCode::Required, "must not be empty");
        } else if text.len() > TEXT_BYTES {
            self.fail(path, UserErrorCode::TooLong, format!("must be at most {TEXT_BYTES} bytes"));
        } else if text.contains('\0') {
            self.fail(path, UserErrorCode::Invalid, "must not contain U+0000");
        }
    }

    /// Unwraps a parsed part, or notes why it could not be parsed.
    pub fn parsed<T, E: std::fmt::Display>(
        &mut self,
        path: &[&str],
        result: Result<T, E>,
        code: impl Fn(&E) -> UserErrorCode,
    ) -> Option<T> {
        result.map_err(|error| self.fail(path, code(&error), error.to_string())).ok()
    }

    /// An amount of money in major units.
    pub fn amount(&mut self, path: &[&str], currency: crate::engine::money::Currency, text: &str) -> Option<i64> {
        use crate::engine::money::MoneyError;
        self.parsed(path, currency.parse_amount(text), |error| match error {
            MoneyError::Malformed => UserErrorCode::Invalid,
            MoneyError::UnknownCurrency => UserErrorCode::UnknownCurrency,
            MoneyError::TooManyDecimals => UserErrorCode::TooManyDecimals,
            MoneyError::OutOfRange => UserErrorCode::OutOfRange,
        })
    }

    /// Whether nothing was noted.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// `value`, if nothing was noted.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Error> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            None if self.errors.is_empty() => Err(Error::Internal("an input without a value or an error".to_owned())),
            _ => Err(Error::Refused(self.errors)),
        }
    }
}
