//! The configuration: one struct per area, read once at start.
//!
//! Three layers, the later the stronger: `config/default.toml` (embedded; it explains every key and is the one place that
//! holds defaults), `windfall.toml`, `WINDFALL__…` environment variables. Whatever is wrong stops the start with the key's name
//! and what is allowed. Values never appear in messages, because a database URL or a secret may be among them.

mod cidr;
mod source;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::Environment;
use tracing_subscriber::EnvFilter;

pub use cidr::Cidr;
use source::Source;

/// The file that is read where `--config` names none. It need not exist.
const FILE: &str = "windfall.toml";

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where and how requests are taken.
    pub http: Http,
    /// Where everything is stored.
    pub database: Database,
    /// What one caller may ask.
    pub limits: Limits,
    /// Limits of the write queue.
    pub writer: Writer,
    /// What reads are answered from.
    pub cache: Cache,
    /// What nodes share beside the database.
    pub redis: Redis,
    /// Whose tokens are accepted.
    pub auth: Auth,
    /// What is logged.
    pub log: Log,
}

/// Where and how requests are taken.
#[derive(Clone, Debug)]
pub struct Http {
    /// `http.listen`
    pub listen: SocketAddr,
    /// `http.internal_listen`
    pub internal_listen: Option<SocketAddr>,
    /// `http.request_timeout_ms`
    pub request_timeout: Duration,
    /// `http.head_timeout_ms`
    pub head_timeout: Duration,
    /// `http.write_timeout_ms`
    pub write_timeout: Duration,
    /// `http.stop_timeout_ms`
    pub stop_timeout: Duration,
    /// `http.body_limit_bytes`
    pub body_limit_bytes: usize,
    /// `http.unfinished_bytes`
    pub unfinished_bytes: usize,
    /// `http.connections`
    pub connections: usize,
    /// `http.sockets_per_subject`
    pub sockets_per_subject: usize,
    /// `http.sockets_per_address`
    pub sockets_per_address: usize,
    /// `http.trusted_proxies`
    pub trusted_proxies: Vec<Cidr>,
    /// `http.allowed_origins`
    pub allowed_origins: Vec<String>,
    /// `http.introspection`
    pub introspection: bool,
    /// `http.graphiql`
    pub graphiql: bool,
    /// `http.documents`
    pub documents: Option<PathBuf>,
}

/// What one caller may ask.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `limits.customer_…`: customers and whoever has no token.
    pub customer: Rate,
    /// `limits.shop_…`: storefronts and admins.
    pub shop: Rate,
    /// `limits.concurrent_requests`
    pub concurrent_requests: usize,
    /// `limits.streams`
    pub streams: usize,
    /// `limits.document_tokens`
    pub document_tokens: u32,
    /// `limits.document_aliases`
    pub document_aliases: u32,
    /// `limits.document_directives`
    pub document_directives: u32,
    /// `limits.document_depth`
    pub document_depth: u32,
}

/// Points that come back to a caller.
#[derive(Clone, Debug)]
pub struct Rate {
    /// `…_points_per_second`
    pub points_per_second: NonZeroU32,
    /// `…_burst_points`: the most it can have.
    pub burst_points: NonZeroU32,
}

/// Where everything is stored.
#[derive(Clone, Debug)]
pub struct Database {
    /// `database.url`, which may hold a password.
    pub url: Secret,
    /// `database.migrate`
    pub migrate: bool,
    /// `database.connections`
    pub connections: u32,
    /// `database.statement_timeout_ms`
    pub statement_timeout: Duration,
    /// `database.idle_transaction_timeout_ms`
    pub idle_transaction_timeout: Duration,
}

/// Limits of the write queue.
#[derive(Clone, Debug)]
pub struct Writer {
    /// `writer.queue_items`
    pub queue_items: usize,
    /// `writer.queue_bytes`
    pub queue_bytes: usize,
    /// `writer.batch_items`
    pub batch_items: usize,
    /// `writer.fold_purchases`
    pub fold_purchases: usize,
    /// `writer.writers`
    pub writers: u32,
}

/// What reads are answered from.
#[derive(Clone, Debug)]
pub struct Cache {
    /// `cache.l1_bytes`
    pub l1_bytes: u64,
    /// `cache.max_staleness`: zero where every read looks.
    pub max_staleness: Duration,
}

/// What nodes share beside the database.
#[derive(Clone, Debug)]
pub struct Redis {
    /// `redis.url`, which may hold a password.
    pub url: Option<Secret>,
    /// `redis.timeout_ms`
    pub timeout: Duration,
}

/// Whose tokens are accepted. With no key at all the commands that need one refuse to start.
#[derive(Clone, Debug)]
pub struct Auth {
    /// `auth.hs256_secret`
    pub hs256_secret: Option<Secret>,
    /// `auth.jwks` or `auth.public_key_pem`
    pub public_keys: Option<PublicKeys>,
    /// `auth.issuer`
    pub issuer: String,
    /// `auth.audience`
    pub audience: String,
    /// `auth.leeway_seconds`
    pub leeway: Duration,
}

