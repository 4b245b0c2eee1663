//! Content negotiation, as the GraphQL over HTTP specification defines it.

use axum::body::Bytes;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Reply;

/// The media type of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/graphql-response+json`. A status other than 200 says that the request was not executed.
    GraphqlResponse,
    /// `application/json`. A document that is refused has status 200 too, as older clients expect.
    Json,
    /// `text/event-stream`: server-sent events.
    EventStream,
}

/// The formats that the server offers. If the client prefers none of them, the first one is chosen.
const OFFERED: [(Format, &str, &str); 3] = [
    (Format::Json, "application", "json"),
    (Format::GraphqlResponse, "application", "graphql-response+json"),
    (Format::EventStream, "text", "event-stream"),
];

/// The largest number of media ranges that are considered. Browsers send fewer than ten.
const MAX_RANGES: usize = 32;

impl Format {
    /// Returns the format that the client prefers: the one with the highest quality, or the first of these in the Accept
    /// header. Returns `None` if the client accepts no format. Without an Accept header, and for `*/*`, the format is
    /// JSON.
    pub(super) fn accepted_by(headers: &HeaderMap) -> Option<Self> {
        let accepted: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        if accepted.is_empty() {
            return Some(Self::Json);
        }
        let ranges: Vec<Range<'_>> =
            accepted.iter().flat_map(|value| value.split(',')).take(MAX_RANGES).filter_map(Range::parse).collect();
        let mut best: Option<(u16, std::cmp::Reverse<usize>, Self)> = None;
        for (format, kind, subtype) in OFFERED {
            // The most specific range that covers the format decides about its quality.
            let covering = ranges.iter().enumerate().filter(|(_, range)| range.covers(kind, subtype));
            let Some((place, range)) =
                covering.max_by_key(|(place, range)| (range.specific, std::cmp::Reverse(*place)))
            else {
                continue;
            };
            // A wildcard does not select events, because most clients that send one cannot read events.
            let is_wanted = range.quality > 0 && (format != Self::EventStream || range.specific == 2);
            let rank = (range.quality, std::cmp::Reverse(place));
            if is_wanted && best.is_none_or(|(quality, place, _)| rank > (quality, place)) {
                best = Some((rank.0, rank.1, format));
            }
        }
        best.map(|(.., format)| format)
    }

    /// Builds a response with the reply as its body. Before a stream of events begins, errors are sent as JSON.
    pub(super) fn respond(self, status: StatusCode, reply: &Reply) -> Response {
        self.respond_with(status, reply.to_bytes(), reply.retry_after_seconds())
    }

    /// Builds a response with this body.
    pub(super) fn respond_with(self, status: StatusCode, body: Bytes, retry_after_seconds: Option<u64>) -> Response {
        let mut response = (status, body).into_response();
        let content_type = match self {
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Self::Json | Self::EventStream => "application/json; charset=utf-8",
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        // A response, also to a GET, is for one caller only and is soon outdated.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A media range of an Accept header.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// The parameter `q`, in thousandths.
    quality: u16,
    /// How many of type and subtype are not wildcards: 0 to 2.
    specific: u8,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = match quality {
            Some(text) => text.parse::<f32>().ok().filter(|quality| (0.0..=1.0).contains(quality))?,
            None => 1.0,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1 000")]
        let quality = (quality * 1_000.0).round() as u16;
        let specific = u8::from(kind != "*") + u8::from(subtype != "*");
        Some(Self { kind, subtype, quality, specific })
    }

    fn covers(&self, kind: &str, subtype: &str) -> bool {
        let is = |range: &str, name: &str| range == "*" || range.eq_ignore_ascii_case(name);
        is(self.kind, kind) && is(self.subtype, subtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(accept: &str) -> Option<Format> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Format::accepted_by(&headers)
    }

    #[test]
    fn the_client_s_best_is_taken() {
        use Format::{EventStream, GraphqlResponse, Json};
        for (accept, format) in [
            ("*/*", Some(Json)),
            ("application/*", Some(Json)),
            ("application/json", Some(Json)),
            ("Application/GraphQL-Response+JSON; charset=utf-8", Some(GraphqlResponse)),
            ("application/graphql-response+json, application/json", Some(GraphqlResponse)),
            ("application/json, application/graphql-response+json", Some(Json)),
            ("application/json;q=0.9, application/graphql-response+json", Some(GraphqlResponse)),
            ("application/graphql-response+json;q=0.5, */*;q=0.6", Some(Json)),
            ("application/json;q=0, */*", Some(GraphqlResponse)),
            ("text/event-stream", Some(EventStream)),
            // urql always names `text/event-stream`.
            (
                "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, \
              multipart/mixed",
                Some(GraphqlResponse),
            ),
            ("text/event-stream, application/json", Some(EventStream)),
            ("text/*", None),
            ("text/html", None),
            ("image/png, text/plain", None),
            ("application/json;q=0", None),
            ("nonsense", None),
            ("", None),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(Json)),
        ] {
            assert_eq!(accepted(accept), format, "{accept}");
        }
        assert_eq!(Format::accepted_by(&HeaderMap::new()), Some(Json));
    }
}
