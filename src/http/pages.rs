//! What the server serves as files: the index at `/`, the AsyncAPI document, and GraphiQL, the GraphQL explorer for browsers. The binary contains
//! the files, so a page needs no other server, and its content security policy forbids connections to any.
//! `scripts/update-graphiql` generates the files of third parties.

use axum::Router;
use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

/// The content security policy. The editor sets styles from scripts, and the style sheet contains the fonts and icons as
/// data URLs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src data:; img-src data:; \
    connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../assets/graphiql/", $name)).as_slice()
    };
}

/// Responds with the paths of the server as JSON. `graphiql` says whether GraphiQL is served.
pub fn index(graphiql: bool) -> Response {
    let mut addresses = json!({
        "name": "Windfall",
        "version": env!("CARGO_PKG_VERSION"),
        "graphql": "/graphql",
        "health": "/healthz",
        "readiness": "/readyz",
        "metrics": "/metrics",
        "asyncapi": "/asyncapi.json",
    });
    if graphiql {
        addresses["graphiql"] = json!("/graphiql");
    }
    ([(CONTENT_TYPE, JSON)], format!("{addresses:#}\n")).into_response()
}

/// Responds with the AsyncAPI document: what messages of topics contain.
pub async fn asyncapi() -> Response {
    ([(CONTENT_TYPE, JSON)], include_str!("../../asyncapi.json")).into_response()
}

/// The routes of `/graphiql` and of the files that the page loads.
pub fn graphiql() -> Router {
    let plain = |content_type, bytes: &'static [u8]| get(async move || headed(content_type, bytes).into_response());
    // The packed files exist in gzip only, without negotiation: every browser that runs GraphiQL supports gzip.
    let packed = |content_type, bytes: &'static [u8]| {
        get(async move || ([(CONTENT_ENCODING, "gzip")], headed(content_type, bytes)).into_response())
    };
    Router::new()
        .route("/graphiql", plain(HTML, file!("index.html")))
        .route("/graphiql/main.js", plain(JAVASCRIPT, file!("main.js")))
        .route("/graphiql/main.css", plain(CSS, file!("main.css")))
        .route("/graphiql/graphiql.min.js", packed(JAVASCRIPT, file!("graphiql.min.js.gz")))
        .route("/graphiql/graphiql.min.css", packed(CSS, file!("graphiql.min.css.gz")))
        .route("/graphiql/react.production.min.js", packed(JAVASCRIPT, file!("react.production.min.js.gz")))
        .route("/graphiql/react-dom.production.min.js", packed(JAVASCRIPT, file!("react-dom.production.min.js.gz")))
}

type Headed = ([(HeaderName, &'static str); 3], &'static [u8]);

fn headed(content_type: &'static str, bytes: &'static [u8]) -> Headed {
    ([(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "max-age=300")], bytes)
}
