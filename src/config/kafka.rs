//! The section `kafka`.

use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
use super::source::Source;
use super::{ConfigError, invalid, listed};

/// The section `kafka`: the topics from which facts are read, and those to which events are published.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// The addresses of brokers, separated by commas.
    pub brokers: String,
    pub security: KafkaSecurity,
    /// Empty: no facts are read.
    pub facts_topics: Vec<String>,
    pub facts_map: Option<PathBuf>,
    pub group: String,
    pub instance_id: Option<String>,
    pub group_protocol: GroupProtocol,
    /// Not used with [`GroupProtocol::Consumer`].
    pub session_timeout: Duration,
    pub buffer_bytes: usize,
    /// `None`: no events are published.
    pub events_topic: Option<String>,
    /// `None`: no balances are published.
    pub balances_topic: Option<String>,
    pub events_transactional: bool,
}

/// How a client and the brokers prove who they are.
#[derive(Clone, Debug)]
pub struct KafkaSecurity {
    /// The keys `tls`, `ca_file`, `client_cert_file` and `client_key_file`. `None`: connections are not encrypted.
    pub tls: Option<KafkaTls>,
    /// The keys `username`, `password` and `sasl_mechanism`. `None`: no login.
    pub sasl: Option<Sasl>,
}

/// The files of certificates and keys, in PEM.
#[derive(Clone, Debug)]
pub struct KafkaTls {
    /// `None`: the certificates of the system.
    pub ca_file: Option<PathBuf>,
    pub client_cert_file: Option<PathBuf>,
    pub client_key_file: Option<PathBuf>,
}

/// A login.
#[derive(Clone, Debug)]
pub struct Sasl {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: Secret,
}

/// How a password is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl SaslMechanism {
    const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// The name that Kafka uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How the members of a consumer group share partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The members decide.
    Classic,
    /// The brokers decide (KIP-848).
    Consumer,
}

impl Kafka {
    /// A consumer of one topic without any security.
    #[cfg(test)]
    pub fn for_tests(brokers: &str, topic: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            security: KafkaSecurity { tls: None, sasl: None },
            facts_topics: vec![topic.to_owned()],
            facts_map: None,
            group: "windfall".to_owned(),
            instance_id: None,
            group_protocol: GroupProtocol::Classic,
            session_timeout: Duration::from_secs(45),
            buffer_bytes: 1 << 20,
            events_topic: None,
            balances_topic: None,
            events_transactional: true,
        }
    }

    pub(super) fn read(source: &Source) -> Result<Option<Self>, ConfigError> {
        const TOPICS: &str = "kafka.facts_topics";
        const EVENTS: &str = "kafka.events_topic";
        const BALANCES: &str = "kafka.balances_topic";
        const PROTOCOL: &str = "kafka.group_protocol";
        let brokers = source.optional_text("kafka.brokers")?;
        let topics = source.optional_text(TOPICS)?.unwrap_or_default();
        let facts_topics: Vec<String> = listed(&topics).map(str::to_owned).collect();
        let group_protocol = match &*source.text(PROTOCOL)? {
            "classic" => GroupProtocol::Classic,
            "consumer" => GroupProtocol::Consumer,
            _ => return Err(invalid(PROTOCOL, "classic or consumer")),
        };
        let kafka = Self {
            brokers: brokers.clone().unwrap_or_default(),
            security: KafkaSecurity::read(source)?,
            facts_map: source.optional_text("kafka.facts_map")?.map(PathBuf::from),
            group: source.text("kafka.group")?,
            instance_id: source.optional_text("kafka.instance_id")?,
            group_protocol,
            session_timeout: Duration::from_millis(source.number("kafka.session_timeout_ms", 1_000, 1_800_000)?),
            buffer_bytes: source.number("kafka.buffer_bytes", 1 << 20, 4 << 30)?,
            events_topic: source.optional_text(EVENTS)?,
            balances_topic: source.optional_text(BALANCES)?,
            events_transactional: source.boolean("kafka.events_transactional")?,
            facts_topics,
        };
        if kafka.events_topic.is_some() && kafka.events_topic == kafka.balances_topic {
            return Err(invalid(BALANCES, "another topic than `kafka.events_topic`"));
        }
        let published = [&kafka.events_topic, &kafka.balances_topic];
        if let Some(topic) = published.into_iter().flatten().find(|topic| kafka.facts_topics.contains(topic)) {
            return Err(invalid(TOPICS, &format!("without `{topic}`, to which events are published")));
        }
        let has_topic = !kafka.facts_topics.is_empty() || published.into_iter().any(Option::is_some);
        match (brokers, has_topic) {
            (None, false) => Ok(None),
            (None, true) => Err(invalid("kafka.brokers", "set if a topic of the section `kafka` is set")),
            (Some(_), false) => Err(invalid(
                TOPICS,
                "the names of topics, separated by commas, if `kafka.brokers` is set and no topic for events is",
            )),
            (Some(_), true) => Ok(Some(kafka)),
        }
    }
}

impl KafkaSecurity {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        const CA_FILE: &str = "kafka.ca_file";
        const CERT_FILE: &str = "kafka.client_cert_file";
        const KEY_FILE: &str = "kafka.client_key_file";
        const USERNAME: &str = "kafka.username";
        const PASSWORD: &str = "kafka.password";
        const MECHANISM: &str = "kafka.sasl_mechanism";
        let file = |key| Ok(source.optional_text(key)?.map(PathBuf::from));
        let tls =
            KafkaTls { ca_file: file(CA_FILE)?, client_cert_file: file(CERT_FILE)?, client_key_file: file(KEY_FILE)? };
        if tls.client_cert_file.is_some() != tls.client_key_file.is_some() {
            return Err(invalid(KEY_FILE, "set if `kafka.client_cert_file` is set, and empty otherwise"));
        }
        let uses_tls = source.boolean("kafka.tls")?;
        if !uses_tls && (tls.ca_file.is_some() || tls.client_cert_file.is_some()) {
            return Err(invalid(CA_FILE, "empty, as must be the other two, if `kafka.tls` is false"));
        }
        let mechanism = source.text(MECHANISM)?;
        let mechanism = SaslMechanism::ALL.into_iter().find(|known| known.name() == mechanism);
        let mechanism = mechanism.ok_or_else(|| invalid(MECHANISM, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"))?;
        let (password, _) = source.text_or_file(PASSWORD, "kafka.password_file")?;
        let sasl = match (source.optional_text(USERNAME)?, password) {
            (Some(username), Some(password)) => Some(Sasl { mechanism, username, password: password.into() }),
            (None, None) => None,
            (Some(_), None) => return Err(invalid(PASSWORD, "set if `kafka.username` is set")),
            (None, Some(_)) => return Err(invalid(USERNAME, "set if `kafka.password` is set")),
        };
        Ok(Self { tls: uses_tls.then_some(tls), sasl })
    }
}
