//! The HTTP layer: connections, authentication, limits per caller, the GraphQL endpoint, and downloads of exports.

pub mod auth;
mod exports;
pub mod graphql;
pub mod input;
pub mod limits;
pub mod metrics;
pub mod origins;
mod pages;
pub mod peer;
pub mod request_id;
pub mod router;
pub mod sockets;
mod trace;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::input::{Budget, Input};
use self::peer::Peer;
use self::router::Routes;
use crate::config;

/// How long a shutdown waits for open connections before it closes them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest number of concurrent connections to the listener for health and metrics.
const INTERNAL_CONNECTIONS: usize = 64;
/// The pause after a connection could not be accepted, for example because the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is cancelled. Then the server accepts no new connection and completes the requests that have
/// begun. `sockets` tracks the WebSockets that the router opens; they end by themselves.
///
/// The accept loop is written by hand because `axum::serve` has no timeouts and accepts any number of connections. The
/// server speaks HTTP/1.1 only: browsers speak HTTP/2 to the proxy that terminates their TLS, and HTTP/2 streams would
/// need timeouts and budgets of their own.
pub async fn serve(
    routes: Routes,
    listener: TcpListener,
    config: &config::Http,
    sockets: TaskTracker,
    stop: CancellationToken,
) {
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(config.head_timeout);
    let budget = Budget::new(config.unfinished_bytes);
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(config.connections));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, address, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Small responses are sent without delay. A failure does not matter: the socket works without the option too.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(config.write_timeout));
        let input = budget.open(peer::subscriber(address));
        let stream = Connection { stream: Box::pin(stream), input: input.clone(), _place: place };
        let service = told(routes.clone(), Peer { address, input });
        let (builder, stop) = (builder.clone(), stop.clone());
        connections.spawn(async move {
            let connection = builder.serve_connection(TokioIo::new(stream), service_fn(service)).with_upgrades();
            let mut connection = std::pin::pin!(connection);
            // Errors are ignored: the connection has failed, so they cannot be reported to the client.
            tokio::select! {
                _ = connection.as_mut() => return,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    drop(listener);
    connections.close();
    sockets.close();
    let drained = async {
        connections.wait().await;
        sockets.wait().await;
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("the server is stopping: connections that are still busy are closed");
    }
}

/// Serves health and metrics to operators. Clients of the other listener cannot use up these connections.
pub async fn serve_internal(router: Router, listener: TcpListener, config: &config::Http, stop: CancellationToken) {
    let config = config::Http { connections: INTERNAL_CONNECTIONS, ..config.clone() };
    serve(router.into(), listener, &config, TaskTracker::new(), stop).await;
}

/// Waits for a permit, then for a connection. Returns `None` if the connection could not be accepted.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let (stream, address) = listener.accept().await.ok()?;
    Some((stream, address.ip(), place))
}

/// Makes a service from the routes that adds the peer and the request id to the extensions of each request, and the request id and
/// the security headers to each response.
fn told(routes: Routes, peer: Peer) -> impl Fn(Request<Incoming>) -> Answering {
    move |mut request| {
        let id = request_id::choose(request.headers());
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(id.clone());
        let (routes, input) = (routes.clone(), peer.input.clone());
        Box::pin(async move {
            let mut answer = guarded(routes.answer(request).await);
            request_id::tell(&id, answer.headers_mut());
            input.finished();
            Ok(answer)
        })
    }
}

/// Security headers of all responses: a browser may only read them. A page of this server that needs more, such as
/// GraphiQL, sets its own value.
const GUARDS: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

/// Adds the security headers. A layer of the router would cost each request more.
fn guarded(mut response: Response) -> Response {
    // With the id of the request and those that hyper adds. Otherwise the map would grow while they are added.
    response.headers_mut().reserve(GUARDS.len() + 3);
    for (name, value) in GUARDS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// A connection with its permit, which it keeps when it is upgraded to a WebSocket. Each read is counted in `input`.
struct Connection {
    stream: Pin<Box<TimeoutWriter<TcpStream>>>,
    input: Input,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.stream.as_mut().poll_read(cx, buf))?;
        Poll::Ready(self.input.read(buf.filled().len() - before))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, bufs)
    }
}
