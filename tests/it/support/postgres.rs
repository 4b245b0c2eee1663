//! Throwaway PostgreSQL servers: a cluster of their own in a temporary directory, on a free port of this machine.
//!
//! No server is left behind, however the tests end. Beside each cluster runs a *keeper*, a shell that waits for the end of its
//! standard input. That comes when the [`Postgres`] is dropped, and also when the whole test process is gone, killed or not. Then
//! the keeper stops the server and removes the directory. (The kernel's parent-death signal would not do: it fires when the
//! *thread* ends that started the child, and tests are threads.)
//!
//! PostgreSQL refuses to run as root, so under root it runs as the user `postgres`.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database, DatabaseBackend, Statement};

/// The superuser of the throwaway cluster.
const USER: &str = "windfall";

/// `$1` is the cluster's directory. Each line of the input is the server's process id, or empty while there is none.
const KEEPER: &str = r#"
server=
while read -r line; do server=$line; done
if [ -n "$server" ]; then
    kill -QUIT "$server"
    kill -CONT "$server" # It may be frozen. It kills its own processes, frozen or not.
    for _ in $(seq 100); do kill -0 "$server" || break; sleep 0.1; done
fi
rm -rf "$1"
"#;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// As in production.
    Fsync,
    /// For tests that need only answers.
    Relaxed,
}

/// A server and its cluster.
pub(crate) struct Postgres {
    cluster: Cluster,
    durability: Durability,
    port: u16,
    server: Option<Child>,
    databases: AtomicU32,
}