/// Where the keys of signed tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKeys {
    /// A file with one key.
    Pem(PathBuf),
    /// A key set in a file.
    JwksFile(PathBuf),
    /// A key set behind an http or https URL.
    JwksUrl(String),
}

/// What is logged.
#[derive(Clone, Debug)]
pub struct Log {
    /// `log.filter`
    pub filter: String,
    /// `log.otlp_endpoint`
    pub otlp_endpoint: Option<String>,
}

/// A text that must not show up in logs and messages.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why the configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read, or it is not TOML.
    #[error("the configuration file {} cannot be read: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The environment could not be read.
    #[error("a WINDFALL__ environment variable is named or encoded in a way that cannot be read")]
    Environment,
    /// A key that does not exist.
    #[error("the configuration key `{key}` does not exist; config/default.toml lists all keys")]
    UnknownKey {
        /// The key as it was given.
        key: String,
    },
    /// A value that is not allowed.
    #[error("the configuration key `{key}` ({variable}) must be {allowed}", variable = variable(key))]
    Invalid {
        /// The key.
        key: &'static str,
        /// What is allowed.
        allowed: String,
    },
}

impl Config {
    /// Reads the file, or `windfall.toml` where it is `None`, and the process's environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(file, Environment::default())
    }

    /// What holds where nothing is configured.
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
            cache: Cache::read(source)?,
            redis: Redis::read(source)?,
            auth: Auth::read(source)?,
            log: Log::read(source)?,
        };
        source.refuse_unread_keys()?;
        // One address gets half of it at most, and a body must fit into that while another waits.
        if config.http.unfinished_bytes / 4 < config.http.body_limit_bytes {
            return Err(invalid("http.unfinished_bytes", "at least four times `http.body_limit_bytes`"));
        }
        // With a connection for each writer and none left, reads would wait for writes. SQLite has pools of its own.
        let sqlite = config.database.url.expose().starts_with("sqlite:");
        if !sqlite && config.writer.writers >= config.database.connections {
            return Err(invalid("writer.writers", "below `database.connections`"));
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

/// The parts of a text that commas separate, without those that are empty.
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
        // At least what the dearest operation that is admitted costs.
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
        let url = source.text(URL)?;
        let known = ["sqlite://", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
        // Each connection would have a database of its own.
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        if !known || in_memory {
            return Err(invalid(URL, "sqlite://FILE or postgres://USER:PASSWORD@HOST:PORT/DATABASE"));
        }
        let millis = |key, least, most| Ok(Duration::from_millis(source.number(key, least, most)?));
        Ok(Self {
            url: Secret(url),
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
            // At least one whole recordPurchases, which is admitted all or none.
            queue_items: source.number("writer.queue_items", 500, 1_000_000)?,
            queue_bytes: source.number("writer.queue_bytes", 1 << 20, 4 << 30)?,
            batch_items: source.number("writer.batch_items", 1, 1_000)?,
            fold_purchases: source.number("writer.fold_purchases", 1, 100_000)?,
            writers: source.number("writer.writers", 1, 64)?,
        })
    }
}

impl Cache {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        const STALENESS: &str = "cache.max_staleness";
        let allowed = "seconds from 0 to 60, such as 0.5";
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

impl Redis {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        const URL: &str = "redis.url";
        let url = source.optional_text(URL)?;
        if url.as_ref().is_some_and(|url| redis::Client::open(url.as_str()).is_err()) {
            return Err(invalid(URL, "redis://HOST:PORT, redis://USER:PASSWORD@HOST:PORT/DATABASE, or empty"));
        }
        Ok(Self { url: url.map(Secret), timeout: Duration::from_millis(source.number("redis.timeout_ms", 1, 10_000)?) })
    }
}

impl Auth {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        let hs256_secret = source.optional_text("auth.hs256_secret")?;
        const PEM: &str = "auth.public_key_pem";
        let public_keys = match (source.optional_text("auth.jwks")?, source.optional_text(PEM)?) {
            (Some(_), Some(_)) => return Err(invalid(PEM, "empty where `auth.jwks` is set")),
            (Some(url), None) if url.starts_with("https://") || url.starts_with("http://") => {
                Some(PublicKeys::JwksUrl(url))
            }
            (Some(file), None) => Some(PublicKeys::JwksFile(file.into())),
            (None, Some(file)) => Some(PublicKeys::Pem(file.into())),
            (None, None) => None,
        };
        Ok(Self {
            hs256_secret: hs256_secret.map(Secret),
            public_keys,
            issuer: source.text("auth.issuer")?,
            audience: source.text("auth.audience")?,
            leeway: Duration::from_secs(source.number("auth.leeway_seconds", 0, 120)?),
        })
    }
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
        let otlp_endpoint = source.optional_text(ENDPOINT)?;
        if otlp_endpoint.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            return Err(invalid(ENDPOINT, "an http or https URL such as http://HOST:PORT/v1/traces, or empty"));
        }
        Ok(Self { filter, otlp_endpoint })
    }
}

fn invalid(key: &'static str, allowed: &str) -> ConfigError {
    ConfigError::Invalid { key, allowed: allowed.to_owned() }
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("WINDFALL__{}", key.replace('.', "__").to_uppercase())
}

#[cfg(test)]
mod tests;
