//! What would become of the messages of a topic, as far as that can be told without the database. Nothing is recorded.
//!
//! Not told is what depends on what is recorded: whether a fact is known already or conflicts with another content, and whether the
//! purchase of a refund allows it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::json::JsonMap;
use super::message::{self, Fact};
use super::partition::MAX_FAILURES;
use super::record::{LeftOut, Parsed, Record};
use crate::app::clock::Clock;
use crate::app::error::Error;
use crate::app::message::Message;
use crate::app::refund::RecordRefund;

/// The number of different reasons, rules and unknown fields that are told. All are counted.
const MAX_GROUPS: usize = 200;
/// The longest text that is told, in characters.
const MAX_CHARACTERS: usize = 300;

/// Finds out what would become of messages.
pub struct Check {
    map: Option<JsonMap>,
    clock: Clock,
    found: Found,
    /// How many messages in a row could not be recorded, by partition.
    failures: BTreeMap<i32, usize>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    pub outcomes: Outcomes,
    pub dead_letters: Groups,
    pub left_out: Groups,
    pub unknown_fields: Groups,
    pub remarks: Remarks,
    /// The partitions in which more messages in a row would become dead letters than stop a partition.
    pub stopping_partitions: Vec<i32>,
}

/// The number of messages by what would become of them. Each message is in one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcomes {
    pub purchases: u64,
    pub refunds: u64,
    pub adjustments: u64,
    pub left_out: u64,
    pub dead_letters: u64,
}

/// The number of messages with a property. A message can be in several of them, or in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Remarks {
    pub without_key: u64,
    /// The key is not the external id of the customer. Of refunds, the customer is not known.
    pub key_is_not_the_customer: u64,
    pub registry_mark: u64,
    pub tombstones: u64,
    pub too_large: u64,
    /// Purchases that state refunds beside them.
    pub with_refunds: u64,
}

/// Texts that are alike but for their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    groups: BTreeMap<String, Group>,
    /// How many texts are in no group, because there are too many different ones.
    pub more: u64,
}

/// The first text of a group, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub count: u64,
    pub text: String,
    /// Where the first of them is.
    pub partition: i32,
    pub offset: i64,
}

impl Check {
    /// Begins with no message. `clock` is used to refuse facts from the future.
    pub fn new(map: Option<JsonMap>, clock: Clock) -> Self {
        Self { map, clock, found: Found::default(), failures: BTreeMap::new() }
    }

    /// Notes a message. Those of a partition come in order.
    pub fn note(&mut self, message: &Message) {
        let value = message.value.as_deref();
        let remarks = &mut self.found.remarks;
        remarks.without_key += u64::from(message.key.is_none());
        remarks.tombstones += u64::from(value.is_none());
        remarks.registry_mark += u64::from(value.is_some_and(message::has_registry_mark));
        remarks.too_large += u64::from(value.is_some_and(message::is_too_large));
        let parsed = message::parse(message, self.map.as_ref(), &self.clock);
        let fact = parsed.and_then(|fact| self.refused(&fact.parsed).map_or(Ok(fact), Err));
        let failures = self.failures.entry(message.partition).or_default();
        match fact {
            Ok(fact) => {
                *failures = 0;
                self.found.note(message, &fact);
            }
            Err(reason) => {
                *failures += 1;
                if *failures == MAX_FAILURES + 1 && !self.found.stopping_partitions.contains(&message.partition) {
                    self.found.stopping_partitions.push(message.partition);
                }
                self.found.outcomes.dead_letters += 1;
                self.found.dead_letters.note(&reason, message);
            }
        }
    }

    /// Returns what was found.
    pub fn found(self) -> Found {
        self.found
    }

