//! The reasons why the gate refuses a request, in words that may be shown to the client.

use apollo_compiler::parser::{SourceMap, SourceSpan};

/// The maximum number of errors in one response. More would only make the response to a bad request large.
pub(super) const MAX_REFUSALS: usize = 10;
/// The maximum length of a message. Messages quote the request, which may be long.
const MAX_MESSAGE_CHARS: usize = 300;

/// The kind of a refusal, which a client finds in `extensions.code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The text is not GraphQL.
    GraphqlParseFailed,
    /// The text is GraphQL, but it is not valid for this schema.
    GraphqlValidationFailed,
    /// The variables or the operation name do not fit the document.
    BadUserInput,
    /// The request exceeds one of the [`Limits`](super::Limits).
    TooExpensive,
    /// The request needs a right that the caller lacks.
    Forbidden,
    /// The hash names no known document. The client should send the text.
    PersistedQueryNotFound,
}

impl Code {
    /// Returns the name that clients see.
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

/// One reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// Explains the refusal to the client's developer, in at most 300 characters.
    pub message: String,
    /// Lines and columns, both from 1, in the client's text.
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
