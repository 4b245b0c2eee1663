//! The GraphQL endpoint. However a request comes (`single`: one answer to a GET or POST; `sse`: a stream of server-sent
//! events; `websocket`: graphql-transport-ws), it passes the same steps: `request` reads it, `Endpoint::admit` counts
//! it against its caller's limits and asks the gate, `executor` runs it.
//!
//! What writes runs in a task of its own: a client that hangs up cancels nothing half-way.

mod accept;
mod executor;
mod initialization;
mod request;
mod single;
mod sse;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, histogram};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ALLOW, ORIGIN, UPGRADE, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::{Stream, StreamExt};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::accept::Format;
use super::auth::{AuthError, Role, Token, Verifier};
use super::limits::Limits;
use super::origins::Origins;
use super::sockets::Sockets;
use super::trace;
use crate::app::App;
use crate::app::allowance::Limited;
use crate::app::error::Error;
use crate::app::share::Share;
use crate::app::viewer::Viewer;
use crate::engine::time::Instant;
use crate::gate::{Admitted, OperationKind, Rights};
use crate::graphql::session::Caller;
use crate::{config, metrics};

pub use self::executor::{Executor, Reply};
pub use self::request::GraphqlRequest;

/// With this header a client asks to be told more than was asked for: `reads`, where its customers were found.
const TELL: &str = "windfall-tell";
/// When to try again to open a WebSocket where too many are open.
const SOCKET_RETRY_SECONDS: u64 = 10;
/// Tokens of a document that is parsed for whoever has no token: enough to look whether the endpoint is there.
const MAX_ANONYMOUS_TOKENS: u32 = 40;
/// How often callers are forgotten that have all their points again.
const FORGET_PERIOD: Duration = Duration::from_mins(1);

/// What every request is answered with.
pub struct Endpoint {
    app: Arc<App>,
    executor: Arc<Executor>,
    verifier: Verifier,
    limits: Limits,
    origins: Origins,
    /// Open WebSockets: the shutdown waits for them.
    sockets: TaskTracker,
    /// How many of them are whose.
    open_sockets: Sockets,
    trusted_proxies: Vec<config::Cidr>,
    introspection: bool,
    body_limit_bytes: usize,
    timeout: Duration,
}

impl Endpoint {
    /// Over an application. `sockets`: tracks the WebSockets that are open.
    pub fn new(
        app: Arc<App>,
        executor: Executor,
        verifier: Verifier,
        config: &config::Config,
        sockets: TaskTracker,
    ) -> Self {
        let config::Config { http, limits, .. } = config;
        Self {
            app,
            executor: Arc::new(executor),
            verifier,
            limits: Limits::new(limits),
            origins: Origins::new(&http.allowed_origins),
            sockets,
            open_sockets: Sockets::new(http.sockets_per_address, http.sockets_per_subject),
            trusted_proxies: http.trusted_proxies.clone(),
            introspection: http.introspection,
            body_limit_bytes: http.body_limit_bytes,
            timeout: http.request_timeout,
        }
    }

    /// Until the server stops.
    pub async fn forget_idle_callers(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(FORGET_PERIOD);
        loop {
            tokio::select! {
                () = self.app.stopping.cancelled() => return,
                _ = ticks.tick() => self.limits.forget_idle(),
            }
        }
    }