    /// Why the recorder would refuse what was parsed.
    fn refused(&self, parsed: &Parsed) -> Option<String> {
        let now = self.clock.now();
        let alone = |refund: &RecordRefund| refund.check_alone(now).err().map(|error| error.to_string());
        let own = match &parsed.record {
            Record::Purchase(new) if !new.ahead.is_empty() => Some(Error::Refused(new.ahead.clone()).to_string()),
            Record::Refund(refund) => alone(refund),
            Record::Purchase(_) | Record::Adjustment(_) | Record::LeftOut(_) => None,
        };
        own.or_else(|| parsed.refunds.iter().find_map(alone))
    }
}

impl Found {
    fn note(&mut self, message: &Message, fact: &Fact) {
        for path in &fact.unknown_fields {
            self.unknown_fields.note(path, message);
        }
        let Outcomes { purchases, refunds, adjustments, left_out, .. } = &mut self.outcomes;
        let customer = match &fact.parsed.record {
            Record::Purchase(new) => {
                *purchases += 1;
                Some(&*new.customer_external_id)
            }
            Record::Adjustment(new) => {
                *adjustments += 1;
                Some(&*new.customer_external_id)
            }
            Record::Refund(_) => {
                *refunds += 1;
                None
            }
            Record::LeftOut(LeftOut { reason, .. }) => {
                *left_out += 1;
                self.left_out.note(reason, message);
                None
            }
        };
        self.remarks.with_refunds += u64::from(!fact.parsed.refunds.is_empty());
        let key = message.key.as_deref();
        let is_other = |customer: &str| key.is_some_and(|key| !is_customer(key, customer));
        self.remarks.key_is_not_the_customer += u64::from(customer.is_some_and(is_other));
    }

    /// Whether each message would be recorded or left out.
    pub fn is_clean(&self) -> bool {
        self.outcomes.dead_letters == 0
    }
}

/// Whether a key is the customer: as a plain text, or as a text in JSON.
fn is_customer(key: &[u8], customer: &str) -> bool {
    key == customer.as_bytes() || serde_json::from_slice::<String>(key).is_ok_and(|key| key == customer)
}

impl Outcomes {
    /// The number of messages that would be recorded.
    pub fn recorded(&self) -> u64 {
        self.purchases + self.refunds + self.adjustments
    }

    /// The number of all messages.
    pub fn messages(&self) -> u64 {
        self.recorded() + self.left_out + self.dead_letters
    }
}

impl Groups {
    fn note(&mut self, text: &str, message: &Message) {
        let key = alike(text);
        if let Some(group) = self.groups.get_mut(&key) {
            group.count += 1;
        } else if self.groups.len() < MAX_GROUPS {
            let text = text.chars().take(MAX_CHARACTERS).collect();
            let (partition, offset) = (message.partition, message.offset);
            self.groups.insert(key, Group { count: 1, text, partition, offset });
        } else {
            self.more += 1;
        }
    }

    /// Returns the groups, the largest first.
    pub fn by_count(&self) -> Vec<&Group> {
        let mut groups: Vec<&Group> = self.groups.values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups
    }
}

impl Serialize for Groups {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_count().serialize(serializer)
    }
}

