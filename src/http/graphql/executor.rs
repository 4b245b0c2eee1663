//! Passes requests through the gate and executes them against the schema.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_graphql::{Pos, Response, ServerError, Value as GraphqlValue, Variables};
use axum::body::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;

use super::GraphqlRequest;
use super::measured::RequestMetrics;
use crate::app::App;
use crate::app::allowance::{Allowance, Limited};
use crate::app::error::Error;
use crate::app::origin::RequestId;
use crate::gate::{self, Admitted, Gate, Limits, OperationKind, Places, Refusal, Rights, Scalar, Scalars, SchemaError};
use crate::graphql::reads::Source;
use crate::graphql::scalar::FORMS;
use crate::graphql::session::Caller;
use crate::graphql::{Document, Schema};
use crate::http::auth::AuthError;
use crate::{config, graphql};

/// The gate, which admits requests, and the schema, which executes them.
pub struct Executor {
    gate: Gate<Prepared>,
    schema: Schema,
}

/// An operation that is ready to run, with its metrics.
pub struct Prepared {
    document: Document,
    /// The root fields that the operation selects, by name and without duplicates.
    pub(super) fields: Vec<String>,
    pub(super) metrics: RequestMetrics,
}

impl Prepared {
    fn new(operation: OperationKind, fields: &[String], text: String) -> Self {
        let (document, metrics) = (Document::parse(text), RequestMetrics::new(operation, fields));
        Self { document, fields: fields.to_vec(), metrics }
    }
}

/// A GraphQL response. If it has no `data`, nothing was executed.
#[derive(Debug, Serialize)]
pub struct Reply {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ServerError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<GraphqlValue>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: BTreeMap<String, GraphqlValue>,
}

impl Executor {
    /// Builds the gate and the schema. Fails if the schema is not valid, which is a bug.
    pub fn new(app: Arc<App>, config: &config::Limits) -> Result<Self, SchemaError> {
        Ok(Self { gate: gate(config)?, schema: graphql::schema(app) })
    }

    /// Restricts all callers but admins to these documents.
    pub fn list(&mut self, documents: &[String]) -> Result<(), Refusal> {
        self.gate.list(documents)
    }

    /// Returns the number of tokens that the gate would have to parse for this request. A known document has none.
    pub fn unread_tokens(&self, request: &GraphqlRequest) -> u32 {
        let GraphqlRequest { query, hash, operation_name, variables } = request;
        self.gate.unread_tokens(&gate::Request {
            query,
            hash: hash.as_deref(),
            operation_name: operation_name.as_deref(),
            variables,
        })
    }

    /// Passes a request through the gate. Returns the reply to send if the gate refuses the request.
    pub fn admit(&self, request: GraphqlRequest, rights: Rights) -> Result<Admitted<Prepared>, Reply> {
        let GraphqlRequest { query, hash, operation_name, variables } = request;
        let asked = gate::Request {
            query: &query,
            hash: hash.as_deref(),
            operation_name: operation_name.as_deref(),
            variables: &variables,
        };
        self.gate.admit(&asked, rights).map_err(Reply::refused)
    }

    /// Executes a query or a mutation. A subscription is an error here.
    /// Also returns the source of the response if it has only one.
    pub async fn execute(&self, caller: Caller, admitted: Admitted<Prepared>) -> (Reply, Option<Source>) {
        if admitted.operation == OperationKind::Subscription {
            let message = "subscriptions need a WebSocket, or a request that accepts text/event-stream";
            return (Reply::error(Error::BadUserInput(message.to_owned())), None);
        }
        let Admitted { plan, variables: values } = admitted;
        let (response, source) = self.schema.execute(caller, &plan.document.document, variables(&values)).await;
        (Reply::ran(response, &plan.places), source)
    }

    /// Executes a subscription and returns a stream with one reply per event. The stream ends when the caller owes
    /// points.
    pub fn subscribe(
        &self,
        caller: Caller,
        allowance: Allowance,
        admitted: Admitted<Prepared>,
    ) -> impl Stream<Item = Reply> + Send + use<> {
        let Admitted { plan, variables: values } = admitted;
        let responses = self.schema.subscribe(caller, allowance, &plan.document.document, variables(&values));
        responses.map(move |response| Reply::ran(response, &plan.places))
    }
}

/// Builds the gate in front of the executor. Fails if the schema is not valid, which is a bug.
pub fn gate(config: &config::Limits) -> Result<Gate<Prepared>, SchemaError> {
    Gate::new(&graphql::sdl(), scalars(), limits(config), Prepared::new)
}

