//! Decides where reading of a partition begins. The position in the database decides, after it was compared with what the topic has.

use crate::app::ingest_position::Stop;
use crate::app::model::IngestPosition;

/// Where reading of a partition begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At this offset.
    At(i64),
    /// At the last message that is done, which must have this hash. It is not recorded again.
    Compare { offset: i64, hash: String },
    /// Nowhere, because of what the topic has.
    Stop(Stop),
    /// Nowhere: the partition was stopped before.
    Stopped,
    /// Nowhere yet: the brokers have not said what the partition has.
    Unknown,
}

/// Decides where to begin. The topic has the offsets from `low`, up to but without `high`.
pub(super) fn start(position: Option<&IngestPosition>, low: i64, high: i64) -> Start {
    let Some(position) = position else { return Start::At(low) };
    if position.stopped.is_some() {
        return Start::Stopped;
    }
    let Some(last) = position.last_offset else { return Start::At(low) };
    let next = last.saturating_add(1);
    if high < next {
        return Start::Stop(Stop::OtherTopic);
    }
    if low > next {
        return Start::Stop(Stop::Lost { from: next, to: low });
    }
    match &position.last_hash {
        // Retention has taken the last message, but nothing that was not read.
        Some(hash) if low <= last => Start::Compare { offset: last, hash: hash.clone() },
        _ => Start::At(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(last: Option<i64>, hash: Option<&str>) -> IngestPosition {
        IngestPosition {
            group_name: "g".to_owned(),
            topic: "t".to_owned(),
            partition: 0,
            last_offset: last,
            last_hash: hash.map(str::to_owned),
            stopped: None,
            stopped_at: None,
            lost_from: None,
            lost_to: None,
            resumes: 0,
            updated_at: 0,
        }
    }

    #[test]
    fn the_position_in_the_database_decides() {
        let at = |last, hash, low, high| start(Some(&position(last, hash)), low, high);
        let compare = |offset| Start::Compare { offset, hash: "h".to_owned() };
        assert_eq!(start(None, 5, 9), Start::At(5), "a new group reads everything");
        assert_eq!(at(None, None, 5, 9), Start::At(5));
        assert_eq!(at(Some(7), Some("h"), 0, 8), compare(7), "nothing new");
        assert_eq!(at(Some(7), Some("h"), 7, 20), compare(7));
        assert_eq!(at(Some(7), None, 0, 20), Start::At(8), "set by hand");
        assert_eq!(at(Some(-1), None, 0, 20), Start::At(0));
        assert_eq!(at(Some(7), Some("h"), 8, 20), Start::At(8), "retention has taken the last one");
        assert_eq!(at(Some(7), Some("h"), 8, 8), Start::At(8));
        assert_eq!(at(Some(7), Some("h"), 9, 20), Start::Stop(Stop::Lost { from: 8, to: 9 }));
        assert_eq!(at(Some(7), Some("h"), 0, 7), Start::Stop(Stop::OtherTopic), "the topic is shorter");
        assert_eq!(at(Some(7), Some("h"), 0, 0), Start::Stop(Stop::OtherTopic));
        let stopped = IngestPosition { stopped: Some("lost".to_owned()), ..position(Some(7), None) };
        assert_eq!(start(Some(&stopped), 0, 20), Start::Stopped);
    }
}
