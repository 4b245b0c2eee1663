//! All routes of the server: the GraphQL endpoint, downloads of exports, the index, GraphiQL, health and metrics.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::ORIGIN;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::{any, get};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio_util::task::TaskTracker;

use super::auth::Verifier;
use super::graphql::{Endpoint, Executor, answer, gate};
use super::origins::Origins;
use super::{exports, pages};
use crate::app::{App, probe};
use crate::config;
use crate::gate::{Refusal, SchemaError};

/// How long the database may take to respond to the ping of `/readyz`.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the router could not be built.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The schema of this build is invalid, which is a bug.
    #[error("the GraphQL schema is not valid")]
    Schema(#[from] SchemaError),
    /// The documents of `http.documents` cannot be used.
    #[error("the configuration key `http.documents` (WINDFALL__HTTP__DOCUMENTS) cannot be used: {0}")]
    Documents(String),
}

/// The routes of a listener.
#[derive(Clone)]
pub struct Routes {
    router: TowerToHyperService<Router>,
    graphql: Option<Arc<Endpoint>>,
}

impl From<Router> for Routes {
    fn from(router: Router) -> Self {
        Self { router: TowerToHyperService::new(router), graphql: None }
    }
}

impl Routes {
    /// Answers a request. A GraphQL request that does not come from a browser needs neither CORS nor another route. So it does
    /// not pass the router: the layers take a part of its CPU that shows in a profile.
    pub(super) async fn answer(self, request: hyper::Request<Incoming>) -> Response {
        if let Some(endpoint) = self.graphql.filter(|_| is_direct(&request)) {
            return answer(State(endpoint), request.map(Body::new)).await;
        }
        let Ok(response) = self.router.call(request).await;
        response
    }
}

fn is_direct(request: &hyper::Request<Incoming>) -> bool {
    request.method() == Method::POST && request.uri().path() == "/graphql" && !request.headers().contains_key(ORIGIN)
}

/// Builds the routes of the server. `sockets` tracks the open WebSockets, so that a shutdown can wait for them.
pub fn router(
    app: Arc<App>,
    verifier: Verifier,
    config: &config::Config,
    sockets: TaskTracker,
) -> Result<Routes, RouterError> {
    let mut executor = Executor::new(Arc::clone(&app), &config.limits)?;
    if let Some(folder) = &config.http.documents {
        executor.list(&documents(folder)?).map_err(unusable)?;
    }
    let endpoint = Arc::new(Endpoint::new(Arc::clone(&app), executor, verifier, config, sockets));
    tokio::spawn(Arc::clone(&endpoint).forget_idle_callers());
    let origins = Origins::new(&config.http.allowed_origins);
    let graphql = any(answer).layer(origins.cors()).with_state(Arc::clone(&endpoint));
    let exports = get(exports::answer).layer(origins.cors()).with_state(Arc::clone(&endpoint));
    let graphiql = config.http.graphiql;
    let mut router = internal(app)
        .route("/", get(async move || pages::index(graphiql)))
        .route("/asyncapi.json", get(pages::asyncapi))
        .route("/graphql", graphql.clone())
        .route("/graphql/", graphql)
        .route("/exports/{job}", exports);
    if graphiql {
        router = router.merge(pages::graphiql());
    }
    Ok(Routes { graphql: Some(endpoint), ..Routes::from(router) })
}

/// Checks the documents of `http.documents`. Fails if the router could not be built with them.
pub fn check_documents(config: &config::Config) -> Result<(), RouterError> {
    let Some(folder) = &config.http.documents else { return Ok(()) };
    gate(&config.limits)?.list(&documents(folder)?).map_err(unusable)
}

fn unusable(refusal: Refusal) -> RouterError {
    RouterError::Documents(refusal.message)
}

/// Builds the routes for operators: `/healthz`, `/readyz` and `/metrics`.
pub fn internal(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/metrics", get(super::metrics::tell).with_state(Arc::clone(&app)))
        .route("/readyz", get(ready).with_state(app))
}

/// Reads all `.graphql` and `.gql` files of a folder. An empty folder is an error.
fn documents(folder: &Path) -> Result<Vec<String>, RouterError> {
    let failed = |path: &Path, error: std::io::Error| RouterError::Documents(format!("{}: {error}", path.display()));
    let entries = std::fs::read_dir(folder).map_err(|error| failed(folder, error))?;
    let mut texts = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "graphql" || extension == "gql") {
            texts.push(std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?);
        }
    }
    if texts.is_empty() {
        return Err(RouterError::Documents(format!("{} has no .graphql file", folder.display())));
    }
    Ok(texts)
}

/// Reports whether requests can be served: the database must respond and accept writes. A failure of Redis only degrades
/// the server.
async fn ready(State(app): State<Arc<App>>) -> (StatusCode, String) {
    let answers = tokio::time::timeout(READY_TIMEOUT, app.database.ping()).await;
    if !matches!(answers, Ok(Ok(()))) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the database does not respond".to_owned());
    }
    if let Some(obstacle) = probe::find_obstacle(&app.database).await {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("the database refuses writes: {obstacle}"));
    }
    let degraded = degraded(&app);
    let words = if degraded.is_empty() { "ok".to_owned() } else { format!("degraded: {}", degraded.join("; ")) };
    (StatusCode::OK, words)
}

/// Lists the problems with which the server still serves requests.
fn degraded(app: &App) -> Vec<String> {
    let mut degraded = Vec::new();
    if app.snapshots().cache().shared().is_some_and(|redis| !redis.is_up()) {
        degraded.push("Redis is not used".to_owned());
    }
    if let Some(skew) = app.clock.skew().filter(|_| app.clock.is_in_doubt()) {
        let (seconds, side) = ((skew.abs() + 500_000) / 1_000_000, if skew > 0 { "ahead of" } else { "behind" });
        degraded.push(format!("this node's clock is {seconds} s {side} the database's"));
    }
    let versions = app.zone_data_versions();
    if versions > 1 {
        degraded.push(format!("nodes with {versions} versions of the time zone database share this database"));
    }
    if let Some(problem) = app.ingestion.problem() {
        degraded.push(format!("topics are not read: {problem}"));
    }
    if let Some(problem) = app.publishing.problem() {
        degraded.push(format!("events are not published: {problem}"));
    }
    degraded
}
