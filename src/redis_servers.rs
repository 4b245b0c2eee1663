//! Where Redis is, and how connections to it are made. Redis is one server, a cluster, or a master that Sentinels name. Valkey
//! speaks the same protocol.
//!
//! Each connection looks for its server anew, so whoever connects again after a failure follows a fail-over. A connection attempt
//! gives up in time. This module reads no file, and its messages contain no part of a URL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::{ClusterClient, ClusterClientBuilder, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    Pipeline, RedisConnectionInfo, RedisError, RedisFuture, RedisResult, TlsCertificates, Value,
};
use tokio::time::timeout;

/// The URLs that are accepted. Completes the message "must be …".
pub const URLS: &str = "redis://USER:PASSWORD@HOST:PORT/DATABASE, redis-cluster://USER:PASSWORD@HOST:PORT,HOST:PORT, \
    redis-sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE?master=NAME, one of these with rediss in place of redis for TLS, \
    or empty";
/// How long all attempts to find a server and to connect to it may take together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const SENTINEL_PORT: u16 = 26_379;
/// How often a command of a cluster is sent again, because its key has moved or its node has closed the connection.
const CLUSTER_RETRIES: u32 = 2;
/// The pauses before a command of a cluster is sent again, in milliseconds. The deadline of the command is about as short.
const CLUSTER_RETRY_MS: (u64, u64) = (1, 10);

/// Certificates in PEM. They are used only for URLs that ask for TLS.
#[derive(Default)]
pub struct Tls {
    /// Those that sign the certificates of the servers, in place of the public ones.
    pub ca: Option<Vec<u8>>,
    /// The certificate and the key of this client.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// What is wrong with the configuration of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    Url,
    Certificates,
}

/// The servers that a URL names. Clones share them.
#[derive(Clone)]
pub struct RedisServers(Arc<Kind>);

enum Kind {
    One(Client),
    Cluster { cluster: ClusterClient, nodes: Vec<Client> },
    Sentinel(Sentinel),
}

/// The Sentinels and the master that they watch.
struct Sentinel {
    sentinels: Vec<Client>,
    master: String,
    /// How to connect to the master, except for its address.
    server: ConnectionInfo,
    certificates: TlsCertificates,
}

/// A connection for commands.
#[derive(Clone)]
pub enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl fmt::Debug for RedisServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[Redis]")
    }
}

impl RedisServers {
    /// Parses a URL, which has one of the forms of [`URLS`].
    pub fn new(url: &str, tls: Tls) -> Result<Self, Invalid> {
        // Two libraries that implement the cryptography of TLS are linked. An error means that one has been chosen already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client_tls = tls.client.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let certificates = TlsCertificates { client_tls, root_cert: tls.ca };
        // The library accepts a file without any certificate, and would then trust nobody.
        let is_pem = |pem: &Vec<u8>| pem.windows(PEM_BEGIN.len()).any(|bytes| bytes == PEM_BEGIN);
        if !certificates.root_cert.iter().all(is_pem) {
            return Err(Invalid::Certificates);
        }
        let (scheme, rest) = url.split_once("://").ok_or(Invalid::Url)?;
        // The only fragment that the library knows turns the verification of certificates off.
        if rest.contains('#') {
            return Err(Invalid::Url);
        }
        let kind = match scheme.split_once('-') {
            Some((scheme, "cluster")) => Url::parse(scheme, rest)?.cluster(&certificates)?,
            Some((scheme, "sentinel")) => Url::parse(scheme, rest)?.sentinel(certificates)?,
            Some(_) => return Err(Invalid::Url),
            None => Kind::One(client(url.into_connection_info().map_err(|_| Invalid::Url)?, &certificates)?),
        };
        Ok(Self(Arc::new(kind)))
    }

    /// Opens a connection for commands. A command of a cluster may take `deadline`; other commands have no deadline of their own.
    pub async fn connect(&self, deadline: Duration) -> RedisResult<Connection> {
        if let Kind::Cluster { cluster, .. } = &*self.0 {
            let config = ClusterConfig::new().set_connection_timeout(CONNECT_TIMEOUT).set_response_timeout(deadline);
            let connected = timeout(CONNECT_TIMEOUT, cluster.get_async_connection_with_config(config));
            return Ok(Connection::Cluster(connected.await.map_err(late)??));
        }
        Ok(Connection::One(self.connect_to_one().await?))
    }

