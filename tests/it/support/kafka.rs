//! Throwaway Kafka brokers. Each node is a process with a temporary directory and free ports of its own. It is a broker
//! and a controller in one.
//!
//! No node is left behind, however the tests end: beside each runs a [`Keeper`].
//!
//! Nodes are counted from 0. The number of a node is also its id in Kafka, which clients see as the leader of a
//! partition.
//!
//! Each node listens on three ports: one for clients, one for controllers and one for brokers. Only clients are asked
//! for passwords and certificates.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::certificates::{Authority, Certificate};
use super::keeper::{KILL, Keeper};
use super::redis::next_port;
use super::server::signal;

/// The user that brokers with SASL know.
pub(crate) const USER: &str = "app";

pub(crate) const PASSWORD: &str = "secret";

/// Names the version of Kafka.
const POM: &str = include_str!("../../kafka/pom.xml");

const LOG_SETTINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/log4j2.properties");

/// The programs in Kafka's jars: one prepares the directory of a node, the other one is the node.
const FORMAT: &str = "kafka.tools.StorageTool";
const NODE: &str = "kafka.Kafka";

/// How long nodes may take to start or to end. They need seconds, but several of them on a busy machine need longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Settings that are the same for all nodes.
const SETTINGS: &str = "\
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=BROKER
auto.create.topics.enable=false
# Others notice soon that a node is gone. It must be gone for them before it can come back.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
# A group assigns its partitions at once, and notices soon that a member is gone.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=300
group.consumer.session.timeout.ms=3000
group.consumer.min.session.timeout.ms=1000
# What has expired is soon deleted, also just after the start.
log.initial.task.delay.ms=500
log.retention.check.interval.ms=300
# Little memory and few files.
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4
";

/// What clients need in order to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Plain,
    /// TLS, for which the client needs a certificate as well.
    MutualTls,
    /// A password, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, over TLS.
    SaslTls,
}

impl Security {
    fn protocol(self) -> &'static str {
        match self {
            Self::Plain => "PLAINTEXT",
            Self::MutualTls => "SSL",
            Self::SaslTls => "SASL_SSL",
        }
    }

    fn has_sasl(self) -> bool {
        self == Self::SaslTls
    }

    fn has_tls(self) -> bool {
        self != Self::Plain
    }
}

/// What a test needs.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    pub(crate) nodes: usize,
    pub(crate) security: Security,
    /// Settings of the nodes, such as `log.retention.ms=1000`. They win over those of this module.
    pub(crate) properties: &'a [&'a str],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { nodes: 1, security: Security::Plain, properties: &[] }
    }
}

/// One node, or a cluster of several. A topic has three replicas if there are as many nodes, and all but one of them
/// must take a write.
pub(crate) struct Kafka {
    nodes: Vec<Node>,
    /// The id of the cluster, by which it is told from a stranger on the same port.
    id: String,
    tls: Option<Tls>,
}

/// The certificates of brokers with TLS.
struct Tls {
    authority: Authority,
    client: Certificate,
    stranger: Authority,
}

impl Kafka {
    /// Starts one node to which anyone may connect.
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// Starts several nodes to which anyone may connect.
    pub(crate) async fn cluster(nodes: usize) -> Self {
        Self::with(Options { nodes, ..Options::default() }).await
    }

    /// Starts nodes and waits until all of them answer and know each other.
    pub(crate) async fn with(options: Options<'_>) -> Self {
        assert!(options.nodes > 0, "a cluster has nodes");
        let mut log = String::new();
        // Another process may have taken a port in the meantime.
        for _ in 0..5 {
            let mut kafka = Self::prepare(options);
            let started = kafka.try_start(options.security).await;
            match started {
                Ok(()) => return kafka,
                Err(error) => log = error,
            }
            if !log.contains("Address already in use") {
                break;
            }
        }
        panic!("Kafka does not start:\n{log}");
    }

