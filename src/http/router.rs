//! Every route on one page.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{any, get};

use super::auth::Verifier;
use super::graphql::{Endpoint, answer};
use crate::app::App;
use crate::config;
use crate::gate::SchemaError;

/// How long the database may take to answer that it is there.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// All routes of a server.
pub fn router(app: Arc<App>, verifier: Verifier, config: &config::Http) -> Result<Router, SchemaError> {
    let endpoint = Arc::new(Endpoint::new(Arc::clone(&app), verifier, config)?);
    Ok(Router::new()
        .route("/graphql", any(answer).with_state(endpoint))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready).with_state(app))
        .layer(map_response(no_sniffing)))
}

/// Whether requests can be served: the database answers.
async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match tokio::time::timeout(READY_TIMEOUT, app.database.ping()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer"),
    }
}

/// A browser must not take an answer for anything else than it says it is.
async fn no_sniffing(mut response: Response) -> Response {
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
