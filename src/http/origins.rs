//! Decides which web pages may use the server from a browser: those of the configured origins and those of the server
//! itself.
//!
//! Tokens are not cookies, so a foreign page cannot act with the rights of the user. Foreign pages are rejected
//! nevertheless. For the allowed pages, CORS headers let browsers pass on the responses.

use axum::http::header::{HOST, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::request_id::REQUEST_ID;

/// How long a browser may cache the response to a CORS preflight request.
const MAX_AGE: std::time::Duration = std::time::Duration::from_hours(2);

/// The origins of the configuration key `http.allowed_origins`.
#[derive(Clone, Debug)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// Takes origins such as `https://shop.example`.
    pub fn new(origins: &[String]) -> Self {
        Self(origins.iter().filter_map(|origin| origin.parse().ok()).collect())
    }

    /// Whether a page of this origin may open a WebSocket. A request without an origin does not come from a browser and
    /// is allowed.
    pub fn allow(&self, origin: Option<&HeaderValue>, headers: &HeaderMap) -> bool {
        let Some(origin) = origin else { return true };
        let host = headers.get(HOST).map(HeaderValue::as_bytes);
        let own =
            ["http://", "https://"].iter().any(|scheme| origin.as_bytes().strip_prefix(scheme.as_bytes()) == host);
        (own && host.is_some()) || self.0.contains(origin)
    }

    /// The layer that adds CORS headers for the configured origins.
    pub fn cors(&self) -> CorsLayer {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(self.0.clone()))
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([RETRY_AFTER, REQUEST_ID])
            .max_age(MAX_AGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_and_configured_pages_are_allowed() {
        let origins = Origins::new(&["https://shop.example".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("points.example:8080"));
        let allowed = |origin: &'static str| origins.allow(Some(&HeaderValue::from_static(origin)), &headers);
        for origin in ["https://shop.example", "http://points.example:8080", "https://points.example:8080"] {
            assert!(allowed(origin), "{origin}");
        }
        for origin in ["http://shop.example", "https://shop.example.evil", "http://points.example", "null", ""] {
            assert!(!allowed(origin), "{origin}");
        }
        assert!(origins.allow(None, &headers));
        assert!(!origins.allow(Some(&HeaderValue::from_static("http://")), &HeaderMap::new()));
    }
}