    /// Who sends these headers.
    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let caller = caller(self.verifier.authenticate(headers, self.app.clock.now().0).await?);
        Ok(Caller { tells_reads: headers.get(TELL).is_some_and(|what| what == "reads"), ..caller })
    }

    /// Who has what stands in an Authorization header.
    async fn caller_of(&self, authorization: &str) -> Result<Caller, AuthError> {
        Ok(caller(Some(self.verifier.verify(authorization, self.app.clock.now().0).await?)))
    }

    /// Counts a request against its caller's limits, and decides whether it may run.
    fn admit(&self, caller: &Caller, request: GraphqlRequest) -> Result<Admitted, Reply> {
        self.decide(caller, request).inspect_err(|_| refused())
    }

    fn decide(&self, caller: &Caller, request: GraphqlRequest) -> Result<Admitted, Reply> {
        let allowance = self.limits.allowance(&caller.viewer);
        // What is refused takes time too.
        allowance.charge(1).map_err(Reply::limited)?;
        let tokens = self.executor.unread_tokens(&request);
        // Nothing but introspection is of use without a token.
        if caller.viewer == Viewer::Anonymous && !self.introspection && tokens > MAX_ANONYMOUS_TOKENS {
            return Err(Reply::error(Error::Unauthenticated));
        }
        allowance.charge(tokens).map_err(Reply::limited)?;
        let is_admin = matches!(caller.viewer, Viewer::Admin(_));
        let rights = Rights { introspection: self.introspection || is_admin, unlisted: is_admin };
        let admitted = self.executor.admit(request, rights)?;
        allowance.charge(admitted.cost).map_err(Reply::limited)?;
        Ok(admitted)
    }

    /// Runs a query or a mutation to its end in a task of its own; its caller waits until the deadline.
    async fn execute(&self, caller: Caller, admitted: Admitted) -> Reply {
        let Some(turn) = self.limits.turn(&caller.viewer.who()) else { return overloaded() };
        let (executor, allowance) = (Arc::clone(&self.executor), self.limits.allowance(&caller.viewer));
        let cost = admitted.cost;
        let (measured, deadline) = (Measured::begin(&admitted), self.timeout);
        let span = tracing::info_span!("execute", operation = measured.operation, fields = ?measured.fields);
        let run = async move {
            let reply = executor.execute(caller, admitted).await;
            measured.end(&reply, deadline);
            // Lists may have had more items than they were taken to have.
            allowance.debit(reply.points().saturating_sub(cost));
            drop(turn);
            reply
        };
        let task = tokio::spawn(run.instrument(span));
        match tokio::time::timeout(self.timeout, task).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(panic)) => Reply::error(Error::Internal(format!("a request's task ended early: {panic}"))),
            Err(_) => Reply::error(Error::Unavailable),
        }
    }

    /// An answer for each event of a subscription; one answer of anything else.
    fn stream(self: &Arc<Self>, caller: Caller, admitted: Admitted) -> Result<Events, Reply> {
        if admitted.operation != OperationKind::Subscription {
            let endpoint = Arc::clone(self);
            let reply = futures_util::stream::once(async move { endpoint.execute(caller, admitted).await });
            return Ok(completed(reply).boxed());
        }
        let Some(place) = self.limits.stream(&caller.viewer.who()) else { return Err(overloaded()) };
        let mut measured = Opened::begin(&admitted);
        let allowance = self.limits.allowance(&caller.viewer);
        let replies = self.executor.subscribe(caller, allowance.clone(), admitted).inspect(move |reply| {
            allowance.debit(reply.points());
            measured.told(reply.outcome() == "error");
        });
        // A client does not come back to a subscription that is complete. So one that the server leaves is cut off instead.
        let stopping = self.app.stopping.clone().cancelled_owned();
        Ok(completed(held(place, replies)).take_until(stopping).boxed())
    }
}

/// A query or mutation, for metrics: by its root fields, which are as many as the schema has, and not by what clients call it.
/// It is counted when this is dropped.
struct Measured {
    operation: &'static str,
    fields: Vec<String>,
    began: tokio::time::Instant,
    outcome: &'static str,
}

impl Measured {
    fn begin(admitted: &Admitted) -> Self {
        let (operation, fields) = (admitted.operation.as_str(), admitted.fields.clone());
        // So it stays if its task panics.
        Self { operation, fields, began: tokio::time::Instant::now(), outcome: "error" }
    }

    /// It was run; after the deadline its caller had been told that it was not.
    fn end(mut self, reply: &Reply, deadline: Duration) {
        if self.began.elapsed() < deadline {
            self.outcome = reply.outcome();
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let seconds = self.began.elapsed().as_secs_f64();
        for field in &self.fields {
            histogram!(metrics::REQUEST_SECONDS, "operation" => self.operation, "field" => field.clone())
                .record(seconds);
            count(self.operation, field, self.outcome, 1);
        }
    }
}

/// A subscription, for metrics: counted when it begins, and again if a failure is the last that it tells.
struct Opened {
    fields: Vec<String>,
    failed: bool,
}

impl Opened {
    fn begin(admitted: &Admitted) -> Self {
        let opened = Self { fields: admitted.fields.clone(), failed: false };
        opened.count("ok", 1);
        // The first failure is then an increase, and not a new series.
        opened.count("error", 0);
        opened
    }

    fn told(&mut self, failure: bool) {
        self.failed = failure;
    }

