//! `windfall ingest check`: reads the newest messages of a topic and says what would become of them. Nothing is recorded or committed,
//! and no database is needed.

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::configured;
use crate::app::clock::Clock;
use crate::cli::printable::Printable;
use crate::config::Config;
use crate::ingest::check::{Check, Found, Groups, Outcomes, Remarks};
use crate::ingest::excerpt::{End, Limits, READ_TIMEOUT, Read, read_newest};
use crate::ingest::json::JsonMap;
use crate::ingest::tally::counted;
use crate::ingest::topics::{HAS_CLIENT, check_build};

/// The largest sample, in messages.
const MAX_SAMPLE: u64 = 1_000_000;
/// The largest sample, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Read the newest messages of a topic and say what would become of them; record nothing, and exit with 1 if some would become dead
/// letters.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    topic: String,
    /// How many messages are read, spread over the partitions.
    #[arg(long, value_name = "MESSAGES", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MAX_SAMPLE))]
    sample: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    check_build(config.kafka.as_ref(), HAS_CLIENT)?;
    let kafka = configured(config)?.clone();
    let map = kafka.facts_map.as_deref().map(JsonMap::read).transpose()?;
    let Args { topic, sample, json } = args;
    let checked = topic.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut check = Check::new(map, Clock::System);
        let limits = Limits { messages: sample, bytes: MAX_BYTES };
        let read = read_newest(&kafka, &checked, limits, |message| check.note(message))?;
        anyhow::Ok((read, check.found()))
    });
    let (read, found) = reading.await?.with_context(|| format!("the topic `{topic}` cannot be checked"))?;
    if json {
        writeln!(stdout(), "{:#}", as_json(&topic, &read, &found))?;
    } else {
        print(&mut stdout().lock(), &topic, &read, &found)?;
    }
    Ok(if found.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The number of messages that the topic has at most: an offset need not have a message.
fn available(read: &Read) -> i64 {
    read.extents.iter().map(|extent| extent.high - extent.low).sum()
}

fn as_json(topic: &str, read: &Read, found: &Found) -> serde_json::Value {
    let ended_by = match read.end {
        End::Whole => None,
        End::Messages => Some("messages"),
        End::Bytes => Some("bytes"),
        End::Time => Some("time"),
    };
    json!({
        "topic": topic,
        "partitions": read.extents.len(),
        "available": available(read),
        "messages": read.messages,
        "bytes": read.bytes,
        "endedBy": ended_by,
        "found": found,
    })
}

fn print(out: &mut impl Write, topic: &str, read: &Read, found: &Found) -> std::io::Result<()> {
    let partitions = counted(read.extents.len() as u64, "partition");
    writeln!(
        out,
        "{topic}: {} of {} in {partitions}",
        read.messages,
        counted(available(read).unsigned_abs(), "message")
    )?;
    match read.end {
        End::Whole | End::Messages => {}
        End::Bytes => writeln!(out, "the sample ends early: it has {} MiB", MAX_BYTES >> 20)?,
        End::Time => writeln!(out, "the sample ends early: it took {} s", READ_TIMEOUT.as_secs())?,
    }
    let Outcomes { purchases, refunds, adjustments, left_out, dead_letters } = found.outcomes;
    rows(
        out,
        &[
            ("would be recorded", found.outcomes.recorded()),
            ("  purchases", purchases),
            ("  refunds, which may wait for their purchase", refunds),
            ("  adjustments", adjustments),
            ("would be left out by the map", left_out),
            ("would become dead letters", dead_letters),
        ],
    )?;
    groups(out, "why dead letters", &found.dead_letters)?;
    groups(out, "why left out", &found.left_out)?;
    groups(out, "unknown fields, which are ignored", &found.unknown_fields)?;
    print_remarks(out, &found.remarks)?;
    for partition in &found.stopping_partitions {
        writeln!(out, "partition {partition} would stop: too many messages in a row would become dead letters")?;
    }
    Ok(())
}

fn print_remarks(out: &mut impl Write, remarks: &Remarks) -> std::io::Result<()> {
    let Remarks { without_key, key_is_not_the_customer, registry_mark, tombstones, too_large, with_refunds } = *remarks;
    let all = [
        ("no key: the facts of a customer may get out of order", without_key),
        ("the key is not the customer: its facts may get out of order", key_is_not_the_customer),
        ("the mark of a schema registry, which is skipped", registry_mark),
        ("no value: a tombstone", tombstones),
        ("more than 1 MiB", too_large),
        ("purchases that state refunds", with_refunds),
    ];
    let found: Vec<(&str, u64)> = all.into_iter().filter(|(_, count)| *count > 0).collect();
    if found.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nalso found")?;
    rows(out, &found)
}

fn rows(out: &mut impl Write, rows: &[(&str, u64)]) -> std::io::Result<()> {
    rows.iter().try_for_each(|(text, count)| writeln!(out, "{count:>9}  {text}"))
}

fn groups(out: &mut impl Write, title: &str, groups: &Groups) -> std::io::Result<()> {
    let by_count = groups.by_count();
    if by_count.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}, with the first position (partition, offset)")?;
    for group in by_count {
        writeln!(out, "{:>9}  {} ({}, {})", group.count, Printable(&group.text), group.partition, group.offset)?;
    }
    if groups.more > 0 {
        writeln!(out, "{:>9}  others", groups.more)?;
    }
    Ok(())
}
