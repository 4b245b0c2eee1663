//! The GraphQL endpoint. It has three transports: `single` (one response to a GET or POST), `sse` (a stream of
//! server-sent events) and `websocket` (graphql-transport-ws). Requests of all transports pass the same steps: `request`
//! reads them, `Endpoint::admit` charges the caller and passes them through the gate, and `executor` executes them.
//!
//! Queries and mutations run in separate tasks, so a client that disconnects does not cancel a write half-way.

mod accept;
mod answers;
mod executor;
mod initialization;
mod measured;
mod request;
mod single;
mod sse;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
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
use super::peer::{self, Peer};
use super::sockets::Sockets;
use super::{request_id, trace};
use crate::app::App;
use crate::app::allowance::Limited;
use crate::app::error::Error;
use crate::app::origin::Origin;
use crate::app::share::Share;
use crate::app::viewer::{Admin, Viewer};
use crate::config;
use crate::engine::time::Instant;
use crate::gate::{Admitted, OperationKind, Plan, Rights};
use crate::graphql::reads::Source;
use crate::graphql::session::Caller;

use self::answers::{Answer, Answers, Question};
use self::executor::Prepared;
pub(super) use self::executor::gate;
pub use self::executor::{Executor, Reply};
use self::measured::count_refused;
pub use self::request::GraphqlRequest;

/// A request header for diagnostics. With the value `reads`, the response says in which tier of the cache each customer
/// was found.
const TELL: &str = "windfall-tell";
/// After how many seconds a client may retry to open a WebSocket if its address has too many open.
const SOCKET_RETRY_SECONDS: u64 = 10;
/// The most tokens of a document that are parsed for a caller without an access token. They suffice to check that the
/// endpoint works.
const MAX_ANONYMOUS_TOKENS: u32 = 40;
/// How often the records of callers that have all their points are dropped.
const FORGET_PERIOD: Duration = Duration::from_mins(1);

/// Everything that the transports need to serve requests.
pub struct Endpoint {
    app: Arc<App>,
    executor: Arc<Executor>,
    verifier: Verifier,
    answers: Answers,
    limits: Limits,
    origins: Origins,
    /// Tracks the tasks of open WebSockets, so that a shutdown can wait for them.
    sockets: TaskTracker,
    /// Counts the open WebSockets per address and per subject.
    open_sockets: Sockets,
    trusted_proxies: Vec<config::Cidr>,
    introspection: bool,
    body_limit_bytes: usize,
    timeout: Duration,
}

