//! The configuration: one struct per section, read once at the start. A field without a comment has the name of its key,
//! without the unit of a duration. `config/default.toml` explains all keys.
//!
//! The configuration has three layers: the embedded `config/default.toml`, the file `windfall.toml`, and the
//! `WINDFALL__…` environment variables. A later layer overrides an earlier one. Defaults are defined in
//! `config/default.toml` only. An error prevents the start, names the key and says what is allowed. Messages never
//! contain values, because a value may be a secret or a database URL with a password.

mod cidr;
mod kafka;
mod secret;
mod source;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::Environment;
use tracing_subscriber::EnvFilter;

pub use cidr::Cidr;
pub use kafka::{GroupProtocol, Kafka, KafkaSecurity, KafkaTls, Sasl, SaslMechanism};
pub use secret::{Secret, SecretFile};
use source::Source;

use crate::redis_servers::{self, RedisServers, Tls};

/// The file that is read if `--config` is not given. It may be missing.
const FILE: &str = "windfall.toml";

/// The whole configuration: one field for each section of the file.
#[derive(Clone, Debug)]
pub struct Config {
    pub http: Http,
    pub database: Database,
    pub limits: Limits,
    pub writer: Writer,
    pub jobs: Jobs,
    pub cache: Cache,
    pub redis: Redis,
    /// `None` if no brokers are set.
    pub kafka: Option<Kafka>,
    pub auth: Auth,
    pub log: Log,
}

/// The section `http`: the listeners, their timeouts and limits, and what the endpoint offers.
#[derive(Clone, Debug)]
pub struct Http {
    pub listen: SocketAddr,
    pub internal_listen: Option<SocketAddr>,
    pub request_timeout: Duration,
    pub head_timeout: Duration,
    pub write_timeout: Duration,
    pub stop_timeout: Duration,
    pub body_limit_bytes: usize,
    pub unfinished_bytes: usize,
    pub connections: usize,
    pub sockets_per_subject: usize,
    pub sockets_per_address: usize,
    pub trusted_proxies: Vec<Cidr>,
    pub allowed_origins: Vec<String>,
    pub introspection: bool,
    pub graphiql: bool,
    pub documents: Option<PathBuf>,
}

/// The section `limits`: how much each caller may ask for, and how large a document may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The keys `customer_…`, for customers and for callers without a token.
    pub customer: Rate,
    /// The keys `shop_…`, for storefronts and admins.
    pub shop: Rate,
    pub concurrent_requests: usize,
    pub streams: usize,
    pub document_tokens: u32,
    pub document_aliases: u32,
    pub document_directives: u32,
    pub document_depth: u32,
}

/// The points that a caller regains per second, and the most points that it can have.
#[derive(Clone, Debug)]
pub struct Rate {
    pub points_per_second: NonZeroU32,
    pub burst_points: NonZeroU32,
}

/// The section `database`: the URL of the database, its connections and timeouts.
#[derive(Clone, Debug)]
pub struct Database {
    /// A secret, because the URL may contain a password.
    pub url: Secret,
    /// Takes the place of the password in the URL.
    pub password: Option<Secret>,
    /// The file from which the user and the password are read again while the server runs.
    pub login: Option<Login>,
    pub pooler: bool,
    pub migrate: bool,
    pub connections: u32,
    pub statement_timeout: Duration,
    pub idle_transaction_timeout: Duration,
}

/// A file that tells how to log in to the database. Its content may change.
#[derive(Clone, Debug)]
pub enum Login {
    /// The key `database.url_file`.
    Url(SecretFile),
    /// The key `database.password_file`.
    Password(SecretFile),
}

impl Cache {
    /// The share of the memory that is for whole responses.
    pub fn answers_bytes(&self) -> u64 {
        self.l1_bytes / 4
    }

    /// The share of the memory that is for the snapshots of customers.
    pub fn snapshots_bytes(&self) -> u64 {
        self.l1_bytes - self.answers_bytes()
    }
}

/// The section `writer`: the write queue and the transactions that empty it.
#[derive(Clone, Debug)]
pub struct Writer {
    pub queue_items: usize,
    pub queue_bytes: usize,
    pub batch_items: usize,
    pub fold_purchases: usize,
    /// The key `writer.writers` is set, which has no effect any more.
    pub sets_writers: bool,
}