fn scalars() -> Scalars {
    FORMS.iter().map(|form| (form.scalar, Scalar { fits: form.fits, expected: form.expected })).collect()
}

fn limits(config: &config::Limits) -> Limits {
    Limits {
        tokens: config.document_tokens,
        aliases: config.document_aliases,
        directives: config.document_directives,
        depth: config.document_depth,
        ..Limits::default()
    }
}

fn variables(variables: &gate::Variables) -> Variables {
    // Any JSON is a value, so this cannot fail.
    async_graphql::to_value(variables).map(Variables::from_value).unwrap_or_default()
}

/// Counts one point for each field of each object.
fn points(value: &GraphqlValue) -> u32 {
    let inside = |sum: u32, value| sum.saturating_add(points(value));
    match value {
        GraphqlValue::Object(fields) => fields.values().fold(u32::try_from(fields.len()).unwrap_or(u32::MAX), inside),
        GraphqlValue::List(items) => items.iter().fold(0, inside),
        _ => 0,
    }
}

impl Reply {
    /// The reply to a request that was executed. The locations of errors refer to the normalised text and are translated
    /// to the text that the client sent.
    fn ran(mut response: Response, places: &Places) -> Self {
        for error in &mut response.errors {
            let found = error.locations.iter().filter_map(|position| places.find(position.column));
            error.locations = found.map(Pos::from).collect();
        }
        Self { errors: response.errors, data: Some(response.data), extensions: response.extensions }
    }

    /// The reply to a request that was not executed, for this reason.
    pub fn error(error: Error) -> Self {
        Self { errors: vec![graphql::error::server_error(error)], data: None, extensions: BTreeMap::new() }
    }

    /// Logs the failures of the server among the errors.
    pub(super) fn log(&self, request_id: &RequestId) {
        for error in &self.errors {
            graphql::error::log(error, request_id);
        }
    }

    /// The reply to a request whose token is rejected.
    pub fn unauthenticated(error: &AuthError) -> Self {
        let mut reply = Self::error(Error::Unauthenticated);
        for told in &mut reply.errors {
            told.message = error.to_string();
        }
        reply
    }

    /// The reply to a caller that has too few points or permits left.
    pub fn limited(limited: Limited) -> Self {
        Self::error(limited.into())
    }

    /// The reply to a request that the gate refuses. The locations refer to the text as the client sent it.
    fn refused(refusals: Vec<Refusal>) -> Self {
        let errors = refusals.into_iter().map(|refusal| {
            let mut error = ServerError::new(refusal.message, None);
            let places = refusal.locations.into_iter();
            error.locations = places.map(Pos::from).collect();
            error.extensions.get_or_insert_default().set("code", refusal.code.as_str());
            error
        });
        Self { errors: errors.collect(), data: None, extensions: BTreeMap::new() }
    }

    /// Writes the response as JSON.
    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Whether the request was executed, even with errors.
    pub fn was_run(&self) -> bool {
        self.data.is_some()
    }

    /// Returns the points of the actual response, counted as the gate counts a request.
    pub fn points(&self) -> u32 {
        self.data.as_ref().map_or(0, points)
    }

    /// The errors of the response.
    pub fn errors(&self) -> &[ServerError] {
        &self.errors
    }

    /// The outcome for metrics: `error` if the server is at fault, `refused` if the caller or the load is, else `ok`.
    pub fn outcome(&self) -> &'static str {
        let is_ours = |error: &ServerError| match error.extensions.as_ref().and_then(|it| it.get("code")) {
            Some(GraphqlValue::String(code)) => code == "INTERNAL" || code == "UNAVAILABLE",
            _ => true,
        };
        match self.errors.as_slice() {
            [] => "ok",
            errors if errors.iter().any(is_ours) => "error",
            _ => "refused",
        }
    }

    /// The extension `code` of the first error.
    pub fn code(&self) -> Option<&str> {
        match self.errors.first()?.extensions.as_ref()?.get("code")? {
            GraphqlValue::String(code) => Some(code),
            _ => None,
        }
    }

    /// Returns after how many seconds the client may retry. Returns `None` if the request was executed or the time is
    /// unknown.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        if self.was_run() {
            return None;
        }
        match self.errors.first()?.extensions.as_ref()?.get("retryAfterSeconds")? {
            GraphqlValue::Number(seconds) => seconds.as_u64(),
            _ => None,
        }
    }
}
