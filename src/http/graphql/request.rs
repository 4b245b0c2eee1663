//! Reads GraphQL requests from bodies, query strings and WebSocket messages, and bounds their size.

use std::collections::HashSet;

use axum::body::{Body, BodyDataStream};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Endpoint;
use crate::app::viewer::Viewer;
use crate::http::input::Input;
use crate::http::peer::Peer;

/// A GraphQL request as the client sent it. The gate checks the document and the variables.
#[derive(Clone, Debug, Default)]
pub struct GraphqlRequest {
    /// The text of the document. If it is empty, `hash` identifies the document.
    pub query: String,
    /// The SHA-256 hash of the text in hexadecimal digits, for persisted queries.
    pub hash: Option<String>,
    /// Which operation of the document to execute.
    pub operation_name: Option<String>,
    /// The values of the variables: the text of a JSON object, or empty if there are none. The gate parses the text only
    /// after it has accepted the document, so that invalid documents do not cost the server more.
    pub variables: String,
}

/// The fields of a request object, not parsed yet. Other fields are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow)]
    query: Option<&'a RawValue>,
    operation_name: Option<&'a RawValue>,
    variables: Option<&'a RawValue>,
    extensions: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extensions<'a> {
    #[serde(borrow)]
    persisted_query: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PersistedQuery<'a> {
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    sha256_hash: Option<&'a RawValue>,
}

/// The largest body, in bytes, of a caller that may not record purchases. It fits the longest document and as many bytes
/// of variables.
const MAX_QUERY_BYTES: usize = 128 * 1024;
/// The largest body, in bytes, of a caller without a token.
const MAX_ANONYMOUS_BYTES: usize = 8 * 1024;
/// A body that is too large is read up to this many times its limit.
const MAX_DISCARDED: usize = 4;

/// JSON text may have at most one object or list for each of so many bytes of its limit. A line of a purchase takes more
/// bytes.
const BYTES_PER_NESTED: usize = 32;
/// JSON text may have at most one comma for each of so many bytes of its limit.
const BYTES_PER_ITEM: usize = 8;

/// The status and the message for a request that cannot be read.
type Malformed = (StatusCode, String);

/// Receives the body of a POST. The body of any other request is ignored.
pub(super) async fn receive(
    endpoint: &Endpoint,
    viewer: &Viewer,
    head: &Parts,
    body: Body,
) -> Result<Vec<u8>, Malformed> {
    if head.method != Method::POST {
        return Ok(Vec::new());
    }
    if !is_json(&head.headers) {
        let message = "the body must be application/json, without a content encoding";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned()));
    }
    let whole = whole(body.into_data_stream(), body_limit(endpoint, viewer), Peer::of(head).input);
    match tokio::time::timeout(endpoint.timeout, whole).await {
        Ok(bytes) => bytes,
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive".to_owned())),
    }
}

/// Returns the largest body in bytes, which depends on the role of the viewer.
fn body_limit(endpoint: &Endpoint, viewer: &Viewer) -> usize {
    match viewer {
        Viewer::Storefront(_) | Viewer::Admin(_) => endpoint.body_limit_bytes,
        Viewer::Customer(_) => endpoint.body_limit_bytes.min(MAX_QUERY_BYTES),
        Viewer::Anonymous => endpoint.body_limit_bytes.min(MAX_ANONYMOUS_BYTES),
    }
}

/// Reads the request with this head: from the body of a POST, or from the query string.
pub(super) fn read(
    endpoint: &Endpoint,
    viewer: &Viewer,
    head: &Parts,
    bytes: &[u8],
) -> Result<GraphqlRequest, Malformed> {
    let told = |message: &'static str| (StatusCode::BAD_REQUEST, message.to_owned());
    if head.method != Method::POST {
        return from_query_string(head.uri.query().unwrap_or_default()).map_err(told);
    }
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(told("batches are not supported: send one request at a time"));
    }
    if has_too_many_parts(bytes, body_limit(endpoint, viewer)) {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "the body has too many objects, lists and items".to_owned()));
    }
    let text = str::from_utf8(bytes).map_err(|_| told("the body must be UTF-8"))?;
    from_json(text).map_err(told)
}