/// The section `jobs`: the work that recurs in the background.
#[derive(Clone, Debug)]
pub struct Jobs {
    pub retention_period: Duration,
    /// The key `finished_days`.
    pub finished_kept_for: Duration,
    /// The key `trail_days`.
    pub trail_kept_for: Duration,
    pub audit_period: Duration,
    /// If zero, no customers are audited.
    pub audit_customers: usize,
}

/// The section `cache`: the cache in memory, and how stale reads may be.
#[derive(Clone, Debug)]
pub struct Cache {
    pub l1_bytes: u64,
    /// If zero, every read looks up the current version.
    pub max_staleness: Duration,
}

/// The section `redis`: the optional server or cluster that all nodes on one database share.
#[derive(Clone, Debug)]
pub struct Redis {
    /// The keys `url`, `ca_file`, `client_cert_file` and `client_key_file`.
    pub servers: Option<RedisServers>,
    pub timeout: Duration,
}

/// The section `auth`. Without any key, the commands that need one refuse to start.
#[derive(Clone, Debug)]
pub struct Auth {
    pub hs256_secret: Option<Secret>,
    /// Only verifies tokens. Set only together with `hs256_secret`.
    pub hs256_secret_previous: Option<Secret>,
    /// The key `auth.jwks` or `auth.public_key_pem`; not both can be set.
    pub public_keys: Option<PublicKeys>,
    pub issuer: String,
    pub audience: String,
    pub leeway: Duration,
}

/// Where the server finds the public keys that verify tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKeys {
    /// A PEM file with one key.
    Pem(PathBuf),
    /// A file with a JSON Web Key Set.
    JwksFile(PathBuf),
    /// The http or https URL of a JSON Web Key Set.
    JwksUrl(String),
}

/// The section `log`: what is logged, and where traces are sent.
#[derive(Clone, Debug)]
pub struct Log {
    pub filter: String,
    pub otlp_endpoint: Option<String>,
}

/// Why the configuration was rejected. The messages contain no values.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not valid TOML.
    #[error("the configuration file {} cannot be read: {reason}", path.display())]
    File {
        path: PathBuf,
        /// Says what is wrong with the file, without quoting its content.
        reason: String,
    },
    /// An environment variable cannot be read. The variable is not known.
    #[error("a WINDFALL__ environment variable cannot be read: its name or its encoding is not valid")]
    Environment,
    /// The file or the environment has a key that does not exist.
    #[error("the configuration key `{key}` does not exist; config/default.toml lists all keys")]
    UnknownKey {
        /// Has the form `section.key`.
        key: String,
    },
    /// A value and the file that should contain it are both given.
    #[error(
        "the configuration keys `{key}` ({variable}) and `{file_key}` ({file_variable}) must not both be set",
        variable = variable(key),
        file_variable = variable(file_key)
    )]
    Both { key: &'static str, file_key: &'static str },
    /// The file that a key names cannot be used.
    #[error("the file that the configuration key `{key}` ({variable}) names {problem}", variable = variable(key))]
    SecretFile {
        key: &'static str,
        /// Completes the message. Contains neither the path, which may be a secret given by mistake, nor the content.
        problem: String,
    },
    /// The value of a key is not allowed.
    #[error("the configuration key `{key}` ({variable}) must be {allowed}", variable = variable(key))]
    Invalid {
        key: &'static str,
        /// Completes the message "must be …".
        allowed: String,
    },
}

