//! Server-sent events, in the "distinct connections mode" of GraphQL over SSE: a stream for each operation, of `next`
//! events with one answer each and a last one, `complete`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method};
use axum::response::Response;
use futures_util::StreamExt;

use super::accept::Format;
use super::{Endpoint, GraphqlRequest, Replies, Reply, single};
use crate::gate::OperationKind;
use crate::graphql::Caller;

/// Between two signs of life: shorter than what proxies allow a silent connection.
const KEEP_ALIVE: Duration = Duration::from_secs(12);

pub(super) fn answer(endpoint: &Arc<Endpoint>, caller: Caller, request: GraphqlRequest, method: &Method) -> Response {
    let replies = match endpoint.admit(&caller, request) {
        Ok(admitted) if *method != Method::POST && admitted.operation == OperationKind::Mutation => {
            return single::use_post(Format::EventStream);
        }
        Ok(admitted) => endpoint.stream(caller, admitted),
        Err(refused) => Err(refused),
    };
    // Once the client reads events, errors are events too.
    let replies = replies.unwrap_or_else(|refused| futures_util::stream::iter([refused]).boxed());
    let mut response = Response::new(Body::from_stream(events(replies).map(Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // nginx would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

enum State {
    Opened(Replies),
    Running(Replies),
    Completed,
}

/// The stream's bytes. The first of them go out at once, so that the client knows that it is connected.
fn events(replies: Replies) -> impl futures_util::Stream<Item = Bytes> + Send {
    futures_util::stream::unfold(State::Opened(replies), |state| async move {
        match state {
            State::Opened(replies) => Some((Bytes::from_static(b":\n\n"), State::Running(replies))),
            State::Running(mut replies) => match tokio::time::timeout(KEEP_ALIVE, replies.next()).await {
                Ok(Some(reply)) => Some((next(&reply), State::Running(replies))),
                // With a data line, or EventSource drops it.
                Ok(None) => Some((Bytes::from_static(b"event: complete\ndata:\n\n"), State::Completed)),
                Err(_) => Some((Bytes::from_static(b":\n\n"), State::Running(replies))),
            },
            State::Completed => None,
        }
    })
}

fn next(reply: &Reply) -> Bytes {
    let mut event = b"event: next\ndata: ".to_vec();
    // JSON text has no line breaks of its own.
    event.extend(serde_json::to_vec(reply).unwrap_or_default());
    event.extend(b"\n\n");
    event.into()
}