/// Reads a body of at most `limit` bytes.
///
/// A larger body is read further, up to a bound, and discarded. If the server closed a connection with unread input, the
/// connection would be reset, and the client might not receive the response.
async fn whole(mut body: BodyDataStream, limit: usize, input: Input) -> Result<Vec<u8>, Malformed> {
    let mut bytes = Vec::new();
    let mut total = 0;
    while total <= limit.saturating_mul(MAX_DISCARDED) {
        match body.next().await {
            Some(Ok(chunk)) => {
                total += chunk.len();
                if total <= limit {
                    bytes.extend_from_slice(&chunk);
                } else {
                    bytes = Vec::new();
                    input.finished();
                }
            }
            Some(Err(_)) => return Err((StatusCode::BAD_REQUEST, "the body could not be read to its end".to_owned())),
            None if total <= limit => return Ok(bytes),
            None => break,
        }
    }
    Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {limit} bytes")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json") && !headers.contains_key(CONTENT_ENCODING)
}

/// Whether JSON text has more objects, lists and items than a real request of `limit` bytes. An object of eight bytes
/// takes hundreds of bytes in memory once it is parsed, so without this bound a small text could take a hundred times its
/// size.
pub(super) fn has_too_many_parts(json: &[u8], limit: usize) -> bool {
    let (mut nested, mut items) = (0, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => nested += 1,
            b',' if !in_text => items += 1,
            _ => {}
        }
    }
    nested > limit / BYTES_PER_NESTED || items > limit / BYTES_PER_ITEM
}

/// Parses a JSON object. The check for `{` is needed because derived `Deserialize` implementations accept arrays too,
/// with the fields in order.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    if is_object(json) { serde_json::from_str(json).ok() } else { None }
}

/// Whether JSON that is known to be valid is an object.
pub(super) fn is_object(json: &str) -> bool {
    json.trim_ascii_start().starts_with('{')
}

fn string(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

/// Reads a request from a JSON object.
pub(super) fn from_json(json: &str) -> Result<GraphqlRequest, &'static str> {
    let fields: Fields<'_> = object(json).ok_or("the request must be a JSON object that has each field only once")?;
    let mut request = GraphqlRequest::default();
    if let Some(query) = fields.query {
        request.query = string(query).ok_or("`query` must be a string")?;
    }
    if let Some(name) = fields.operation_name {
        request.operation_name = Some(string(name).ok_or("`operationName` must be a string")?);
    }
    if let Some(values) = fields.variables {
        request.variables = variables(values.get())?;
    }
    if let Some(extensions) = fields.extensions {
        request.hash = hash(extensions.get())?;
    }
    complete(request)
}

fn complete(request: GraphqlRequest) -> Result<GraphqlRequest, &'static str> {
    if request.query.is_empty() && request.hash.is_none() { Err("`query` is missing") } else { Ok(request) }
}

/// Checks that the variables are an object. `json` must be valid JSON.
fn variables(json: &str) -> Result<String, &'static str> {
    if is_object(json) { Ok(json.to_owned()) } else { Err("`variables` must be a JSON object") }
}

/// Reads the hash of a persisted query from the extensions, in the format of automatic persisted queries.
fn hash(extensions: &str) -> Result<Option<String>, &'static str> {
    let extensions: Extensions<'_> = object(extensions).ok_or("`extensions` must be a JSON object")?;
    let Some(persisted) = extensions.persisted_query else { return Ok(None) };
    let persisted: PersistedQuery<'_> = object(persisted.get()).ok_or("`persistedQuery` must be an object")?;
    if persisted.version.map(RawValue::get) != Some("1") {
        return Err("`persistedQuery.version` must be 1");
    }
    let hash = persisted.sha256_hash.and_then(string).ok_or("`persistedQuery.sha256Hash` must be a string")?;
    Ok(Some(hash))
}

