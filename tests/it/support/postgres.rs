//! Throwaway PostgreSQL servers. Each has a cluster of its own in a temporary directory and a free port of this
//! machine.
//!
//! No server is left behind, however the tests end: beside each cluster runs a [`Keeper`].
//!
//! PostgreSQL refuses to run as root, so under root it runs as the user `postgres`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database, DatabaseBackend, Statement};

use super::keeper::Keeper;

pub(crate) const USER: &str = "windfall";

/// The script of the keeper, which stops the server in the way that ends all of its processes.
const STOP: &str = r#"
server=
while read -r line; do server=$line; done
if [ -n "$server" ]; then
    kill -QUIT "$server"
    kill -CONT "$server" # The server may be frozen. It kills its own processes even if they are frozen.
    for _ in $(seq 100); do kill -0 "$server" || break; sleep 0.1; done
fi
rm -rf "$1"
"#;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// A commit waits for the disk, as in production.
    Fsync,
    /// A commit does not wait, which is faster. Data can be lost in a crash.
    Relaxed,
}

/// A server with its cluster.
pub(crate) struct Postgres {
    cluster: Cluster,
    durability: Durability,
    port: u16,
    server: Option<Child>,
    databases: AtomicU32,
}

impl Postgres {
    /// The server that most tests share. It stops with the test process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Durability::Relaxed))
    }

    /// Starts a server that the test does not share, so that the test may kill and restart it.
    pub(crate) fn start(durability: Durability) -> Self {
        let cluster = Cluster::create();
        cluster.init();
        Self::run(cluster, durability)
    }

    /// Starts a server whose data directory was changed by `prepare`.
    pub(crate) fn start_prepared(prepare: impl FnOnce(&Path)) -> Self {
        let cluster = Cluster::create();
        cluster.init();
        prepare(&cluster.data());
        if let Some((user, group)) = cluster.owner {
            for file in fs::read_dir(cluster.data()).expect("the directory of the data").flatten() {
                chown(file.path(), Some(user), Some(group)).expect("root can change the owner");
            }
        }
        Self::run(cluster, Durability::Relaxed)
    }

    /// Starts a standby that streams from the server at this address. Commits of that server do not wait for the
    /// standby.
    pub(crate) fn standby_of(address: SocketAddr, durability: Durability) -> Self {
        let cluster = Cluster::create();
        cluster.copy(address);
        Self::run(cluster, durability)
    }

    fn run(cluster: Cluster, durability: Durability) -> Self {
        let mut postgres = Self { cluster, durability, port: 0, server: None, databases: AtomicU32::new(0) };
        // Another process may take the free port before the server uses it.
        for _ in 0..5 {
            postgres.port = free_port();
            if postgres.try_start() {
                return postgres;
            }
        }
        panic!("PostgreSQL does not start:\n{}", postgres.cluster.log());
    }

    /// Creates an empty database and returns its URL.
    pub(crate) async fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let connection = Database::connect(self.url("postgres")).await.expect("a connection to the test server");
        connection.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("an empty database");
        connection.close().await.expect("a closed connection");
        self.url(&name)
    }

    /// Copies a database as it is now, and returns the URL of the copy. Nobody may be connected to the original.
    pub(crate) async fn copy_database(&self, url: &str) -> String {
        let original = url.rsplit('/').next().expect("a database's name");
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let connection = Database::connect(self.url("postgres")).await.expect("a connection to the test server");
        let sql = format!("CREATE DATABASE {name} TEMPLATE {original}");
        connection.execute_unprepared(&sql).await.expect("a copy");
        connection.close().await.expect("a closed connection");
        self.url(&name)
    }

    /// Replaces a database by a copy of it, even if it is in use. The connections of its users break.
    pub(crate) async fn rewind_database(&self, url: &str, copy: &str) {
        let name = |url: &str| url.rsplit('/').next().expect("a database's name").to_owned();
        let (original, copy) = (name(url), name(copy));
        let connection = Database::connect(self.url("postgres")).await.expect("a connection to the test server");
        for sql in
            [format!("DROP DATABASE {original} WITH (FORCE)"), format!("CREATE DATABASE {original} TEMPLATE {copy}")]
        {
            connection.execute_unprepared(&sql).await.expect("a database that is replaced");
        }
        connection.close().await.expect("a closed connection");
    }

    /// Makes commits wait for the standby from now on, and waits until the standby is synchronous. There must be one
    /// standby.
    pub(crate) async fn wait_for_standby(&self) {
        let connection = Database::connect(self.url("postgres")).await.expect("a connection to the test server");
        let run = async |sql: &str| connection.execute_unprepared(sql).await.expect("a statement that works");
        run("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
        run("SELECT pg_reload_conf()").await;
        let sql = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
        while connection.query_one_raw(statement(sql)).await.expect("an answer").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        connection.close().await.expect("a closed connection");
    }

    /// Waits until the standby has applied everything that this server has written.
    pub(crate) async fn is_followed(&self) {
        let connection = Database::connect(self.url("postgres")).await.expect("a connection to the test server");
        let sql = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()";
        while connection.query_one_raw(statement(sql)).await.expect("an answer").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        connection.close().await.expect("a closed connection");
    }

    /// Promotes this standby to a primary.
    pub(crate) async fn promote(&self) {
        let connection = Database::connect(self.url("postgres")).await.expect("a connection to the test server");
        connection.query_one_raw(statement("SELECT pg_promote()")).await.expect("a primary");
        connection.close().await.expect("a closed connection");
    }

    /// Kills the server as a crash of the machine does: no shutdown, no checkpoint. The cluster stays as it is.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("a child of this process");
            // Before `wait`, because afterwards the process id may belong to another process.
            self.cluster.keeper.keep(None);
            server.wait().expect("a child of this process");
        }
    }

    /// Starts the server again after [`kill9`](Self::kill9), on the same port and cluster.
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "the server still runs");
        // The first attempts may fail because processes of the killed server have not ended yet.
        let started = (0..50).any(|_| self.try_start());
        assert!(started, "PostgreSQL does not start again:\n{}", self.cluster.log());
    }

    /// Freezes the server and all its processes with SIGSTOP, until the test ends. Its connections stay open.
    pub(crate) fn freeze(&self) {
        let server = self.server.as_ref().expect("the server runs").id();
        let stop =
            |pid: u32| Command::new("kill").args(["-STOP", &pid.to_string()]).status().expect("kill can be executed");
        // First the process that starts the others.
        stop(server);
        children(server).into_iter().for_each(|pid| {
            stop(pid);
        });
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Starts the server and waits until it is ready. Returns false if it ends instead, for example because the port is
    /// taken.
    fn try_start(&mut self) -> bool {
        let onoff = if self.durability == Durability::Fsync { "on" } else { "off" };
        let mut command = self.cluster.command("postgres");
        command.arg("-D").arg(self.cluster.data()).arg("-p").arg(self.port.to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "max_connections=400",
            "shared_buffers=128MB",
            &format!("unix_socket_directories={}", self.cluster.directory.display()),
            &format!("fsync={onoff}"),
            &format!("synchronous_commit={onoff}"),
            &format!("full_page_writes={onoff}"),
        ] {
            command.args(["-c", setting]);
        }
        let mut server = command.spawn().expect("postgres can be executed");
        self.cluster.keeper.keep(Some(server.id()));

        for _ in 0..3000 {
            if server.try_wait().expect("a child of this process").is_some() {
                self.cluster.keeper.keep(None);
                return false;
            }
            if self.cluster.is_ready(server.id()) {
                self.server = Some(server);
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.server = Some(server);
        panic!("PostgreSQL is not up after a minute:\n{}", self.cluster.log());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.cluster.keeper.release();
        if let Some(mut server) = self.server.take() {
            server.wait().expect("a child of this process");
        }
        self.cluster.keeper.wait();
    }
}

/// The directory of a cluster and its keeper.
struct Cluster {
    directory: PathBuf,
    binaries: PathBuf,
    /// The user and group that the server runs as, if the tests run as root.
    owner: Option<(u32, u32)>,
    keeper: Keeper,
}

impl Cluster {
    fn create() -> Self {
        let binaries = find_binaries();
        let directory = tempfile::tempdir().expect("a temporary directory").keep();
        let is_root = fs::metadata(&directory).expect("a directory of this test").uid() == 0;
        let owner = is_root.then(owner);
        if let Some((user, group)) = owner {
            chown(&directory, Some(user), Some(group)).expect("root can change the owner");
        }
        let keeper = Keeper::start(STOP, &directory);
        Self { directory, binaries, owner, keeper }
    }

    /// Copies the cluster of the server at this address, set up as its standby.
    fn copy(&self, address: SocketAddr) {
        let mut copy = self.command("pg_basebackup");
        copy.arg("-D").arg(self.data()).args(["--host", &address.ip().to_string(), "--port"]);
        copy.arg(address.port().to_string()).args(["--username", USER, "--write-recovery-conf"]);
        let made = copy.args(["--checkpoint", "fast", "--no-sync"]).status().expect("pg_basebackup can be executed");
        assert!(made.success(), "pg_basebackup failed:\n{}", self.log());
    }

    fn init(&self) {
        let mut initdb = self.command("initdb");
        initdb.arg("-D").arg(self.data()).args(["--username", USER, "--auth", "trust", "--encoding", "UTF8"]);
        initdb.args(["--locale", "C.UTF-8", "--no-sync"]);
        // Strings are ordered by the rules of a language, not by bytes, so that a forgotten COLLATE "C" shows.
        let help =
            self.command("initdb").arg("--help").stdout(Stdio::piped()).output().expect("initdb can be executed");
        if String::from_utf8_lossy(&help.stdout).contains("--icu-locale") {
            initdb.args(["--locale-provider", "icu", "--icu-locale", "en"]);
        }
        let made = initdb.status().expect("initdb can be executed").success();
        assert!(made, "initdb failed:\n{}", self.log());
    }

    /// A command that runs a program of PostgreSQL as the right user. Its output goes to the log.
    fn command(&self, program: &str) -> Command {
        let log = || {
            let log = self.directory.join("log");
            let file = fs::File::options().create(true).append(true).open(log).expect("a directory of this test");
            Stdio::from(file)
        };
        let mut command = Command::new(self.binaries.join(program));
        command.current_dir(&self.directory).process_group(0);
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Whether the server with this process id takes connections, according to lines 1 and 8 of its lock file.
    fn is_ready(&self, server: u32) -> bool {
        let lock = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<_> = lock.lines().map(str::trim).collect();
        lines.first() == Some(&server.to_string().as_str())
            && lines.get(7).is_some_and(|state| ["ready", "standby"].contains(state))
    }
}

/// The directory of PostgreSQL's programs: from the PATH, or the newest version where Debian installs it. Panics if it
/// is missing, because a test that skips itself would prove nothing.
fn find_binaries() -> PathBuf {
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    versions.sort_by_key(|entry| std::cmp::Reverse(entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0)));
    std::env::split_paths(&in_path)
        .chain(versions.into_iter().map(|entry| entry.path().join("bin")))
        .find(|directory| ["initdb", "postgres"].iter().all(|program| directory.join(program).is_file()))
        // If `postgres` is a link, the other programs are where it leads.
        .and_then(|directory| Some(directory.join("postgres").canonicalize().ok()?.parent()?.to_owned()))
        .expect("these tests need PostgreSQL; scripts/test installs it")
}

/// The user and group that servers run as which refuse to run as root.
pub(crate) fn owner() -> (u32, u32) {
    (id("-u"), id("-g"))
}

/// The id of the user (`-u`) or group (`-g`) of `postgres`.
fn id(which: &str) -> u32 {
    let output = Command::new("id").args([which, "postgres"]).output().expect("id can be executed");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().expect("PostgreSQL refuses to run as root, and there is no user `postgres` to run as")
}

/// The child processes of a process.
fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("a list of processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // The id of the parent is the second field after the name, which may contain anything.
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' ').nth(1) == Some(&parent.to_string()));
        fields.unwrap_or(false)
    };
    pids.filter(is_child).collect()
}

fn statement(sql: &str) -> Statement {
    Statement::from_string(DatabaseBackend::Postgres, sql)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound listener").port()
}
