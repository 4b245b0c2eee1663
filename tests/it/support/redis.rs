//! Throwaway Redis servers. Each is a process with a port of its own and a temporary directory for what it saves.
//!
//! No server is left behind, however the tests end: beside each runs a [`Keeper`].
//!
//! The ports are below the range that Linux uses for outgoing connections. Such a port stays free while its server is
//! down, so connections to it are refused meanwhile. (In that range, a client that tries often enough is sometimes
//! given the very port that it connects to, and is then connected to itself.)

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::daemon::Daemon;
use super::keeper::{KILL, Keeper};
use super::server::signal;
use super::websocket::PATIENCE;

/// The settings of a cache: its memory is bounded, and it saves nothing.
const CACHE: [&str; 14] = [
    "--bind",
    "127.0.0.1",
    "--protected-mode",
    "no",
    "--save",
    "",
    "--appendonly",
    "no",
    "--maxmemory",
    "64mb",
    "--maxmemory-policy",
    "allkeys-lru",
    "--daemonize",
    "no",
];

/// The name of the file to which a server saves its content.
const DUMP: &str = "dump.rdb";

/// A server with its directory.
pub(crate) struct Redis {
    directory: PathBuf,
    keeper: Keeper,
    arguments: Vec<String>,
    port: u16,
    server: Option<Child>,
}