    /// The addresses that clients connect to, separated by commas.
    pub(crate) fn brokers(&self) -> String {
        let addresses: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.ports.clients)).collect();
        addresses.join(",")
    }

    /// Kills a node as a crash does, even if it is frozen.
    pub(crate) async fn kill(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        signal(node.process(), "KILL");
        // Before the wait, because afterwards the process id may belong to another process.
        node.keeper.keep(None);
        node.end().await;
    }

    /// Starts a node again that was killed, on the same data and ports, and waits until all nodes that run
    /// know each other. While no majority of the nodes runs, none can answer, and nothing is waited for.
    pub(crate) async fn restart(&mut self, node: usize) {
        self.nodes[node].launch();
        if self.running().len() * 2 > self.nodes.len()
            && let Err(log) = self.answers().await
        {
            panic!("Kafka does not start again:\n{log}");
        }
    }

    /// Suspends a node with SIGSTOP. The kernel still accepts connections and bytes for it, but no answer comes.
    pub(crate) fn freeze(&self, node: usize) {
        let process = self.nodes[node].process();
        signal(process, "STOP");
        // The signal takes effect some time after it was sent.
        while !is_frozen(process.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets a frozen node continue.
    pub(crate) fn thaw(&self, node: usize) {
        signal(self.nodes[node].process(), "CONT");
    }

    /// The certificate of the authority that clients must trust.
    pub(crate) fn ca(&self) -> PathBuf {
        self.tls().authority.certificate()
    }

    /// A certificate of an authority that has signed none of the others.
    pub(crate) fn other_ca(&self) -> PathBuf {
        self.tls().stranger.certificate()
    }

    /// A certificate for a client.
    pub(crate) fn client_certificate(&self) -> PathBuf {
        self.tls().client.certificate.clone()
    }

    pub(crate) fn client_key(&self) -> PathBuf {
        self.tls().client.key.clone()
    }

    fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("a broker with TLS")
    }

    /// Chooses ports and writes the settings of all nodes.
    fn prepare(options: Options<'_>) -> Self {
        let nodes: Vec<Node> = (0..options.nodes).map(|_| Node::new()).collect();
        let id = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        let tls = options.security.has_tls().then(Tls::new);
        let voter = |(id, node): (usize, &Node)| format!("{id}@127.0.0.1:{}", node.ports.controllers);
        let voters: Vec<String> = nodes.iter().enumerate().map(voter).collect();
        let server = tls.as_ref().map(|tls| tls.authority.sign("IP:127.0.0.1,DNS:localhost"));
        for (id, node) in nodes.iter().enumerate() {
            let mut settings = format!("{SETTINGS}{}node.id={id}\n", replication(options.nodes));
            settings += &format!("controller.quorum.voters={}\n", voters.join(","));
            settings += &node.listeners(options.security);
            if options.security.has_sasl() {
                settings += &passwords();
            }
            if let (Some(tls), Some(server)) = (&tls, &server) {
                settings += &node.certificates(server, &tls.authority, options.security);
            }
            for property in options.properties {
                settings += &format!("{property}\n");
            }
            fs::write(node.settings(), settings).expect("a directory of this test");
        }
        Self { nodes, id, tls }
    }

    /// Starts all nodes for the first time. Returns what a node has written if it ends instead.
    async fn try_start(&mut self, security: Security) -> Result<(), String> {
        let mut arguments =
            vec!["format".to_owned(), "--config=settings".to_owned(), format!("--cluster-id={}", self.id)];
        if security.has_sasl() {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                arguments.push(format!("--add-scram={mechanism}=[name={USER},password={PASSWORD}]"));
            }
        }
        for node in &mut self.nodes {
            node.run(FORMAT, &arguments);
        }
        for node in &mut self.nodes {
            if !node.end().await {
                return Err(node.log());
            }
        }
        self.nodes.iter_mut().for_each(Node::launch);
        self.answers().await
    }

    /// Waits until each node that runs says that all of them are up. Returns what a node has written if it ends
    /// instead.
    async fn answers(&mut self) -> Result<(), String> {
        let answered = async {
            loop {
                if let Some(log) = self.nodes.iter_mut().find_map(Node::ended_by_itself) {
                    return Err(log);
                }
                if self.is_up().await {
                    return Ok(());
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        match timeout(PATIENCE, answered).await {
            Ok(answered) => answered,
            Err(_) => Err(self.nodes.iter().map(Node::log).collect()),
        }
    }

    async fn is_up(&self) -> bool {
        let running = self.running();
        for &node in &running {
            let told = timeout(Duration::from_secs(2), self.tells_of(&running, self.nodes[node].ports.brokers)).await;
            if !matches!(told, Ok(Ok(true))) {
                return false;
            }
        }
        true
    }

    /// Whether the node on this port is one of ours, says that these nodes are up, and takes groups.
    async fn tells_of(&self, nodes: &BTreeSet<usize>, port: u16) -> io::Result<bool> {
        let (cluster, known) = known_by(port).await?;
        // A node that was killed just now may still be among them.
        Ok(cluster == self.id && known.is_superset(nodes) && has_coordinator(port).await?)
    }

    /// The nodes that run and are not frozen.
    fn running(&self) -> BTreeSet<usize> {
        let runs = |node: &Node| node.process.as_ref().is_some_and(|process| !is_frozen(process.id()));
        (0..self.nodes.len()).filter(|&node| runs(&self.nodes[node])).collect()
    }
}

impl Tls {
    fn new() -> Self {
        let authority = Authority::new();
        let client = authority.sign("DNS:client");
        Self { authority, client, stranger: Authority::new() }
    }
}

/// A node with its directory.
struct Node {
    directory: PathBuf,
    keeper: Keeper,
    ports: Ports,
    /// The node, or the program that prepares its directory.
    process: Option<Child>,
}

struct Ports {
    clients: u16,
    controllers: u16,
    brokers: u16,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory").keep();
        let keeper = Keeper::start(KILL, &directory);
        let ports = Ports { clients: free_port(), controllers: free_port(), brokers: free_port() };
        Self { directory, keeper, ports, process: None }
    }

    fn settings(&self) -> PathBuf {
        self.directory.join("settings")
    }

    fn listeners(&self, security: Security) -> String {
        let Ports { clients, controllers, brokers } = self.ports;
        format!(
            "listeners=CLIENT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controllers},BROKER://127.0.0.1:{brokers}\n\
             listener.security.protocol.map=CLIENT:{},CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT\nlog.dirs={}\n",
            security.protocol(),
            self.directory.join("data").display()
        )
    }

    /// Writes the certificate and its key to one file, as Kafka reads them, and returns the settings about them.
    fn certificates(&self, server: &Certificate, authority: &Authority, security: Security) -> String {
        let read = |path: &Path| fs::read_to_string(path).expect("a certificate or key in PEM");
        let both = self.directory.join("server.pem");
        fs::write(&both, read(&server.key) + &read(&server.certificate)).expect("a directory of this test");
        let asked = if security == Security::MutualTls { "required" } else { "none" };
        let settings = [
            "keystore.type=PEM".to_owned(),
            format!("keystore.location={}", both.display()),
            "truststore.type=PEM".to_owned(),
            format!("truststore.location={}", authority.certificate().display()),
            format!("client.auth={asked}"),
        ];
        settings.map(|setting| format!("listener.name.client.ssl.{setting}\n")).concat()
    }

    /// Starts the node on a directory that has been prepared.
    fn launch(&mut self) {
        self.run(NODE, &["settings".to_owned()]);
    }

    /// Starts a program of Kafka. Its output goes to the log.
    fn run(&mut self, program: &str, arguments: &[String]) {
        assert!(self.process.is_none(), "the node still runs");
        let log = || {
            let log = self.directory.join("log");
            let file = fs::File::options().create(true).append(true).open(log).expect("a directory of this test");
            Stdio::from(file)
        };
        let process = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            // A killed process would leave its statistics and unpacked libraries behind.
            .args(["-XX:-UsePerfData", &format!("-Djava.io.tmpdir={}", self.directory.display())])
            .args(["-Dbroker.log=log", &format!("-Dlog4j2.configurationFile={LOG_SETTINGS}")])
            .arg("-cp")
            .arg(jars().join("*"))
            .arg(program)
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .process_group(0)
            .spawn()
            .expect("these tests need Java; scripts/test installs it");
        self.keeper.keep(Some(process.id()));
        self.process = Some(process);
    }

    fn process(&self) -> &Child {
        self.process.as_ref().expect("the node runs")
    }

    /// Waits until the process ends by itself. Returns whether it has succeeded.
    async fn end(&mut self) -> bool {
        let process = self.process.as_mut().expect("the node runs");
        let ended = async {
            loop {
                if let Some(status) = process.try_wait().expect("a child of this process") {
                    return status;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let status = timeout(PATIENCE, ended).await;
        let status = status.unwrap_or_else(|_| panic!("the node does not end:\n{}", self.log()));
        self.keeper.keep(None);
        self.process = None;
        status.success()
    }

    /// What the node has written, if it has ended although nobody has stopped it.
    fn ended_by_itself(&mut self) -> Option<String> {
        self.process.as_mut()?.try_wait().expect("a child of this process")?;
        self.keeper.keep(None);
        self.process = None;
        Some(self.log())
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child of this process");
            // Before `wait`, because afterwards the process id may belong to another process.
            self.keeper.keep(None);
            process.wait().expect("a child of this process");
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        self.keeper.release();
        self.keeper.wait();
    }
}

/// How many copies there are of each topic, and how many of them must take a write.
fn replication(nodes: usize) -> String {
    let replicas = nodes.min(3);
    let in_sync = (replicas - 1).max(1);
    let mut settings = format!("default.replication.factor={replicas}\nmin.insync.replicas={in_sync}\n");
    settings += &format!("offsets.topic.replication.factor={replicas}\n");
    for topic in ["transaction.state.log", "share.coordinator.state.topic"] {
        settings += &format!("{topic}.replication.factor={replicas}\n{topic}.min.isr={in_sync}\n");
    }
    settings
}

/// The settings about passwords. The users of SCRAM are in the data of the cluster instead.
fn passwords() -> String {
    let modules = "org.apache.kafka.common.security";
    let scram = format!("{modules}.scram.ScramLoginModule required;");
    let settings = [
        "enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
        format!("jaas.config={modules}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";"),
        format!("jaas.config={scram}"),
        format!("jaas.config={scram}"),
    ];
    let mechanisms = ["", "plain.", "scram-sha-256.", "scram-sha-512."];
    let lines = mechanisms.iter().zip(settings);
    lines.map(|(mechanism, setting)| format!("listener.name.client.{mechanism}sasl.{setting}\n")).collect()
}

/// The folder of Kafka's jars: what the environment variable `WINDFALL_TEST_KAFKA` names, or where `scripts/test` puts
/// them. Panics if it is missing, because a test that skips itself would prove nothing.
fn jars() -> PathBuf {
    let version = POM.split_once("<kafka.version>").and_then(|(_, rest)| rest.split_once('<')).expect("a version").0;
    let cached = || {
        let home = std::env::home_dir().expect("a home directory");
        home.join(".cache/windfall-kafka").join(version)
    };
    let jars = std::env::var_os("WINDFALL_TEST_KAFKA").map_or_else(cached, PathBuf::from);
    // Java runs in another folder, so a relative path would not do.
    jars.canonicalize().unwrap_or_else(|error| {
        panic!("these tests need Kafka in {}; run scripts/test, which fetches it ({error})", jars.display())
    })
}

/// A port below the range of outgoing connections (see [`next_port`]), on which nobody listens now.
fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(next_port).take(100).find(is_free).expect("a free port")
}

/// Whether SIGSTOP has suspended all threads of a process.
fn is_frozen(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process that runs");
    // A thread that ends in the meantime has no file. After the name, which may contain anything, comes the state.
    let mut stats = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.all(|stat| stat.rsplit_once(") ").expect("a name").1.starts_with('T'))
}

/// Asks a node for the id of its cluster, and for the nodes that are up as far as it knows.
async fn known_by(port: u16) -> io::Result<(String, BTreeSet<usize>)> {
    let no_topics = 0_i32.to_be_bytes();
    let mut answer = ask(port, METADATA, &no_topics).await?;
    let mut known = BTreeSet::new();
    for _ in 0..answer.read_i32().await? {
        known.insert(usize::try_from(answer.read_i32().await?).map_err(io::Error::other)?);
        let (_host, _port, _rack) = (text(&mut answer).await?, answer.read_i32().await?, text(&mut answer).await?);
    }
    Ok((text(&mut answer).await?, known))
}

/// Asks a node whether there is a coordinator for a group. The first such question makes the cluster create the topic
/// for the offsets of groups. Without this one, the first group of a test would ask it and then wait for three seconds.
async fn has_coordinator(port: u16) -> io::Result<bool> {
    let group = b"\0\x05group";
    let error = ask(port, FIND_COORDINATOR, group).await?.read_i16().await?;
    Ok(error == 0)
}

/// Two kinds of request: the number of each and its version.
const METADATA: (i16, i16) = (3, 2);
const FIND_COORDINATOR: (i16, i16) = (10, 0);

/// Sends a request to a node and reads the answer up to its content.
async fn ask(port: u16, (request, version): (i16, i16), content: &[u8]) -> io::Result<TcpStream> {
    let (number, no_name) = (1_i32, -1_i16);
    let mut message = [request.to_be_bytes(), version.to_be_bytes()].concat();
    message.extend(number.to_be_bytes());
    message.extend(no_name.to_be_bytes());
    message.extend(content);
    let length = i32::try_from(message.len()).map_err(io::Error::other)?;
    let mut node = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    node.write_all(&[&length.to_be_bytes(), message.as_slice()].concat()).await?;
    let (_length, _number) = (node.read_i32().await?, node.read_i32().await?);
    Ok(node)
}

/// Reads a text after its length. A missing one has the length -1 and is read as an empty one.
async fn text(answer: &mut TcpStream) -> io::Result<String> {
    let mut text = vec![0; usize::try_from(answer.read_i16().await?).unwrap_or(0)];
    answer.read_exact(&mut text).await?;
    String::from_utf8(text).map_err(io::Error::other)
}
