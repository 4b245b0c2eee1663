//! `windfall migrate`: applies the pending migrations of the database schema.

use std::process::ExitCode;

use anyhow::Context as _;

use super::connect;
use crate::config::Config;

/// Bring the database's schema up to date. Several programs may do this at the same time.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let database = connect(&config.database).await?;
    database.migrate().await.context("the database cannot be migrated")?;
    database.close().await?;
    Ok(ExitCode::SUCCESS)
}
