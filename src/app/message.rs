//! A message of a topic: what is stored of it if it cannot be recorded at once, and the hash by which it is recognised.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use entity::dead_letter;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::engine::time::Instant;

/// The number of bytes of a value that are stored. `api.graphql` states it.
pub const MAX_STORED_BYTES: usize = 64 << 10;
/// The approximate memory of a message beside its key, its value and its headers, in bytes.
pub const OVERHEAD_BYTES: usize = 256;
/// The number of bytes of a key that are stored. Keys are ids, which have at most 200 bytes.
const MAX_KEY_BYTES: usize = 1_024;
/// The number of headers that are stored, and of the bytes of their names and values together.
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 16 << 10;
/// The number of bytes of a hash: enough that no two messages have the same.
const HASH_BYTES: usize = 16;
/// The maximum length of a stored reason, in characters.
const REASON_CHARACTERS: usize = 1_000;

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    /// The headers, in order. A name can occur several times.
    pub headers: Vec<Header>,
    /// `None`: the message is a tombstone.
    pub value: Option<Vec<u8>>,
    /// When it was sent, as its producer or the broker says.
    pub sent_at: Option<Instant>,
}

/// The name of a header, and its value.
pub type Header = (String, Option<Vec<u8>>);

impl Message {
    /// Returns the approximate memory of the message, in bytes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + len(value.as_ref())).sum();
        OVERHEAD_BYTES + len(self.key.as_ref()) + len(self.value.as_ref()) + headers
    }

    /// Computes the hash of the key and the value.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.key, &self.value] {
            // The length keeps the parts apart, and tells an empty part from a missing one.
            let length = part.as_ref().map_or(u64::MAX, |part| part.len() as u64);
            hash.update(length.to_be_bytes());
            hash.update(part.as_deref().unwrap_or_default());
        }
        hash.finalize().iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the message as a dead letter.
    pub fn dead(&self, reason: &str, now: Instant) -> dead_letter::Model {
        let value = self.value.as_deref();
        dead_letter::Model {
            id: 0,
            topic: self.topic.to_string(),
            partition: self.partition.into(),
            message_offset: self.offset,
            hash: self.hash(),
            // A parser may quote the text, which may contain what PostgreSQL does not store.
            reason: reason.chars().filter(|character| *character != '\0').take(REASON_CHARACTERS).collect(),
            recorded_at: now.0,
            key: self.key.as_deref().map(|key| key[..key.len().min(MAX_KEY_BYTES)].to_vec()),
            headers: stored_headers(&self.headers),
            size: value.map(|value| i64::try_from(value.len()).unwrap_or(i64::MAX)),
            payload: value.map(|value| value[..value.len().min(MAX_STORED_BYTES)].to_vec()).unwrap_or_default(),
        }
    }
}

fn len(part: Option<&Vec<u8>>) -> usize {
    part.map_or(0, Vec::len)
}

fn stored_headers(headers: &[Header]) -> String {
    let mut bytes = 0;
    let fits = |(name, value): &&Header| {
        bytes += name.len() + len(value.as_ref());
        bytes <= MAX_HEADER_BYTES
    };
    let headers = headers.iter().take(MAX_HEADERS).take_while(fits);
    let headers: Vec<_> =
        headers.map(|(name, value)| (name, value.as_ref().map(|value| BASE64_STANDARD.encode(value)))).collect();
    // A list of texts is always JSON.
    serde_json::to_string(&headers).unwrap_or_default()
}

/// Reads the headers of a dead letter.
pub fn headers(stored: &str) -> Vec<Header> {
    let headers: Vec<(String, Option<String>)> = serde_json::from_str(stored).unwrap_or_default();
    let decoded = |value: String| BASE64_STANDARD.decode(value).unwrap_or_default();
    headers.into_iter().map(|(name, value)| (name, value.map(decoded))).collect()
}

/// Whether what is stored of a message names the customer: as its key, as a header, or as a text of its value. A message that is no JSON
/// is searched for the quoted name too.
pub fn names(customer: &str, key: Option<&[u8]>, headers: &str, payload: &[u8]) -> bool {
    let quoted = Value::from(customer).to_string();
    let is_it = |bytes: &[u8]| bytes == customer.as_bytes() || bytes == quoted.as_bytes();
    let in_payload = || match serde_json::from_slice(payload) {
        Ok(value) => has(&value, customer),
        Err(_) => payload.windows(quoted.len()).any(|part| part == quoted.as_bytes()),
    };
    let in_headers = || self::headers(headers).iter().any(|(_, value)| value.as_deref().is_some_and(is_it));
    key.is_some_and(is_it) || is_it(payload) || in_payload() || in_headers()
}

/// Whether the text, or a number that a map takes for it, is anywhere in the value.
fn has(value: &Value, text: &str) -> bool {
    match value {
        Value::String(own) => own == text,
        Value::Number(number) => number.to_string() == text,
        Value::Array(items) => items.iter().any(|item| has(item, text)),
        Value::Object(fields) => fields.values().any(|field| has(field, text)),
        Value::Null | Value::Bool(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: Option<&[u8]>, value: Option<&[u8]>) -> Message {
        Message {
            topic: "t".into(),
            partition: 0,
            offset: 7,
            key: key.map(<[u8]>::to_vec),
            headers: Vec::new(),
            value: value.map(<[u8]>::to_vec),
            sent_at: None,
        }
    }

    #[test]
    fn the_hash_tells_messages_apart() {
        let messages = [
            message(None, None),
            message(None, Some(b"")),
            message(Some(b""), None),
            message(Some(b"a"), Some(b"b")),
            message(Some(b"ab"), Some(b"")),
            message(Some(b""), Some(b"ab")),
        ];
        let mut hashes: Vec<String> = messages.iter().map(Message::hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), messages.len());
        assert_eq!(Message { offset: 8, ..messages[3].clone() }.hash(), messages[3].hash());
    }

    #[test]
    fn a_message_names_a_customer_as_a_whole_text() {
        let header = [("customer", Some("ada"))].map(|(name, value)| (name.to_owned(), value.map(Into::into)));
        let headers = stored_headers(&header);
        assert!(names("ada", Some(b"ada"), "[]", b""));
        assert!(names("ada", None, &headers, b""));
        assert!(names("ada", None, "[]", br#"{"c": "ada"}"#));
        assert!(names("ü", None, "[]", br#"{"o": [{"c": "\u00fc"}]}"#));
        assert!(names("7", None, "[]", br#"{"c": 7}"#));
        assert!(names("ada", None, "[]", br#"{"c": "ada", "n": NaN}"#), "no JSON");
        assert!(!names("ad", Some(b"ada"), &headers, br#"{"c": "ada"}"#), "another customer");
    }

    #[test]
    fn a_dead_letter_is_bounded() {
        let large = vec![b'x'; MAX_STORED_BYTES + 1];
        let header = ("h".to_owned(), Some(vec![0_u8; MAX_HEADER_BYTES / 2]));
        let headers = vec![("n".to_owned(), None), header.clone(), header.clone(), header];
        let message = Message { headers, ..message(Some(&large), Some(&large)) };
        let letter = message.dead(&"\0é".repeat(2_000), Instant(5));
        assert_eq!((letter.size, letter.payload.len()), (Some(65_537), MAX_STORED_BYTES));
        assert_eq!(letter.key.map(|key| key.len()), Some(MAX_KEY_BYTES));
        assert_eq!(letter.reason, "é".repeat(REASON_CHARACTERS));
        assert_eq!(super::headers(&letter.headers), message.headers[..2]);
    }
}
