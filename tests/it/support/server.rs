//! Real processes of the program: `windfall serve` and other subcommands, tokens for them, and GraphQL requests.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windfall::app::clock::Clock;
use windfall::cli::token::mint;
use windfall::config::Auth;
use windfall::http::auth::Role;

use super::websocket::PATIENCE;

pub(crate) const SECRET: &str = "a secret of this test alone, with more than 32 bytes";

pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    /// The time from the start of the process until it reports ready.
    pub(crate) ready_after: Duration,
}

/// The build of the program in `WINDFALL_BINARY`, which is tested in place of the one that was built with these tests.
pub(crate) fn other_build() -> Option<PathBuf> {
    std::env::var_os("WINDFALL_BINARY").map(PathBuf::from)
}

/// How long a server waits for a request that its client has not sent yet. On a busy machine, a client of these tests
/// may be slow. A shorter timeout would fail tests that are about something else.
const HEAD_TIMEOUT_MS: &str = "600000";

/// A command that runs the program under test on a database. The caller adds the subcommand.
pub(crate) fn command(database_url: &str) -> Command {
    let mut command = Command::new(other_build().unwrap_or(env!("CARGO_BIN_EXE_windfall").into()));
    command
        .env("WINDFALL__DATABASE__URL", database_url)
        .env("WINDFALL__AUTH__HS256_SECRET", SECRET)
        .env("WINDFALL__HTTP__LISTEN", "127.0.0.1:0")
        .env("WINDFALL__HTTP__HEAD_TIMEOUT_MS", HEAD_TIMEOUT_MS)
        .env("WINDFALL__LOG__FILTER", "warn")
        // Errors are compared as users see them.
        .env("RUST_BACKTRACE", "0")
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null());
    command
}

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code. `None` if a signal ended the program.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    ended(command.output().unwrap())
}

pub(crate) fn ended(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Sends a signal to a child process. `name` is, for example, `TERM`.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// A token that is valid for longer than the test runs.
pub(crate) fn token(role: Role, subject: &str) -> String {
    token_for(role, subject, Duration::from_secs(3_600))
}

/// A token that was signed with this secret.
pub(crate) fn token_by(secret: &str, role: Role, subject: &str) -> String {
    token_of(secret, role, subject, Duration::from_secs(3_600))
}

/// A token that is valid for a number of whole seconds, counted from the last full second.
pub(crate) fn token_for(role: Role, subject: &str, span: Duration) -> String {
    token_of(SECRET, role, subject, span)
}

fn token_of(secret: &str, role: Role, subject: &str, span: Duration) -> String {
    let auth = Auth {
        hs256_secret: Some(secret.to_owned().into()),
        hs256_secret_previous: None,
        public_keys: None,
        issuer: "windfall".into(),
        audience: "windfall".into(),
        leeway: Duration::ZERO,
    };
    mint(&auth, role, subject, span, Clock::System.now().0).unwrap()
}

impl Server {
    pub(crate) async fn start(database_url: &str) -> Self {
        Self::start_with(&mut command(database_url)).await.0
    }

    /// Starts a server with a prepared command and waits until it is ready. The second value is its standard error, if
    /// that is piped.
    pub(crate) async fn start_with(command: &mut Command) -> (Self, Option<ChildStderr>) {
        let started = now();
        let mut child = command.arg("serve").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().expect("a first line").unwrap();
        let address = line.strip_prefix("listening on ").expect("`listening on` and the address").to_owned();
        while reqwest::get(format!("{address}/readyz")).await.is_ok_and(|answer| !answer.status().is_success()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let stderr = child.stderr.take();
        (Self { child, address, ready_after: started.elapsed() }, stderr)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process without warning, as a power cut does.
    pub(crate) fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops the server with SIGTERM, as an operator does, and waits for its end.
    pub(crate) fn terminate(self) -> std::process::ExitStatus {
        self.ask_to_stop();
        self.end()
    }

    pub(crate) fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits until the process has stopped by itself.
    pub(crate) async fn stops(mut self) -> std::process::ExitStatus {
        let stopped = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, stopped).await.expect("the server stops by itself in time")
    }

    /// Waits until the process has ended.
    pub(crate) fn end(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a process took, for people to read")]
fn now() -> Instant {
    Instant::now()
}

/// Sends a GraphQL request and returns the response. `None` if the server did not respond.
pub(crate) async fn ask(
    client: &reqwest::Client,
    address: &str,
    token: &str,
    query: &str,
    variables: Value,
) -> Option<Value> {
    let body = json!({ "query": query, "variables": variables });
    let request = client.post(format!("{address}/graphql")).bearer_auth(token).json(&body);
    request.send().await.ok()?.json().await.ok()
}
