//! The HTTP edge: who is calling, what is asked, how it is answered.

pub mod auth;
mod graphiql;
pub mod graphql;
mod index;
pub mod limits;
pub mod metrics;
pub mod origins;
pub mod router;
mod trace;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config;

/// After this long a connection that is still busy is cut at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What HTTP/2 begins with. Every request of HTTP/1.1 has more bytes.
const PREFACE_BYTES: usize = 24;

/// Serves until `stop`; then takes no connection any more and answers what is under way. `sockets`: the WebSockets that
/// the router opens, which end by themselves.
///
/// By hand rather than by `axum::serve`, which has no time-outs and takes any number of connections.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    config: &config::Http,
    sockets: TaskTracker,
    stop: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(config.head_timeout);
    // Who says nothing on HTTP/2 for that long is asked for a sign of life, and has as long again to give it.
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(config.head_timeout);
    builder.http2().keep_alive_timeout(config.head_timeout);
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(config.connections));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Small answers go out at once; a socket that does not know the option works without.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(config.write_timeout));
        // The library watches the time of heads only once it knows the protocol.
        stream.set_read_timeout(Some(config.head_timeout));
        let stream = Connection { stream: Box::pin(stream), undecided_bytes: PREFACE_BYTES, _place: place };
        let service = TowerToHyperService::new(router.clone());
        let (builder, stop) = (builder.clone(), stop.clone());
        connections.spawn(async move {
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            // What fails here has no client left to be told.
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
        tracing::warn!("connections that were still busy are cut");
    }
}

/// The next connection, once there is a place for it; none: it could not be accepted.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, place))
}

/// A connection, be it upgraded or not, and its place.
struct Connection {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    /// Left to read until the protocol is known for certain.
    undecided_bytes: usize,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = self.stream.as_mut().poll_read(cx, buf);
        if self.undecided_bytes > 0 {
            self.undecided_bytes = self.undecided_bytes.saturating_sub(buf.filled().len() - before);
            if self.undecided_bytes == 0 {
                self.stream.as_mut().set_read_timeout_pinned(None);
            }
        }
        polled
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
