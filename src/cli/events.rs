//! `windfall events`: what operators do about the publication of events.

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use clap::Subcommand;

use super::start_app;
use crate::app::jobs::relay::{self, Needed};
use crate::config::Config;

/// Look after the publication of events.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep no more events for publication, and delete those that are kept. `windfall serve` with a topic for events begins again.
    Stop,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let Command::Stop = args.command;
    let app = start_app(config).await?;
    let needed = relay::give_up(&app).await;
    app.stop().await?;
    match needed? {
        Some(Needed::ByANode) => anyhow::bail!(
            "a server publishes events: remove `kafka.events_topic` and `kafka.balances_topic` from its configuration first"
        ),
        Some(Needed::ForAnErasure) => anyhow::bail!(
            "an event waits that tells of the erasure of a customer: let a server publish it first, because the topics have the name"
        ),
        None => writeln!(stdout(), "no events are kept any more, and none is left")?,
    }
    Ok(ExitCode::SUCCESS)
}