    /// Opens a connection to one server. Of a cluster, any node does: what is published at one node is heard at all nodes.
    pub async fn connect_to_one(&self) -> RedisResult<MultiplexedConnection> {
        self.open(|client| async move {
            let config =
                AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(None);
            client.get_multiplexed_async_connection_with_config(&config).await
        })
        .await
    }

    /// Opens a connection for subscriptions to one server.
    pub async fn connect_for_messages(&self) -> RedisResult<PubSub> {
        self.open(|client| async move { client.get_async_pubsub().await }).await
    }

    /// Opens a connection to the first server that can be reached. All attempts share the time.
    async fn open<T, F>(&self, open: impl Fn(Client) -> F + Send + Sync) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>> + Send,
    {
        let named = match &*self.0 {
            Kind::One(client) => std::slice::from_ref(client),
            Kind::Cluster { nodes, .. } => nodes,
            Kind::Sentinel(sentinel) => &sentinel.sentinels,
        };
        let share = CONNECT_TIMEOUT / u32::try_from(named.len().max(1)).unwrap_or(u32::MAX);
        let mut failure = RedisError::from((ErrorKind::InvalidClientConfig, "the URL names no server"));
        for client in named {
            match timeout(share, async { open(self.resolve(client).await?).await }).await.map_err(late).flatten() {
                Ok(opened) => return Ok(opened),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Returns the server to which a client from the URL leads.
    async fn resolve(&self, client: &Client) -> RedisResult<Client> {
        match &*self.0 {
            Kind::Sentinel(sentinel) => sentinel.master(client).await,
            _ => Ok(client.clone()),
        }
    }
}

fn late(_: tokio::time::error::Elapsed) -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

impl Sentinel {
    /// Asks a Sentinel for the master, and checks that the server is one. A Sentinel that was cut off may name a former master.
    async fn master(&self, sentinel: &Client) -> RedisResult<Client> {
        let mut asked = sentinel.get_multiplexed_async_connection().await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let address: Option<(String, u16)> = question.query_async(&mut asked).await?;
        let Some((host, port)) = address else {
            return Err((ErrorKind::MasterNameNotFoundBySentinel, "the Sentinel does not know the master").into());
        };
        let address = match self.server.addr() {
            ConnectionAddr::TcpTls { .. } => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            _ => ConnectionAddr::Tcp(host, port),
        };
        let server = client(self.server.clone().set_addr(address), &self.certificates);
        let server = server.map_err(|_| (ErrorKind::InvalidClientConfig, "the master's address cannot be used"))?;
        let mut connection = server.get_multiplexed_async_connection().await?;
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
        match role.first().map(redis::from_redis_value_ref::<String>) {
            Some(Ok(role)) if role == "master" => Ok(server),
            _ => Err((ErrorKind::Io, "the Sentinel names a server that is not the master").into()),
        }
    }
}

/// The parts of a URL with several hosts.
struct Url<'a> {
    scheme: &'a str,
    /// The user and the password with the `@` behind them, or empty.
    user: &'a str,
    hosts: Vec<&'a str>,
    path: &'a str,
    query: Vec<(String, String)>,
}

impl<'a> Url<'a> {
    /// Parses what follows `://`.
    fn parse(scheme: &'a str, rest: &'a str) -> Result<Self, Invalid> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let hosts: Vec<&str> = hosts.split(',').collect();
        if hosts.iter().any(|host| host.is_empty()) {
            return Err(Invalid::Url);
        }
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Ok(Self { scheme, user, hosts, path, query })
    }

    fn cluster(&self, certificates: &TlsCertificates) -> Result<Kind, Invalid> {
        // A cluster has one database only.
        if !["", "0"].contains(&self.path) || !self.query.is_empty() {
            return Err(Invalid::Url);
        }
        let nodes: Vec<ConnectionInfo> =
            self.hosts.iter().map(|host| self.server(host, "")).collect::<Result<_, _>>()?;
        let cluster = ClusterClientBuilder::new(nodes.clone())
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_RETRY_MS.0)
            .max_retry_wait(CLUSTER_RETRY_MS.1);
        // Certificates would turn TLS on.
        let is_tls = matches!(nodes[0].addr(), ConnectionAddr::TcpTls { .. });
        let cluster = if is_tls { cluster.certs(certificates.clone()) } else { cluster };
        Ok(Kind::Cluster {
            cluster: cluster.build().map_err(|_| Invalid::Certificates)?,
            nodes: nodes.into_iter().map(|node| client(node, certificates)).collect::<Result<_, _>>()?,
        })
    }