impl Endpoint {
    /// Builds the endpoint of an application. `sockets` tracks the open WebSockets.
    pub fn new(
        app: Arc<App>,
        executor: Executor,
        verifier: Verifier,
        config: &config::Config,
        sockets: TaskTracker,
    ) -> Self {
        let config::Config { http, limits, cache, .. } = config;
        Self {
            app,
            executor: Arc::new(executor),
            verifier,
            answers: Answers::new(cache.answers_bytes()),
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

    /// Drops the records of idle callers periodically, until the server stops.
    pub async fn forget_idle_callers(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(FORGET_PERIOD);
        loop {
            tokio::select! {
                () = self.app.stopping.cancelled() => return,
                _ = ticks.tick() => self.limits.forget_idle(),
            }
        }
    }

    /// Returns the caller that the head of a request identifies.
    async fn caller(&self, head: &Parts) -> Result<Caller, AuthError> {
        let token = self.verifier.authenticate(&head.headers, self.app.clock.now().0).await?;
        let caller = caller(token, self.origin(head));
        Ok(Caller { tells_reads: head.headers.get(TELL).is_some_and(|what| what == "reads"), ..caller })
    }

    /// Admits a download by an admin, which takes a permit of a stream and a point. Returns the response to send if the request is
    /// refused.
    pub(super) async fn admit_admin(&self, head: &Parts) -> Result<(Admin, Share), Response> {
        let caller = self.caller(head).await.map_err(|error| unauthenticated(Format::Json, &error))?;
        let admin = caller.viewer.require_admin().map_err(|error| failed(head, error))?;
        self.limits.allowance(&caller.viewer).charge(1).map_err(|limited| failed(head, limited.into()))?;
        let place = self.limits.stream(&caller.viewer.who()).ok_or_else(|| failed(head, Error::Overloaded))?;
        Ok((admin, place))
    }

    pub(super) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Returns the caller that the value of an Authorization header identifies. `origin` is that of the WebSocket's handshake.
    async fn caller_of(&self, authorization: &str, origin: Origin) -> Result<Caller, AuthError> {
        Ok(caller(Some(self.verifier.verify(authorization, self.app.clock.now().0).await?), origin))
    }

    fn origin(&self, head: &Parts) -> Origin {
        let address = peer::client(&self.trusted_proxies, Peer::of(head).address, &head.headers);
        Origin { request_id: request_id::of(head), address: Some(address) }
    }

    /// Returns the reply to a query or mutation for which no permit is free. It is refused before it is read, because under
    /// overload most of the server's time would go into what it refuses.
    fn shed(&self, viewer: &Viewer) -> Option<Reply> {
        if self.limits.has_turn(&viewer.who()) {
            return None;
        }
        // A request that is refused takes time too, so it costs a point.
        if let Err(limited) = self.limits.allowance(viewer).charge(1) {
            count_refused();
            return Some(Reply::limited(limited));
        }
        Some(overloaded())
    }

    /// Charges the caller for a request and passes the request through the gate. Returns the reply to send if the request
    /// is refused.
    fn admit(&self, caller: &Caller, request: GraphqlRequest) -> Result<Admitted<Prepared>, Reply> {
        self.decide(caller, request).inspect_err(|_| count_refused())
    }

    fn decide(&self, caller: &Caller, request: GraphqlRequest) -> Result<Admitted<Prepared>, Reply> {
        let allowance = self.limits.allowance(&caller.viewer);
        // A request that is refused takes time too, so it costs a point.
        allowance.charge(1).map_err(Reply::limited)?;
        let tokens = self.executor.unread_tokens(&request);
        // Without an access token, only introspection is useful.
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

    /// Returns the body of a kept answer if it holds now, or the reply to send if the request is refused. Returns `None` if the
    /// response must be computed; the caller has then been charged a point.
    async fn repeat(&self, caller: &Caller, answer: &Answer) -> Option<Result<Bytes, Reply>> {
        let allowance = self.limits.allowance(&caller.viewer);
        let limited = |limited| {
            count_refused();
            Some(Err(Reply::limited(limited)))
        };
        if let Err(error) = allowance.charge(1) {
            return limited(error);
        }
        let Some(_turn) = self.limits.turn(&caller.viewer.who()) else { return Some(Err(overloaded())) };
        let measured = tokio::time::Instant::now();
        // A look-up changes nothing, so a client that disconnects may cancel it.
        let served = tokio::time::timeout(self.timeout, self.answers.serve(&self.app, answer)).await;
        let Ok(served) = served else {
            answer.plan.document.metrics.record("error", measured.elapsed());
            return Some(Err(Reply::error(Error::Unavailable)));
        };
        let body = served?;
        if let Err(error) = allowance.charge(answer.points.max(answer.plan.cost)) {
            return limited(error);
        }
        answer.plan.document.metrics.record("ok", measured.elapsed());
        Some(Ok(body))
    }

    /// Executes a query or a mutation in a separate task, to its end. The caller waits for it at most until the timeout.
    async fn execute(&self, caller: Caller, admitted: Admitted<Prepared>) -> (Reply, Option<Source>) {
        let Some(turn) = self.limits.turn(&caller.viewer.who()) else { return (overloaded(), None) };
        let (executor, allowance) = (Arc::clone(&self.executor), self.limits.allowance(&caller.viewer));
        let cost = admitted.cost;
        let (measured, deadline) = (Measured::begin(&admitted.plan), self.timeout);
        let request_id = caller.origin.request_id.clone();
        let span =
            tracing::info_span!("execute", operation = admitted.operation.as_str(), fields = ?admitted.document.fields);
        let run = async move {
            let (reply, source) = executor.execute(caller, admitted).await;
            measured.end(reply.outcome(), deadline);
            // The gate has estimated the length of some lists. If they are longer, the caller pays the rest now.
            allowance.debit(reply.points().saturating_sub(cost));
            drop(turn);
            (reply, source)
        };
        // Boxed, because a task is moved several times before it runs.
        let task = tokio::spawn(Box::pin(run.instrument(span)));
        let failed = match tokio::time::timeout(self.timeout, task).await {
            Ok(Ok(replied)) => return replied,
            Ok(Err(panic)) => Error::Internal(format!("the task of a request failed: {panic}")),
            Err(_) => Error::Unavailable,
        };
        let reply = Reply::error(failed);
        reply.log(&request_id);
        (reply, None)
    }

    /// Executes an operation as a stream of events. A subscription gives one reply per event, any other operation one
    /// reply.
    fn stream(self: &Arc<Self>, caller: Caller, admitted: Admitted<Prepared>) -> Result<Events, Reply> {
        if admitted.operation != OperationKind::Subscription {
            let endpoint = Arc::clone(self);
            let reply = futures_util::stream::once(async move { endpoint.execute(caller, admitted).await.0 });
            return Ok(completed(reply).boxed());
        }
        let Some(place) = self.limits.stream(&caller.viewer.who()) else { return Err(overloaded()) };
        let mut measured = Opened::begin(&admitted.plan);
        let allowance = self.limits.allowance(&caller.viewer);
        let replies = self.executor.subscribe(caller, allowance.clone(), admitted).inspect(move |reply| {
            allowance.debit(reply.points());
            measured.told(reply.outcome() == "error");
        });
        // When the server stops, the stream ends without `Complete`: clients do not resubscribe after a complete
        // subscription.
        let stopping = self.app.stopping.clone().cancelled_owned();
        Ok(completed(held(place, replies)).take_until(stopping).boxed())
    }
}

/// Measures a query or mutation and records it when dropped.
struct Measured {
    plan: Arc<Plan<Prepared>>,
    began: tokio::time::Instant,
    outcome: &'static str,
}

impl Measured {
    fn begin(plan: &Arc<Plan<Prepared>>) -> Self {
        // The outcome stays `error` if the task panics.
        Self { plan: Arc::clone(plan), began: tokio::time::Instant::now(), outcome: "error" }
    }

    /// Records the outcome. After the deadline the outcome stays `error`, because the caller has already received
    /// UNAVAILABLE.
    fn end(mut self, outcome: &'static str, deadline: Duration) {
        if self.began.elapsed() < deadline {
            self.outcome = outcome;
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.plan.document.metrics.record(self.outcome, self.began.elapsed());
    }
}

/// Counts a subscription in the metrics: as `ok` when it begins, and also as `error` if its last reply is an error.
struct Opened {
    plan: Arc<Plan<Prepared>>,
    failed: bool,
}

impl Opened {
    fn begin(plan: &Arc<Plan<Prepared>>) -> Self {
        let metrics = &plan.document.metrics;
        metrics.count("ok", 1);
        // The series exists from the start, so that Prometheus sees the first failure as an increase.
        metrics.count("error", 0);
        Self { plan: Arc::clone(plan), failed: false }
    }

    fn told(&mut self, failure: bool) {
        self.failed = failure;
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.failed {
            self.plan.document.metrics.count("error", 1);
        }
    }
}

/// The reply to a request for which no permit is free. Counts the request as refused.
fn overloaded() -> Reply {
    count_refused();
    Reply::error(Error::Overloaded)
}

/// What the transport sends to the client of an operation.
enum Event {
    Next(Reply),
    /// The operation has ended for good. Clients do not resubscribe after this event.
    Complete,
}

/// The events of an operation. A stream ends without [`Event::Complete`] only if the server is stopping.
type Events = std::pin::Pin<Box<dyn Stream<Item = Event> + Send>>;

/// Adds [`Event::Complete`] after the last reply.
fn completed(replies: impl Stream<Item = Reply> + Send) -> impl Stream<Item = Event> + Send {
    replies.map(Event::Next).chain(futures_util::stream::iter([Event::Complete]))
}

/// Keeps the permit until the stream is dropped.
fn held(place: Share, stream: impl Stream<Item = Reply> + Send) -> impl Stream<Item = Reply> + Send {
    stream.map(move |reply| {
        let _held = &place;
        reply
    })
}

fn caller(token: Option<Token>, origin: Origin) -> Caller {
    let Some(Token { role, subject, expires_at }) = token else {
        return Caller { viewer: Viewer::Anonymous, origin, expires_at: Instant::FOREVER, tells_reads: false };
    };
    let viewer = match role {
        Role::Customer => Viewer::Customer(subject),
        Role::Storefront => Viewer::Storefront(subject),
        Role::Admin => Viewer::Admin(subject),
    };
    Caller { viewer, origin, expires_at: Instant(expires_at), tells_reads: false }
}

/// The handler of `/graphql`, for all transports.
pub async fn answer(State(endpoint): State<Arc<Endpoint>>, request: axum::extract::Request) -> Response {
    let (head, body) = request.into_parts();
    let span = trace::span(&head);
    answer_to(endpoint, head, body).instrument(span).await
}

async fn answer_to(endpoint: Arc<Endpoint>, head: Parts, body: Body) -> Response {
    let accepted = Format::accepted_by(&head.headers);
    // The format of errors that are found before the format of the response matters.
    let told = accepted.unwrap_or(Format::Json);
    if wants_websocket(&head.headers) {
        // CORS does not apply to WebSockets: a browser would give a foreign page access to the socket.
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
        let message = "Accept must allow application/graphql-response+json, application/json or text/event-stream";
        return malformed(told, StatusCode::NOT_ACCEPTABLE, message.to_owned());
    };
    let caller = match endpoint.caller(&head).await {
        Ok(caller) => caller,
        Err(error) => return unauthenticated(format, &error),
    };
    let sent = match request::receive(&endpoint, &caller.viewer, &head, body).await {
        Ok(sent) => sent,
        Err((status, message)) => return malformed(format, status, message),
    };
    let is_single = format != Format::EventStream && head.method == Method::POST;
    if is_single && let Some(refused) = endpoint.shed(&caller.viewer) {
        return single::respond(format, &refused);
    }
    let question = if is_single && !caller.tells_reads { Question::new(&caller.viewer, &sent) } else { None };
    if let Some(answer) = question.as_ref().and_then(|question| endpoint.answers.find(question))
        && let Some(response) = single::repeat(&endpoint, &caller, &answer, format).await
    {
        return response;
    }
    let request = match request::read(&endpoint, &caller.viewer, &head, &sent) {
        Ok(request) => request,
        Err((status, message)) => return malformed(format, status, message),
    };
    match format {
        Format::EventStream => sse::answer(&endpoint, caller, request, &head.method),
        Format::GraphqlResponse | Format::Json => {
            single::answer(&endpoint, caller, request, question, &head.method, format).await
        }
    }
}

/// Whether the request is a WebSocket handshake. Other upgrades, which HTTP/2 clients offer along with any request, are
/// ignored.
fn wants_websocket(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
}

/// The response to a request that is not a valid GraphQL request: a GraphQL error, as JSON even if the client asked for
/// events.
fn malformed(format: Format, status: StatusCode, message: String) -> Response {
    format.respond(status, &Reply::error(Error::BadUserInput(message)))
}

/// The response to a WebSocket handshake from an address that has too many WebSockets open.
fn too_many_sockets() -> Response {
    count_refused();
    let limited = Limited { retry_after_seconds: SOCKET_RETRY_SECONDS };
    Format::Json.respond(StatusCode::TOO_MANY_REQUESTS, &Reply::limited(limited))
}

/// The response to a failed request of another route: a GraphQL error as JSON, with the status of the error.
pub(super) fn failed(head: &Parts, error: Error) -> Response {
    let special = match &error {
        Error::Forbidden => Some(StatusCode::FORBIDDEN),
        Error::NotFound => Some(StatusCode::NOT_FOUND),
        _ => None,
    };
    let reply = Reply::error(error);
    reply.log(&request_id::of(head));
    let status = special.unwrap_or_else(|| single::status(&reply, Format::GraphqlResponse));
    let mut response = Format::Json.respond(status, &reply);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn unauthenticated(format: Format, error: &AuthError) -> Response {
    let mut response = format.respond(StatusCode::UNAUTHORIZED, &Reply::unauthenticated(error));
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}
