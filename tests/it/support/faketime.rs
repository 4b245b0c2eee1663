//! Processes whose clocks are wrong. libfaketime shifts the time of day that a process sees. It does not change the
//! monotonic clock.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// The offset of the clocks of all processes that it was given to.
pub(crate) struct WrongClock {
    directory: TempDir,
}

impl WrongClock {
    /// A clock that is ahead by this number of seconds, or behind if that is negative.
    pub(crate) fn by(seconds: i64) -> Self {
        let clock = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        clock.set(seconds);
        clock
    }

    /// Changes the offset for processes that are running and for those that start later.
    pub(crate) fn set(&self, seconds: i64) {
        // Replaces the file in one step, because a process may be reading it.
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("a directory of this test");
        fs::rename(new, self.file()).expect("a directory of this test");
    }

    /// Gives the clock to a process that is not started yet.
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

/// The path of libfaketime on Debian. Panics if it is missing, because a test that skips itself would prove nothing.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("a directory of the system").flatten().map(|entry| entry.path());
    folders
        .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.is_file())
        .expect("these tests need libfaketime; scripts/test installs it")
}
