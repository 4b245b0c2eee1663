//! `windfall ingest`: what operators do about the ingestion of topics.

mod check;
mod resume;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use crate::config::{self, Config};

/// Look after the ingestion of topics.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Resume(resume::Args),
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check(args) => check::run(args, config).await,
        Command::Resume(args) => resume::run(&args, config).await,
    }
}

/// Returns the section `kafka` of the configuration, which must be there.
pub(super) fn configured(config: &Config) -> anyhow::Result<&config::Kafka> {
    config.kafka.as_ref().context("`kafka.brokers` (WINDFALL__KAFKA__BROKERS) is not set: no topic is read")
}