impl Redis {
    /// Starts an empty cache.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with additional arguments. If a setting is given twice, the last one counts. The server must not
    /// need a password, because [`command`](Self::command) sends none.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory").keep();
        let keeper = Keeper::start(KILL, &directory);
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut redis = Self { directory, keeper, arguments, port: 0, server: None };
        // Another process may listen on the port.
        for _ in 0..20 {
            redis.port = next_port();
            if redis.try_start() {
                return redis;
            }
        }
        panic!("Redis does not start:\n{}", redis.log());
    }

    /// The URL that clients connect to.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Kills the server as a crash does, even if it is suspended. From now on its port refuses connections.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("a child of this process");
            // Before `wait`, because afterwards the process id may belong to another process.
            self.keeper.keep(None);
            server.wait().expect("a child of this process");
        }
    }

    /// Starts the server again, empty and on the same port. If it runs, it is killed first.
    pub(crate) fn restart(&mut self) {
        self.kill();
        if let Err(error) = fs::remove_file(self.directory.join(DUMP)) {
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        }
        self.start_again();
    }

    /// Starts the server again on the same port, with the content that it [saved](Self::save). If it runs, it is killed
    /// first.
    pub(crate) fn restart_with_dump(&mut self) {
        assert!(self.directory.join(DUMP).exists(), "the server has saved nothing");
        self.kill();
        self.start_again();
    }

    /// Suspends the server with SIGSTOP. The kernel still accepts connections and bytes for it, but no answer comes.
    pub(crate) fn suspend(&self) {
        let server = self.server.as_ref().expect("the server runs");
        signal(server, "STOP");
        // The signal takes effect some time after it was sent.
        while !is_stopped(server.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets a suspended server continue. It answers all that has arrived meanwhile.
    pub(crate) fn resume(&self) {
        signal(self.server.as_ref().expect("the server runs"), "CONT");
    }

    /// Deletes all content of the server.
    pub(crate) fn flush(&self) {
        assert_eq!(self.command(&["FLUSHALL"]), "OK");
    }

    /// Makes the server save its content, for [`restart_with_dump`](Self::restart_with_dump).
    pub(crate) fn save(&self) {
        assert_eq!(self.command(&["SAVE"]), "OK");
    }

    /// Sends a command on a connection of its own and returns the answer. A null is `(nil)`. A list has one line for
    /// each element.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Like [`command`](Self::command), but returns an error if the server answers with one or does not answer.
    pub(crate) fn try_command(&self, words: &[&str]) -> Result<String, String> {
        self.ask(words, PATIENCE).unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Whether the server answers PING within this time.
    pub(crate) fn answers_within(&self, time: Duration) -> bool {
        self.ask(&["PING"], time).is_ok_and(|answer| answer.as_deref() == Ok("PONG"))
    }

    fn ask(&self, words: &[&str], time: Duration) -> io::Result<Result<String, String>> {
        let mut stream = TcpStream::connect_timeout(&self.address(), time)?;
        stream.set_read_timeout(Some(time))?;
        stream.set_write_timeout(Some(time))?;
        stream.write_all(&request(words))?;
        answer(&mut BufReader::new(stream))
    }

    fn start_again(&mut self) {
        let started = (0..50).any(|_| self.try_start());
        assert!(started, "Redis does not start again:\n{}", self.log());
    }

    /// Starts the server and waits until it is ready. Returns false if it ends instead, for example because the port is
    /// taken.
    fn try_start(&mut self) -> bool {
        let log = || {
            let log = self.directory.join("log");
            let file = fs::File::options().create(true).append(true).open(log).expect("a directory of this test");
            Stdio::from(file)
        };
        let mut server = Command::new(program())
            .args(["--port", &self.port.to_string()])
            .args(CACHE)
            .arg("--dir")
            .arg(&self.directory)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .process_group(0)
            .spawn()
            .expect("these tests need Redis; scripts/test installs it");
        self.keeper.keep(Some(server.id()));

        for _ in 0..6000 {
            if self.is_ready(server.id()) {
                self.server = Some(server);
                return true;
            }
            if server.try_wait().expect("a child of this process").is_some() {
                self.keeper.keep(None);
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.server = Some(server);
        panic!("Redis is not up after a minute:\n{}", self.log());
    }

    /// Whether the server with this process id answers, and not another one that has taken its port.
    fn is_ready(&self, server: u32) -> bool {
        let line = format!("process_id:{server}");
        let time = Duration::from_secs(1);
        let info = self.ask(&["INFO", "server"], time);
        let is_ours = info.is_ok_and(|info| info.is_ok_and(|info| info.lines().any(|told| told == line)));
        // While the server loads a dump, it answers INFO but no other command.
        is_ours && self.answers_within(time)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        self.keeper.release();
        self.keeper.wait();
    }
}

/// The server program: `redis-server`, or what the environment variable `WINDFALL_REDIS_SERVER` names, such as `valkey-server`.
fn program() -> OsString {
    std::env::var_os("WINDFALL_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// Starts a cluster of this many masters, which share the slots, and waits until all of them are ready. With `tls`, which are
/// the arguments about certificates, the nodes and their clients use TLS. Returns each node with its port for clients.
pub(crate) fn start_cluster(masters: usize, tls: Option<&[&str]>) -> Vec<(Redis, u16)> {
    let node = |_| {
        let mut arguments = CLUSTER.to_vec();
        let Some(tls) = tls else {
            let node = Redis::start_with(&arguments);
            let port = node.port;
            return (node, port);
        };
        // The nodes talk to each other over another port, 10 000 above it. There it must not meet those of outgoing connections.
        let port =
            std::iter::repeat_with(next_port).find(|port| *port < FIRST_OUTGOING - 10_000).expect("an endless list");
        let own_port = port.to_string();
        arguments.extend(["--tls-cluster", "yes", "--tls-port", &own_port].into_iter().chain(tls.iter().copied()));
        (Redis::start_with(&arguments), port)
    };
    let nodes: Vec<(Redis, u16)> = (0..masters).map(node).collect();
    for (index, (node, _)) in nodes.iter().enumerate() {
        let mut words = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
        words.extend((index * SLOTS / masters..(index + 1) * SLOTS / masters).map(|slot| slot.to_string()));
        assert_eq!(node.command(&words.iter().map(String::as_str).collect::<Vec<_>>()), "OK");
        assert_eq!(node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]), "OK");
        assert_eq!(node.command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].1.to_string()]), "OK");
    }
    let is_whole = |(node, _): &(Redis, u16)| {
        let info = node.command(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok") && info.contains(&format!("cluster_size:{masters}\r"))
    };
    while !nodes.iter().all(is_whole) {
        std::thread::sleep(Duration::from_millis(10));
    }
    nodes
}

/// Starts a replica of a master in a cluster without TLS, and waits until it has copied the master.
pub(crate) fn replica_in_cluster(master: &Redis) -> Redis {
    let replica = Redis::start_with(&CLUSTER);
    assert_eq!(replica.command(&["CLUSTER", "MEET", "127.0.0.1", &master.port.to_string()]), "OK");
    let id = master.command(&["CLUSTER", "MYID"]);
    // It refuses until it has heard of the master.
    while replica.try_command(&["CLUSTER", "REPLICATE", &id]).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    while !replica.command(&["ROLE"]).contains("\nconnected\n") {
        std::thread::sleep(Duration::from_millis(10));
    }
    replica
}

/// The arguments of a server in a cluster. Another one that does not respond for a second counts as gone.
const CLUSTER: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];

/// The first port that the kernel gives to outgoing connections.
const FIRST_OUTGOING: u16 = 32_768;

/// The number of slots of every cluster.
const SLOTS: usize = 16_384;

/// A Sentinel, which promotes a replica when the master is gone.
pub(crate) struct Sentinel {
    _daemon: Daemon,
    pub(crate) port: u16,
}

impl Sentinel {
    /// The name of the master.
    pub(crate) const MASTER: &str = "shop";

    /// Starts a Sentinel that decides alone, and waits until it knows the replica.
    pub(crate) fn watch(master: &Redis) -> Self {
        // Another process may listen on the port.
        for _ in 0..20 {
            let port = next_port();
            let directory = tempfile::tempdir().expect("a temporary directory").keep();
            let name = Self::MASTER;
            let settings = format!(
                "port {port}\nbind 127.0.0.1\nprotected-mode no\ndir {}\nsentinel monitor {name} 127.0.0.1 {} 1\n\
                 sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 5000\n",
                directory.display(),
                master.port
            );
            fs::write(directory.join("settings"), settings).expect("a directory of this test");
            let mut command = Command::new(program());
            command.args(["settings", "--sentinel"]);
            if let Some(daemon) = Daemon::start(directory, &mut command, port) {
                let sentinel = Self { _daemon: daemon, port };
                while !sentinel.ask(&["SENTINEL", "MASTER", name]).contains("num-slaves\n1") {
                    std::thread::sleep(Duration::from_millis(10));
                }
                return sentinel;
            }
        }
        panic!("the Sentinel does not start");
    }

    fn ask(&self, words: &[&str]) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("a Sentinel that listens");
        stream.write_all(&request(words)).expect("a Sentinel that reads");
        answer(&mut BufReader::new(stream)).expect("an answer").unwrap_or_else(|error| error)
    }
}

