//! Reading a request: from a body, from a query string, from a message.

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

/// A GraphQL request as it came.
#[derive(Clone, Debug, Default)]
pub struct GraphqlRequest {
    /// The document's text; empty: `hash` names it.
    pub query: String,
    /// SHA-256 of the text, as hexadecimal digits: a persisted query.
    pub hash: Option<String>,
    /// Which of its operations to run.
    pub operation_name: Option<String>,
    /// Values for the operation's variables: the text of a JSON object; empty: none. It is parsed when its document has
    /// passed, so that nobody makes the server build what it will not use.
    pub variables: String,
}

/// An object's fields, unread; others are passed over.
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

/// Bytes of a body from whoever may not record: a query of the largest text and as much of variables.
const MAX_QUERY_BYTES: usize = 128 * 1024;
/// And from whoever has no token.
const MAX_ANONYMOUS_BYTES: usize = 8 * 1024;
/// Of a body that is too large so many times the limit is read.
const MAX_DISCARDED: usize = 4;

/// Of the largest text there may be an object or a list for every so many bytes. A purchase's line has more.
const BYTES_PER_NESTED: usize = 32;
/// And a comma for every so many.
const BYTES_PER_ITEM: usize = 8;

/// What is told of a request that is none.
type Malformed = (StatusCode, String);

/// Reads the request that came with this head.
pub(super) async fn read(
    endpoint: &Endpoint,
    viewer: &Viewer,
    head: &Parts,
    body: Body,
) -> Result<GraphqlRequest, Malformed> {
    let told = |message: &'static str| (StatusCode::BAD_REQUEST, message.to_owned());
    if head.method != Method::POST {
        return from_query_string(head.uri.query().unwrap_or_default()).map_err(told);
    }
    if !is_json(&head.headers) {
        let message = "the body must be application/json, without encoding";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned()));
    }
    let limit = match viewer {
        Viewer::Storefront(_) | Viewer::Admin(_) => endpoint.body_limit_bytes,
        Viewer::Customer(_) => endpoint.body_limit_bytes.min(MAX_QUERY_BYTES),
        Viewer::Anonymous => endpoint.body_limit_bytes.min(MAX_ANONYMOUS_BYTES),
    };
    let whole = whole(body.into_data_stream(), limit, Peer::of(head).input);
    let bytes = match tokio::time::timeout(endpoint.timeout, whole).await {
        Ok(bytes) => bytes?,
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned())),
    };
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(told("one request at a time: batches are not taken"));
    }
    if has_too_many_parts(&bytes, limit) {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "the body has too many objects, lists and items".to_owned()));
    }
    let text = str::from_utf8(&bytes).map_err(|_| told("the body must be UTF-8"))?;
    from_json(text).map_err(told)
}

/// The bytes of a body that is not larger than `limit`.
///
/// What a larger one has more is thrown away up to a bound: a connection that is closed with something unread is reset,
/// and the client would not hear why.
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
            Some(Err(_)) => return Err((StatusCode::BAD_REQUEST, "the body does not come to its end".to_owned())),
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

/// Whether JSON text has more parts than an honest one of `limit` bytes would have. An object of eight bytes takes
/// hundreds once it is read: without this bound a small text could take a hundred times its size.
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

/// The object that a text is, read as far as its type asks. What is derived would take an array too, by position.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    if is_object(json) { serde_json::from_str(json).ok() } else { None }
}

/// Whether valid JSON is an object.
pub(super) fn is_object(json: &str) -> bool {
    json.trim_ascii_start().starts_with('{')
}

fn string(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

/// Reads a request's object.
pub(super) fn from_json(json: &str) -> Result<GraphqlRequest, &'static str> {
    let fields: Fields<'_> = object(json).ok_or("a JSON object is needed, with each field once")?;
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

/// The values, which must be valid JSON already.
fn variables(json: &str) -> Result<String, &'static str> {
    if is_object(json) { Ok(json.to_owned()) } else { Err("`variables` must be a JSON object") }
}

/// The hash of a persisted query, as the protocol of automatic persisted queries has it.
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

/// Reads `query`, `operationName`, `variables` and `extensions`, the last two as JSON.
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
            return Err("each parameter can be given once");
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