    fn sentinel(&self, certificates: TlsCertificates) -> Result<Kind, Invalid> {
        let (mut master, mut login) = (None, RedisConnectionInfo::default());
        for (name, value) in &self.query {
            match name.as_str() {
                "master" if !value.is_empty() => master = Some(value.clone()),
                "sentinel_user" => login = login.set_username(value),
                "sentinel_password" => login = login.set_password(value),
                _ => return Err(Invalid::Url),
            }
        }
        let sentinels = self.hosts.iter().map(|host| {
            let sentinel = self.server(&with_port(host, SENTINEL_PORT), "")?;
            client(sentinel.set_redis_settings(login.clone()), &certificates)
        });
        Ok(Kind::Sentinel(Sentinel {
            sentinels: sentinels.collect::<Result<_, _>>()?,
            master: master.ok_or(Invalid::Url)?,
            server: self.server(self.hosts[0], self.path)?,
            certificates,
        }))
    }

    /// How to connect to one of the hosts as the user of this URL.
    fn server(&self, host: &str, path: &str) -> Result<ConnectionInfo, Invalid> {
        format!("{}://{}{host}/{path}", self.scheme, self.user).into_connection_info().map_err(|_| Invalid::Url)
    }
}

fn with_port(host: &str, port: u16) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    if has_port { host.to_owned() } else { format!("{host}:{port}") }
}

fn client(server: ConnectionInfo, certificates: &TlsCertificates) -> Result<Client, Invalid> {
    match server.addr() {
        ConnectionAddr::TcpTls { .. } => {
            Client::build_with_tls(server, certificates.clone()).map_err(|_| Invalid::Certificates)
        }
        _ => Client::open(server).map_err(|_| Invalid::Url),
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<RedisServers, Invalid> {
        RedisServers::new(url, Tls::default())
    }

    #[test]
    fn urls_name_one_server_a_cluster_or_sentinels() {
        for url in ["redis://a", "rediss://user:p%40ss@a:1/2", "valkey://a", "unix:///run/redis.sock"] {
            assert!(matches!(&*parsed(url).unwrap().0, Kind::One(_)), "{url}");
        }
        for url in ["redis-cluster://a,b:1,[::1]:2", "rediss-cluster://user:p%40ss@a,b", "valkey-cluster://a/0"] {
            assert!(matches!(&*parsed(url).unwrap().0, Kind::Cluster { .. }), "{url}");
        }
        let url = "rediss-sentinel://user:pass@a,b:1,[::1]/3?master=my%20one&sentinel_user=eve&sentinel_password=s";
        let servers = parsed(url).unwrap();
        let Kind::Sentinel(sentinel) = &*servers.0 else { panic!("Sentinels") };
        let addresses = sentinel.sentinels.iter().map(|one| one.get_connection_info().addr().to_string());
        assert_eq!(addresses.collect::<Vec<_>>(), ["a:26379", "b:1", "::1:26379"]);
        let of_sentinel = sentinel.sentinels[0].get_connection_info().redis_settings();
        assert_eq!((of_sentinel.username(), of_sentinel.password(), of_sentinel.db()), (Some("eve"), Some("s"), 0));
        let of_server = sentinel.server.redis_settings();
        assert_eq!((of_server.username(), of_server.password(), of_server.db()), (Some("user"), Some("pass"), 3));
        assert_eq!(sentinel.master, "my one");
        assert!(matches!(sentinel.server.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
    }

    #[test]
    fn other_urls_are_refused() {
        for url in [
            "a:6379",
            "http://a",
            "http-cluster://a",
            "redis-other://a",
            "redis://a/x",
            "rediss://a#insecure",
            "redis-cluster://",
            "redis-cluster://a,,b",
            "redis-cluster://a/1",
            "redis-sentinel://a",
            "redis-sentinel://a?master=",
            "redis-sentinel://a?master=m&other=1",
        ] {
            assert_eq!(parsed(url).unwrap_err(), Invalid::Url, "{url}");
        }
        let tls = Tls { ca: None, client: Some((b"no certificate".to_vec(), b"no key".to_vec())) };
        assert_eq!(RedisServers::new("rediss://a", tls).unwrap_err(), Invalid::Certificates);
    }
}
