//! `windfall ingest resume`: lets a partition be read again that has stopped.

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use super::configured;
use crate::app::ingest_position::{From, Place, resume};
use crate::cli::start_app;
use crate::config::Config;

/// Let a partition be read again that has stopped. Messages that were recorded before change nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    topic: String,
    partition: i32,
    /// The offset to go on at. Default: where the partition stopped if too many messages in a row failed, otherwise its beginning.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    from: Option<i64>,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let kafka = configured(config)?;
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
