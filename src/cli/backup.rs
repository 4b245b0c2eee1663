//! `windfall backup`: copies an SQLite database into a new file. Other processes may write to the database meanwhile.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::{connect, sqlite_file};
use crate::config::Config;

/// Copy an SQLite database into a new file. Other processes may write to the database meanwhile.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file to write. It must not exist yet.
    file: PathBuf,
}

/// Copies the database as it is. Applies no migrations, because a backup must not change the database.
pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let Some(original) = sqlite_file(&config.database) else {
        anyhow::bail!("`windfall backup` copies SQLite databases only: use pg_dump or pg_basebackup for PostgreSQL");
    };
    // Connecting would create the file.
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
