//! `windfall serve`: runs the server until SIGINT or SIGTERM. `windfall demo` runs the same server.

use std::fmt;
use std::fs::File;
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{sqlite_file, start_app};
use crate::app::App;
use crate::app::clock::Clock;
use crate::app::jobs::{relay, runner};
use crate::app::reading::sweep;
use crate::app::waiting_fact;
use crate::config::{self, Config};
use crate::http;
use crate::http::auth::Verifier;
use crate::http::router::{Routes, router};
use crate::ingest::{events, topics};

/// The length of a SHA-256 hash, and of the shortest HS256 key that RFC 7518, 3.2 allows.
pub(super) const HS256_KEY_BYTES: usize = 32;

/// Run the server until it is interrupted. It then finishes the requests that it has accepted, and stops.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    check_keys(&config.auth)?;
    for key in short_secrets(&config.auth) {
        tracing::warn!("the configuration key {key}");
    }
    if config.writer.sets_writers {
        tracing::warn!(
            "the configuration key `writer.writers` (WINDFALL__WRITER__WRITERS) has no effect any more: remove it"
        );
    }
    topics::check_build(config.kafka.as_ref(), topics::HAS_CLIENT)?;
    let _lock = lock_file(config)?;
    let verifier = Verifier::new(&config.auth, Clock::System.now().0).await?;
    http::metrics::record();
    let app = start_app(config).await?;
    let listener = TcpListener::bind(config.http.listen)
        .await
        .with_context(|| format!("`http.listen`: cannot listen on {}", config.http.listen))?;
    let internal = match config.http.internal_listen {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("`http.internal_listen`: cannot listen on {address}"))?,
        ),
        None => None,
    };
    let mut server = Server::new(app, verifier, listener, config)?;
    writeln!(stdout(), "listening on http://{}", server.listener.local_addr()?)?;
    if let Some(internal) = internal {
        tracing::info!(address = %internal.local_addr()?, "health and metrics are served on a separate listener as well");
        server.internal = Some(internal);
    }
    server.run(config).await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// A server that is ready to run and has not accepted a connection yet.
pub(super) struct Server {
    app: Arc<App>,
    listener: TcpListener,
    /// A second listener, which serves health and metrics only.
    internal: Option<TcpListener>,
    routes: Routes,
    sockets: TaskTracker,
}

impl Server {
    /// Builds the routes. From now on, SIGINT or SIGTERM stops the application and with it the server.
    pub(super) fn new(
        app: Arc<App>,
        verifier: Verifier,
        listener: TcpListener,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let sockets = TaskTracker::new();
        let routes = router(Arc::clone(&app), verifier, config, sockets.clone())?;
        // Whoever reads the printed address may send a signal, so signals must be handled before the address is printed.
        tokio::spawn(stop_on_signal(Signals::listen()?, app.stopping.clone()));
        Ok(Self { app, listener, internal: None, routes, sockets })
    }

    /// Serves until the application stops, then finishes and commits the requests that were accepted. Fails if that takes
    /// longer than `http.stop_timeout_ms`, because a database that does not respond would keep the process alive for ever.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let (stop, stop_timeout) = (self.app.stopping.clone(), config.http.stop_timeout);
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(stop_timeout).await;
        };
        tokio::select! {
            stopped = self.serve(config) => stopped,
            () = late => {
                tracing::error!("the stop takes longer than {stop_timeout:?}: unfinished work is given up");
                anyhow::bail!("the server did not stop within {stop_timeout:?} (`http.stop_timeout_ms`)")
            }
        }
    }

    async fn serve(self, config: &Config) -> anyhow::Result<()> {
        let Self { app, listener, internal, routes, sockets } = self;
        let stop = app.stopping.clone();
        events::prepare(&app, config.kafka.as_ref()).await?;
        let jobs = tokio::spawn(runner::run(Arc::clone(&app), stop.clone()));
        let relay = tokio::spawn(relay::run(Arc::clone(&app), stop.clone()));
        let sweep = tokio::spawn(sweep::run(Arc::clone(&app), stop.clone()));
        let waiting = tokio::spawn(waiting_fact::run(Arc::clone(&app), stop.clone()));
        let topics = topics::start(&app, config.kafka.as_ref())?;
        let watched = internal.map(|listener| {
            let (app, http, stop) = (Arc::clone(&app), config.http.clone(), stop.clone());
            tokio::spawn(async move { http::serve_internal(http::router::internal(app), listener, &http, stop).await })
        });
        http::serve(routes, listener, &config.http, sockets, stop).await;
        if let Some(watched) = watched {
            watched.await?;
        }
        let (jobs, relay, sweep, waiting) = (jobs.await, relay.await, sweep.await, waiting.await);
        // What is in a commit is finished, so this precedes the end of the write path.
        if let Some(topics) = topics {
            let _ = tokio::task::spawn_blocking(|| topics.join()).await?;
        }
        let format = if app.is_outdated() { app.check_format().await } else { Ok(()) };
        // The application is stopped even if one of these tasks panicked.
        app.stop().await?;
        jobs?;
        relay?;
        sweep?;
        waiting?;
        Ok(format?)
    }
}

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
    tracing::info!("stopping: the requests that were accepted are finished first");
    stop.cancel();
}

/// Fails if no key is configured that could verify a token.
pub(super) fn check_keys(auth: &config::Auth) -> anyhow::Result<()> {
    anyhow::ensure!(
        auth.hs256_secret.is_some() || auth.public_keys.is_some(),
        "no token could be verified: set `auth.hs256_secret` (WINDFALL__AUTH__HS256_SECRET) or \
         `auth.jwks` (WINDFALL__AUTH__JWKS)"
    );
    Ok(())
}

/// A secret that is shorter than RFC 7518, 3.2 allows. It is used nevertheless.
pub(super) struct ShortSecret {
    /// The name of the key in the section `auth`.
    pub(super) name: &'static str,
    pub(super) bytes: usize,
}

impl fmt::Display for ShortSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`auth.{}` (WINDFALL__AUTH__{}) has fewer than {HS256_KEY_BYTES} bytes: whoever guesses it can forge tokens",
            self.name,
            self.name.to_uppercase()
        )
    }
}

/// Returns the secrets that are too short.
pub(super) fn short_secrets(auth: &config::Auth) -> Vec<ShortSecret> {
    let secrets = [("hs256_secret", &auth.hs256_secret), ("hs256_secret_previous", &auth.hs256_secret_previous)];
    let sizes = secrets.into_iter().filter_map(|(name, secret)| Some((name, secret.as_ref()?.expose().len())));
    let short = sizes.filter(|(_, bytes)| *bytes < HS256_KEY_BYTES);
    short.map(|(name, bytes)| ShortSecret { name, bytes }).collect()
}

/// Locks an SQLite file so that only one server runs on it. The writes of two servers would compete for SQLite's one write lock
/// instead of waiting in one fair queue. The lock ends with the process, however the process ends. Returns `None` for
/// PostgreSQL.
pub(super) fn lock_file(config: &Config) -> anyhow::Result<Option<File>> {
    let Some(path) = sqlite_file(&config.database) else { return Ok(None) };
    let path = PathBuf::from(format!("{path}.lock"));
    let file = File::create(&path).with_context(|| format!("{} cannot be created", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(_) => anyhow::bail!("another `windfall serve` has this database open ({} is locked)", path.display()),
    }
}
