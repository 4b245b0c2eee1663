//! The id of a request. A proxy or a client may choose it; otherwise the server does. The response repeats it.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::app::origin::RequestId;

/// The header with the id, in requests and responses.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Takes the id from the headers of a request. If there is none, or it is not well-formed, or there are several, chooses one.
pub(super) fn choose(headers: &HeaderMap) -> RequestId {
    let mut sent = headers.get_all(REQUEST_ID).iter();
    let only = sent.next().filter(|_| sent.next().is_none());
    only.and_then(|id| RequestId::parse(id.to_str().ok()?)).unwrap_or_else(RequestId::random)
}

/// Returns the id of the request with this head, which [`super::serve`] chose. Without it, as in tests of the router, each call returns
/// another id.
pub(super) fn of(head: &Parts) -> RequestId {
    head.extensions.get().cloned().unwrap_or_else(RequestId::random)
}

/// Adds the id to the headers of the response.
pub(super) fn tell(id: &RequestId, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_well_formed_id_is_taken() {
        let chosen = |sent: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for id in sent {
                headers.append(REQUEST_ID, HeaderValue::from_static(id));
            }
            choose(&headers)
        };
        assert_eq!(chosen(&["abc-1"]).as_str(), "abc-1");
        for sent in [&[][..], &[""], &["a b"], &["abc-1", "abc-1"]] {
            assert_eq!(chosen(sent).as_str().len(), 32, "{sent:?}");
        }
    }
}
