//! Follows the password of the database, which may change in its file while the server runs (PostgreSQL).
//!
//! Connections that are open go on. Each new connection uses the password that was read last.

use std::time::Duration;

use sea_orm::sqlx::ConnectOptions as _;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::time::sleep;

use crate::config::{Login, Secret};

/// How often the file is read. For as long, new connections may use a password that is not valid any more.
const PERIOD: Duration = Duration::from_secs(1);

/// Reads the file again and again until the pool is closed. `session` adds the settings of a session.
pub(super) async fn follow(pool: PgPool, login: Login, session: impl Fn(PgConnectOptions) -> PgConnectOptions) {
    let following = async {
        let (mut last, mut complained) = (None, false);
        loop {
            // The first content may be newer than that with which the pool was opened.
            match read(&login).await.and_then(|text| renew(&pool, &login, &session, text, &mut last)) {
                Ok(()) => complained = false,
                Err(problem) if !complained => {
                    tracing::warn!(problem, "the login of the database is not renewed");
                    complained = true;
                }
                Err(_) => {}
            }
            sleep(PERIOD).await;
        }
    };
    tokio::select! {
        () = pool.close_event() => {}
        () = following => {}
    }
}

async fn read(login: &Login) -> Result<Secret, String> {
    let (Login::Url(file) | Login::Password(file)) = login.clone();
    let read = tokio::task::spawn_blocking(move || file.read()).await;
    read.map_err(|_| "the file was not read".to_owned())?.map_err(|error| error.to_string())
}

/// Makes new connections use what the file says, unless it says what it said before.
fn renew(
    pool: &PgPool,
    login: &Login,
    session: &impl Fn(PgConnectOptions) -> PgConnectOptions,
    text: Secret,
    last: &mut Option<Secret>,
) -> Result<(), String> {
    if last.as_ref() == Some(&text) {
        return Ok(());
    }
    let current = pool.connect_options();
    let renewed = match login {
        Login::Password(_) => current.as_ref().clone().password(text.expose()),
        Login::Url(file) => {
            let renewed: PgConnectOptions =
                text.expose().parse().map_err(|_| format!("`{}` does not contain a URL", file.key()))?;
            if place(&renewed) != place(&current) {
                // One process must not write to two databases.
                return Err(format!("`{}` names another database, which takes a restart", file.key()));
            }
            session(renewed.disable_statement_logging())
        }
    };
    pool.set_connect_options(renewed);
    if last.replace(text).is_some() {
        tracing::info!("the login of the database has changed");
    }
    Ok(())
}

/// The server and the database that options lead to.
fn place(options: &PgConnectOptions) -> impl PartialEq {
    let socket = options.get_socket().cloned();
    (options.get_host().to_owned(), options.get_port(), socket, options.get_database().map(str::to_owned))
}
