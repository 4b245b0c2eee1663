//! `windfall backup`: a copy of an SQLite database while others write.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::{connect, sqlite_file};
use crate::config::Config;

/// Copy an SQLite database into a new file. Others may write meanwhile.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The copy. It must not exist yet.
    file: PathBuf,
}

/// As it is: a backup changes nothing, so it migrates nothing either.
pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let Some(original) = sqlite_file(&config.database) else {
        anyhow::bail!("PostgreSQL brings its own tools: use pg_dump or pg_basebackup");
    };
    // Connecting would make it.
    if !Path::new(original).exists() {
        anyhow::bail!("there is no database {original}");
    }
    if args.file.exists() {
        anyhow::bail!("{} exists already", args.file.display());
    }
    let database = connect(&config.database).await?;
    database.backup(&args.file).await.with_context(|| format!("{} cannot be written", args.file.display()))?;
    database.close().await?;
    Ok(ExitCode::SUCCESS)
}
