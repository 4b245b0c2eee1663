//! What arrives in a topic: when, how large, and for which partition.
//!
//! A file has a line of JSON for each message: `{"at": "2026-11-27T09:00:00Z", "bytes": 900, "key": "ada"}`. In place of a key, a line can
//! have its hash as a number. So a trace that was read from a topic names no customer, and has the same partitions.

use serde::Deserialize;
use serde_json::json;

use super::{SECOND, chance, seconds};
use crate::engine::time::{Instant, parse_instant};

/// The maximum number of messages of a trace. They take 16 MB.
pub const MAX_ARRIVALS: usize = 1_000_000;
/// The longest trace, in microseconds: 35 days.
const MAX_LENGTH: u64 = 35 * 24 * 3_600 * SECOND;

/// A message that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When, in microseconds since the beginning of the trace.
    pub at: u64,
    /// The bytes of its key, value and headers.
    pub bytes: u32,
    /// The hash of its key, from which its partition follows.
    pub key: u32,
}

/// Messages in the order in which they arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    began: Instant,
    arrivals: Vec<Arrival>,
}

/// A message with the instant at which it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub at: Instant,
    pub bytes: u32,
    /// `None`: the message has no key, and could be in any partition.
    pub key: Option<u32>,
}

/// Why messages are no trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTrace {
    #[error("there are no messages")]
    Empty,
    #[error("there are more than {MAX_ARRIVALS} messages")]
    TooMany,
    #[error("the messages were sent over more than 35 days")]
    TooLong,
    #[error("line {line}: {reason}")]
    Line { line: usize, reason: String },
}

impl Trace {
    /// Puts messages in the order of time. Producers and brokers need not have sent them in order.
    pub fn new(mut sent: Vec<Sent>) -> Result<Self, NoTrace> {
        if sent.len() > MAX_ARRIVALS {
            return Err(NoTrace::TooMany);
        }
        // Stable, so that messages of one instant stay in order.
        sent.sort_by_key(|message| message.at.0);
        let began = sent.first().ok_or(NoTrace::Empty)?.at;
        let arrival = |(index, message): (usize, &Sent)| {
            let at = message.at.0.abs_diff(began.0);
            Arrival { at, bytes: message.bytes, key: message.key.unwrap_or_else(|| any_key(index)) }
        };
        let arrivals: Vec<Arrival> = sent.iter().enumerate().map(arrival).collect();
        if arrivals.last().is_some_and(|last| last.at > MAX_LENGTH) {
            return Err(NoTrace::TooLong);
        }
        Ok(Self { began, arrivals })
    }

    /// Reads the lines of a file.
    pub fn parse(lines: impl Iterator<Item = Result<String, std::io::Error>>) -> Result<Self, NoTrace> {
        let mut sent = Vec::new();
        for (index, line) in lines.enumerate() {
            let told = |reason: String| NoTrace::Line { line: index + 1, reason };
            let line = line.map_err(|error| told(error.to_string()))?;
            if line.trim().is_empty() {
                continue;
            }
            if sent.len() >= MAX_ARRIVALS {
                return Err(NoTrace::TooMany);
            }
            sent.push(parse_line(&line).map_err(told)?);
        }
        Self::new(sent)
    }

    /// Returns the lines of a file with this trace.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.arrivals.iter().map(|arrival| {
            let at = self.began.plus(i64::try_from(arrival.at).unwrap_or(i64::MAX));
            json!({ "at": at.to_string(), "bytes": arrival.bytes, "key": arrival.key }).to_string()
        })
    }

    /// The messages, of which there is at least one.
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// When the last message arrives, in microseconds.
    pub fn end(&self) -> u64 {
        self.arrivals.last().map_or(0, |last| last.at)
    }

    /// The number of messages a second, on average.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn rate(&self) -> f64 {
        // One message alone has no rate.
        let gaps = self.arrivals.len().saturating_sub(1);
        if self.end() == 0 { 0.0 } else { gaps as f64 / seconds(self.end()) }
    }

    /// The bytes of a message, on average.
    pub fn mean_bytes(&self) -> u64 {
        let sum: u64 = self.arrivals.iter().map(|arrival| u64::from(arrival.bytes)).sum();
        sum / (self.arrivals.len() as u64).max(1)
    }
}

/// A line of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: String,
    bytes: u32,
    #[serde(default)]
    key: Option<Key>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Key {
    Hash(u32),
    Text(String),
}

fn parse_line(line: &str) -> Result<Sent, String> {
    let Line { at, bytes, key } = serde_json::from_str(line).map_err(|error| {
        format!("{error}: write {{\"at\": \"2026-11-27T09:00:00Z\", \"bytes\": 900, \"key\": \"ada\"}}")
    })?;
    let at = parse_instant(&at).map_err(|error| format!("at: {error}"))?;
    let key = key.map(|key| match key {
        Key::Hash(hash) => hash,
        Key::Text(text) => hash(text.as_bytes()),
    });
    Ok(Sent { at, bytes, key })
}

/// A message without a key goes to any partition.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of 32 bits")]
fn any_key(index: usize) -> u32 {
    (chance(KEYS, index as u64) * f64::from(u32::MAX)) as u32
}

const KEYS: u64 = 1;

/// Hashes a key as producers that are based on Java do (murmur2), and those of librdkafka with `partitioner=murmur2_random`.
pub fn hash(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut words = key.chunks_exact(4);
    for word in words.by_ref() {
        let word = word.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)).wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ (word ^ word >> 24).wrapping_mul(MULTIPLIER);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(MULTIPLIER);
    hash ^ hash >> 15
}

/// The partition of a key, by its hash.
pub fn partition(key: u32, partitions: u32) -> u32 {
    (key & 0x7fff_ffff) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own test of its hash.
    #[test]
    fn keys_are_hashed_as_producers_do() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(hash(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    fn parse(text: &str) -> Result<Trace, NoTrace> {
        Trace::parse(text.lines().map(|line| Ok(line.to_owned())))
    }

    #[test]
    fn a_saved_trace_is_read_again() {
        let trace = parse(concat!(
            "{\"at\": \"2026-11-27T09:00:02.5Z\", \"bytes\": 7, \"key\": \"ada\"}\n\n",
            "{\"at\": \"2026-11-27T10:00:00+01:00\", \"bytes\": 900}\n",
        ))
        .unwrap();
        assert_eq!(trace.arrivals()[1], Arrival { at: 2_500_000, bytes: 7, key: hash(b"ada") });
        assert_eq!((trace.arrivals()[0].at, trace.end(), trace.mean_bytes()), (0, 2_500_000, 453));
        let saved: Vec<String> = trace.lines().collect();
        assert!(!saved.concat().contains("ada"), "{saved:?}");
        assert_eq!(parse(&saved.join("\n")), Ok(trace));
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for (text, reason) in [
            ("", "there are no messages"),
            ("{\"at\": \"2026-11-27T09:00:00Z\", \"bytes\": 7}\n{\"at\": \"x\", \"bytes\": 7}", "line 2: at: "),
            ("{\"at\": \"2026-11-27T09:00:00Z\", \"bytes\": -1}", "line 1: "),
            ("{\"at\": \"2026-11-27T09:00:00Z\", \"bytes\": 1, \"size\": 2}", "unknown field"),
            (
                "{\"at\": \"2026-01-27T09:00:00Z\", \"bytes\": 1}\n{\"at\": \"2026-11-27T09:00:00Z\", \"bytes\": 1}",
                "more than 35 days",
            ),
        ] {
            let told = parse(text).unwrap_err().to_string();
            assert!(told.contains(reason), "{text}: {told}");
        }
    }
}