/// Returns what texts have in common that differ in their numbers only, such as the column of a fault.
fn alike(text: &str) -> String {
    let mut common = String::new();
    for character in text.chars().take(MAX_CHARACTERS) {
        match character {
            '0'..='9' if common.ends_with('0') => {}
            '0'..='9' => common.push('0'),
            _ => common.push(character),
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicI64;

    use super::*;

    const PURCHASE: &str = r#"{"externalId":"p","customerExternalId":"ada","purchasedAt":"2026-01-01T00:00:00Z","total":"1","currency":"EUR"}"#;

    fn check(messages: &[(i32, Option<&str>, Option<&str>)]) -> Found {
        // 2026-02-01.
        let mut check = Check::new(None, Clock::Fixed(Arc::new(AtomicI64::new(1_769_904_000_000_000))));
        for (offset, (partition, key, value)) in messages.iter().enumerate() {
            check.note(&Message {
                topic: "t".into(),
                partition: *partition,
                offset: i64::try_from(offset).unwrap(),
                key: key.map(|key| key.as_bytes().to_vec()),
                headers: Vec::new(),
                value: value.map(|value| value.as_bytes().to_vec()),
                sent_at: None,
            });
        }
        check.found()
    }

    #[test]
    fn each_message_has_one_outcome() {
        let refund =
            r#"{"refund":{"externalId":"r","purchaseExternalId":"p","refundedAt":"2026-01-02T00:00:00Z","by":"eve"}}"#;
        let adjustment = r#"{"adjustment":{"customerExternalId":"ada","points":1,"reason":"r","idempotencyKey":"k"}}"#;
        let marked = format!("\0\0\0\0\u{5}{PURCHASE}");
        let found = check(&[
            (0, Some("ada"), Some(PURCHASE)),
            (0, Some("\"ada\""), Some(&marked)),
            (0, Some("p"), Some(refund)),
            (1, None, Some(adjustment)),
            (1, Some("bob"), Some(adjustment)),
            (1, Some("ada"), None),
            (1, Some("ada"), Some("{")),
        ]);
        let outcomes = Outcomes { purchases: 2, refunds: 1, adjustments: 2, left_out: 0, dead_letters: 2 };
        assert_eq!((found.outcomes, outcomes.messages(), outcomes.recorded()), (outcomes, 7, 5));
        let remarks = Remarks {
            without_key: 1,
            key_is_not_the_customer: 1,
            registry_mark: 1,
            tombstones: 1,
            ..Remarks::default()
        };
        assert_eq!(found.remarks, remarks);
        assert_eq!(found.unknown_fields.by_count()[0].text, "refund.by");
        assert!(!found.is_clean());
    }

    #[test]
    fn what_the_recorder_would_refuse_is_a_dead_letter() {
        let future = PURCHASE.replace("2026-01-01", "2026-02-03");
        let refund = r#"{"refund":{"externalId":"","purchaseExternalId":"p","refundedAt":"2026-01-02T00:00:00Z"}}"#;
        let found = check(&[(0, None, Some(&future)), (0, None, Some(refund))]);
        let told: Vec<&str> = found.dead_letters.by_count().iter().map(|group| group.text.as_str()).collect();
        assert!(told.iter().any(|told| told.starts_with("purchasedAt")), "{told:?}");
        assert!(told.iter().any(|told| told.starts_with("externalId")), "{told:?}");
    }

    #[test]
    fn reasons_are_grouped_with_the_position_of_the_first() {
        let bad = [r#"{"a": x}"#, r#"{"aaaa": x}"#, "null"].map(|value| (3, None, Some(value)));
        let found = check(&bad);
        let [first, second] = found.dead_letters.by_count()[..] else { panic!("{found:?}") };
        assert_eq!((first.count, first.partition, first.offset, second.count), (2, 3, 0, 1));
        assert!(first.text.ends_with("(column 7)"), "{first:?}");
    }

    #[test]
    fn a_row_of_dead_letters_stops_its_partition() {
        let mut messages = vec![(4, None, None); MAX_FAILURES];
        messages.push((5, None, None));
        assert!(check(&messages).stopping_partitions.is_empty());
        messages.push((4, None, None));
        assert_eq!(check(&messages).stopping_partitions, [4]);
        messages.insert(7, (4, None, Some(PURCHASE)));
        assert!(check(&messages).stopping_partitions.is_empty(), "not in a row");
    }

    #[test]
    fn the_number_of_reasons_is_bounded() {
        let with_field = |n: usize| format!("{{\"{}\": 1, {}", "a".repeat(n + 1), &PURCHASE[1..]);
        let values: Vec<String> = (0..=MAX_GROUPS).map(with_field).collect();
        let messages: Vec<_> = values.iter().map(|value| (0, None, Some(value.as_str()))).collect();
        let found = check(&messages);
        assert_eq!((found.unknown_fields.by_count().len(), found.unknown_fields.more), (MAX_GROUPS, 1));
        assert!(found.is_clean());
    }
}
