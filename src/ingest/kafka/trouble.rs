//! What hinders a client of Kafka. The client tries again for ever, and reports each try.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode, RDKafkaErrorCode as Cause};
use rdkafka::statistics::Statistics;

/// Knows why no broker can be used.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// Returns why no broker can be used. `None`: one can, or nothing is known.
    pub(super) fn problem(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// Notes whether a broker can be used.
    pub(super) fn note_brokers(&self, statistics: &Statistics) {
        // A broker without a number is one of the configuration, to which the client need not stay connected.
        let is_up = statistics.brokers.values().any(|broker| broker.state == "UP");
        if is_up && self.0.lock().take().is_some() {
            tracing::info!("Kafka can be used again");
        }
    }
}

impl ClientContext for Trouble {
    /// Logs what the client writes. Its warnings are about what it mends itself.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(facility, "{message}");
            }
            _ => tracing::debug!(facility, "{message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.note_brokers(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let Some(problem) = problem(code, reason) else {
            tracing::debug!(error = %error, reason, "the Kafka client reports an error");
            return;
        };
        let mut known = self.0.lock();
        // That no broker is left follows from the cause that was reported before.
        if code == Cause::AllBrokersDown && known.is_some() {
            return;
        }
        if known.as_deref() != Some(&*problem) {
            tracing::error!(reason, "Kafka: {problem}");
            *known = Some(problem);
        }
    }
}

/// Says what is wrong, so that an operator knows what to change. The client itself says only that it cannot connect.
fn problem(code: RDKafkaErrorCode, reason: &str) -> Option<String> {
    let says = |what: &str| reason.to_ascii_lowercase().contains(what);
    Some(match code {
        Cause::Authentication | Cause::SaslAuthenticationFailed => {
            "the brokers refuse the login: check `kafka.username`, `kafka.password` and `kafka.sasl_mechanism`".to_owned()
        }
        Cause::SSL => "the certificate of a broker is not accepted: check `kafka.ca_file`, and that its host name is the one in \
            `kafka.brokers` and in the broker's advertised address"
            .to_owned(),
        Cause::BrokerTransportFailure if says("certificate") || says("ssl") => {
            "the brokers do not accept the certificate of this client: check `kafka.client_cert_file` and `kafka.client_key_file`"
                .to_owned()
        }
        Cause::Resolve => "the host name of a broker is not known: check `kafka.brokers` and the broker's advertised address".to_owned(),
        Cause::AllBrokersDown => "no broker can be reached: check `kafka.brokers`, and whether they expect `kafka.tls` or a login".to_owned(),
        Cause::TopicAuthorizationFailed | Cause::GroupAuthorizationFailed | Cause::ClusterAuthorizationFailed => {
            "the user may not use a topic, or may not join the group: check the access rules of the brokers".to_owned()
        }
        Cause::UnknownTopicOrPartition | Cause::UnknownTopic => {
            "a topic of the section `kafka` does not exist".to_owned()
        }
        _ => return None,
    })
}
