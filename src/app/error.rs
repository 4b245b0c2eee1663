//! The errors of use cases. They know nothing of HTTP and GraphQL; `graphql::error` translates them.

use sea_orm::DbErr;
use serde::{Deserialize, Serialize};

use super::failure::{code, is_conflict, is_transient};
use crate::engine::external_id::{ExternalId, TextError, check_text};

/// A fault in the input that the caller can fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserError {
    /// The path to the faulty value, beginning with an argument, for example `input`, `lines`, `0`, `amount`.
    pub path: Vec<String>,
    /// The kind of fault, for programs.
    pub code: UserErrorCode,
    /// An explanation for developers. It says what is allowed. Only a conflict repeats the value, beside the recorded one.
    pub message: String,
}

/// The kind of a [`UserError`]. The trail stores the names that the API has, so they must never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UserErrorCode {
    /// A required value is empty, or an update sets it to null.
    Required,
    /// The value does not have the required form.
    Invalid,
    /// The text is longer than 200 bytes.
    TooLong,
    /// The value is outside its limits.
    OutOfRange,
    /// The campaign, customer or job does not exist, or the campaign that was created with the key was deleted.
    NotFound,
    /// The purchase of the refund is not recorded.
    PurchaseNotFound,
    /// The purchase has no line with this sku.
    SkuNotInPurchase,
    /// The refund exceeds the total of the purchase, or the sum of its lines with this sku.
    RefundTooLarge,
    /// The id or key was used before with different content.
    IdempotencyConflict,
    /// The purchase is more than five minutes ahead of the server's clock.
    PurchasedInFuture,
    /// The refund is more than five minutes ahead of the server's clock.
    RefundedInFuture,
    /// The currency is not an ISO 4217 code.
    UnknownCurrency,
    /// The amount has more decimals than its currency, or the rate has too many.
    TooManyDecimals,
    /// These parts of a campaign cannot be combined, or the campaign has parts that cannot be activated.
    UnsupportedCombination,
    /// Only a draft can be changed in this way.
    CampaignNotEditable,
    /// The transition is not allowed in the status of the campaign, or for the job as it is.
    IllegalTransition,
    /// The campaign has changed since the caller read it.
    StaleRevision,
    /// The boundary could affect purchases that were already counted, or the campaign is over.
    BoundaryInPast,
    /// More points are requested than are available.
    InsufficientPoints,
    /// Fewer units of the reward are left than are requested.
    OutOfStock,
    /// The customer would have more units of the reward than a customer may have.
    LimitReached,
}

/// Why a use case failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The input has faults that the caller can fix.
    #[error("{}", listed(.0))]
    Refused(Vec<UserError>),
    /// A faulty argument of an operation without `userErrors`.
    #[error("{0}")]
    BadUserInput(String),
    /// The caller has no valid token.
    #[error("a valid token is required")]
    Unauthenticated,
    /// The role of the token does not allow the operation.
    #[error("the token's role does not allow this")]
    Forbidden,
    /// The object does not exist, or the caller may not see it.
    #[error("not found")]
    NotFound,
    /// The stored data does not continue the cursor: a backup was restored, or the cursor belongs to another database.
    #[error("the stored data does not continue this cursor: reload the balance and subscribe from its cursor")]
    CursorUnknown,
    /// A subscription ends. The caller can continue from the cursor.
    #[error("{cause}")]
    Interrupted {
        /// Stands for the last update that was sent.
        cursor: String,
        /// Why the subscription ends.
        cause: Box<Error>,
    },
    /// The caller has exceeded its rate limit.
    #[error("the rate limit is exceeded: retry after {retry_after_seconds} s")]
    RateLimited {
        /// After this time, the same request can succeed.
        retry_after_seconds: u64,
    },
    /// The queue of writes is full.
    #[error("the server is overloaded: retry after a pause")]
    Overloaded,
    /// The database does not respond, or the server is stopping. The caller can safely retry. (A full disk is an
    /// [`Error::Database`], which `graphql::error` reports with the same code.)
    #[error("the server is temporarily unavailable: retry after a pause")]
    Unavailable,
    /// The clocks of the node and its database differ too much to decide whether a purchase lies in the future.
    #[error(
        "the clocks of the server and its database differ, so it is unknown whether purchasedAt is in the future: \
         retry later"
    )]
    ClockInDoubt,
    /// The database has a newer format than this program supports.
    #[error(
        "this program is outdated: the database has format {stored}, but this program supports formats up to {known} \
         only; start the newer release that upgraded the database"
    )]
    Outdated {
        /// The format of the database.
        stored: i64,
        /// The latest format that this program supports.
        known: i64,
    },
    /// An error of the database. Clients never see its text.
    #[error("database: {0}")]
    Database(#[from] DbErr),
    /// A fault of the server. Clients never see its text.
    #[error("internal: {0}")]
    Internal(String),
}

