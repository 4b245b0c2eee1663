//! The gate in front of the executor. Every GraphQL request passes the gate before it runs, whatever its transport.
//!
//! The gate knows the schema's SDL and nothing else: no resolvers, no transport, no roles (the caller passes [`Rights`]).
//! Reading order: `scan` (one pass over the text before any parser), `cost` (counts without expanding fragments), `document`
//! (parses and validates), `documents` (keeps known documents), `values`, `variables` with `coercion`, `plan` (keeps what follows),
//! `normalize`, `points` and `print`.
//!
//! Invariants:
//! - Work is linear in the size of the text until every count is within [`Limits`]. Only then may code expand fragments. No
//!   recursion goes deeper than the levels that were counted.
//! - An admitted document is valid by the specification and has one operation. The operation selects each response key once at
//!   each place and uses no variable without a value.
//! - Refusals quote only the request and the public schema. One request gets at most ten refusals, each of bounded length.

mod coercion;
mod cost;
mod document;
mod documents;
#[cfg(test)]
mod fixture;
mod limits;
mod normalize;
mod places;
mod plan;
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

use std::sync::Arc;

use apollo_compiler::Schema;
use apollo_compiler::executable::{Operation, OperationType};
use apollo_compiler::response::JsonMap;
use apollo_compiler::validation::Valid;
use coercion::Context;
use document::{Document, Rules};
use documents::Documents;
use normalize::{ConcreteTypes, Normalizer, Selected};
use plan::{PlanKey, Plans, Shape};
use print::Printed;
use serde::Serialize;
use suggest::suggest;

pub use limits::Limits;
pub use places::Places;
pub use plan::Plan;
pub use refusal::{Code, Refusal};
pub use scalars::{Scalar, Scalars};

/// The executor supports this field of `__Type`, but its SDL omits introspection types, and the validator's `__Type` lacks it.
const IS_ONE_OF: &str = "extend type __Type { isOneOf: Boolean }";

/// Checks requests against one schema and its limits. The executor runs documents of type `D`.
pub struct Gate<D> {
    schema: Valid<Schema>,
    scalars: Scalars,
    concrete_types: ConcreteTypes,
    documents: Documents,
    plans: Plans<D>,
    prepare: Prepare<D>,
    limits: Limits,
}

/// Makes what the executor runs from the kind of an operation, its root fields and its normalised text.
pub type Prepare<D> = fn(OperationKind, &[String], String) -> D;

/// What the caller may do beyond running plain requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// The caller may query the schema. Refusals then suggest a field for a misspelt one.
    pub introspection: bool,
    /// The caller may run documents that are not on the list. Without a list, every caller may run any document.
    pub unlisted: bool,
}

/// The SDL passed to [`Gate::new`] is not a valid schema.
#[derive(Debug, thiserror::Error)]
#[error("the SDL is not a valid schema: {0}")]
pub struct SchemaError(String);

/// A GraphQL request as the client sent it.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The document's text. If the text is empty, `hash` names the document.
    pub query: &'a str,
    /// SHA-256 of the document's text in hexadecimal digits.
    pub hash: Option<&'a str>,
    /// The operation to run. Required if the document has several.
    pub operation_name: Option<&'a str>,
    /// The variables as the text of a JSON object, or an empty text. The caller of the gate bounds its length.
    pub variables: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    Query,
    /// The executor runs the root fields one after another.
    Mutation,
    Subscription,
}

/// A request that passed the gate and may run.
#[derive(Debug)]
pub struct Admitted<D> {
    pub plan: Arc<Plan<D>>,
    /// The values of exactly the variables that the plan uses.
    pub variables: Variables,
}

/// The values of variables, as an object that can be serialised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Variables(JsonMap);

impl<D> std::ops::Deref for Admitted<D> {
    type Target = Plan<D>;

    fn deref(&self) -> &Plan<D> {
        &self.plan
    }
}