impl Config {
    /// Reads the file and the environment of the process. If `file` is `None`, reads `windfall.toml` if it exists.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(file, Environment::default())
    }

    /// The configuration with the default of every key.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::read(&Source::defaults()?)
    }

    fn load_with(file: Option<&Path>, environment: Environment) -> Result<Self, ConfigError> {
        Self::read(&Source::new(file, environment)?)
    }

    fn read(source: &Source) -> Result<Self, ConfigError> {
        let config = Self {
            http: Http::read(source)?,
            database: Database::read(source)?,
            limits: Limits::read(source)?,
            writer: Writer::read(source)?,
            jobs: Jobs::read(source)?,
            cache: Cache::read(source)?,
            redis: Redis::read(source)?,
            kafka: Kafka::read(source)?,
            auth: Auth::read(source)?,
            log: Log::read(source)?,
        };
        source.refuse_unread_keys()?;
        // One address gets at most half of the budget, and two of the largest bodies must fit into that half.
        if config.http.unfinished_bytes / 4 < config.http.body_limit_bytes {
            return Err(invalid("http.unfinished_bytes", "at least four times `http.body_limit_bytes`"));
        }
        Ok(config)
    }
}

impl Http {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        Ok(Self {
            listen: source.parse("http.listen", "an address and a port, such as 127.0.0.1:8080 or [::1]:8080")?,
            internal_listen: internal_listen(source)?,
            request_timeout: Duration::from_millis(source.number("http.request_timeout_ms", 100, 600_000)?),
            head_timeout: Duration::from_millis(source.number("http.head_timeout_ms", 100, 600_000)?),
            write_timeout: Duration::from_millis(source.number("http.write_timeout_ms", 100, 600_000)?),
            stop_timeout: Duration::from_millis(source.number("http.stop_timeout_ms", 1_000, 600_000)?),
            body_limit_bytes: source.number("http.body_limit_bytes", 1_024, 64 << 20)?,
            unfinished_bytes: source.number("http.unfinished_bytes", 1 << 20, 4 << 30)?,
            connections: source.number("http.connections", 1, 1_000_000)?,
            sockets_per_subject: source.number("http.sockets_per_subject", 1, 1_000_000)?,
            sockets_per_address: source.number("http.sockets_per_address", 1, 1_000_000)?,
            trusted_proxies: trusted_proxies(source)?,
            allowed_origins: origins(source)?,
            introspection: source.boolean("http.introspection")?,
            graphiql: source.boolean("http.graphiql")?,
            documents: source.optional_text("http.documents")?.map(PathBuf::from),
        })
    }
}

fn internal_listen(source: &Source) -> Result<Option<SocketAddr>, ConfigError> {
    const KEY: &str = "http.internal_listen";
    let listen = source.optional_text(KEY)?.map(|text| text.parse()).transpose();
    listen.map_err(|_| invalid(KEY, "an address and a port, such as 127.0.0.1:9090 or [::1]:9090, or empty"))
}

/// Splits a text at its commas and leaves out empty parts.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn trusted_proxies(source: &Source) -> Result<Vec<Cidr>, ConfigError> {
    const KEY: &str = "http.trusted_proxies";
    let text = source.optional_text(KEY)?.unwrap_or_default();
    let blocks: Result<_, _> = listed(&text).map(str::parse).collect();
    blocks.map_err(|_| invalid(KEY, "addresses and CIDR blocks such as 10.0.0.0/8, separated by commas, or empty"))
}

fn origins(source: &Source) -> Result<Vec<String>, ConfigError> {
    const KEY: &str = "http.allowed_origins";
    let text = source.optional_text(KEY)?.unwrap_or_default();
    let origins: Vec<String> = listed(&text).map(str::to_owned).collect();
    let is_origin = |origin: &String| {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'))
    };
    if origins.iter().all(is_origin) {
        Ok(origins)
    } else {
        Err(invalid(KEY, "origins such as https://shop.example, separated by commas, without a path"))
    }
}

impl Limits {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        let number = |key, least| {
            let number: u32 = source.number(key, least, 1_000_000_000)?;
            NonZeroU32::new(number).ok_or_else(|| invalid(key, "above 0"))
        };
        let points = |key| number(key, 1);
        // A caller with all its points must be able to pay for the most expensive request: 50 000 points and one for each
        // token.
        let burst = |key| number(key, 60_000);
        Ok(Self {
            customer: Rate {
                points_per_second: points("limits.customer_points_per_second")?,
                burst_points: burst("limits.customer_burst_points")?,
            },
            shop: Rate {
                points_per_second: points("limits.shop_points_per_second")?,
                burst_points: burst("limits.shop_burst_points")?,
            },
            concurrent_requests: source.number("limits.concurrent_requests", 2, 1_000_000)?,
            streams: source.number("limits.streams", 1, 1_000_000)?,
            document_tokens: source.number("limits.document_tokens", 500, 6_000)?,
            document_aliases: source.number("limits.document_aliases", 1, 300)?,
            document_directives: source.number("limits.document_directives", 1, 300)?,
            document_depth: source.number("limits.document_depth", 5, 24)?,
        })
    }
}