    fn count(&self, outcome: &'static str, times: u64) {
        self.fields.iter().for_each(|field| count(OperationKind::Subscription.as_str(), field, outcome, times));
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.failed {
            self.count("error", 1);
        }
    }
}

fn count(operation: &'static str, field: &str, outcome: &'static str, times: u64) {
    counter!(metrics::REQUESTS, "operation" => operation, "field" => field.to_owned(), "outcome" => outcome)
        .increment(times);
}

/// There is no room to run a request.
fn overloaded() -> Reply {
    refused();
    Reply::error(Error::Overloaded)
}

/// A request was not run.
fn refused() {
    count("none", "none", "refused", 1);
}

/// What an operation tells its client.
enum Event {
    /// An answer.
    Next(Reply),
    /// There are no more answers, and never will be.
    Complete,
}

/// Events as they come. A stream that ends without [`Event::Complete`] was cut off: the server is stopping.
type Events = std::pin::Pin<Box<dyn Stream<Item = Event> + Send>>;

/// All answers of an operation, to its end.
fn completed(replies: impl Stream<Item = Reply> + Send) -> impl Stream<Item = Event> + Send {
    replies.map(Event::Next).chain(futures_util::stream::iter([Event::Complete]))
}

/// The stream; the place is free again when it ends.
fn held(place: Share, stream: impl Stream<Item = Reply> + Send) -> impl Stream<Item = Reply> + Send {
    stream.map(move |reply| {
        let _held = &place;
        reply
    })
}

fn caller(token: Option<Token>) -> Caller {
    let Some(Token { role, subject, expires_at }) = token else {
        return Caller { viewer: Viewer::Anonymous, expires_at: Instant::FOREVER, tells_reads: false };
    };
    let viewer = match role {
        Role::Customer => Viewer::Customer(subject),
        Role::Storefront => Viewer::Storefront(subject),
        Role::Admin => Viewer::Admin(subject),
    };
    Caller { viewer, expires_at: Instant(expires_at), tells_reads: false }
}

/// Answers a request.
pub async fn answer(State(endpoint): State<Arc<Endpoint>>, request: axum::extract::Request) -> Response {
    let (head, body) = request.into_parts();
    let span = trace::span(&head);
    answer_to(endpoint, head, body).instrument(span).await
}

async fn answer_to(endpoint: Arc<Endpoint>, head: Parts, body: Body) -> Response {
    let accepted = Format::accepted_by(&head.headers);
    // For what is refused before a format is needed.
    let told = accepted.unwrap_or(Format::Json);
    if wants_websocket(&head.headers) {
        // A browser sends the origin and would show a foreign page what it gets here.
        if !endpoint.origins.allow(head.headers.get(ORIGIN), &head.headers) {
            return told.respond(StatusCode::FORBIDDEN, &Reply::error(Error::Forbidden));
        }
        return websocket::upgrade(endpoint, head, told).await;
    }
    if ![Method::GET, Method::HEAD, Method::POST].contains(&head.method) {
        let mut response = malformed(told, StatusCode::METHOD_NOT_ALLOWED, "use POST, or GET for queries".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        return response;
    }
    let Some(format) = accepted else {
        let message = "application/graphql-response+json, application/json and text/event-stream can be answered";
        return malformed(told, StatusCode::NOT_ACCEPTABLE, message.to_owned());
    };
    let caller = match endpoint.caller(&head.headers).await {
        Ok(caller) => caller,
        Err(error) => return unauthenticated(format, &error),
    };
    let request = match request::read(&endpoint, &caller.viewer, &head, body).await {
        Ok(request) => request,
        Err((status, message)) => return malformed(format, status, message),
    };
    match format {
        Format::EventStream => sse::answer(&endpoint, caller, request, &head.method),
        Format::GraphqlResponse | Format::Json => {
            single::answer(&endpoint, caller, request, &head.method, format).await
        }
    }
}

/// Other upgrades may be offered along with any request (clients of HTTP/2 do) and are not taken.
fn wants_websocket(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
}

/// What is no GraphQL request, told as a GraphQL error. No stream begins with one: it is told as JSON.
fn malformed(format: Format, status: StatusCode, message: String) -> Response {
    format.respond(status, &Reply::error(Error::BadUserInput(message)))
}

/// The client's address has as many WebSockets open as it may.
fn too_many_sockets() -> Response {
    refused();
    let limited = Limited { retry_after_seconds: SOCKET_RETRY_SECONDS };
    Format::Json.respond(StatusCode::TOO_MANY_REQUESTS, &Reply::limited(limited))
}

fn unauthenticated(format: Format, error: &AuthError) -> Response {
    let mut response = format.respond(StatusCode::UNAUTHORIZED, &Reply::unauthenticated(error));
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}
