//! `windfall serve`: the server.

use std::fs::File;
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{sqlite_file, start_app};
use crate::app::App;
use crate::app::clock::Clock;
use crate::app::jobs::runner;
use crate::app::reading::sweep;
use crate::config::{self, Config};
use crate::http;
use crate::http::auth::Verifier;
use crate::http::router::router;

/// Bytes of SHA-256.
const HS256_KEY_BYTES: usize = 32;

/// Run the server until it is interrupted. It answers what it has accepted, then stops.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    if config.auth.hs256_secret.is_none() && config.auth.public_keys.is_none() {
        anyhow::bail!(
            "nobody could be let in: set `auth.hs256_secret` (WINDFALL__AUTH__HS256_SECRET) or \
             `auth.jwks` (WINDFALL__AUTH__JWKS)"
        );
    }
    warn_of_short_secret(&config.auth);
    let _lock = lock_file(config)?;
    let verifier = Verifier::new(&config.auth, Clock::System.now().0).await?;
    http::metrics::record();
    let app = start_app(config).await?;
    let listener = TcpListener::bind(config.http.listen)
        .await
        .with_context(|| format!("`http.listen`: {} cannot be listened on", config.http.listen))?;
    let internal = match config.http.internal_listen {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("`http.internal_listen`: {address} cannot be listened on"))?,
        ),
        None => None,
    };
    let mut server = Server::new(app, verifier, listener, config)?;
    writeln!(stdout(), "listening on http://{}", server.listener.local_addr()?)?;
    if let Some(internal) = internal {
        tracing::info!(address = %internal.local_addr()?, "health and metrics have a listener of their own");
        server.internal = Some(internal);
    }
    server.run(config).await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Everything that a server consists of, before it takes its first request.
pub(super) struct Server {
    app: Arc<App>,
    listener: TcpListener,
    /// For health and metrics alone.
    internal: Option<TcpListener>,
    router: Router,
    sockets: TaskTracker,
}

impl Server {
    /// It stops when the application does: when it is told to by a signal, from now on.
    pub(super) fn new(
        app: Arc<App>,
        verifier: Verifier,
        listener: TcpListener,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let sockets = TaskTracker::new();
        let router = router(Arc::clone(&app), verifier, config, sockets.clone())?;
        // Before anybody knows that the server is there: who sees its address may stop it.
        tokio::spawn(stop_on_signal(Signals::listen()?, app.stopping.clone()));
        Ok(Self { app, listener, internal: None, router, sockets })
    }

    /// Serves until it is stopped; what was accepted is answered and committed then. Fails where that takes too long: a
    /// database that does not answer would hold the process for ever.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let (stop, stop_timeout) = (self.app.stopping.clone(), config.http.stop_timeout);
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(stop_timeout).await;
        };
        tokio::select! {
            stopped = self.serve(config) => stopped,
            () = late => {
                tracing::error!("the stop takes longer than {stop_timeout:?}: what is not finished is given up");
                anyhow::bail!("the server did not stop within {stop_timeout:?} (`http.stop_timeout_ms`)")
            }
        }
    }

    async fn serve(self, config: &Config) -> anyhow::Result<()> {
        let Self { app, listener, internal, router, sockets } = self;
        let stop = app.stopping.clone();
        let jobs = tokio::spawn(runner::run(Arc::clone(&app), stop.clone()));
        let sweep = tokio::spawn(sweep::run(Arc::clone(&app), stop.clone()));
        let watched = internal.map(|listener| {
            let (app, http, stop) = (Arc::clone(&app), config.http.clone(), stop.clone());
            tokio::spawn(async move { http::serve_internal(http::router::internal(app), listener, &http, stop).await })
        });
        http::serve(router, listener, &config.http, sockets, stop).await;
        if let Some(watched) = watched {
            watched.await?;
        }
        let (jobs, sweep) = (jobs.await, sweep.await);
        let format = if app.is_outdated() { app.check_format().await } else { Ok(()) };
        // Whatever became of these.
        app.stop().await?;
        jobs?;
        sweep?;
        Ok(format?)
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }
}

async fn stop_on_signal(mut signals: Signals, stop: CancellationToken) {
    tokio::select! {
        _ = signals.terminate.recv() => {}
        _ = signals.interrupt.recv() => {}
    }
    tracing::info!("stopping: what was accepted is answered first");
    stop.cancel();
}

/// RFC 7518, 3.2: a key of at least the hash's size.
fn warn_of_short_secret(auth: &config::Auth) {
    if auth.hs256_secret.as_ref().is_some_and(|secret| secret.expose().len() < HS256_KEY_BYTES) {
        tracing::warn!(
            "the configuration key `auth.hs256_secret` (WINDFALL__AUTH__HS256_SECRET) has fewer than \
             {HS256_KEY_BYTES} bytes: tokens can be forged by whoever guesses it"
        );
    }
}

/// One `serve` per SQLite file: two would each take the queue's order for the whole truth. The lock goes with the
/// process, however it ends.
pub(super) fn lock_file(config: &Config) -> anyhow::Result<Option<File>> {
    let Some(path) = sqlite_file(&config.database) else { return Ok(None) };
    let path = PathBuf::from(format!("{path}.lock"));
    let file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(_) => anyhow::bail!("another `windfall serve` has this database open ({} is locked)", path.display()),
    }
}