impl Database {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        const URL: &str = "database.url";
        const PASSWORD_FILE: &str = "database.password_file";
        let (url, url_file) = source.text_or_file(URL, "database.url_file")?;
        let url = url.ok_or_else(|| invalid(URL, "not empty"))?;
        let known = ["sqlite://", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
        // In memory, each connection would have its own database.
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        if !known || in_memory {
            return Err(invalid(URL, "sqlite://FILE or postgres://USER:PASSWORD@HOST:PORT/DATABASE"));
        }
        let password_file = source.optional_text(PASSWORD_FILE)?;
        let password_file = password_file.map(|path| SecretFile { key: PASSWORD_FILE, path: path.into() });
        if password_file.is_some() && (url.starts_with("sqlite:") || has_password(&url)) {
            return Err(invalid(PASSWORD_FILE, "empty if `database.url` contains a password or names an SQLite file"));
        }
        let password = password_file.as_ref().map(SecretFile::read).transpose()?;
        let login = password_file.map(Login::Password).or(url_file.map(Login::Url));
        let millis = |key, least, most| Ok(Duration::from_millis(source.number(key, least, most)?));
        Ok(Self {
            url: url.into(),
            password,
            login,
            pooler: source.boolean("database.pooler")?,
            migrate: source.boolean("database.migrate")?,
            connections: source.number("database.connections", 2, 200)?,
            statement_timeout: millis("database.statement_timeout_ms", 100, 3_600_000)?,
            idle_transaction_timeout: millis("database.idle_transaction_timeout_ms", 1_000, 600_000)?,
        })
    }
}

impl Writer {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        Ok(Self {
            // The queue must hold one full `recordPurchases`, which is admitted as a whole or not at all.
            queue_items: source.number("writer.queue_items", 500, 1_000_000)?,
            queue_bytes: source.number("writer.queue_bytes", 1 << 20, 4 << 30)?,
            batch_items: source.number("writer.batch_items", 1, 1_000)?,
            fold_purchases: source.number("writer.fold_purchases", 1, 100_000)?,
            sets_writers: source.optional_text("writer.writers")?.is_some(),
        })
    }
}

impl Jobs {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        const MAX_PERIOD_SECONDS: u64 = 7 * 24 * 3_600;
        let period = |key| Ok(Duration::from_secs(source.number(key, 1, MAX_PERIOD_SECONDS)?));
        let days = |key| Ok(Duration::from_hours(24 * source.number::<u64>(key, 1, 3_660)?));
        Ok(Self {
            retention_period: period("jobs.retention_period_seconds")?,
            finished_kept_for: days("jobs.finished_days")?,
            trail_kept_for: days("jobs.trail_days")?,
            audit_period: period("jobs.audit_period_seconds")?,
            audit_customers: source.number("jobs.audit_customers", 0, 100_000)?,
        })
    }
}

impl Cache {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        const STALENESS: &str = "cache.max_staleness";
        let allowed = "a number of seconds from 0 to 60, such as 0.5";
        let seconds: f64 = source.parse(STALENESS, allowed)?;
        if !(0.0..=60.0).contains(&seconds) {
            return Err(invalid(STALENESS, allowed));
        }
        Ok(Self {
            l1_bytes: source.number("cache.l1_bytes", 1 << 20, 1 << 40)?,
            max_staleness: Duration::from_secs_f64(seconds),
        })
    }
}

/// Whether a URL has a password before its host.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

