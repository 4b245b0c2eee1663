//! One answer to a GET or a POST.

use std::sync::Arc;

use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::accept::Format;
use super::{Endpoint, GraphqlRequest, Reply, malformed};
use crate::gate::OperationKind;
use crate::graphql::session::Caller;

pub(super) async fn answer(
    endpoint: &Arc<Endpoint>,
    caller: Caller,
    request: GraphqlRequest,
    method: &Method,
    format: Format,
) -> Response {
    let reply = match endpoint.admit(&caller, request) {
        Ok(admitted) if *method != Method::POST && admitted.operation != OperationKind::Query => {
            return use_post(format);
        }
        Ok(admitted) => endpoint.execute(caller, admitted).await,
        Err(refused) => refused,
    };
    format.respond(status(&reply, format), &reply)
}

/// What a GET may not do: browsers and proxies send those unasked.
pub(super) fn use_post(format: Format) -> Response {
    let mut response = malformed(format, StatusCode::METHOD_NOT_ALLOWED, "only queries can be sent by GET".to_owned());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

/// A request that was run is answered with 200, whatever errors it met. One that was not: under `application/json` too,
/// where the client can mend its document; not where the server lacks something.
fn status(reply: &Reply, format: Format) -> StatusCode {
    match reply.code() {
        _ if reply.was_run() => StatusCode::OK,
        Some("UNAUTHENTICATED") => StatusCode::UNAUTHORIZED,
        Some("RATE_LIMITED") => StatusCode::TOO_MANY_REQUESTS,
        Some("OVERLOADED" | "UNAVAILABLE") => StatusCode::SERVICE_UNAVAILABLE,
        Some("INTERNAL") => StatusCode::INTERNAL_SERVER_ERROR,
        _ if format == Format::GraphqlResponse => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}