impl Postgres {
    /// The one server that most tests share. It stops with the test process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Durability::Relaxed))
    }

    /// A server of one's own, to be killed and started again.
    pub(crate) fn start(durability: Durability) -> Self {
        let cluster = Cluster::create();
        cluster.init();
        Self::run(cluster, durability)
    }

    /// A standby of the server at this address, from where it goes on streaming. What that commits waits for nobody.
    pub(crate) fn standby_of(address: SocketAddr, durability: Durability) -> Self {
        let cluster = Cluster::create();
        cluster.copy(address);
        Self::run(cluster, durability)
    }

    fn run(cluster: Cluster, durability: Durability) -> Self {
        let mut postgres = Self { cluster, durability, port: 0, server: None, databases: AtomicU32::new(0) };
        // Between finding a free port and using it, another process may take it.
        for _ in 0..5 {
            postgres.port = free_port();
            if postgres.try_start() {
                return postgres;
            }
        }
        panic!("PostgreSQL does not start:\n{}", postgres.cluster.log());
    }

    /// Makes an empty database and returns its URL.
    pub(crate) async fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let connection = Database::connect(self.url("postgres")).await.expect("a connection to the test server");
        connection.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("an empty database");
        connection.close().await.expect("a closed connection");
        self.url(&name)
    }

    /// A copy of a database that nobody uses, as it is now.
    pub(crate) async fn copy_database(&self, url: &str) -> String {
        let original = url.rsplit('/').next().expect("a database's name");
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let connection = Database::connect(self.url("postgres")).await.expect("a connection to the test server");
        let sql = format!("CREATE DATABASE {name} TEMPLATE {original}");
        connection.execute_unprepared(&sql).await.expect("a copy");
        connection.close().await.expect("a closed connection");
        self.url(&name)
    }

    /// Puts a copy in a database's place, under whoever uses that: their connections break.
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

    /// From now on a commit waits for the standby, of which there is one.
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

    /// Until the standby has all that is here.
    pub(crate) async fn is_followed(&self) {
        let connection = Database::connect(self.url("postgres")).await.expect("a connection to the test server");
        let sql = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()";
        while connection.query_one_raw(statement(sql)).await.expect("an answer").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        connection.close().await.expect("a closed connection");
    }

    /// Makes a standby the primary.
    pub(crate) async fn promote(&self) {
        let connection = Database::connect(self.url("postgres")).await.expect("a connection to the test server");
        connection.query_one_raw(statement("SELECT pg_promote()")).await.expect("a primary");
        connection.close().await.expect("a closed connection");
    }

    /// Ends the server as the machine's crash would: no shutdown, no checkpoint. The cluster stays as it is.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("a process of our own");
            // Before the wait: after it the number may belong to another process.
            self.cluster.keep(None);
            server.wait().expect("a process of our own");
        }
    }

    /// Starts the server again after [`kill9`](Self::kill9), on the same port and cluster.
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "it still runs");
        // The first attempts may find that processes of the killed server have not ended yet.
        let started = (0..50).any(|_| self.try_start());
        assert!(started, "PostgreSQL does not start again:\n{}", self.cluster.log());
    }

    /// Stops the server and all its processes until the test ends. Its connections stay open.
    pub(crate) fn freeze(&self) {
        let server = self.server.as_ref().expect("it runs").id();
        let stop =
            |pid: u32| Command::new("kill").args(["-STOP", &pid.to_string()]).status().expect("kill can be executed");
        // First the one that starts others.
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

    fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Whether the server is up in the end.
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
        self.cluster.keep(Some(server.id()));

        for _ in 0..3000 {
            if server.try_wait().expect("a process of our own").is_some() {
                self.cluster.keep(None);
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
        self.cluster.release();
        if let Some(mut server) = self.server.take() {
            server.wait().expect("a process of our own");
        }
        self.cluster.keeper.wait().expect("a process of our own");
    }
}

/// A cluster's directory and its keeper.
struct Cluster {
    directory: PathBuf,
    binaries: PathBuf,
    /// Under root: the user and group to run as.
    owner: Option<(u32, u32)>,
    keeper: Child,
}

impl Cluster {
    fn create() -> Self {
        let binaries = find_binaries();
        let directory = tempfile::tempdir().expect("a temporary directory").keep();
        let is_root = fs::metadata(&directory).expect("our directory").uid() == 0;
        let owner = is_root.then(|| (id("-u"), id("-g")));
        if let Some((user, group)) = owner {
            chown(&directory, Some(user), Some(group)).expect("root may do that");
        }
        // In a process group of its own: Ctrl-C must end the tests, not the keeper.
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a shell");
        Self { directory, binaries, owner, keeper }
    }

    /// Copies the cluster of the server at this address, to follow it there.
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
        // Order by the rules of a language, unlike our byte order, so that a forgotten COLLATE "C" shows.
        let help =
            self.command("initdb").arg("--help").stdout(Stdio::piped()).output().expect("initdb can be executed");
        if String::from_utf8_lossy(&help.stdout).contains("--icu-locale") {
            initdb.args(["--locale-provider", "icu", "--icu-locale", "en"]);
        }
        let made = initdb.status().expect("initdb can be executed").success();
        assert!(made, "initdb failed:\n{}", self.log());
    }

    /// One of PostgreSQL's programs, as the right user, with its output going to the log.
    fn command(&self, program: &str) -> Command {
        let log = || {
            let log = self.directory.join("log");
            let file = fs::File::options().create(true).append(true).open(log).expect("our directory");
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

    /// Whether the server with this process id takes connections, as it says in its lock file (lines 1 and 8).
    fn is_ready(&self, server: u32) -> bool {
        let lock = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<_> = lock.lines().map(str::trim).collect();
        lines.first() == Some(&server.to_string().as_str())
            && lines.get(7).is_some_and(|state| ["ready", "standby"].contains(state))
    }

    /// Tells the keeper which server to stop in the end.
    fn keep(&mut self, server: Option<u32>) {
        let line = server.map_or_else(String::new, |pid| pid.to_string());
        let input = self.keeper.stdin.as_mut().expect("it is open until the end");
        writeln!(input, "{line}").expect("the keeper listens");
    }

    /// Lets the keeper end everything.
    fn release(&mut self) {
        drop(self.keeper.stdin.take());
    }
}

/// Where PostgreSQL's programs are: in the PATH, or where Debian keeps them, the newest first. Fails loudly: a test that silently
/// does nothing without PostgreSQL would prove nothing.
fn find_binaries() -> PathBuf {
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    versions.sort_by_key(|entry| std::cmp::Reverse(entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0)));
    std::env::split_paths(&in_path)
        .chain(versions.into_iter().map(|entry| entry.path().join("bin")))
        .find(|directory| ["initdb", "postgres"].iter().all(|program| directory.join(program).is_file()))
        // Where the others are, if these are links.
        .and_then(|directory| Some(directory.join("postgres").canonicalize().ok()?.parent()?.to_owned()))
        .expect("PostgreSQL must be installed to run these tests: scripts/test does it")
}

/// The number of the user or group `postgres`.
fn id(which: &str) -> u32 {
    let output = Command::new("id").args([which, "postgres"]).output().expect("id can be executed");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().expect("PostgreSQL refuses to run as root, and there is no user `postgres` to run as")
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("a list of processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // The parent's id is the second field behind the name, which may contain anything.
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
