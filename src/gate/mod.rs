//! The gate in front of the executor: every GraphQL request passes here first, by whatever transport it came.
//!
//! It knows the schema's SDL and nothing else: no resolvers, no rights (the caller says whether introspection is allowed), no
//! transport. In order of reading: `scan` (the text, before any parser), `cost` (fragments counted, not expanded),
//! `document` (parsed and validated) and `documents` (those that are known), `values`, `variables` and their `coercion`, `normalize`, `points`, `print`.
//!
//! Invariants:
//! - Work is linear in the text until every count is within [`Limits`]; only then may anything expand fragments. No recursion is
//!   deeper than the levels that were counted.
//! - What is admitted is valid by the specification, has one operation, selects every response key once at each place, and needs
//!   no variable without a value.
//! - Refusals quote the request and the public schema only, at most ten, each bounded.

mod coercion;
mod cost;
mod document;
mod documents;
#[cfg(test)]
mod fixture;
mod limits;
mod normalize;
mod places;
mod points;
mod print;
mod refusal;
mod scalars;
mod scan;
mod suggest;
#[cfg(test)]
mod tests;
mod values;
mod variables;
mod wording;

use apollo_compiler::Schema;
use apollo_compiler::executable::{Operation, OperationType};
use apollo_compiler::response::JsonMap;
use apollo_compiler::validation::Valid;
use coercion::Context;
use document::{Document, Rules};
use documents::Documents;
use normalize::{ConcreteTypes, Normalizer, Selected};
use print::Printed;
use serde_json::{Map, Value};
use suggest::suggest;

pub use limits::Limits;
pub use places::Places;
pub use refusal::{Code, Refusal};
pub use scalars::{Scalar, Scalars};

/// The executor answers this field of `__Type`, but its SDL leaves introspection types out and the validator's lack it.
const IS_ONE_OF: &str = "extend type __Type { isOneOf: Boolean }";

/// The schema and the limits that requests are held against.
pub struct Gate {
    schema: Valid<Schema>,
    scalars: Scalars,
    concrete_types: ConcreteTypes,
    documents: Documents,
    limits: Limits,
}

/// What the caller may ask for beside plain requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// For the schema; refusals then tell what a misspelt field could have meant.
    pub introspection: bool,
    /// For documents that are not listed, where there is a list.
    pub unlisted: bool,
}

/// The SDL that a gate was to be made of is not valid.
#[derive(Debug, thiserror::Error)]
#[error("the SDL is not a valid schema: {0}")]
pub struct SchemaError(String);

/// A GraphQL request as it came.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The document's text; empty: `hash` names it.
    pub query: &'a str,
    /// SHA-256 of the text, as hexadecimal digits.
    pub hash: Option<&'a str>,
    /// Which of its operations to run; needed when there are several.
    pub operation_name: Option<&'a str>,
    /// Values for the operation's variables: the text of a JSON object; empty: none. The caller bounds its bytes.
    pub variables: &'a str,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Reads.
    Query,
    /// Writes, field by field in order.
    Mutation,
    /// Streams.
    Subscription,
}

/// A request that may run.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// What the operation does.
    pub operation: OperationKind,
    /// Names of the root type's fields that it selects, each once.
    pub fields: Vec<String>,
    /// The operation's name, when it has one.
    pub operation_name: Option<String>,
    /// The normalised operation: the text to run in place of the one that came.
    pub document: String,
    /// Where its fields stand in the text that came.
    pub places: Places,
    /// The values of exactly those variables that `document` uses.
    pub variables: Map<String, Value>,
    /// Points: one for each field that can run, times the items of the lists it stands in. `first` and `last` say how many those
    /// are, else [`Limits::page_items`]; a list that answers a list argument has that argument's length; any other list is taken to
    /// have [`Limits::list_items`].
    pub cost: u32,
}

impl OperationKind {
    /// As GraphQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Subscription => "subscription",
        }
    }
}

