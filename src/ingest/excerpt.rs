//! A part of a topic that is read without joining the consumer group. Nothing is committed, and no partition moves.
//!
//! The Kafka client is a feature of the build. A build without it fails with [`Unread::NoClient`].

use std::time::Duration;

use crate::app::message::Message;
use crate::config;
use crate::engine::time::Instant;
#[cfg(feature = "kafka")]
use crate::ingest::kafka::Reader;

/// How long the brokers may take to say what a topic has, all questions together.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the messages of an excerpt may take.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What a partition has: the offsets from `low`, up to but without `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub partition: i32,
    pub low: i64,
    pub high: i64,
}

/// How much is read at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub messages: u64,
    /// The bytes of keys, values and headers together.
    pub bytes: u64,
}

/// Where reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the end of the excerpt.
    Whole,
    /// Before it, because the messages were too many, too large, or came too slowly.
    Messages,
    Bytes,
    Time,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Read {
    /// What the partitions have.
    pub extents: Vec<Extent>,
    pub messages: u64,
    pub bytes: u64,
    pub end: End,
}

/// Why an excerpt was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("this program was built without the Kafka client: build it with `cargo build --release --features kafka`")]
    NoClient,
    #[error("the brokers have not answered within {} s: {problem}", ANSWER_TIMEOUT.as_secs())]
    Silent { problem: String },
    #[error("there is no topic `{0}`")]
    NoTopic(String),
    #[error("Kafka: {0}")]
    Client(String),
}

/// Reads the newest messages of each partition, in order, and hands them to `note`.
#[cfg(feature = "kafka")]
pub fn read_newest(
    config: &config::Kafka,
    topic: &str,
    limits: Limits,
    note: impl FnMut(&Message),
) -> Result<Read, Unread> {
    let reader = Reader::open(config, topic)?;
    let extents = reader.extents()?;
    let ranges = newest(&extents, limits.messages);
    reader.read(extents, &ranges, limits, note)
}

/// Reads the newest messages of each partition, in order, and hands them to `note`.
#[cfg(not(feature = "kafka"))]
pub fn read_newest(_: &config::Kafka, _: &str, _: Limits, _: impl FnMut(&Message)) -> Result<Read, Unread> {
    Err(Unread::NoClient)
}

/// Reads the messages of each partition that were sent since an instant, in order, and hands them to `note`. Messages without a time are
/// left out, and so are older ones that follow newer ones.
#[cfg(feature = "kafka")]
pub fn read_since(
    config: &config::Kafka,
    topic: &str,
    since: Instant,
    limits: Limits,
    mut note: impl FnMut(&Message),
) -> Result<Read, Unread> {
    let reader = Reader::open(config, topic)?;
    let extents = reader.extents()?;
    let ranges = reader.since(&extents, since)?;
    let read_newer = |message: &Message| {
        if message.sent_at.is_some_and(|at| at >= since) {
            note(message);
        }
    };
    reader.read(extents, &ranges, limits, read_newer)
}

/// Reads the messages of each partition that were sent since an instant, in order, and hands them to `note`.
#[cfg(not(feature = "kafka"))]
pub fn read_since(_: &config::Kafka, _: &str, _: Instant, _: Limits, _: impl FnMut(&Message)) -> Result<Read, Unread> {
    Err(Unread::NoClient)
}

/// Spreads a number of messages over the partitions. What a partition does not have, the others get. An offset need not have a message,
/// so this is the most that they give.
pub fn newest(extents: &[Extent], messages: u64) -> Vec<Extent> {
    let mut by_size: Vec<Extent> = extents.iter().copied().filter(|extent| extent.high > extent.low).collect();
    by_size.sort_by_key(|extent| (extent.high - extent.low, extent.partition));
    let mut left = messages;
    let count = by_size.len();
    let mut ranges = Vec::with_capacity(count);
    for (index, extent) in by_size.into_iter().enumerate() {
        // The first ones are the smallest. If they do not use up their share, more is left for each of the others.
        let share = left.div_ceil((count - index) as u64).min((extent.high - extent.low).unsigned_abs());
        left -= share;
        if share > 0 {
            ranges.push(Extent { low: extent.high.saturating_sub_unsigned(share), ..extent });
        }
    }
    ranges.sort_by_key(|range| range.partition);
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(sizes: &[i64], messages: u64) -> Vec<(i32, i64, i64)> {
        let extent = |(partition, size): (usize, &i64)| Extent {
            partition: i32::try_from(partition).unwrap(),
            low: 10,
            high: 10 + size,
        };
        let extents: Vec<Extent> = sizes.iter().enumerate().map(extent).collect();
        newest(&extents, messages).into_iter().map(|range| (range.partition, range.low, range.high)).collect()
    }

    #[test]
    fn a_sample_is_spread_over_the_partitions() {
        assert_eq!(spread(&[100, 100], 20), [(0, 100, 110), (1, 100, 110)]);
        assert_eq!(spread(&[100, 4, 0, 100], 20), [(0, 102, 110), (1, 10, 14), (3, 102, 110)], "others get the rest");
        assert_eq!(spread(&[3, 2], 20), [(0, 10, 13), (1, 10, 12)], "all there is");
        assert_eq!(spread(&[5, 5, 5], 2).len(), 2, "fewer messages than partitions");
        assert_eq!(spread(&[0, 0], 20), []);
        assert_eq!(spread(&[], 20), []);
    }
}
