//! A process whose clock is wrong: libfaketime tells it another time of day, and leaves the time that it has run alone.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// By how much the clocks of the processes that were given it are wrong.
pub(crate) struct WrongClock {
    directory: TempDir,
}

impl WrongClock {
    /// By so many seconds: ahead, or behind.
    pub(crate) fn by(seconds: i64) -> Self {
        let clock = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        clock.set(seconds);
        clock
    }

    /// From now on.
    pub(crate) fn set(&self, seconds: i64) {
        // In one step: a process may be reading it.
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("our directory");
        fs::rename(new, self.file()).expect("our directory");
    }

    /// Gives it to a process that will be started.
    pub(crate) fn give_to(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }
}

/// Where Debian keeps it. Fails loudly: a test that silently does nothing without it would prove nothing.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("a directory of the system").flatten().map(|entry| entry.path());
    folders
        .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.is_file())
        .expect("libfaketime must be installed to run these tests: scripts/test does it")
}
