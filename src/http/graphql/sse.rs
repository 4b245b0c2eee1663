//! Server-sent events, in the "distinct connections mode" of GraphQL over SSE. Each operation has its own stream: a
//! `next` event for each reply, then a `complete` event. When the server stops, the streams of subscriptions end without
//! `complete`, so that their clients reconnect.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method};
use axum::response::Response;
use futures_util::StreamExt;

use super::accept::Format;
use super::{Endpoint, Event, Events, GraphqlRequest, Reply, completed, single};
use crate::gate::OperationKind;
use crate::graphql::session::Caller;

/// The time without events after which a comment is sent. It is shorter than the idle timeouts of common proxies.
const KEEP_ALIVE: Duration = Duration::from_secs(12);

pub(super) fn answer(endpoint: &Arc<Endpoint>, caller: Caller, request: GraphqlRequest, method: &Method) -> Response {
    let events = match endpoint.admit(&caller, request) {
        Ok(admitted) if *method != Method::POST && admitted.operation == OperationKind::Mutation => {
            return single::use_post(Format::EventStream);
        }
        Ok(admitted) => endpoint.stream(caller, admitted),
        Err(refused) => Err(refused),
    };
    // The client expects events, so an error is sent as an event too.
    let events = events.unwrap_or_else(|refused| completed(futures_util::stream::iter([refused])).boxed());
    let mut response = Response::new(Body::from_stream(written(events).map(Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Without this header, nginx would buffer the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

enum State {
    Opened(Events),
    Running(Events),
    Completed,
}

/// Writes the events as bytes. A comment is sent immediately, so that the client knows that it is connected.
fn written(events: Events) -> impl futures_util::Stream<Item = Bytes> + Send {
    futures_util::stream::unfold(State::Opened(events), |state| async move {
        match state {
            State::Opened(events) => Some((Bytes::from_static(b":\n\n"), State::Running(events))),
            State::Running(mut events) => match tokio::time::timeout(KEEP_ALIVE, events.next()).await {
                Ok(Some(Event::Next(reply))) => Some((next(&reply), State::Running(events))),
                // EventSource ignores an event without a data line.
                Ok(Some(Event::Complete)) => {
                    Some((Bytes::from_static(b"event: complete\ndata:\n\n"), State::Completed))
                }
                Ok(None) => None,
                Err(_) => Some((Bytes::from_static(b":\n\n"), State::Running(events))),
            },
            State::Completed => None,
        }
    })
}

fn next(reply: &Reply) -> Bytes {
    let mut event = b"event: next\ndata: ".to_vec();
    // The JSON text needs no escaping, because it contains no line breaks.
    event.extend(serde_json::to_vec(reply).unwrap_or_default());
    event.extend(b"\n\n");
    event.into()
}
