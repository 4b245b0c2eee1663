//! GraphiQL, the GraphQL explorer for browsers. Its files are in the binary: the page needs no other server, and its policy lets it
//! talk to none. `scripts/update-graphiql` makes those that are not ours.

use axum::Router;
use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Its editor sets styles from scripts, and its fonts and icons are in its style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src data:; img-src data:; \
    connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../assets/graphiql/", $name)).as_slice()
    };
}

/// `/graphiql`, and what the page loads.
pub fn routes() -> Router {
    let plain = |content_type, bytes: &'static [u8]| get(async move || headed(content_type, bytes).into_response());
    // Every browser that runs GraphiQL unpacks gzip.
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
