//! `windfall backup`: a copy of an SQLite database while others write.

use std::path::PathBuf;
use std::process::ExitCode;

use sea_orm::DatabaseBackend;

use super::open_database;
use crate::config::Config;

/// Copy an SQLite database into a new file. Others may write meanwhile.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The copy. It must not exist yet.
    file: PathBuf,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let database = open_database(&config.database).await?;
    if database.backend() != DatabaseBackend::Sqlite {
        anyhow::bail!("PostgreSQL brings its own tools: use pg_dump or pg_basebackup");
    }
    if args.file.exists() {
        anyhow::bail!("{} exists already", args.file.display());
    }
    database.backup(&args.file).await?;
    database.close().await?;
    Ok(ExitCode::SUCCESS)
}
