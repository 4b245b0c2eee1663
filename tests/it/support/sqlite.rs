//! Throwaway SQLite databases.

use std::path::PathBuf;

use tempfile::TempDir;

/// A database file that does not exist yet, in a temporary directory that is removed with this value.
pub(crate) struct Sqlite {
    directory: TempDir,
}

impl Sqlite {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("windfall.db")
    }

    /// The URL, as the configuration key `database.url` takes it.
    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.path().display())
    }
}
