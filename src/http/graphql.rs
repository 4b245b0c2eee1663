//! The GraphQL endpoint: a POST with JSON in, JSON out. Each request passes the gate, then runs in a task of its own: a
//! client that hangs up cancels nothing half-way.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::{ServerError, Value as GraphqlValue, Variables};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use super::auth::{Role, Token, Verifier};
use crate::app::App;
use crate::app::error::Error;
use crate::app::viewer::Viewer;
use crate::config;
use crate::gate::{self, Gate, Limits, Refusal, SchemaError};
use crate::graphql::{self, Schema};

/// What every request is answered with.
pub struct Endpoint {
    app: Arc<App>,
    executor: Arc<Executor>,
    verifier: Verifier,
    body_limit_bytes: usize,
    timeout: Duration,
}

/// The gate, and the schema behind it.
pub struct Executor {
    gate: Gate,
    schema: Schema,
}

/// A GraphQL request as it came.
#[derive(Clone, Debug, Default)]
pub struct GraphqlRequest {
    /// The document's text.
    pub query: String,
    /// Which of its operations to run.
    pub operation_name: Option<String>,
    /// Values for the operation's variables.
    pub variables: Map<String, Value>,
}

/// A GraphQL answer. Without `data` nothing was run.
#[derive(Debug, Serialize)]
pub struct Reply {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ServerError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<GraphqlValue>,
}

impl Executor {
    /// Over an application.
    pub fn new(app: Arc<App>) -> Result<Self, SchemaError> {
        Ok(Self { gate: Gate::new(&graphql::sdl(), Limits::default())?, schema: graphql::schema(app) })
    }

    /// Runs a request, if the gate admits it. `introspection`: the caller may ask for the schema.
    pub async fn execute(&self, viewer: Viewer, request: GraphqlRequest, introspection: bool) -> Reply {
        let GraphqlRequest { query, operation_name, variables } = request;
        let asked = gate::Request { query: &query, operation_name: operation_name.as_deref(), variables };
        match self.gate.admit(&asked, introspection) {
            Ok(admitted) => {
                let variables = Variables::from_json(Value::Object(admitted.variables));
                let caller = graphql::Caller { viewer, expires_at: crate::engine::time::Instant::FOREVER };
                let response = self.schema.execute(caller, admitted.document, variables).await;
                Reply { errors: response.errors, data: Some(response.data) }
            }
            Err(refusals) => Reply { errors: refusals.into_iter().map(refused).collect(), data: None },
        }
    }
}

impl Reply {
    fn error(error: Error) -> Self {
        Self { errors: vec![graphql::error::server_error(error)], data: None }
    }

    fn into_response(self, status: StatusCode) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// What the gate refused, with its places in the text as it was sent.
fn refused(refusal: Refusal) -> ServerError {
    let mut error = ServerError::new(refusal.message, None);
    error.locations = refusal.locations.into_iter().map(|(line, column)| async_graphql::Pos { line, column }).collect();
    error.extensions.get_or_insert_default().set("code", refusal.code.as_str());
    error
}

impl Endpoint {
    /// Over an application.
    pub fn new(app: Arc<App>, verifier: Verifier, config: &config::Http) -> Result<Self, SchemaError> {
        Ok(Self {
            executor: Arc::new(Executor::new(Arc::clone(&app))?),
            app,
            verifier,
            body_limit_bytes: config.body_limit_bytes,
            timeout: config.request_timeout,
        })
    }

    async fn viewer(&self, headers: &HeaderMap) -> Result<Viewer, Response> {
        match self.verifier.authenticate(headers, self.app.clock.now().0).await {
            Ok(None) => Ok(Viewer::Anonymous),
            Ok(Some(Token { role: Role::Customer, subject, .. })) => Ok(Viewer::Customer(subject)),
            Ok(Some(Token { role: Role::Storefront, .. })) => Ok(Viewer::Storefront),
            Ok(Some(Token { role: Role::Admin, .. })) => Ok(Viewer::Admin),
            Err(error) => {
                let mut reply = Reply::error(Error::Unauthenticated);
                for told in &mut reply.errors {
                    told.message = error.to_string();
                }
                let mut response = reply.into_response(StatusCode::UNAUTHORIZED);
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                Err(response)
            }
        }
    }

    async fn read(&self, body: Body) -> Result<GraphqlRequest, Response> {
        let malformed =
            |status, message: &str| Reply::error(Error::BadUserInput(message.to_owned())).into_response(status);
        let bytes = match tokio::time::timeout(self.timeout, to_bytes(body, self.body_limit_bytes)).await {
            Ok(Ok(bytes)) => bytes,
            // What else can go wrong with a body has no client left to be told.
            Ok(Err(_)) => return Err(malformed(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")),
            Err(_) => return Err(malformed(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
        };
        parse(&bytes).map_err(|message| malformed(StatusCode::BAD_REQUEST, message))
    }
}

/// Reads the object by hand: what is derived would take positional arrays too.
fn parse(bytes: &[u8]) -> Result<GraphqlRequest, &'static str> {
    let body = match serde_json::from_slice(bytes) {
        Ok(Value::Object(body)) => body,
        Ok(Value::Array(_)) => return Err("one request at a time: batches are not taken"),
        _ => return Err("the body must be a JSON object"),
    };
    let mut request = GraphqlRequest::default();
    for (field, value) in body {
        match (field.as_str(), value) {
            ("query", Value::String(query)) => request.query = query,
            ("operationName", Value::String(name)) => request.operation_name = Some(name),
            ("variables", Value::Object(variables)) => request.variables = variables,
            ("operationName" | "variables" | "extensions", Value::Null) | ("extensions", Value::Object(_)) => {}
            ("query", _) => return Err("`query` must be a string"),
            ("operationName", _) => return Err("`operationName` must be a string"),
            ("variables", _) => return Err("`variables` must be an object"),
            ("extensions", _) => return Err("`extensions` must be an object"),
            _ => {}
        }
    }
    if request.query.is_empty() { Err("`query` is missing") } else { Ok(request) }
}

/// Answers a request.
pub async fn answer(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        let mut response = StatusCode::METHOD_NOT_ALLOWED.into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    if !is_json(&head.headers) {
        let error = Error::BadUserInput("the body must be application/json, without encoding".to_owned());
        return Reply::error(error).into_response(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let viewer = match endpoint.viewer(&head.headers).await {
        Ok(viewer) => viewer,
        Err(response) => return response,
    };
    match endpoint.read(body).await {
        Ok(request) => run(&endpoint, viewer, request).await,
        Err(response) => response,
    }
}

/// Runs a request to its end in a task of its own; its caller waits until the deadline.
async fn run(endpoint: &Endpoint, viewer: Viewer, request: GraphqlRequest) -> Response {
    let introspection = viewer == Viewer::Admin;
    let executor = Arc::clone(&endpoint.executor);
    let task = tokio::spawn(async move { executor.execute(viewer, request, introspection).await });
    match tokio::time::timeout(endpoint.timeout, task).await {
        Ok(Ok(reply)) => reply.into_response(StatusCode::OK),
        Ok(Err(panic)) => {
            let error = Error::Internal(format!("a request's task ended early: {panic}"));
            Reply::error(error).into_response(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Err(_) => Reply::error(Error::Unavailable).into_response(StatusCode::SERVICE_UNAVAILABLE),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json") && !headers.contains_key(CONTENT_ENCODING)
}