/// A command in the form in which it is sent.
pub(crate) fn request(words: &[&str]) -> Vec<u8> {
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len()).into_bytes()
}

/// Reads one answer of the server. The inner result is an error that the server answered.
fn answer(stream: &mut impl BufRead) -> io::Result<Result<String, String>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
    match kind {
        "+" | ":" => Ok(Ok(rest.to_owned())),
        "-" => Ok(Err(rest.to_owned())),
        "$" | "*" if rest == "-1" => Ok(Ok("(nil)".to_owned())),
        "$" => {
            let length: usize = rest.parse().map_err(io::Error::other)?;
            let mut bulk = vec![0; length + "\r\n".len()];
            stream.read_exact(&mut bulk)?;
            Ok(Ok(String::from_utf8_lossy(&bulk[..length]).into_owned()))
        }
        "*" => {
            let count: usize = rest.parse().map_err(io::Error::other)?;
            // An error among the elements is an element, not the answer to the command.
            let elements: io::Result<Vec<_>> =
                (0..count).map(|_| answer(stream).map(|element| element.unwrap_or_else(|error| error))).collect();
            Ok(Ok(elements?.join("\n")))
        }
        // Another server has taken the port of one that does not start.
        _ => Err(io::Error::other(format!("not Redis: {line:?}"))),
    }
}

/// Whether SIGSTOP has suspended a process.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process that runs");
    // The name of the process may contain anything, but the fields after it do not contain a parenthesis.
    stat.rsplit_once(") ").expect("a name").1.starts_with('T')
}

/// A port that no other server of this process has had, because a killed server may come back. The first port is
/// random, so that another test process begins elsewhere.
pub(crate) fn next_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    15_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 15_000
}
