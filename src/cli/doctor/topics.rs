//! What the database knows about topics: facts that are not recorded, and partitions that have stopped.

use std::time::Duration;

use super::finding::{Code, Finding};
use super::units::{count, duration};
use crate::app::database::Database;
use crate::app::doctor::{Unrecorded, unrecorded as counted};
use crate::app::error::Error;
use crate::app::ingest_position::of_group;
use crate::app::model::IngestPosition;
use crate::config::Kafka;
use crate::engine::time::Instant;

/// Finds facts of topics that are not recorded.
pub(super) async fn unrecorded(database: &Database, now: Instant) -> Result<Vec<Finding>, Error> {
    Ok(decide(&counted(database.read()).await?, now))
}

/// Finds partitions that have stopped.
pub(super) async fn stopped(database: &Database, config: &Kafka) -> Result<Vec<Finding>, Error> {
    let positions = of_group(database.read(), &config.group).await?;
    let mut positions: Vec<IngestPosition> =
        positions.into_values().filter(|position| config.facts_topics.contains(&position.topic)).collect();
    positions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(positions.iter().filter_map(decide_position).collect())
}

fn decide(unrecorded: &Unrecorded, now: Instant) -> Vec<Finding> {
    let mut findings = Vec::new();
    if unrecorded.dead_letters > 0 {
        findings.push(Finding::problem(
            Code::DeadLetters,
            "topics",
            count(unrecorded.dead_letters, "dead letter"),
            "Read the reasons with the query `deadLetters`, fix the cause, and replay or discard them: their facts are not recorded.",
        ));
    }
    if unrecorded.waiting_facts > 0 {
        let first = unrecorded.first_expiry.map_or(0, |at| at.saturating_sub(now.0).max(0));
        let first = duration(Duration::from_micros(first.unsigned_abs()));
        findings.push(Finding::advice(
            Code::WaitingFacts,
            "topics",
            format!(
                "{} for the purchase; the first becomes a dead letter in {first}",
                count(unrecorded.waiting_facts, "refund") + " waiting"
            ),
            "Check that the purchases are sent: a refund is recorded when its purchase is.",
        ));
    }
    findings
}

fn decide_position(position: &IngestPosition) -> Option<Finding> {
    let reason = position.stopped.as_deref()?;
    let IngestPosition { topic, partition, .. } = position;
    let lost = match (position.lost_from, position.lost_to) {
        (Some(from), Some(to)) => format!(", offsets {from} to {} are gone", to - 1),
        _ => String::new(),
    };
    Some(Finding::problem(
        Code::PartitionStopped,
        format!("partition {partition} of {topic}"),
        format!("stopped: {reason}{lost}"),
        format!(
            "docs/events.md says what each reason means. Fix the cause, then run `windfall ingest resume {topic} {partition}`: until then, \
             the partition is not read."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_000_000_000);

    #[test]
    fn what_is_not_recorded_is_told() {
        let unrecorded =
            |dead_letters, waiting_facts, first_expiry| Unrecorded { dead_letters, waiting_facts, first_expiry };
        assert_eq!(decide(&unrecorded(0, 0, None), NOW), []);
        let dead = decide(&unrecorded(2, 0, None), NOW);
        assert_eq!((dead.len(), dead[0].code, dead[0].measured.as_str()), (1, Code::DeadLetters, "2 dead letters"));
        let waiting = decide(&unrecorded(0, 1, Some(NOW.plus(90_000_000).0)), NOW);
        let measured = "1 refund waiting for the purchase; the first becomes a dead letter in 90 s";
        assert_eq!((waiting.len(), waiting[0].code, waiting[0].measured.as_str()), (1, Code::WaitingFacts, measured));
    }

    #[test]
    fn a_stopped_partition_says_why() {
        let position = IngestPosition {
            group_name: "g".to_owned(),
            topic: "orders".to_owned(),
            partition: 3,
            last_offset: Some(4),
            last_hash: None,
            stopped: None,
            stopped_at: None,
            lost_from: Some(5),
            lost_to: Some(9),
            resumes: 0,
            updated_at: 0,
        };
        assert_eq!(decide_position(&position), None);
        let stopped = IngestPosition { stopped: Some("lost".to_owned()), ..position };
        let finding = decide_position(&stopped).unwrap();
        assert_eq!(finding.measured, "stopped: lost, offsets 5 to 8 are gone");
        assert!(finding.advice.contains("`windfall ingest resume orders 3`"));
    }
}
