//! What a message of an event contains: a CloudEvent in the binary mode of its Kafka binding. Attributes are headers with the prefix `ce_`,
//! and the value is JSON. The key of each message is the external id of the customer.

use crate::app::event::{BALANCE, CUSTOMER_ERASED, POINTS_CHANGED};
use crate::app::model::OutboxRow;
use crate::config;
use crate::engine::time::Instant;

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    pub(super) key: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    /// `None`: a tombstone, with which a compacted topic forgets the customer.
    pub(super) value: Option<&'a str>,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topics {
    events: Option<String>,
    balances: Option<String>,
    /// The source of all events: which installation they come from.
    source: String,
}

impl Topics {
    /// The topics of the configuration, for the events of an installation.
    pub(super) fn of(config: &config::Kafka, installation: &str) -> Self {
        Self {
            events: config.events_topic.clone(),
            balances: config.balances_topic.clone(),
            source: format!("urn:windfall:{installation}"),
        }
    }

    /// The name under which the events of a bucket are published in transactions. It has the topics in it, because a copy of the database
    /// that publishes to other topics must not end the transactions of the original.
    pub(super) fn transactional_id(&self, bucket: i32) -> String {
        let topics: Vec<&str> = self.names().collect();
        format!("{}:{}:{bucket}", self.source, topics.join(":"))
    }

    /// The topics that must exist.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.events.iter().chain(&self.balances).map(String::as_str)
    }

    /// Returns the messages of an event, in order.
    pub(super) fn messages<'a>(&'a self, row: &'a OutboxRow) -> Vec<Outgoing<'a>> {
        let (key, erases) = (row.key.as_str(), row.erases > 0);
        let event = self.events.as_deref().map(|topic| {
            let kind = if erases { CUSTOMER_ERASED } else { POINTS_CHANGED };
            Outgoing { topic, key, headers: self.headers(row, kind), value: Some(&row.event) }
        });
        let balance = self.balances.as_deref().and_then(|topic| match &row.balance {
            _ if erases => Some(Outgoing { topic, key, headers: Vec::new(), value: None }),
            Some(balance) => {
                let mut headers = self.headers(row, BALANCE);
                // The event has the same source, so the ids must differ.
                headers.retain(|(name, _)| *name != "ce_id");
                headers.push(("ce_id", format!("balance:{}", row.event_id)));
                Some(Outgoing { topic, key, headers, value: Some(balance) })
            }
            None => None,
        });
        event.into_iter().chain(balance).collect()
    }

    fn headers(&self, row: &OutboxRow, kind: &str) -> Vec<(&'static str, String)> {
        vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", row.event_id.clone()),
            ("ce_source", self.source.clone()),
            ("ce_type", kind.to_owned()),
            ("ce_time", Instant(row.committed_at).to_string()),
            ("ce_subject", row.key.clone()),
            ("ce_partitionkey", row.key.clone()),
            // Texts that sort like the numbers, as the extension `sequence` wants.
            ("ce_sequence", format!("{:020}.{:06}", row.version, row.part)),
            ("content-type", "application/json".to_owned()),
        ]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::app::model::CustomerId;

    pub(in crate::ingest::kafka) fn row() -> OutboxRow {
        OutboxRow {
            id: 1,
            segment: 0,
            bucket: 7,
            customer_id: CustomerId(7),
            version: 3,
            part: 1,
            key: "ada".to_owned(),
            event_id: "c".to_owned(),
            event: "{}".to_owned(),
            balance: Some("{\"available\":1}".to_owned()),
            erases: 0,
            committed_at: 0,
            published: 0,
        }
    }

    fn topics(events: bool, balances: bool) -> Topics {
        let name = |wanted: bool, name: &str| wanted.then(|| name.to_owned());
        Topics { events: name(events, "e"), balances: name(balances, "b"), source: "urn:windfall:1".to_owned() }
    }

    fn sent(topics: &Topics, row: &OutboxRow) -> Vec<(String, Option<String>)> {
        let messages = topics.messages(row);
        messages.into_iter().map(|it| (it.topic.to_owned(), it.value.map(str::to_owned))).collect()
    }

    #[test]
    fn each_topic_gets_its_message() {
        let (event, balance) = (("e".to_owned(), Some("{}".to_owned())), ("b".to_owned(), row().balance));
        assert_eq!(sent(&topics(true, true), &row()), [event.clone(), balance.clone()]);
        assert_eq!(sent(&topics(false, true), &row()), [balance]);
        // Only the last event of a commit has the balance.
        assert_eq!(
            sent(&topics(true, true), &OutboxRow { balance: None, ..row() }),
            sent(&topics(true, false), &row())
        );
        assert_eq!(sent(&topics(true, false), &row()), [event]);
    }

    #[test]
    fn a_copy_with_other_topics_has_other_transactions() {
        assert_eq!(topics(true, true).transactional_id(3), "urn:windfall:1:e:b:3");
        assert_eq!(topics(false, true).transactional_id(3), "urn:windfall:1:b:3");
    }

    #[test]
    fn an_erasure_is_an_event_and_a_tombstone() {
        let erasure = OutboxRow { erases: 1, balance: None, ..row() };
        let told = topics(true, true);
        let told = told.messages(&erasure);
        assert!(told[0].headers.contains(&("ce_type", CUSTOMER_ERASED.to_owned())));
        assert_eq!((told[1].topic, told[1].key, told[1].value), ("b", "ada", None));
    }

    #[test]
    fn attributes_are_those_of_cloud_events() {
        let (topics, row) = (topics(true, false), row());
        let headers = topics.messages(&row)[0].headers.clone();
        let value = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        for (name, expected) in [
            ("ce_specversion", "1.0"),
            ("ce_id", "c"),
            ("ce_source", "urn:windfall:1"),
            ("ce_type", POINTS_CHANGED),
            ("ce_time", "1970-01-01T00:00:00Z"),
            ("ce_partitionkey", "ada"),
            ("ce_sequence", "00000000000000000003.000001"),
        ] {
            assert_eq!(value(name), Some(expected), "{name}");
        }
    }
}
