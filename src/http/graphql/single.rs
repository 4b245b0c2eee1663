//! The transport for requests that get one response: GET for queries, POST for queries and mutations.

use std::sync::Arc;

use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::accept::Format;
use super::{Answer, Endpoint, GraphqlRequest, Question, Reply, malformed};
use crate::gate::OperationKind;
use crate::graphql::session::Caller;

pub(super) async fn answer(
    endpoint: &Arc<Endpoint>,
    caller: Caller,
    request: GraphqlRequest,
    question: Option<Question>,
    method: &Method,
    format: Format,
) -> Response {
    let reply = match endpoint.admit(&caller, request) {
        Ok(admitted) if *method != Method::POST && admitted.operation != OperationKind::Query => {
            return use_post(format);
        }
        Ok(admitted) => {
            let plan = Arc::clone(&admitted.plan);
            let (reply, source) = endpoint.execute(caller, admitted).await;
            if let Some((question, source)) = question.zip(source) {
                let body = reply.to_bytes();
                endpoint.answers.keep(question, &plan, reply.points(), source, &body);
                return format.respond_with(StatusCode::OK, body, None);
            }
            reply
        }
        Err(refused) => refused,
    };
    respond(format, &reply)
}

/// Responds with this reply.
pub(super) fn respond(format: Format, reply: &Reply) -> Response {
    format.respond(status(reply, format), reply)
}

/// Responds with a kept answer. Returns `None` if the response must be computed.
pub(super) async fn repeat(endpoint: &Endpoint, caller: &Caller, answer: &Answer, format: Format) -> Option<Response> {
    Some(match endpoint.repeat(caller, answer).await? {
        Ok(body) => format.respond_with(StatusCode::OK, body, None),
        Err(refused) => respond(format, &refused),
    })
}

/// The response to a GET with an operation that is not allowed there. Browsers and proxies send GET requests on their
/// own, for example to prefetch, so a GET must not change anything.
pub(super) fn use_post(format: Format) -> Response {
    let mut response = malformed(format, StatusCode::METHOD_NOT_ALLOWED, "only queries can be sent by GET".to_owned());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

/// The status of a reply. A request that was executed has status 200, even with errors. A request that was not executed
/// has the status of its error. Under `application/json`, errors that the client can fix in its document have status 200
/// too.
pub(super) fn status(reply: &Reply, format: Format) -> StatusCode {
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
