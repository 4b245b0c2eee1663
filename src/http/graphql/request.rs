//! Reading a request: from a body, from a query string, from a message.

use axum::body::{Body, BodyDataStream};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};

use super::Endpoint;

/// A GraphQL request as it came.
#[derive(Clone, Debug, Default)]
pub struct GraphqlRequest {
    /// The document's text; empty: `hash` names it.
    pub query: String,
    /// SHA-256 of the text, as hexadecimal digits: a persisted query.
    pub hash: Option<String>,
    /// Which of its operations to run.
    pub operation_name: Option<String>,
    /// Values for the operation's variables.
    pub variables: Map<String, Value>,
}

/// Of a body that is too large so many times the limit is read.
const MAX_DISCARDED: usize = 4;

/// Of the largest text there may be an object or a list for every so many bytes. A purchase's line has more.
const BYTES_PER_NESTED: usize = 32;
/// And a comma for every so many.
const BYTES_PER_ITEM: usize = 8;

/// What is told of a request that is none.
type Malformed = (StatusCode, String);

/// Reads the request that came with this head.
pub(super) async fn read(endpoint: &Endpoint, head: &Parts, body: Body) -> Result<GraphqlRequest, Malformed> {
    let told = |message: &'static str| (StatusCode::BAD_REQUEST, message.to_owned());
    if head.method != Method::POST {
        return from_query_string(head.uri.query().unwrap_or_default()).map_err(told);
    }
    if !is_json(&head.headers) {
        let message = "the body must be application/json, without encoding";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned()));
    }
    let whole = whole(body.into_data_stream(), endpoint.body_limit_bytes);
    let bytes = match tokio::time::timeout(endpoint.timeout, whole).await {
        Ok(bytes) => bytes?,
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned())),
    };
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(told("one request at a time: batches are not taken"));
    }
    if has_too_many_parts(&bytes, endpoint.body_limit_bytes) {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "the body has too many objects, lists and items".to_owned()));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(body)) => from_object(body).map_err(told),
        _ => Err(told("the body must be a JSON object")),
    }
}

/// The bytes of a body that is not larger than `limit`.
///
/// What a larger one has more is thrown away up to a bound: a connection that is closed with something unread is reset,
/// and the client would not hear why.
async fn whole(mut body: BodyDataStream, limit: usize) -> Result<Vec<u8>, Malformed> {
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

/// Reads the object by hand: what is derived would take positional arrays too.
pub(super) fn from_object(object: Map<String, Value>) -> Result<GraphqlRequest, &'static str> {
    let mut request = GraphqlRequest::default();
    for (field, value) in object {
        match (field.as_str(), value) {
            ("query", Value::String(query)) => request.query = query,
            ("operationName", Value::String(name)) => request.operation_name = Some(name),
            ("variables", Value::Object(variables)) => request.variables = variables,
            ("extensions", Value::Object(extensions)) => request.hash = hash(extensions)?,
            ("operationName" | "variables" | "extensions", Value::Null) => {}
            ("query", _) => return Err("`query` must be a string"),
            ("operationName", _) => return Err("`operationName` must be a string"),
            ("variables", _) => return Err("`variables` must be an object"),
            ("extensions", _) => return Err("`extensions` must be an object"),
            _ => {}
        }
    }
    if request.query.is_empty() && request.hash.is_none() { Err("`query` is missing") } else { Ok(request) }
}

/// The hash of a persisted query, as the protocol of automatic persisted queries has it.
fn hash(mut extensions: Map<String, Value>) -> Result<Option<String>, &'static str> {
    let Some(persisted) = extensions.remove("persistedQuery") else { return Ok(None) };
    let Value::Object(mut persisted) = persisted else { return Err("`persistedQuery` must be an object") };
    if persisted.get("version").and_then(Value::as_u64) != Some(1) {
        return Err("`persistedQuery.version` must be 1");
    }
    match persisted.remove("sha256Hash") {
        Some(Value::String(hash)) => Ok(Some(hash)),
        _ => Err("`persistedQuery.sha256Hash` must be a string"),
    }
}

/// Reads `query`, `operationName`, `variables` and `extensions`, the last two as JSON.
fn from_query_string(query: &str) -> Result<GraphqlRequest, &'static str> {
    let mut object = Map::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = match &*name {
            "variables" | "extensions" if value.is_empty() => Value::Null,
            "variables" => serde_json::from_str(&value).map_err(|_| "`variables` must be a JSON object")?,
            "extensions" => serde_json::from_str(&value).map_err(|_| "`extensions` must be a JSON object")?,
            "operationName" if value.is_empty() => Value::Null,
            _ => Value::String(value.into_owned()),
        };
        if object.insert(name.into_owned(), value).is_some() {
            return Err("each parameter can be given once");
        }
    }
    from_object(object)
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
    fn query_strings_are_read() {
        let request = from_query_string(
            "query=query%20Q(%24a%3AInt)%7Bme%7D&operationName=Q&variables=%7B%22a%22%3A1%7D&extensions=\
             %7B%22persistedQuery%22%3A%7B%22version%22%3A1%2C%22sha256Hash%22%3A%22ab%22%7D%7D",
        )
        .unwrap();
        assert_eq!(request.query, "query Q($a:Int){me}");
        assert_eq!((request.operation_name.as_deref(), request.hash.as_deref()), (Some("Q"), Some("ab")));
        assert_eq!(Value::Object(request.variables), serde_json::json!({ "a": 1 }));
        for wrong in
            ["", "query=", "variables={}", "query={me}&variables=7", "query={me}&variables=[", "query=a&query=b"]
        {
            assert!(from_query_string(wrong).is_err(), "{wrong}");
        }
        assert!(from_query_string("query={me}&variables=&operationName=&other=x").is_ok());
    }
}
