//! `windfall migrate`: brings the schema up to date.

use std::process::ExitCode;

use crate::app::database::Database;
use crate::config::Config;

/// Bring the database's schema up to date. Two at once are safe.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let database = Database::connect(&config.database).await?;
    database.migrate().await?;
    database.close().await?;
    Ok(ExitCode::SUCCESS)
}
