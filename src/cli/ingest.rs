//! `windfall ingest`: what operators do about the ingestion of topics.

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use super::start_app;
use crate::app::ingest_position::{From, Place, resume};
use crate::config::Config;

/// Look after the ingestion of topics.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Resume(Resume),
}

/// Let a partition be read again that has stopped. Messages that were recorded before change nothing.
#[derive(Debug, clap::Args)]
struct Resume {
    topic: String,
    partition: i32,
    /// The offset to go on at. Default: where the partition stopped if too many messages in a row failed, otherwise its beginning.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    from: Option<i64>,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let Command::Resume(args) = &args.command;
    let kafka = config.kafka.as_ref();
    let kafka = kafka.context("`kafka.brokers` (WINDFALL__KAFKA__BROKERS) is not set: no topic is read")?;
    anyhow::ensure!(
        kafka.facts_topics.contains(&args.topic),
        "`{}` is not one of `kafka.facts_topics` (WINDFALL__KAFKA__FACTS_TOPICS)",
        args.topic
    );
    let place = Place { group: kafka.group.clone(), topic: args.topic.clone(), partition: args.partition };
    let app = start_app(config).await?;
    let resumed = resume(&app, &place, args.from).await;
    app.stop().await?;
    let from = match resumed? {
        None => anyhow::bail!("the partition has not stopped; to read it again from an offset, give --from"),
        Some(From::Beginning) => "at its beginning".to_owned(),
        Some(From::Position) => "where it stopped".to_owned(),
        Some(From::Offset(offset)) => format!("at the offset {offset}"),
    };
    writeln!(stdout(), "{} {} goes on {from}", args.topic, args.partition)?;
    Ok(ExitCode::SUCCESS)
}
