//! `/`: where everything is, for whoever opens the server's address.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// The addresses, as JSON. `graphiql`: it is served.
pub fn tell(graphiql: bool) -> Response {
    let mut addresses = json!({
        "name": "Windfall",
        "version": env!("CARGO_PKG_VERSION"),
        "graphql": "/graphql",
        "health": "/healthz",
        "readiness": "/readyz",
        "metrics": "/metrics",
    });
    if graphiql {
        addresses["graphiql"] = json!("/graphiql");
    }
    let mut response = format!("{addresses:#}\n").into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}