impl From<crate::cache::Lost> for Error {
    fn from(lost: crate::cache::Lost) -> Self {
        Self::Internal(lost.to_string())
    }
}

/// Lists faults with their paths: `lines[0].amount: must not be negative; …`.
fn listed(errors: &[UserError]) -> String {
    let one = |error: &UserError| {
        let mut text = String::new();
        for part in &error.path {
            match part.parse::<usize>() {
                Ok(index) => text.push_str(&format!("[{index}]")),
                Err(_) if text.is_empty() => text.push_str(part),
                Err(_) => text.extend([".", part]),
            }
        }
        format!("{text}: {}", error.message)
    };
    errors.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// Creates an [`Error::Refused`] with a single fault.
    pub fn refused(path: &[&str], code: UserErrorCode, message: impl Into<String>) -> Self {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        Self::Refused(vec![UserError { path, code, message: message.into() }])
    }

    /// Returns the error as admins may see it: never SQL, a path or a secret. Whoever calls this logs the error beside the text, which has a
    /// number to find it by.
    pub fn masked(&self) -> String {
        let number = rand::random::<u64>();
        match self {
            Self::Database(failed) => match code(failed) {
                Some(code) => format!("the database failed with the code {code}: see {number:016x} in the log"),
                None => format!("the database failed: see {number:016x} in the log"),
            },
            Self::Internal(_) => format!("internal error: see {number:016x} in the log"),
            written_for_clients => written_for_clients.to_string(),
        }
    }

    /// Whether the same request can succeed if it is sent again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Overloaded | Self::Unavailable | Self::RateLimited { .. } => true,
            // Another node may have a correct clock or a newer release.
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

fn text_code(error: &TextError) -> UserErrorCode {
    match error {
        TextError::Empty => UserErrorCode::Required,
        TextError::TooLong => UserErrorCode::TooLong,
        TextError::Nul => UserErrorCode::Invalid,
    }
}

/// Collects the faults of an input, so that the caller sees all of them in one response.
#[derive(Debug, Default)]
pub struct Check {
    prefix: Vec<String>,
    errors: Vec<UserError>,
}

impl Check {
    /// Creates a check of the input at this path.
    pub fn at(prefix: &[String]) -> Self {
        Self { prefix: prefix.to_vec(), errors: Vec::new() }
    }

    /// Notes a fault. `path` is relative to the input.
    pub fn fail(&mut self, path: &[&str], code: UserErrorCode, message: impl Into<String>) {
        let path = self.prefix.iter().cloned().chain(path.iter().map(|part| (*part).to_owned())).collect();
        self.errors.push(UserError { path, code, message: message.into() });
    }

    /// Notes a fault unless [`check_text`] accepts the text.
    pub fn text(&mut self, path: &[&str], text: &str) {
        self.parsed(path, check_text(text), text_code);
    }

    /// Parses an external id. Notes a fault and returns `None` if it is not valid.
    pub fn external_id(&mut self, path: &[&str], text: String) -> Option<ExternalId> {
        self.parsed(path, ExternalId::parse(text), text_code)
    }

    /// Returns the parsed value. If parsing failed, notes the error as a fault and returns `None`.
    pub fn parsed<T, E: std::fmt::Display>(
        &mut self,
        path: &[&str],
        result: Result<T, E>,
        code: impl Fn(&E) -> UserErrorCode,
    ) -> Option<T> {
        result.map_err(|error| self.fail(path, code(&error), error.to_string())).ok()
    }

    /// Parses an amount of money in major units. Returns minor units, or notes a fault and returns `None`.
    pub fn amount(&mut self, path: &[&str], currency: crate::engine::money::Currency, text: &str) -> Option<i64> {
        use crate::engine::money::MoneyError;
        self.parsed(path, currency.parse_amount(text), |error| match error {
            MoneyError::Malformed => UserErrorCode::Invalid,
            MoneyError::UnknownCurrency => UserErrorCode::UnknownCurrency,
            MoneyError::TooManyDecimals(_) => UserErrorCode::TooManyDecimals,
            MoneyError::OutOfRange => UserErrorCode::OutOfRange,
        })
    }

    /// Adds the faults that another check noted.
    pub fn add(&mut self, other: Self) {
        self.errors.extend(other.errors);
    }

    /// Returns the faults that were noted, or adds them to another check that has noted some.
    pub fn into_faults(self, other: &mut Self) -> Vec<UserError> {
        if other.is_clean() {
            return self.errors;
        }
        let at = |error: UserError| UserError { path: [other.prefix.as_slice(), &error.path].concat(), ..error };
        let errors: Vec<UserError> = self.errors.into_iter().map(at).collect();
        other.errors.extend(errors);
        Vec::new()
    }

    /// Whether no fault was noted.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Returns the value, or all faults that were noted.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Error> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            None if self.errors.is_empty() => Err(Error::Internal("an input without a value or a fault".to_owned())),
            _ => Err(Error::Refused(self.errors)),
        }
    }
}