impl Gate {
    /// A gate for the schema of that SDL, as the executor prints it.
    pub fn new(sdl: &str, scalars: Scalars, limits: Limits) -> Result<Self, SchemaError> {
        let schema = Schema::parse_and_validate(format!("{sdl}\n{IS_ONE_OF}\n"), "schema.graphql")
            .map_err(|failed| SchemaError(failed.errors.to_string()))?;
        let concrete_types = normalize::concrete_types(&schema);
        Ok(Self { schema, scalars, concrete_types, documents: Documents::new(&limits), limits })
    }

    /// From now on only the documents with these texts may run, but for those who have the right to others.
    pub fn list(&mut self, texts: &[String]) -> Result<(), Refusal> {
        let Self { schema, scalars, limits, .. } = self;
        self.documents.list(&Rules { schema, scalars, limits }, texts)
    }

    /// Tokens of the request's text that deciding on it would parse: 0 where the document is known. Costs no more than a scan.
    pub fn unread_tokens(&self, request: &Request<'_>) -> u32 {
        self.documents.unread_tokens(&self.limits, request.query)
    }

    /// Decides whether the request may run, and as what.
    pub fn admit(&self, request: &Request<'_>, rights: Rights) -> Result<Admitted, Vec<Refusal>> {
        let refused = |refusals: Vec<Refusal>| {
            let suggested = |refusal| if rights.introspection { suggest(&self.schema, refusal) } else { refusal };
            refusals.into_iter().map(suggested).collect::<Vec<_>>()
        };
        let document = self.documents.find(&self.rules(), request, rights).map_err(refused)?;
        let (operation, facts) = document.operation(request.operation_name).map_err(|refusal| vec![refusal])?;
        if facts.introspects && !rights.introspection {
            return Err(vec![Refusal::new(Code::Forbidden, "introspection is not allowed here")]);
        }
        let context = Context::new(&self.schema, &self.scalars, self.limits.variables_levels);
        let variables = variables::coerce(context, operation, &facts.never_null, request.variables)?;
        self.admit_operation(&document, operation, &variables).map_err(|refusal| vec![refusal])
    }

    fn rules(&self) -> Rules<'_> {
        Rules { schema: &self.schema, scalars: &self.scalars, limits: &self.limits }
    }

    fn admit_operation(
        &self,
        document: &Document,
        operation: &Operation,
        variables: &JsonMap,
    ) -> Result<Admitted, Refusal> {
        let Self { schema, concrete_types, limits, .. } = self;
        let selected =
            Normalizer::new(schema, concrete_types, document.executable(), variables, limits).operation(operation)?;
        let cost = points::points(&selected, variables, limits);
        if cost > limits.max_cost {
            let message = format!(
                "the operation costs {cost} points, and at most {} are allowed: select fewer fields, or fewer items by `first` and \
                 `last`, of which a page has at most {}",
                limits.max_cost, limits.max_page_items
            );
            return Err(Refusal::new(Code::TooExpensive, message));
        }
        let Printed { text, used, fields: printed } = print::print(operation, &selected, variables, limits)?;
        let used = used.into_iter().filter_map(|name| {
            let value = serde_json::to_value(variables.get(name.as_str())?).ok()?;
            Some((name.to_string(), value))
        });
        let mut fields = Vec::new();
        if let Selected::Fields(selected) = &selected {
            for field in selected {
                let name = field.source.name.to_string();
                if !fields.contains(&name) {
                    fields.push(name);
                }
            }
        }
        Ok(Admitted {
            fields,
            operation: match operation.operation_type {
                OperationType::Query => OperationKind::Query,
                OperationType::Mutation => OperationKind::Mutation,
                OperationType::Subscription => OperationKind::Subscription,
            },
            operation_name: operation.name.as_ref().map(ToString::to_string),
            document: text,
            places: Places::new(printed, &document.executable().sources),
            variables: used.collect(),
            cost,
        })
    }
}
