//! The tracing span around a request. With the feature `otel`, the span continues the trace that the header `traceparent`
//! names.

use axum::http::request::Parts;
use tracing::Span;

use super::request_id;

/// Creates the span of the request with this head.
pub(super) fn span(head: &Parts) -> Span {
    let request_id = request_id::of(head);
    let span = tracing::info_span!("request", method = %head.method, request_id = request_id.as_str());
    #[cfg(feature = "otel")]
    go_on(&span, &head.headers);
    span
}

#[cfg(feature = "otel")]
fn go_on(span: &Span, headers: &axum::http::HeaderMap) {
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    struct Headers<'a>(&'a axum::http::HeaderMap);

    impl opentelemetry::propagation::Extractor for Headers<'_> {
        fn get(&self, name: &str) -> Option<&str> {
            self.0.get(name)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(axum::http::HeaderName::as_str).collect()
        }
    }

    let context = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
    // This fails if no collector is configured. Then there is no trace to continue.
    let _ = span.set_parent(context);
}