impl OperationKind {
    /// Returns the GraphQL keyword of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Subscription => "subscription",
        }
    }
}

impl<D: Send + Sync + 'static> Gate<D> {
    /// Creates a gate for the schema with this SDL, which has the form that the executor prints.
    pub fn new(sdl: &str, scalars: Scalars, limits: Limits, prepare: Prepare<D>) -> Result<Self, SchemaError> {
        let schema = Schema::parse_and_validate(format!("{sdl}\n{IS_ONE_OF}\n"), "schema.graphql")
            .map_err(|failed| SchemaError(failed.errors.to_string()))?;
        let concrete_types = normalize::concrete_types(&schema);
        let (documents, plans) = (Documents::new(&limits), plan::plans(&limits));
        Ok(Self { schema, scalars, concrete_types, documents, plans, prepare, limits })
    }

    /// From now on, only callers with [`Rights::unlisted`] may run documents with other texts. Fails if a text is not valid.
    pub fn list(&mut self, texts: &[String]) -> Result<(), Refusal> {
        let Self { schema, scalars, limits, .. } = self;
        self.documents.list(&Rules { schema, scalars, limits }, texts)
    }

    /// Returns how many tokens [`Gate::admit`] would have to parse. The number is 0 if the document is known. The call costs no
    /// more than a scan of the text.
    pub fn unread_tokens(&self, request: &Request<'_>) -> u32 {
        self.documents.unread_tokens(&self.limits, request.query)
    }

    /// Decides whether the request may run, and returns the normalised operation to run.
    pub fn admit(&self, request: &Request<'_>, rights: Rights) -> Result<Admitted<D>, Vec<Refusal>> {
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
        let shape = Shape::of(operation, &facts.deciding, &variables);
        let key = PlanKey { document: document.hash(), operation: operation.name.clone(), shape };
        let plan = match self.plans.get(&key) {
            Some(plan) => plan,
            None => {
                let plan = Arc::new(self.plan(&document, operation, &variables).map_err(|refusal| vec![refusal])?);
                self.plans.insert(key, Arc::clone(&plan));
                plan
            }
        };
        let mut variables = variables;
        variables.retain(|name, _| plan.used.iter().any(|used| used == name.as_str()));
        Ok(Admitted { plan, variables: Variables(variables) })
    }

    fn rules(&self) -> Rules<'_> {
        Rules { schema: &self.schema, scalars: &self.scalars, limits: &self.limits }
    }

    fn plan(&self, document: &Document, operation: &Operation, variables: &JsonMap) -> Result<Plan<D>, Refusal> {
        let Self { schema, concrete_types, limits, .. } = self;
        let selected =
            Normalizer::new(schema, concrete_types, document.executable(), variables, limits).operation(operation)?;
        let cost = points::points(&selected, variables, limits);
        if cost > limits.max_cost {
            let message = format!(
                "the operation costs {cost} points, and at most {} are allowed: select fewer fields, or request fewer \
                 items with `first` or `last` (at most {} per page)",
                limits.max_cost, limits.max_page_items
            );
            return Err(Refusal::new(Code::TooExpensive, message));
        }
        let Printed { text, used, fields: printed } = print::print(operation, &selected, variables, limits)?;
        let mut fields = Vec::new();
        if let Selected::Fields(selected) = &selected {
            for field in selected {
                let name = field.source.name.to_string();
                if !fields.contains(&name) {
                    fields.push(name);
                }
            }
        }
        let operation = match operation.operation_type {
            OperationType::Query => OperationKind::Query,
            OperationType::Mutation => OperationKind::Mutation,
            OperationType::Subscription => OperationKind::Subscription,
        };
        Ok(Plan {
            operation,
            places: Places::new(printed, &document.executable().sources),
            used: used.into_iter().cloned().collect(),
            cost,
            text_bytes: text.len(),
            document: (self.prepare)(operation, &fields, text),
        })
    }
}
