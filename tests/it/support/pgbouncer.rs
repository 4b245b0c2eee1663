//! A throwaway PgBouncer in front of a test server.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::daemon::Daemon;
use super::postgres::{Postgres, USER, owner};
use super::redis::next_port;

/// The most sessions of PostgreSQL that the pooler opens for one database.
pub(crate) const SESSIONS: usize = 4;

pub(crate) struct PgBouncer {
    _daemon: Daemon,
    port: u16,
}

impl PgBouncer {
    /// Starts a pooler that gives each transaction the next free session. It accepts only what PgBouncer accepts by default.
    pub(crate) fn start(postgres: &Postgres) -> Self {
        Self::start_with(postgres, "pool_mode = transaction\n")
    }

    /// Starts a pooler that gives each client a session, and that ignores the settings that a client asks for.
    pub(crate) fn of_sessions(postgres: &Postgres) -> Self {
        Self::start_with(postgres, "pool_mode = session\nignore_startup_parameters = extra_float_digits,options\n")
    }

    fn start_with(postgres: &Postgres, mode: &str) -> Self {
        // Another process may listen on the port.
        for _ in 0..20 {
            let port = next_port();
            let directory = tempfile::tempdir().expect("a temporary directory").keep();
            let settings = format!(
                "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 auth_type = trust\nauth_file = users\nunix_socket_dir =\n{mode}\
                 default_pool_size = {SESSIONS}\nmax_client_conn = 200\n",
                postgres.port()
            );
            fs::write(directory.join("settings"), settings).expect("a directory of this test");
            fs::write(directory.join("users"), format!("\"{USER}\" \"\"\n")).expect("a directory of this test");
            let path = std::env::var("PATH").unwrap_or_default();
            let mut command = Command::new("pgbouncer");
            // Debian puts it where only root looks.
            command.env("PATH", format!("{path}:/usr/sbin")).arg("settings");
            // It refuses to run as root.
            if fs::metadata(&directory).expect("a directory of this test").uid() == 0 {
                let (user, group) = owner();
                chown(&directory, Some(user), Some(group)).expect("root can change the owner");
                command.uid(user).gid(group);
            }
            if let Some(daemon) = Daemon::start(directory, &mut command, port) {
                return Self { _daemon: daemon, port };
            }
        }
        panic!("PgBouncer does not start");
    }

    /// The URL of the same database behind the pooler.
    pub(crate) fn url(&self, url: &str) -> String {
        let database = url.rsplit('/').next().expect("a database's name");
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }
}
