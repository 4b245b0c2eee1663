//! Every route on one page.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{any, get};
use tokio_util::task::TaskTracker;

use super::auth::Verifier;
use super::graphql::{Endpoint, Executor, answer};
use super::origins::Origins;
use crate::app::App;
use crate::config;
use crate::gate::SchemaError;

/// How long the database may take to answer that it is there.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there are no routes.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// A defect of this build.
    #[error("the GraphQL schema is not valid")]
    Schema(#[from] SchemaError),
    /// The listed documents cannot be used.
    #[error("the configuration key `http.documents` (WINDFALL__HTTP__DOCUMENTS): {0}")]
    Documents(String),
}

/// All routes of a server. `sockets`: tracks the WebSockets that are open.
pub fn router(
    app: Arc<App>,
    verifier: Verifier,
    config: &config::Config,
    sockets: TaskTracker,
) -> Result<Router, RouterError> {
    let mut executor = Executor::new(Arc::clone(&app), &config.limits)?;
    if let Some(folder) = &config.http.documents {
        executor.list(&documents(folder)?).map_err(|refusal| RouterError::Documents(refusal.message))?;
    }
    let endpoint = Arc::new(Endpoint::new(Arc::clone(&app), executor, verifier, config, sockets));
    tokio::spawn(Arc::clone(&endpoint).forget_idle_callers());
    let graphql = any(answer).layer(Origins::new(&config.http.allowed_origins).cors()).with_state(endpoint);
    let graphiql = config.http.graphiql;
    let mut router = Router::new()
        .route("/", get(async move || super::index::tell(graphiql)))
        .route("/graphql", graphql.clone())
        .route("/graphql/", graphql)
        .route("/healthz", get(async || "ok"))
        .route("/metrics", get(super::metrics::tell).with_state(Arc::clone(&app)))
        .route("/readyz", get(ready).with_state(app));
    if graphiql {
        router = router.merge(super::graphiql::routes());
    }
    Ok(router.layer(map_response(guarded)))
}

/// The texts of a folder's `.graphql` files.
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

/// Whether requests can be served: the database answers. Without Redis they are, only slower.
async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    let degraded = app.snapshots().cache().shared().is_some_and(|redis| !redis.is_up());
    match tokio::time::timeout(READY_TIMEOUT, app.database.ping()).await {
        Ok(Ok(())) if degraded => (StatusCode::OK, "degraded: Redis is not used"),
        Ok(Ok(())) => (StatusCode::OK, "ok"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer"),
    }
}

/// What a browser may do with an answer: nothing but read it. A page of our own says what it needs.
const GUARDS: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

async fn guarded(mut response: Response) -> Response {
    for (name, value) in GUARDS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