impl Redis {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        const URL: &str = "redis.url";
        const CA_FILE: &str = "redis.ca_file";
        const CERT_FILE: &str = "redis.client_cert_file";
        const KEY_FILE: &str = "redis.client_key_file";
        let (url, _) = source.text_or_file(URL, "redis.url_file")?;
        let pem = |key: &'static str| {
            let path = source.optional_text(key)?;
            path.map(|path| SecretFile { key, path: path.into() }.read_bytes()).transpose()
        };
        let (ca, cert, key) = (pem(CA_FILE)?, pem(CERT_FILE)?, pem(KEY_FILE)?);
        let client = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(invalid(KEY_FILE, "set if `redis.client_cert_file` is set, and empty otherwise")),
        };
        let tls = Tls { ca, client };
        let servers = url.map(|url| RedisServers::new(&url, tls)).transpose().map_err(|error| match error {
            redis_servers::Invalid::Url => invalid(URL, redis_servers::URLS),
            redis_servers::Invalid::Certificates => {
                invalid(CA_FILE, "a file of certificates in PEM, as must be the other two")
            }
        })?;
        Ok(Self { servers, timeout: Duration::from_millis(source.number("redis.timeout_ms", 1, 10_000)?) })
    }
}

impl Auth {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        const SECRET: &str = "auth.hs256_secret";
        const PREVIOUS: &str = "auth.hs256_secret_previous";
        let (hs256_secret, _) = source.text_or_file(SECRET, "auth.hs256_secret_file")?;
        let (hs256_secret_previous, _) = source.text_or_file(PREVIOUS, "auth.hs256_secret_previous_file")?;
        if hs256_secret_previous.is_some() && (hs256_secret.is_none() || hs256_secret == hs256_secret_previous) {
            return Err(invalid(PREVIOUS, "empty, or another secret than `auth.hs256_secret`, which must be set"));
        }
        Ok(Self {
            hs256_secret: hs256_secret.map(Secret::from),
            hs256_secret_previous: hs256_secret_previous.map(Secret::from),
            public_keys: public_keys(source)?,
            issuer: source.text("auth.issuer")?,
            audience: source.text("auth.audience")?,
            leeway: Duration::from_secs(source.number("auth.leeway_seconds", 0, 120)?),
        })
    }
}

fn public_keys(source: &Source) -> Result<Option<PublicKeys>, ConfigError> {
    const JWKS_FILE: &str = "auth.jwks_file";
    const PEM: &str = "auth.public_key_pem";
    let (jwks, jwks_file) = source.text_or_file("auth.jwks", JWKS_FILE)?;
    match (jwks, source.optional_text(PEM)?) {
        (Some(_), Some(_)) => Err(invalid(PEM, "empty if `auth.jwks` or `auth.jwks_file` is set")),
        (Some(url), None) if is_http(&url) => Ok(Some(PublicKeys::JwksUrl(url))),
        // Whoever sets this key to a key set means the other one.
        (Some(_), None) if jwks_file.is_some() => Err(invalid(
            JWKS_FILE,
            "a file that contains an http(s) URL; `auth.jwks` names a file that contains a key set",
        )),
        (Some(file), None) => Ok(Some(PublicKeys::JwksFile(file.into()))),
        (None, Some(file)) => Ok(Some(PublicKeys::Pem(file.into()))),
        (None, None) => Ok(None),
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

impl Log {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        const FILTER: &str = "log.filter";
        let filter = source.text(FILTER)?;
        if filter.parse::<EnvFilter>().is_err() {
            return Err(invalid(
                FILTER,
                "a level, or target=level pairs separated by commas, such as info,windfall=debug",
            ));
        }
        const ENDPOINT: &str = "log.otlp_endpoint";
        let (otlp_endpoint, _) = source.text_or_file(ENDPOINT, "log.otlp_endpoint_file")?;
        if otlp_endpoint.as_ref().is_some_and(|url| !is_http(url)) {
            return Err(invalid(ENDPOINT, "an http or https URL such as http://HOST:PORT/v1/traces, or empty"));
        }
        Ok(Self { filter, otlp_endpoint })
    }
}

fn invalid(key: &'static str, allowed: &str) -> ConfigError {
    ConfigError::Invalid { key, allowed: allowed.to_owned() }
}

/// The name of the environment variable of a key.
fn variable(key: &str) -> String {
    format!("WINDFALL__{}", key.replace('.', "__").to_uppercase())
}

#[cfg(test)]
mod tests;
