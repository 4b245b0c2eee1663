//! Why a request does not pass, in words that may be shown to whoever sent it.

use apollo_compiler::parser::{SourceMap, SourceSpan};

/// Errors in one answer. More than that only make the answer to a bad request large.
pub(super) const MAX_REFUSALS: usize = 10;
/// Characters in one message. Messages quote the request, which may be long.
const MAX_MESSAGE_CHARS: usize = 300;

/// The kind of a refusal: what a client finds in `extensions.code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The text is not GraphQL.
    GraphqlParseFailed,
    /// The text is GraphQL that this schema does not answer.
    GraphqlValidationFailed,
    /// The variables or the operation name do not fit the document.
    BadUserInput,
    /// The request is larger than [`Limits`](super::Limits) allow.
    TooExpensive,
    /// The request needs a right that the caller lacks.
    Forbidden,
    /// The hash names no document that is known: send its text.
    PersistedQueryNotFound,
}

impl Code {
    /// The name that clients see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GraphqlParseFailed => "GRAPHQL_PARSE_FAILED",
            Self::GraphqlValidationFailed => "GRAPHQL_VALIDATION_FAILED",
            Self::BadUserInput => "BAD_USER_INPUT",
            Self::TooExpensive => "TOO_EXPENSIVE",
            Self::Forbidden => "FORBIDDEN",
            Self::PersistedQueryNotFound => "PERSISTED_QUERY_NOT_FOUND",
        }
    }
}

/// One reason why a request does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind.
    pub code: Code,
    /// For the client's developer; at most 300 characters.
    pub message: String,
    /// Line and column, both from 1, in the text that was sent.
    pub locations: Vec<(usize, usize)>,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
            message.truncate(end);
        }
        Self { code, message, locations: Vec::new() }
    }

    pub(super) fn at(self, location: (usize, usize)) -> Self {
        Self { locations: vec![location], ..self }
    }

    pub(super) fn at_span(self, span: Option<SourceSpan>, sources: &SourceMap) -> Self {
        match span.and_then(|span| span.line_column_range(sources)) {
            Some(range) => self.at((range.start.line, range.start.column)),
            None => self,
        }
    }
}