/// Reads a request from the parameters `query`, `operationName`, `variables` and `extensions`. The last two are JSON.
fn from_query_string(query: &str) -> Result<GraphqlRequest, &'static str> {
    let mut request = GraphqlRequest::default();
    let mut given = HashSet::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "query" => request.query = value.into_owned(),
            "operationName" if !value.is_empty() => request.operation_name = Some(value.into_owned()),
            "variables" if !value.is_empty() => {
                let json: &RawValue = serde_json::from_str(&value).map_err(|_| "`variables` must be a JSON object")?;
                request.variables = variables(json.get())?;
            }
            "extensions" if !value.is_empty() => request.hash = hash(&value)?,
            _ => {}
        }
        if !given.insert(name) {
            return Err("each parameter must be given only once");
        }
    }
    complete(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_outside_of_texts() {
        let nested = |count: usize| format!("{{\"a\":[{}1]}}", "{},".repeat(count - 2));
        assert!(!has_too_many_parts(nested(32).as_bytes(), 1_024));
        assert!(has_too_many_parts(nested(33).as_bytes(), 1_024));
        let items = |count: usize| format!("{{\"a\":[{}1]}}", "1,".repeat(count));
        assert!(!has_too_many_parts(items(128).as_bytes(), 1_024));
        assert!(has_too_many_parts(items(129).as_bytes(), 1_024));
        let text = serde_json::to_string(&"\\\"[{,".repeat(1_000)).unwrap();
        assert!(!has_too_many_parts(text.as_bytes(), 1_024));
        assert!(has_too_many_parts(format!("{text}{}", "[".repeat(33)).as_bytes(), 1_024));
    }

    #[test]
    fn objects_are_read() {
        let json = r#" {"query": "q\u0041", "other": [{}], "operationName": null, "variables": {"a": [1]},
            "extensions": {"other": 1, "persistedQuery": {"sha256Hash": "ab", "version": 1}}} "#;
        let request = from_json(json).unwrap();
        assert_eq!((request.query.as_str(), request.operation_name), ("qA", None));
        assert_eq!((request.variables.as_str(), request.hash.as_deref()), ("{\"a\": [1]}", Some("ab")));
        for wrong in [
            "",
            "7",
            "{}",
            "[\"query\",null,null,null]",
            "{\"query\":\"a\"} x",
            "{\"query\":7}",
            "{\"query\":\"\"}",
            "{\"query\":\"a\",\"query\":\"b\"}",
            "{\"query\":\"a\",\"operationName\":{}}",
            "{\"query\":\"a\",\"variables\":[]}",
            "{\"query\":\"a\",\"variables\":{1}}",
            "{\"query\":\"a\",\"extensions\":[{\"version\":1}]}",
            "{\"extensions\":{\"persistedQuery\":[1,\"ab\"]}}",
            "{\"extensions\":{\"persistedQuery\":{\"version\":2,\"sha256Hash\":\"ab\"}}}",
            "{\"extensions\":{\"persistedQuery\":{\"version\":1,\"sha256Hash\":7}}}",
        ] {
            assert!(from_json(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn query_strings_are_read() {
        let request = from_query_string(
            "query=query%20Q(%24a%3AInt)%7Bme%7D&operationName=Q&variables=%7B%22a%22%3A1%7D&extensions=\
             %7B%22persistedQuery%22%3A%7B%22version%22%3A1%2C%22sha256Hash%22%3A%22ab%22%7D%7D",
        )
        .unwrap();
        assert_eq!(request.query, "query Q($a:Int){me}");
        assert_eq!((request.operation_name.as_deref(), request.hash.as_deref()), (Some("Q"), Some("ab")));
        assert_eq!(request.variables, "{\"a\":1}");
        for wrong in [
            "",
            "query=",
            "variables={}",
            "query={me}&variables=7",
            "query={me}&variables=[",
            "query={me}&variables={]",
            "query=a&query=b",
        ] {
            assert!(from_query_string(wrong).is_err(), "{wrong}");
        }
        assert!(from_query_string("query={me}&variables=&operationName=&other=x").is_ok());
    }
}
